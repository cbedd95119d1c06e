"""UNAVAILABLE never says whether the server acted: every RPC that changes something has one effect all the same.

The RPCs come from the descriptor; a new one must be put into one of the two tables below. Each that changes something meets
each kind of fault once, over a real connection; the caller repeats until it is answered, as clients and workers do.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fray.errors import ConfigurationError, DeadlineExceeded, Unavailable
from fray.job.rpc.controller import FrayControllerServer, Limits
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.proto.fray_connect import FrayWorkerClientSync
from fray.job.rpc.wire.auth import call_headers
from fray.job.rpc.wire.client import AsyncControllerClient, ControllerClient
from fray.job.rpc.wire.errors import Code, ConnectError, NotKnown
from fray.job.rpc.wire.faults import (
    RPCS,
    Fault,
    FaultKind,
    Faults,
    async_interceptors,
    count_faults,
    parse_faults,
    sync_interceptors,
    with_faults,
)
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

TOKEN = "token-of-the-ambiguous-calls"
LATE_S = 0.1
"""When late copies come: by then the scenarios have gone on."""

READ_ONLY = {
    "GetTaskStatus",
    "GetTaskResult",
    "ListActors",
    "ListTasks",
    "ListWorkers",
    "ExplainTask",
    "GetStatus",
    "HealthCheck",
}


class Hand:
    """Follows orders as a worker does and keeps count of them; whoever tests decides what comes of them."""

    def __init__(self, client: AsyncControllerClient, worker: str, incarnation: str) -> None:
        self._client, self._worker, self.incarnation = client, worker, incarnation
        self.started: list[tuple[str, int]] = []
        self.stopped: list[tuple[str, int]] = []
        self.functions: set[str] = set()
        self._held: set[tuple[str, int]] = set()
        self._numbers = itertools.count(1)
        self._following: asyncio.Task[None] | None = None

    async def register(self) -> None:
        resources = {"cpu": 8.0}
        request = pb.WorkerInfo(worker_id=self._worker, incarnation=self.incarnation, resources=resources)
        await insist(self._client, "register_worker", request)

    async def begin(self) -> Hand:
        await self.register()
        self._following = asyncio.create_task(self._follow())
        return self

    async def report(self, kind: pb.OutcomeKind, *tasks: str, **more: Any) -> pb.ReportResponse:
        chosen = [ref for ref in self._held if ref[0] in tasks]
        outcomes = [pb.AttemptOutcome(task_id=task, attempt=attempt, kind=kind) for task, attempt in chosen]
        self._held.difference_update(chosen)
        request = pb.ReportRequest(incarnation=self.incarnation, outcomes=outcomes, number=next(self._numbers), **more)
        answer: pb.ReportResponse = await insist(self._client, "report", request)
        return answer

    async def end(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        for number in itertools.count(1):
            held = [pb.AttemptRef(task_id=task, attempt=attempt) for task, attempt in self._held]
            request = pb.AttachRequest(incarnation=self.incarnation, held=held)
            if hasattr(request, "number"):
                request.number = number
            try:
                async for orders in self._client.attach(request):
                    self.started += [(order.task_id, order.attempt) for order in orders.start]
                    self._held.update((order.task_id, order.attempt) for order in orders.start)
                    self.functions.update(function.function_id for function in orders.functions)
                    self.stopped += [(ref.task_id, ref.attempt) for ref in orders.stop]
            except NotKnown:
                return
            except Unavailable:
                pass
            await asyncio.sleep(0)


async def insist(client: AsyncControllerClient, method: str, request: Any) -> Any:
    """Call until there is an answer."""
    for _ in range(20):
        with contextlib.suppress(Unavailable, DeadlineExceeded):
            return await client.call(method, request, timeout_s=5.0)
    raise AssertionError(f"{method} is never answered")


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait on the loop for a condition."""
    await asyncio.to_thread(eventually, condition, interval=0.002, what=what)


class Arena:
    """A controller with a fault in it, and what a scenario needs to play there."""

    def __init__(self, address: str, rpc: str, kind: FaultKind, log: Path) -> None:
        self.address, self.rpc, self.kind, self._log = address, rpc, kind, log
        self.client = AsyncControllerClient(address, TOKEN)
        self.hands: list[Hand] = []

    async def call(self, method: str, request: Any) -> Any:
        return await insist(self.client, method, request)

    async def hand(self, worker: str = "w", incarnation: str = "w.1") -> Hand:
        hand = Hand(self.client, worker, incarnation)
        self.hands.append(hand)
        return await hand.begin()

    async def open(self, session: str = "s") -> None:
        await self.call("open_session", pb.OpenSessionRequest(session_id=session))

    async def submit(self, *tasks: str, batch: int = 1, session: str = "s", **more: Any) -> None:
        specs = [spec(task, session) for task in tasks]
        request = pb.SubmitTasksRequest(session_id=session, batch=batch, tasks=specs, **more)
        await self.call("submit_tasks", request)

    async def status(self, task: str) -> pb.TaskStatus:
        handle: pb.TaskHandle = await self.call("get_task_status", pb.TaskHandle(task_id=task))
        return handle.status

    async def stat(self, name: str) -> int:
        status: pb.ClusterStatus = await self.call("get_status", pb.Empty())
        return status.stats.get(name, 0)

    async def struck(self) -> None:
        """Wait until the fault has struck and is over."""
        await until(lambda: count_faults(self._log), "the fault strikes")
        assert count_faults(self._log) == {(self.kind.value, self.rpc): 1}

    async def settle(self, hand: Hand) -> None:
        """Wait until all orders so far have reached a hand."""
        await self.open("marker")
        await self.call("submit_task", spec("marker", "marker"))
        await until(lambda: "marker" in dict(hand.started), "the marker comes")
        hand.started = [start for start in hand.started if start[0] != "marker"]

    async def end(self) -> None:
        for hand in self.hands:
            await hand.end()
        await self.client.close()


def spec(task: str, session: str = "s", **more: Any) -> pb.TaskSpec:
    """Return a task that no executor will ever see."""
    return pb.TaskSpec(task_id=task, session_id=session, entrypoint="builtins:len", json_args='["abc"]', **more)


# --- one scenario for every RPC that changes something


async def submit_task(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await arena.call("submit_task", spec("t"))
    await until(lambda: hand.started, "the task starts")
    await hand.report(pb.OutcomeKind.FINISHED, "t")
    await arena.submit(acked_seq=1, batch=0)  # from now on the controller may forget the task
    await arena.struck()
    await arena.settle(hand)
    assert hand.started == [("t", 1)]
    assert await arena.stat("tasks finished") == 1


async def submit_tasks(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await arena.submit("t1", "t2")
    await until(lambda: len(hand.started) >= 2, "the tasks start")
    await hand.report(pb.OutcomeKind.FINISHED, "t1", "t2")
    await arena.submit("t3", batch=2, acked_seq=2)
    await arena.struck()
    await arena.settle(hand)
    assert sorted(hand.started) == [("t1", 1), ("t2", 1), ("t3", 1)]
    assert await arena.stat("tasks finished") == 2


async def open_session(arena: Arena) -> None:
    await arena.open()
    sessions = [(await arena.call("get_status", pb.Empty())).sessions]
    await arena.call("close_session", pb.SessionRef(session_id="s"))
    await arena.struck()
    assert sessions == [1]
    await has_sessions(arena, 0)


async def close_session(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await arena.submit("t")
    await until(lambda: hand.started, "the task starts")
    await arena.call("close_session", pb.SessionRef(session_id="s"))
    await until(lambda: hand.stopped, "the task is to be stopped")
    await hand.report(pb.OutcomeKind.CANCELLED, "t")
    await arena.struck()
    await arena.settle(hand)
    assert hand.stopped == [("t", 1)]
    assert await arena.stat("tasks cancelled") == 1
    await arena.call("close_session", pb.SessionRef(session_id="marker"))


async def register_worker(arena: Arena) -> None:
    first = await arena.hand()
    workers = (await arena.call("list_workers", pb.Empty())).workers
    assert [(worker.incarnation, worker.worker_id) for worker in workers] == [("w.1", "w")]
    await first.report(pb.OutcomeKind.FINISHED, leaving=True)
    second = await arena.hand(incarnation="w.2")
    await arena.open()
    await arena.submit("t")
    await until(lambda: second.started, "the task starts")
    await arena.struck()
    await arena.settle(second)
    assert second.started == [("t", 1)]
    assert [worker.incarnation for worker in (await arena.call("list_workers", pb.Empty())).workers] == ["w.2"]
    assert await arena.stat("workers registered") == 2


async def attach(arena: Arena) -> None:
    await arena.open()
    task = pb.TaskSpec(task_id="t", function_id="f")
    code = [pb.Function(function_id="f", code=b"code")]
    await arena.call("submit_tasks", pb.SubmitTasksRequest(session_id="s", batch=1, tasks=[task], functions=code))
    hand = await arena.hand()
    await until(lambda: hand.started, "the task starts")
    await arena.struck()
    await arena.settle(hand)
    assert [task for task, _ in hand.started] == ["t"]  # an order that was lost does not count, and is given anew
    assert hand.stopped == []
    assert hand.functions == {"f"}
    await hand.report(pb.OutcomeKind.FINISHED, "t")
    assert await arena.status("t") == pb.TaskStatus.FINISHED


async def report(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await arena.submit("t1", "t2")
    await until(lambda: len(hand.started) == 2, "the tasks start")
    logs = [pb.LogLines(session_id="s", task_id="t1", name="len", worker_id="w", text="line\n")]
    blocked = [pb.AttemptRef(task_id="t2", attempt=1)]
    await hand.report(pb.OutcomeKind.FINISHED, "t1", blocked=blocked, logs=logs)
    await hand.report(pb.OutcomeKind.FINISHED, unblocked=blocked)
    await arena.struck()
    assert await arena.status("t1") == pb.TaskStatus.FINISHED
    assert await arena.stat("tasks finished") == 1
    workers = (await arena.call("list_workers", pb.Empty())).workers
    assert [dict(worker.used)["cpu"] for worker in workers] == [1.0]
    lines, _ = await watch(arena, "s", lambda lines, _: lines)
    assert lines == ["line\n"]


async def report_task_complete(arena: Arena) -> None:
    await report_one(arena, "report_task_complete")
    assert await arena.status("t") == pb.TaskStatus.FINISHED
    assert await arena.stat("tasks finished") == 1


async def report_task_failed(arena: Arena) -> None:
    await report_one(arena, "report_task_failed")
    assert await arena.status("t") == pb.TaskStatus.FAILED
    assert await arena.stat("tasks failed") == 1


async def report_one(arena: Arena, method: str) -> None:
    hand = await arena.hand()
    await arena.open()
    await arena.call("submit_task", spec("t"))
    await until(lambda: hand.started, "the task starts")
    await arena.call(method, pb.TaskHandle(task_id="t", attempt=1, incarnation="w.1", error="no luck"))
    await arena.struck()
    await arena.settle(hand)
    assert hand.started == [("t", 1)]
    assert await arena.stat("stale reports refused") <= 1  # the copy


async def create_actor(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await make_actor(arena, hand)
    await arena.call("kill_actor", pb.ActorRef(actor_id="a"))
    await until(lambda: hand.stopped, "the actor is to end")
    await hand.report(pb.OutcomeKind.CANCELLED, "a")
    await arena.struck()
    await arena.settle(hand)
    assert hand.started == [("a", 1)]
    assert await arena.stat("actors accepted") == 1
    assert [actor.state for actor in (await arena.call("list_actors", pb.Empty())).actors] == [pb.ActorState.DEAD]


async def get_actor(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await make_actor(arena, hand)
    await arena.open("other")
    await arena.call("get_actor", pb.ActorRef(name="n", session_id="other"))
    await arena.struck()
    await arena.call("kill_actor", pb.ActorRef(actor_id="a"))
    await hand.report(pb.OutcomeKind.CANCELLED, "a")
    _, told = await watch(arena, "other", lambda _, told: "DEAD" in told)
    assert told.count("DEAD") == 1


async def kill_actor(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await make_actor(arena, hand)
    await arena.call("kill_actor", pb.ActorRef(actor_id="a"))
    await until(lambda: hand.stopped, "the actor is to end")
    await hand.report(pb.OutcomeKind.CANCELLED, "a")
    await make_actor(arena, hand, "successor")
    await arena.struck()
    await arena.settle(hand)
    assert hand.started == [("a", 1), ("successor", 1)]
    assert hand.stopped == [("a", 1)]


async def cancel_tasks(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    await arena.submit("t1", "t2")
    await until(lambda: len(hand.started) == 2, "the tasks start")
    await arena.call("cancel_tasks", pb.CancelTasksRequest(task_ids=["t1"]))
    await until(lambda: hand.stopped, "the task is to be stopped")
    await hand.report(pb.OutcomeKind.CANCELLED, "t1")
    await arena.struck()
    await arena.settle(hand)
    assert hand.stopped == [("t1", 1)]
    assert [await arena.status(task) for task in ("t1", "t2")] == [pb.TaskStatus.CANCELLED, pb.TaskStatus.IN_PROGRESS]
    assert await arena.stat("tasks cancelled") == 1


async def watch_tasks(arena: Arena) -> None:
    hand = await arena.hand()
    await arena.open()
    reader = asyncio.create_task(asyncio.to_thread(read_results, arena.address, "s", 2))
    await arena.submit("t1", "t2")
    await until(lambda: len(hand.started) == 2, "the tasks start")
    await hand.report(pb.OutcomeKind.FINISHED, "t1")
    await arena.struck()
    await hand.report(pb.OutcomeKind.FINISHED, "t2")
    assert await reader == ["t1", "t2"]
    await has_sessions(arena, 0)  # nobody watches any more, which no stream that was left over contradicts


SCENARIOS: dict[str, Callable[[Arena], Awaitable[None]]] = {
    "SubmitTask": submit_task,
    "SubmitTasks": submit_tasks,
    "OpenSession": open_session,
    "CloseSession": close_session,
    "RegisterWorker": register_worker,
    "Attach": attach,
    "Report": report,
    "ReportTaskComplete": report_task_complete,
    "ReportTaskFailed": report_task_failed,
    "CreateActor": create_actor,
    "GetActor": get_actor,
    "KillActor": kill_actor,
    "CancelTasks": cancel_tasks,
    "WatchTasks": watch_tasks,
}
"""Plays the part of an RPC's callers around one call of it that meets a fault, and asserts the one effect."""


async def make_actor(arena: Arena, hand: Hand, actor: str = "a") -> None:
    settings = pb.ActorSettings(name="n")
    await arena.call("create_actor", pb.CreateActorRequest(task=spec(actor), settings=settings))
    await until(lambda: actor in dict(hand.started), "the actor starts")
    await hand.report(pb.OutcomeKind.FINISHED, created=[pb.AttemptRef(task_id=actor, attempt=1)])


async def watch(arena: Arena, session: str, is_enough: Callable[[list[str], list[str]], Any]) -> tuple[list[str], list[str]]:
    """Return what a session is told until that is enough: output of tasks, and states of actors."""

    def read() -> tuple[list[str], list[str]]:
        lines: list[str] = []
        told: list[str] = []
        request = pb.WatchTasksRequest(session_id=session)
        with closing(ControllerClient(arena.address, TOKEN)) as client, closing(client.watch(request)) as stream:
            for events in stream:
                lines += [log.text for log in events.logs]
                told += [pb.ActorState(info.state).name for info in events.actors]
                if is_enough(lines, told):
                    break
        return lines, told

    return await asyncio.to_thread(read)


def read_results(address: str, session: str, count: int) -> list[str]:
    """Return the ids of so many results, resuming as a client does."""
    found: list[str] = []
    seq = 0
    with closing(ControllerClient(address, TOKEN)) as client:
        for _ in range(20):
            with contextlib.suppress(Unavailable):
                request = pb.WatchTasksRequest(session_id=session, after_seq=seq)
                with closing(client.watch(request)) as stream:
                    for events in stream:
                        found += [result.task_id for result in events.results]
                        seq = events.last_seq
                        if len(found) >= count:
                            return found
    return found


async def has_sessions(arena: Arena, count: int) -> None:
    def read() -> bool:
        with closing(ControllerClient(arena.address, TOKEN)) as client:
            status: pb.ClusterStatus = client.call("get_status", pb.Empty())
            return status.sessions == count

    await until(read, f"there are {count} sessions")


@pytest.fixture(scope="module")
def controllers() -> Iterator[list[FrayControllerServer]]:
    """All controllers of this module, stopped together at its end: stopping takes a while, starting does not."""
    started: list[FrayControllerServer] = []
    yield started
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(FrayControllerServer.stop, started))


def entry(rpc: str, kind: FaultKind, share: float = 1.0, limit: str = "x1") -> str:
    """Return an entry of FRAY_FAULTS."""
    seconds = f":{LATE_S}" if kind in (FaultKind.DELAY, FaultKind.LATE_DUPLICATE) else ""
    return f"{rpc}:{kind.value}:{share}{seconds}" + (f":{limit}" if limit else "")


@pytest.mark.integration
@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
@pytest.mark.parametrize("rpc", SCENARIOS)
def test_call_that_meets_a_fault_has_one_effect(
    rpc: str,
    kind: FaultKind,
    controllers: list[FrayControllerServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FRAY_FAULTS", entry(rpc, kind))
    monkeypatch.setenv("FRAY_FAULTS_LOG", str(tmp_path / "faults"))
    limits = Limits(session_grace_s=0.5 if rpc in ("OpenSession", "WatchTasks") else 30.0)
    server = FrayControllerServer(token=TOKEN, storage=str(tmp_path / "storage"), state=str(tmp_path / "state"), limits=limits)
    server.start()
    controllers.append(server)

    async def play() -> None:
        arena = Arena(server.address, rpc, kind, tmp_path / "faults")
        try:
            async with asyncio.timeout(30):
                await SCENARIOS[rpc](arena)
        except BaseException:
            await asyncio.to_thread(server.stop)  # ends the streams that threads of the scenario may read
            raise
        finally:
            await arena.end()

    asyncio.run(play())


@pytest.mark.integration
@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
def test_task_of_a_direct_caller_runs_once_whatever_happens_to_the_call(
    kind: FaultKind, controllers: list[FrayControllerServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAY_FAULTS", entry("ExecuteTask", kind))
    monkeypatch.setenv("FRAY_FAULTS_LOG", str(tmp_path / "faults"))
    server = FrayControllerServer(token=TOKEN, storage=str(tmp_path / "storage"))
    server.start()
    controllers.append(server)
    worker = FrayWorker(server.address, token=TOKEN, num_cpus=1)
    worker.start()
    client = FrayWorkerClientSync(
        worker.address, accept_compression=[], send_compression=None, interceptors=sync_interceptors()
    )
    place = tmp_path / "made here"
    place.mkdir()
    request = pb.TaskSpec(task_id="t", entrypoint="tempfile:mkdtemp", json_args=json.dumps([None, None, str(place)]))
    try:
        try:
            answer = client.execute_task(request, headers=call_headers(TOKEN), timeout_ms=20_000)
        except ConnectError as error:
            assert error.code is Code.UNAVAILABLE
            answer = client.execute_task(request, headers=call_headers(TOKEN), timeout_ms=20_000)
        eventually(lambda: count_faults(tmp_path / "faults"))
        assert count_faults(tmp_path / "faults") == {(kind.value, "ExecuteTask"): 1}
        assert answer.status == pb.TaskStatus.FINISHED
        assert [str(made) for made in place.iterdir()] == [json.loads(answer.result_json)]
    finally:
        client.close()
        worker.stop(grace=0)


# --- all of it at once, with workers and programs that know nothing of it

PRELUDE = """
import os, pathlib, sys
import fray
from fray.errors import ActorUnavailable, TaskCancelled, Unavailable
from fray.job.rpc.controller import FrayControllerServer, Limits
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

folder = pathlib.Path(sys.argv[1])


def note(what):
    with (folder / "ledger").open("a") as file:
        file.write(f"{what}\\n")


def play(program):
    limits = Limits(reattach_grace_s=60.0, silence_s=60.0)
    server = FrayControllerServer(token=os.environ["FRAY_TOKEN"], storage=str(folder / "storage"), limits=limits)
    server.start()
    workers = [FrayWorker(server.address, num_cpus=2, direct_calls=False) for _ in range(2)]
    try:
        for worker in workers:
            worker.start()
        with fray.create_job_ctx("fray", controller_address=server.address) as ctx:
            program(ctx)
    finally:
        for worker in workers:
            worker.stop(grace=0)
        server.stop()
"""

TASKS = """
def square(i):
    note(i)
    return i * i


def nested(i):
    ctx = fray.get_default_job_ctx()
    return sum(ctx.get([ctx.run(square, i + k) for k in range(3)], timeout=60))


def wait_for_ever(i):
    note(f"begun {i}")
    eventually((folder / "never").exists, timeout=600)


def program(ctx):
    doomed = [ctx.run(wait_for_ever, i) for i in range(2)]
    eventually(lambda: "begun 0" in (folder / "ledger").read_text() and "begun 1" in (folder / "ledger").read_text())
    for first in range(0, 300, 50):
        wave = range(first, first + 50)
        futures = [ctx.run(square, i) for i in wave]
        if first == 150:
            assert all(future.cancel() for future in doomed)
        assert ctx.get(futures, timeout=100) == [i * i for i in wave]
    deep = [ctx.run(nested, 1000 * i) for i in range(1, 5)]
    assert ctx.get(deep, timeout=100) == [sum((1000 * i + k) ** 2 for k in range(3)) for i in range(1, 5)]
    chained = ctx.run(square, 9000)
    for _ in range(5):
        chained = ctx.run(lambda x: x + 1, chained)
    assert ctx.get(chained, timeout=100) == 81000005
    assert all(future.cancelled() for future in doomed)


(folder / "ledger").touch()
play(program)
"""

ACTORS = """
class Counter:
    def __init__(self, name):
        note(f"made {name}")
        self.name, self.total = name, 0

    def add(self, i):
        note(f"{self.name} {i}")
        self.total += 1
        return self.total


def call_from_task(counter, i):
    return fray.get_default_job_ctx().get(counter.add.remote(i), timeout=60)


def program(ctx):
    counters = [ctx.create_actor(Counter, name, name=name) for name in ("one", "two")]
    for counter in counters:
        for first in range(0, 100, 50):
            answers = ctx.get([counter.add.remote(i) for i in range(first, first + 50)], timeout=100)
            assert answers == list(range(first + 1, first + 51)), answers
    tasks = [ctx.run(call_from_task, counters[0], 1000 + i) for i in range(4)]
    assert sorted(ctx.get(tasks, timeout=100)) == [101, 102, 103, 104]
    again = ctx.create_actor(Counter, "two", name="two", get_if_exists=True)
    assert ctx.get(again.add.remote(500), timeout=60) == 101
    ctx.kill(again)


play(program)
"""


def run_program(code: str, folder: Path) -> list[str]:
    """Run a program with all faults on all calls; return its ledger. Introductions get through, perhaps more than once."""
    told = ("OpenSession", "RegisterWorker")
    losing = (FaultKind.REQUEST_LOST, FaultKind.RESPONSE_LOST, FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER)
    entries = [entry(rpc, kind, 0.08, "") for rpc in RPCS for kind in FaultKind if not (rpc in told and kind in losing)]
    (folder / "program.py").write_text(PRELUDE + code)
    env = {key: value for key, value in os.environ.items() if not key.startswith("FRAY_")}
    env.update(FRAY_FAULTS=f"{','.join(entries)};seed=1", FRAY_FAULTS_LOG=str(folder / "faults"), FRAY_TOKEN=TOKEN)
    command = [sys.executable, str(folder / "program.py"), str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "ledger").read_text().splitlines()


@pytest.mark.integration
def test_tasks_give_their_values_and_run_once_under_all_faults(tmp_path: Path) -> None:
    ledger = run_program(TASKS, tmp_path)
    struck = Counter(kind for kind, _ in count_faults(tmp_path / "faults").elements())
    assert len(struck) > len(FaultKind) / 2
    assert struck.total() > 30
    nested = [1000 * i + k for i in range(1, 5) for k in range(3)]
    assert Counter(ledger) == Counter(["begun 0", "begun 1", *map(str, [*range(300), *nested, 9000])])


@pytest.mark.integration
def test_calls_of_actors_are_carried_out_once_and_in_order_under_all_faults(tmp_path: Path) -> None:
    ledger = run_program(ACTORS, tmp_path)
    assert Counter(line for line in ledger if line.startswith("made")) == {"made one": 1, "made two": 1}
    for name, last in (("one", []), ("two", ["two 500"])):
        ours = [line for line in ledger if line.startswith(name)]
        assert ours[:100] == [f"{name} {i}" for i in range(100)]
        assert sorted(ours[100:]) == (last or [f"one {1000 + i}" for i in range(4)])


@pytest.mark.integration
def test_repeated_batch_is_answered_though_the_session_is_full(
    controllers: list[FrayControllerServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAY_FAULTS", "SubmitTasks:response_lost:1:x1")
    server = FrayControllerServer(token=TOKEN, storage=str(tmp_path / "storage"), limits=Limits(session_tasks=2))
    server.start()
    controllers.append(server)
    batch = pb.SubmitTasksRequest(session_id="s", batch=1, tasks=[spec("t1"), spec("t2")])
    with closing(ControllerClient(server.address, TOKEN)) as client:
        client.call("open_session", pb.OpenSessionRequest(session_id="s"))
        with pytest.raises(Unavailable, match="SubmitTasks"):
            client.call("submit_tasks", batch)
        client.call("submit_tasks", batch)
        assert client.call("get_status", pb.Empty()).stats["tasks accepted"] == 2


@pytest.mark.unit
def test_tables_name_every_rpc_of_the_descriptor() -> None:
    mutating = {*SCENARIOS, "ExecuteTask"}
    assert not mutating & READ_ONLY
    assert sorted(mutating | READ_ONLY) == sorted(RPCS)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SubmitTask", "RPC:KIND:SHARE"),
        ("SubmitTak:delay:1", "'SubmitTak' is none of the RPCs, which are *, SubmitTask, GetTaskStatus"),
        ("*:lost:0.5", "'lost' is none of the kinds, which are request_lost, response_lost, delay"),
        ("*:delay:0", "above 0 and at most 1"),
        ("*:delay:1.5", "above 0 and at most 1"),
        ("*:delay:nan", "above 0 and at most 1"),
        ("*:delay:often", "the share of calls is a number"),
        ("*:delay:1:-1", "seconds are 0 to 3600"),
        ("*:delay:1:soon", "seconds are a number"),
        ("*:drop_after:1:0.1", "'0.1' is too much; only delay and late_duplicate take seconds"),
        ("*:delay:1:0.1:0.2", "'0.2' is too much"),
        ("*:delay:1:x0", "xN is x1 or more"),
        ("*:delay:1:x1.5", "xN is x1 or more"),
        ("*:delay:1:xinf", "xN is x1 or more"),
        ("*:delay:1:xy", "xN is a whole number"),
        ("*:delay:1,", "RPC:KIND:SHARE"),
        ("*:delay:1;dice=3", "one seed, such as seed=7"),
        ("*:delay:1;seed=", "one seed, such as seed=7"),
        ("*:delay:1;seed=1;seed=2", "one seed, such as seed=7"),
    ],
)
def test_faults_that_make_no_sense_are_refused_with_what_is_right(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_faults(text)
    assert str(caught.value).startswith("FRAY_FAULTS: ")
    assert words in str(caught.value)
    assert "An example: SubmitTasks:response_lost:0.2" in str(caught.value)


@pytest.mark.unit
def test_faults_are_read_as_they_are_written() -> None:
    entries, seed = parse_faults("SubmitTasks:response_lost:0.2, *:delay:0.1:0.05:x3 ;seed=7")
    assert entries == [
        Fault("SubmitTasks", FaultKind.RESPONSE_LOST, 0.2),
        Fault("*", FaultKind.DELAY, 0.1, 0.05, 3),
    ]
    assert seed == "7"


@pytest.mark.unit
def test_same_seed_gives_the_same_fates_and_the_share_of_calls_that_was_asked_for() -> None:
    def fates(seed: str) -> list[bool]:
        entries, _ = parse_faults("*:delay:0.25")
        faults = Faults(entries, seed)
        return [faults.draw("Report", {FaultKind.DELAY}) is not None for _ in range(1000)]

    assert fates("7") == fates("7")
    assert fates("7") != fates("8")
    assert 180 < sum(fates("7")) < 320


@pytest.mark.unit
def test_faults_that_nobody_asked_for_are_not_on_the_way_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    monkeypatch.delenv("FRAY_FAULTS", raising=False)
    assert (sync_interceptors(), async_interceptors(), with_faults(app)) == ((), (), app)
    monkeypatch.setenv("FRAY_FAULTS", "*:delay:1")
    assert (sync_interceptors(), async_interceptors()) == ((), ())
    assert with_faults(app) is not app
    monkeypatch.setenv("FRAY_FAULTS", "*:request_lost:1")
    assert with_faults(app) is app
    assert len(sync_interceptors()) == len(async_interceptors()) == 1
