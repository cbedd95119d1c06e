"""A short run of chaos keeps the rules; and each rule can be broken. ``make chaos`` makes long ones."""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.cluster import Shape
from chaos.faults import KILLS, Deed, Pace, Strike
from chaos.ledger import Book, Fact
from chaos.networks import Network, find_obstacle
from chaos.oracle import History, compute_outages, compute_reassignments, find_broken
from chaos.proxy import BOTH, Cut, Proxy, Way
from chaos.run import Settings, Verdict, run

LIMIT_S = 220.0
"""A run that takes longer is ended with all its processes, before the test's own limit, which would leave them behind."""

SHORT: tuple[Deed, ...] = (
    *KILLS,
    ("stop", "host"),
    ("stop", "client"),
    ("stall", "worker"),
    ("reset", "controller"),
    ("stop", "controller"),
    ("blackhole", "worker"),
)
"""Every kind of kill, and the faults after which all is well within seconds."""


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    pace = Pace(8.0, pause_s=(0.3, 0.7), worker_s=(0.3, 3.0), other_s=(0.2, 1.5), down_s=(0.0, 0.3))
    settings = Settings(5, pace, deeds=SHORT, shape=Shape(session_grace_s=5.0))
    folder = tmp_path_factory.mktemp("chaos") / "run"
    return asyncio.run(asyncio.wait_for(run(settings, folder), LIMIT_S))


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_under_faults_nothing_accepted_is_lost_and_nothing_is_left_behind(verdict: Verdict) -> None:
    assert not verdict.problems, "\n".join([f"seed {verdict.settings.seed}", *verdict.problems])


@pytest.mark.integration
def test_the_short_run_kills_each_kind_of_process_while_every_workload_runs(verdict: Verdict) -> None:
    assert {f"{kind} {target}" for kind, target in KILLS} <= {name for name, count in verdict.faults.items() if count}
    assert verdict.figures["tasks accepted"] > 30
    assert verdict.figures["actor calls answered"] > 30


# --- the oracle


def _good() -> list[Fact]:
    facts = [
        Fact("submitted", "flat-1/1", value="a"),
        Fact("began", "flat-1/1", "n1", pid=10),
        Fact("began", "flat-1/1", "n2", pid=11),
        Fact("ended", "flat-1/1", "n2", pid=11),
        Fact("seen", "flat-1/1", "n2", "a"),
        Fact("submitted", "flat-1/2", value="b"),
        Fact("began", "flat-1/2", "n3", pid=11, inputs={"flat-1/1": "n2"}),
        Fact("ended", "flat-1/2", "n3", pid=11),
        Fact("seen", "flat-1/2", "n3", "b"),
        Fact("again", "flat-1/1", "n2", "a"),
        Fact("again", "flat-1/2", "n3", "b"),
        Fact("published", "0/part-0"),
        Fact("left", "flat-1"),
        Fact("submitted", "flat-9/1", value="c"),
    ]
    return [replace(fact, at=float(number)) for number, fact in enumerate(facts)]


def _change(what: str, key: str, /, **fields: object) -> Callable[[list[Fact]], list[Fact]]:
    def edit(facts: list[Fact]) -> list[Fact]:
        return [replace(fact, **fields) if (fact.what, fact.key) == (what, key) else fact for fact in facts]  # type: ignore[arg-type]

    return edit


def _drop(what: str, key: str) -> Callable[[list[Fact]], list[Fact]]:
    return lambda facts: [fact for fact in facts if (fact.what, fact.key) != (what, key)]


def _add(fact: Fact) -> Callable[[list[Fact]], list[Fact]]:
    return lambda facts: [*facts, fact]


def _find_rules(facts: list[Fact]) -> set[str]:
    return {broken.rule for broken in find_broken(History(facts, {"flat-9"}), ["flat-1", "flat-9"])}


@pytest.mark.unit
def test_a_history_in_which_all_goes_well_breaks_no_rule() -> None:
    assert _find_rules(_good()) == set()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("lost", _drop("seen", "flat-1/2")),
        ("lost", _change("seen", "flat-1/2", what="failed", value="TaskLost")),
        ("lost", _add(Fact("hung", "flat-1/2"))),
        ("wrong", _change("seen", "flat-1/2", value="x")),
        ("wrong", _add(Fact("seen", "flat-1/2", "n3", "b"))),
        ("wrong", _change("again", "flat-1/2", value="x")),
        ("committed twice", _change("began", "flat-1/2", inputs={"flat-1/1": "n1"})),
        ("committed twice", _drop("ended", "flat-1/2")),
        ("published twice", _add(Fact("published", "0/part-0"))),
        ("departures", _drop("left", "flat-1")),
    ],
)
def test_a_doctored_history_breaks_the_rule_it_was_doctored_for(rule: str, edit: Callable[[list[Fact]], list[Fact]]) -> None:
    assert rule in _find_rules(edit(_good()))


@pytest.mark.unit
def test_a_task_that_a_kill_interrupted_counts_from_the_kill_to_its_beginning_elsewhere() -> None:
    strikes = [Strike("kill", "executor", "w0", 1.25, [10]), Strike("kill", "executor", "w0", 3.5, [11])]
    assert compute_reassignments(History(_good()), strikes) == {"kill executor": [0.75]}


@pytest.mark.unit
def test_an_outage_lasts_from_the_kill_of_the_controller_to_the_next_result_after_its_return() -> None:
    strike = Strike("kill", "controller", "controller", 1.5, [1], ended_at=4.5)
    assert compute_outages(History(_good()), [strike]) == [6.5]


@pytest.mark.unit
def test_a_line_that_a_killed_process_did_not_finish_is_passed_over(tmp_path: Path) -> None:
    book = Book(str(tmp_path))
    book.write("began", "flat-1/1")
    (tmp_path / "1.facts").write_text('{"what": "ended", "key": "flat-1/1"}\n{"what": "se')
    assert {fact.what for fact in book.read()} == {"began", "ended"}


# --- the proxy


class Echo:
    """A server behind a proxy, and a connection to it."""

    async def open(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        self.server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.proxy = Proxy(self.server.sockets[0].getsockname()[1])
        await self.proxy.start()
        await self.connect()

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)

    async def close(self) -> None:
        self.writer.close()
        await self.proxy.close()
        self.server.close()

    async def say(self, word: bytes) -> None:
        self.writer.write(word)
        await self.writer.drain()

    async def hear(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), 10)

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), 0.1)
        except TimeoutError:
            return True
        return False


@pytest.mark.unit
def test_what_a_stall_holds_up_arrives_when_it_ends() -> None:
    async def scene() -> bytes:
        echo = Echo()
        await echo.open()
        echo.proxy.cut(Cut.HOLD, frozenset({Way.DOWN}))
        await echo.say(b"one")
        assert await echo.hears_nothing()
        echo.proxy.heal()
        heard = await echo.hear(3)
        await echo.close()
        return heard

    assert asyncio.run(scene()) == b"one"


@pytest.mark.unit
def test_a_connection_that_a_blackhole_swallowed_from_stays_dead_without_an_end_and_a_new_one_works() -> None:
    async def scene() -> bytes:
        echo = Echo()
        await echo.open()
        await echo.say(b"one")
        await echo.hear(3)
        echo.proxy.cut(Cut.SWALLOW, BOTH)
        await echo.say(b"two")
        assert await echo.hears_nothing()
        echo.proxy.heal()
        await echo.say(b"three")
        assert await echo.hears_nothing()
        echo.writer.close()
        await echo.connect()
        await echo.say(b"four")
        heard = await echo.hear(4)
        await echo.close()
        return heard

    assert asyncio.run(scene()) == b"four"


@pytest.mark.unit
def test_a_reset_ends_connections_with_an_error() -> None:
    async def scene() -> None:
        echo = Echo()
        await echo.open()
        await echo.say(b"one")
        await echo.hear(3)
        assert echo.proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            await echo.reader.read(1)
        await echo.close()

    asyncio.run(scene())


# --- networks


@pytest.mark.integration
def test_a_network_of_its_own_can_be_cut_and_healed() -> None:
    obstacle = find_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    network = Network()
    network.create()
    talker = (
        "import socket,sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); print(s.recv(9)); print(s.recv(9))"
    )
    try:
        with socket.create_server((network.near, 0)) as server:
            port = str(server.getsockname()[1])
            command = [*network.enter(), sys.executable, "-uc", talker, network.near, port]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as inside:
                assert inside.stdout is not None
                link, _ = server.accept()
                link.sendall(b"one")
                assert inside.stdout.readline() == "b'one'\n"
                network.cut()
                link.sendall(b"two")
                assert not select.select([inside.stdout], [], [], 0.5)[0]
                network.heal()
                assert inside.stdout.readline() == "b'two'\n"
                link.close()
    finally:
        network.remove()
    assert network.name not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
