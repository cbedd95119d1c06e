"""A controller that ends in any way and is started again goes on; workers and clients stay, and nothing accepted is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from disks import ballast, small_disk
from fray import JobContext, create_job_ctx, get_default_job_ctx
from fray.errors import ActorDied, ContextClosed, FrayError, TaskCancelled, TaskLost, TaskTimeout
from fray.job.rpc import session
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "restarts"
LITTLE = {"cpu": 0.1}
WAIT_S = 40.0
TESTS = Path(__file__).parent.parent


class Site:
    """A controller that can be ended and started again, and those who stay meanwhile."""

    def __init__(self, folder: Path, limits: dict[str, float] | None = None, state: str = "") -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir()
        self.storage, self.state = str(folder / "storage"), state or str(folder / "state.sqlite")
        self.token = TOKEN
        self.limits = limits
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.controller: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._stack = contextlib.ExitStack()
        self._is_closed = False

    def launch(self) -> Path:
        """Start the controller's process; return what it writes into."""
        self.starts += 1
        if self.limits is None:
            arguments = ["fray", "controller", "--port", str(self.port), "--state", self.state, "--storage", self.storage]
        else:
            arguments = ["chaos.serve", str(self.port), self.state, self.storage, json.dumps(self.limits)]
        log = self.folder / f"controller-{self.starts}.log"
        self.controller = self.spawn(arguments, log)
        return log

    def start(self) -> str:
        """Start the controller; return what it says until it serves."""
        log = self.launch()
        process, words = self.controller, "Its token is" if self.limits is None else "ready"
        assert process is not None
        eventually(lambda: words in log.read_text() or process.poll() is not None, WAIT_S, what="the controller serves")
        assert process.poll() is None, log.read_text()
        return log.read_text()

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the controller; return how it ended."""
        process, self.controller = self.controller, None
        assert process is not None
        process.send_signal(number)
        return process.wait(WAIT_S)

    def restart(self) -> None:
        self.end()
        self.start()

    def spawn(self, arguments: list[str], log: Path, module: bool = True) -> subprocess.Popen[bytes]:
        """Start a process of this Python."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FRAY_")}
        path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**inherited, "FRAY_TOKEN": self.token, "FRAY_ADDRESS": self.address, "PYTHONPATH": path}
        command = [sys.executable, *(["-m"] if module else ["-c"]), *arguments]
        with log.open("wb") as out:
            return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    def add_process(self, name: str, number: int = 0, **resources: float) -> subprocess.Popen[bytes]:
        """Start a worker that is a process; does not wait for it."""
        arguments = ["fray", "worker", "--worker-id", name, "-n", "1", "--resources", json.dumps(resources)]
        process = self.spawn(arguments, self.folder / f"{name}-{number}.log")
        self._stack.callback(_kill, process)
        return process

    def add_worker(self, name: str, **settings: Any) -> FrayWorker:
        """Start a worker whose agent is a thread here and whose executors are processes."""
        worker = FrayWorker(self.address, name, **{"token": TOKEN, "num_cpus": 2, "direct_calls": False, **settings})
        worker.start()
        self._stack.callback(worker.stop, 0.0)
        return worker

    def open_ctx(self) -> JobContext:
        ctx = create_job_ctx("fray", controller_address=self.address)
        self._stack.callback(ctx.close)
        return ctx

    def ask(self, method: str, request: Any = None) -> Any:
        """Ask the controller itself."""
        client = ControllerClient(self.address, TOKEN)
        try:
            return client.call(method, request or pb.Empty())
        finally:
            client.close()

    def story(self, future: Any) -> str:
        return "\n".join(self.ask("explain_task", pb.TaskHandle(task_id=future.task_id)).story)

    def workers(self) -> list[str]:
        return sorted(worker.worker_id for worker in self.ask("list_workers").workers)

    # --- files by which tasks and tests talk

    def allow(self, *names: str) -> None:
        for name in names:
            (self.files / name).touch()

    def has(self, *names: str) -> bool:
        return all((self.files / name).exists() for name in names)

    def wait_for(self, *names: str) -> None:
        eventually(lambda: self.has(*names), WAIT_S, what=f"{names} are there")

    def read(self, name: str) -> str:
        path = self.files / name
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End everything. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.controller is None:
            self.start()  # who left wants to say goodbye
        self._stack.close()
        self.end()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAY_TOKEN", TOKEN)
        yield


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(*args: Any, **fields: Any) -> Site:
        made.append(Site(tmp_path, *args, **fields))
        return made[-1]

    yield make
    for site in made:
        site.close()


def make_work() -> Callable[..., str]:
    """Return a task that writes down each of its runs, and may wait, fail, or leave a mark when it is stopped."""

    def work(files: Path, name: str, wait_for: str = "", fails: int = 0) -> str:
        with (files / f"{name}.runs").open("a") as file:
            file.write("x")
        runs = len((files / f"{name}.runs").read_text())
        try:
            if wait_for:
                eventually((files / wait_for).exists, timeout=60)
            if runs <= fails:
                raise ValueError(f"{name} fails in run {runs}")
        finally:
            (files / f"{name}.over").touch()
        return name

    return work


def make_counter() -> type:
    class Counter:
        def __init__(self, files: Path) -> None:
            self.files, self.count = files, 0

        def add(self) -> int:
            self.count += 1
            return self.count

        def add_when(self, name: str) -> int:
            (self.files / f"{name}.begun").touch()
            eventually((self.files / name).exists, timeout=60)
            return self.add()

        def pid(self) -> int:
            return os.getpid()

    return Counter


AWAY = """
import sys
from pathlib import Path
from fray import create_job_ctx
from fray.testing import eventually

files = Path(sys.argv[1])

def work(files):
    with (files / "away.runs").open("a") as file:
        file.write("x")
    eventually((files / "go").exists, timeout=60)
    return "done"

with create_job_ctx("fray") as ctx:
    light = ctx.options(resources={"cpu": 0.1})
    futures = [light.run(work, files), light.run(len, "abc")]
    futures[1].result()
    (files / "away.ready").touch()
    (files / "away.draft").write_text(repr(ctx.get([*futures, light.run(len, "abcd")])))
    (files / "away.draft").rename(files / "away.results")
"""


# --- one restart in the midst of everything


class Scene(SimpleNamespace):
    """What was under way when the controller was killed."""

    site: Site


def _prepare(site: Site) -> Scene:
    """Let everything be under way."""
    site.start()
    outer = site.add_process("outer", outer=1)
    site.add_worker("inner", resources={"slot": 1, "memory": 1e9})
    away = site.spawn([AWAY, str(site.files)], site.folder / "away.log", module=False)
    site._stack.callback(_kill, away)
    ctx = site.open_ctx()
    light, slot = ctx.options(resources=LITTLE), ctx.options(resources={"slot": 1})
    work, files = make_work(), site.files
    scene = Scene(site=site, ctx=ctx, light=light, work=work, away=away, outer=outer, told=Counter())

    def run(name: str, on: JobContext = light, **fields: Any) -> Any:
        future = on.run(work, files, name, **fields)
        future.add_done_callback(lambda _: scene.told.update([name]))
        setattr(scene, name, future)
        return future

    def parent(files: Path, name: str, wait_for: str, child: Callable[..., str]) -> str:
        with (files / f"{name}.runs").open("a") as file:
            file.write("x")
        eventually((files / wait_for).exists, timeout=60)
        with_child = get_default_job_ctx().options(resources={"cpu": 0.1})
        return f"{name} and {with_child.run(child, files, f'child-of-{name}', wait_for='go').result(timeout=60)}"

    run("early").result(timeout=WAIT_S)
    run("here", wait_for="go")
    run("there", ctx.options(resources={"outer": 1}), wait_for="go")
    run("meanwhile", wait_for="go-meanwhile")
    scene.dependent = light.run(lambda *values: values, scene.early, scene.meanwhile, ctx.put("put"))
    run("holder", slot, wait_for="go")
    site.wait_for("holder.runs")
    run("low", slot.options(priority=-1))
    run("high", slot.options(priority=5))
    run("cancelled", slot)
    run("stopped", wait_for="never")
    run("flaky", light.options(max_retries=2, retry_delay_s=2.0), fails=1)
    run("hopeless", light.options(max_retries=1, retry_delay_s=2.0), fails=9)
    run("due", ctx.options(resources={"absent": 1}, deadline=6.0))
    scene.nested = light.run(parent, files, "nested", "go-nested", work)
    scene.late = light.run(parent, files, "late", "go-meanwhile", work)
    scene.large = light.run(lambda data, _: len(data), ctx.put(os.urandom(2_000_000)), scene.meanwhile)
    scene.large_result = light.run(lambda _: bytes(700_000), scene.meanwhile)
    scene.stays = light.run(work, files, "stays", wait_for="go-end")
    scene.waits = slot.options(priority=-9).run(work, files, "waits")
    site.allow("go-nested")
    scene.keeper = light.create_actor(make_counter(), files, name="keeper")
    assert ctx.get([scene.keeper.add.remote(), scene.keeper.add.remote()], timeout=WAIT_S) == [1, 2]
    scene.pid = ctx.get(scene.keeper.pid.remote(), timeout=WAIT_S)
    scene.incarnation = ctx.actor_status(scene.keeper).incarnation
    scene.under_way = scene.keeper.add_when.remote("go")
    scene.behind = scene.keeper.add.remote()
    with create_job_ctx("fray", controller_address=site.address) as other:
        detached = other.options(resources=LITTLE).create_actor(make_counter(), files, name="abiding", lifetime="detached")
        assert other.get(detached.add.remote(), timeout=WAIT_S) == 1
    scene.cancelled.cancel()
    site.wait_for("away.ready", "go.begun", "child-of-nested.runs")
    site.wait_for(*[f"{name}.runs" for name in ("here", "there", "meanwhile", "stopped", "flaky", "hopeless", "late", "stays")])
    return scene


def _happen_meanwhile(scene: Scene) -> None:
    """What goes on while there is no controller."""
    scene.site.allow("go-meanwhile")
    scene.stopped.cancel()
    scene.offline = scene.light.run(scene.work, scene.site.files, "offline")
    scene.call_offline = scene.keeper.add.remote()
    scene.site.wait_for("meanwhile.over")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, token: None) -> Iterator[Scene]:
    """A cluster after its controller was killed and started again."""
    site = Site(tmp_path_factory.mktemp("scene"))
    try:
        scene = _prepare(site)
        scene.away.send_signal(signal.SIGSTOP)
        site.end()
        _happen_meanwhile(scene)
        scene.said = site.start()
        scene.away.send_signal(signal.SIGCONT)
        site.allow("go")
        yield scene
        site.allow("go-end")
    finally:
        site.close()


@pytest.mark.parametrize("name", ["here", "there"])
def test_a_task_that_runs_goes_on_and_is_not_run_again(scene: Scene, name: str) -> None:
    assert getattr(scene, name).result(timeout=WAIT_S) == name
    assert scene.site.read(f"{name}.runs") == "x"


def test_a_task_that_ends_while_there_is_no_controller_is_told_of_when_there_is(scene: Scene) -> None:
    assert scene.meanwhile.result(timeout=WAIT_S) == "meanwhile"
    assert scene.site.read("meanwhile.runs") == "x"


def test_every_result_is_told_once(scene: Scene) -> None:
    for name in ("early", "here", "meanwhile", "flaky", "high"):
        getattr(scene, name).result(timeout=WAIT_S)
        assert scene.told[name] == 1


def test_values_of_before_and_of_after_reach_what_depends_on_both(scene: Scene) -> None:
    assert scene.dependent.result(timeout=WAIT_S) == ("early", "meanwhile", "put")


def test_queued_tasks_run_in_the_order_of_their_priorities(scene: Scene) -> None:
    assert [scene.holder.result(timeout=WAIT_S), scene.high.result(timeout=WAIT_S), scene.low.result(timeout=WAIT_S)]
    ended = [(scene.site.files / f"{name}.over").stat().st_mtime_ns for name in ("holder", "high", "low")]
    assert ended == sorted(ended)
    assert [scene.site.read(f"{name}.runs") for name in ("holder", "high", "low")] == ["x"] * 3


def test_what_was_cancelled_before_or_meanwhile_is_stopped(scene: Scene) -> None:
    for future in (scene.cancelled, scene.stopped):
        assert future.cancelled()
    scene.site.wait_for("stopped.over")
    scene.low.result(timeout=WAIT_S)  # behind which the other one waited
    assert not scene.site.has("cancelled.runs")
    assert scene.site.read("stopped.runs") == "x"


def test_retries_that_were_used_count(scene: Scene) -> None:
    assert scene.flaky.result(timeout=WAIT_S) == "flaky"
    assert scene.site.read("flaky.runs") == "xx"
    with pytest.raises(ValueError, match="hopeless fails in run 2"):
        scene.hopeless.result(timeout=WAIT_S)
    assert scene.site.read("hopeless.runs") == "xx"


def test_a_deadline_of_before_is_kept(scene: Scene) -> None:
    with pytest.raises(TaskTimeout, match="deadline of 6 s"):
        scene.due.result(timeout=WAIT_S)


def test_a_task_that_waits_for_tasks_of_its_own_goes_on(scene: Scene) -> None:
    assert scene.nested.result(timeout=WAIT_S) == "nested and child-of-nested"
    assert scene.site.read("nested.runs") == scene.site.read("child-of-nested.runs") == "x"


def test_a_task_may_submit_while_there_is_no_controller(scene: Scene) -> None:
    assert scene.late.result(timeout=WAIT_S) == "late and child-of-late"
    assert scene.site.read("late.runs") == scene.site.read("child-of-late.runs") == "x"


def test_large_payloads_are_still_there(scene: Scene) -> None:
    assert scene.large.result(timeout=WAIT_S) == 2_000_000
    assert scene.large_result.result(timeout=WAIT_S) == bytes(700_000)
    assert list(Path(scene.site.storage).rglob("*.payload"))


def test_functions_that_were_sent_before_need_not_be_sent_again(scene: Scene) -> None:
    assert scene.light.run(scene.work, scene.site.files, "again").result(timeout=WAIT_S) == "again"
    assert scene.offline.result(timeout=WAIT_S) == "offline"
    assert scene.site.read("offline.runs") == "x"


def test_an_actor_keeps_its_life_its_state_and_its_calls(scene: Scene) -> None:
    keeper, ctx = scene.keeper, scene.ctx
    assert ctx.get([scene.under_way, scene.behind, scene.call_offline], timeout=WAIT_S) == [3, 4, 5]
    assert ctx.get(keeper.pid.remote(), timeout=WAIT_S) == scene.pid
    status = ctx.actor_status(keeper)
    assert (status.incarnation, status.restarts, status.state) == (scene.incarnation, 0, "ALIVE")


def test_actors_are_found_by_their_names_and_made_once(scene: Scene) -> None:
    with create_job_ctx("fray", controller_address=scene.site.address) as other:
        again = other.create_actor(make_counter(), scene.site.files, name="keeper", get_if_exists=True)
        assert other.get(again.pid.remote(), timeout=WAIT_S) == scene.pid
        abiding = other.get_actor("abiding")  # whose client had left before
        before = other.get(abiding.add.remote(), timeout=WAIT_S)
        assert before >= 2
        assert other.get(other.get_actor("abiding").add.remote(), timeout=WAIT_S) == before + 1


def test_a_client_that_did_not_run_during_the_restart_goes_on(scene: Scene) -> None:
    scene.site.wait_for("away.results")
    assert scene.site.read("away.results") == "['done', 3, 4]"
    assert scene.site.read("away.runs") == "x"
    assert scene.away.wait(WAIT_S) == 0


def test_the_command_line_tells_of_the_restart(scene: Scene) -> None:
    site = scene.site
    commands = [["why", scene.stays.task_id], ["status", "--json"], ["actors", "--json"]]
    logs = [site.folder / f"{command[0]}.out" for command in commands]
    processes = [site.spawn(["fray", *command], log) for command, log in zip(commands, logs, strict=True)]
    assert [process.wait(WAIT_S) for process in processes] == [0] * 3
    why, status, actors = (log.read_text() for log in logs)
    assert why.index("submitted") < why.index("the controller was restarted")
    assert "IN_PROGRESS" in why
    assert json.loads(status)["state_path"] == site.state
    assert json.loads(status)["stats"]["actors restored"] == 2
    shown = {actor["name"]: actor["state"] for actor in json.loads(actors)["actors"]}
    assert (shown["keeper"], shown["abiding"]) == ("ALIVE", "ALIVE")


def test_a_second_controller_on_the_same_state_is_refused(scene: Scene) -> None:
    site = scene.site
    arguments = ["fray", "controller", "--port", "0", "--state", site.state, "--storage", site.storage]
    second = site.spawn(arguments, site.folder / "second.log")
    assert second.wait(WAIT_S) != 0
    said = (site.folder / "second.log").read_text()
    assert f"another controller uses the state file {site.state}" in said
    assert "Traceback" not in said
    assert site.ask("get_status").state_path == site.state


def test_the_controller_says_what_goes_on_when_it_starts(scene: Scene) -> None:
    assert f"Its state is kept in {scene.site.state}; " in scene.said
    assert "2 actors of before go on" in scene.said


def test_no_worker_began_a_new_life(scene: Scene) -> None:
    assert scene.site.workers() == ["inner", "outer"]
    stats = scene.site.ask("get_status").stats
    assert "workers registered" not in stats
    assert "workers lost" not in stats


# --- other ways to end and to begin


def test_a_controller_that_was_asked_to_stop_goes_on_when_it_is_started_again(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.add_worker("w", num_cpus=1)
    ctx, work = site.open_ctx(), make_work()
    first, second = [ctx.run(work, site.files, name, "go") for name in ("first", "second")]
    value = ctx.put(os.urandom(400_000))
    site.wait_for("first.runs")
    assert site.end(signal.SIGTERM) == 0
    assert not list(Path(site.state).parent.glob("*-wal"))
    site.allow("go")
    site.wait_for("first.over")
    site.start()
    assert ctx.get([first, second, ctx.run(len, value)], timeout=WAIT_S) == ["first", "second", 400_000]
    assert (site.read("first.runs"), site.read("second.runs")) == ("x", "x")


@pytest.mark.slow
def test_two_restarts_in_quick_succession_and_a_kill_during_the_start_lose_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.add_worker("w", num_cpus=1)
    ctx, work = site.open_ctx(), make_work()
    futures = [ctx.run(work, site.files, f"t{i}", "go") for i in range(3)]
    site.wait_for("t0.runs")
    site.restart()
    site.end()  # before anybody has come back
    site.launch()
    eventually(lambda: Path(f"{site.state}-wal").exists(), interval=0.001)  # it has just opened its file
    site.end()
    site.start()
    site.allow("go")
    assert ctx.get(futures, timeout=WAIT_S) == ["t0", "t1", "t2"]
    assert [site.read(f"t{i}.runs") for i in range(3)] == ["x"] * 3


class InProcess:
    """A controller of this process, started again and again on one address, with other settings."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self._server: FrayControllerServer | None = None

    def start(self, token: str = TOKEN, state: str = "", storage: str = "storage") -> str:
        self.stop()
        state = state or str(self.folder / "state.sqlite")
        self._server = FrayControllerServer(self.port, token=token, state=state, storage=str(self.folder / storage))
        self.port = self._server.start()
        return self._server.address

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[InProcess]:
    made = InProcess(tmp_path)
    yield made
    made.stop()


def test_a_state_in_memory_is_gone_after_a_restart_and_that_is_said(controller: InProcess) -> None:
    ctx = create_job_ctx("fray", controller_address=controller.start(state=":memory:"))
    lost = ctx.run(len, "abc")
    address = controller.start(state=":memory:")
    with pytest.raises(TaskLost, match="controller lost this session"):
        lost.result(timeout=WAIT_S)
    with pytest.raises(ContextClosed, match="lost its controller"):
        ctx.run(len, "abc")
    ctx.close()
    worker = FrayWorker(address, "w", token=TOKEN, num_cpus=1)
    worker.start()
    with create_job_ctx("fray", controller_address=address) as fresh:
        assert fresh.get(fresh.run(len, "abc"), timeout=WAIT_S) == 3
    worker.stop(0.0)


def test_another_token_after_a_restart_is_named(controller: InProcess) -> None:
    ctx = create_job_ctx("fray", controller_address=controller.start())
    future = ctx.run(len, "abc")
    controller.start(token="another")
    with pytest.raises(TaskLost, match=r"refuses the token.*FRAY_TOKEN"):
        future.result(timeout=WAIT_S)
    ctx.close()


def test_another_storage_after_a_restart_loses_no_small_work_and_names_what_is_missing(
    controller: InProcess, tmp_path: Path
) -> None:
    ctx = create_job_ctx("fray", controller_address=controller.start())
    large, gone, small = ctx.put(os.urandom(400_000)), ctx.put(os.urandom(400_000)), ctx.run(len, "abc")
    futures = [ctx.run(len, large), ctx.run(len, gone)]
    kept, lost = sorted((tmp_path / "storage").rglob("*.payload"), key=lambda path: path.stat().st_mtime_ns)
    address = controller.start(storage="elsewhere")
    lost.unlink()
    worker = FrayWorker(address, "w", token=TOKEN, num_cpus=1)
    worker.start()
    assert small.result(timeout=WAIT_S) == 3
    assert futures[0].result(timeout=WAIT_S) == 400_000
    with pytest.raises(FrayError, match=lost.name):
        futures[1].result(timeout=WAIT_S)
    assert kept.exists()
    ctx.close()
    worker.stop(0.0)


def test_a_result_that_could_not_be_saved_is_told_again_and_its_task_not_run_again(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        site = make_site(state=str(disk / "state.sqlite"))
        site.start()
        site.add_worker("w", num_cpus=1)
        ctx, work = site.open_ctx(), make_work()
        first = ctx.run(work, site.files, "first", "go")
        site.wait_for("first.runs")
        dependent = ctx.run(lambda value: [value], first)
        eventually(lambda: not site.ask("get_status").trouble and _is_saved(site, dependent.task_id))
        room = ballast(disk)
        site.allow("go")
        assert first.result(timeout=WAIT_S) == "first"
        assert dependent.result(timeout=WAIT_S) == ["first"]
        site.end()
        room.unlink()
        site.start()
        assert ctx.run(len, "abc").result(timeout=WAIT_S) == 3  # behind what would have to run again
        assert site.read("first.runs") == "x"
        site.close()


def _is_saved(site: Site, task: str) -> bool:
    """Whether a task's id stands in the state file or its log."""
    return any(task.encode() in path.read_bytes() for path in Path(site.state).parent.glob("state.sqlite*"))


# --- workers that do not stay


def test_workers_that_do_not_come_back_are_replaced_by_those_that_do(make_site: Callable[..., Site]) -> None:
    site = make_site(limits={"silence_s": 2.0})
    site.start()
    gone, renewed = site.add_process("gone", g=1), site.add_process("renewed", r=1)
    site.add_worker("stays", resources={"s": 1})
    ctx, work = site.open_ctx(), make_work()
    eventually(lambda: site.workers() == ["gone", "renewed", "stays"], WAIT_S)
    placed = {"gone": {"g": 1.0}, "renewed": {"r": 1.0}, "stays": {"s": 1.0}}
    ctx.get([ctx.options(resources=where).run(len, "abc") for where in placed.values()], timeout=WAIT_S)
    futures = {name: ctx.options(resources=where).run(work, site.files, name, "go") for name, where in placed.items()}
    actor = ctx.options(resources={"g": 0.0, "cpu": 0.5}, max_restarts=1).create_actor(make_counter(), site.files, name="a")
    ctx.get(actor.add.remote(), timeout=WAIT_S)
    site.wait_for("gone.runs", "renewed.runs", "stays.runs")
    site.end()
    for process in (gone, renewed):
        _kill(process)
    site.start()
    site.add_process("renewed", 1, r=1)
    queued = ctx.options(resources=LITTLE).run(work, site.files, "queued")
    assert queued.result(timeout=WAIT_S) == "queued"
    assert "gone" not in site.workers()  # only then is anything placed
    eventually(lambda: site.read("renewed.runs") == "xx", WAIT_S)
    assert "its worker restarted" in site.story(futures["renewed"])
    assert "its worker gone was silent" in site.story(futures["gone"])
    site.add_process("another", g=1)
    site.allow("go")
    assert [futures[name].result(timeout=WAIT_S) for name in placed] == list(placed)
    assert [site.read(f"{name}.runs") for name in placed] == ["xx", "xx", "x"]
    assert ctx.get(actor.add.remote(), timeout=WAIT_S) >= 1


# --- at any moment


def _make_numbered() -> Callable[..., int]:
    def run(files: Path, number: int, size: int) -> int:
        with (files / "ledger").open("a") as file:
            file.write(f"{number}\n")
        return number * size

    return run


def _kill_at_random(site: Site, kills: int, seed: int) -> Counter[int]:
    """Submit, read and cancel all the time while the controller is killed; return how often each task ran."""
    rng = random.Random(seed)
    site.start()
    site.add_worker("v"), site.add_worker("w")
    ctx, run = site.open_ctx(), _make_numbered()
    light = ctx.options(resources=LITTLE)
    over, futures = threading.Event(), {}
    actor = light.create_actor(make_counter(), site.files)
    calls: list[Any] = []

    def submit() -> None:
        number = 0
        while not over.wait(0.002):
            for _ in range(rng.randrange(1, 20)):
                before = futures.get(number - 3)
                size = 1 if before is None or rng.random() < 0.9 else light.run(lambda value: value * 0 + 1, before)
                futures[number] = light.run(run, site.files, number, size)
                number += 1
            calls.append(actor.add.remote())

    thread = threading.Thread(target=submit, name="submitter")
    thread.start()
    try:
        for kill in range(kills):
            done = sum(future.done() for future in list(futures.values()))
            target = done + rng.randrange(1, 60)
            eventually(lambda target=target: sum(f.done() for f in list(futures.values())) > target, WAIT_S)  # type: ignore[misc]
            site.end()
            if kill % 3 == 0:  # once more as it has just opened its file
                site.launch()
                eventually(lambda: Path(f"{site.state}-wal").stat().st_size >= 0, interval=0.001)
                site.end()
            site.start()
    finally:
        over.set()
        thread.join()
    assert {number: future.result(timeout=WAIT_S) for number, future in futures.items()} == {n: n for n in futures}
    assert ctx.get(calls, timeout=WAIT_S) == list(range(1, len(calls) + 1))
    return Counter(int(line) for line in site.read("ledger").split())


def _check_runs(runs: Counter[int]) -> None:
    """Nothing runs twice, saved or not: no worker was lost."""
    twice = [number for number, count in runs.items() if count > 1]
    assert not twice, f"{len(twice)} of {len(runs)} ran twice"


def test_a_controller_killed_at_random_moments_under_load_loses_nothing(make_site: Callable[..., Site]) -> None:
    _check_runs(_kill_at_random(make_site(), kills=2, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_controller_killed_again_and_again_under_load_loses_nothing(make_site: Callable[..., Site], seed: int) -> None:
    _check_runs(_kill_at_random(make_site(), kills=10, seed=100 + seed))


@pytest.mark.slow
def test_a_controller_killed_at_every_stage_of_its_start_loses_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.add_worker("w", num_cpus=1)
    ctx, work = site.open_ctx(), make_work()
    futures = [ctx.run(work, site.files, f"t{i}", "go") for i in range(20)]
    site.wait_for("t0.runs")
    site.end()
    for step in range(25):
        site.launch()
        process = site.controller
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05 * step)
        assert process.poll() is None, "it ended by itself"
        site.end()
    site.start()
    site.allow("go")
    assert ctx.get(futures, timeout=WAIT_S) == [f"t{i}" for i in range(20)]
    assert [site.read(f"t{i}.runs") for i in range(20)] == ["x"] * 20


@pytest.mark.slow
def test_an_actor_whose_worker_died_with_the_controller_lives_again_with_its_checkpoint(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(limits={"silence_s": 2.5})
    site.start()
    doomed = site.add_process("doomed", d=1)
    ctx = site.open_ctx()
    options = ctx.options(resources={"cpu": 0.5}, max_restarts=1, checkpoint_every=1)
    kept = options.create_actor(make_counter(), site.files, name="kept")
    mortal = ctx.options(resources={"cpu": 0.5}).create_actor(make_counter(), site.files, name="mortal")
    ctx.get([kept.add.remote(), kept.add.remote(), mortal.add.remote()], timeout=WAIT_S)
    pid = ctx.get(kept.pid.remote(), timeout=WAIT_S)
    site.end()
    _kill(doomed)
    eventually(lambda: not psutil.pid_exists(pid), what="executors end with their worker")
    site.start()
    site.add_worker("stays")
    eventually(lambda: ctx.actor_status(kept).incarnation == 2 and ctx.actor_status(mortal).state == "DEAD", WAIT_S)
    assert ctx.get(kept.add.remote(), timeout=WAIT_S) == 3
    with pytest.raises(ActorDied, match="its worker"):
        ctx.get(mortal.add.remote(), timeout=WAIT_S)


@pytest.mark.slow
def test_a_task_that_is_stopped_slowly_and_sent_again_is_not_taken_as_cancelled(make_site: Callable[..., Site]) -> None:
    """It began under a controller that had not saved it: its worker ends it as unknown, its client sends it again."""
    site = make_site()
    site.start()
    site.add_worker("w", num_cpus=1)
    ctx = site.open_ctx()

    def sleep_in_c(files: Path, name: str) -> str:
        import ctypes

        with (files / f"{name}.runs").open("a") as file:
            file.write("x")
        ctypes.CDLL("libc.so.6").usleep(700_000)
        return name

    ctx.run(len, "abc").result(timeout=WAIT_S)
    for number in range(8):
        future = ctx.run(sleep_in_c, site.files, f"t{number}")
        site.wait_for(f"t{number}.runs")
        site.restart()
        try:
            assert future.result(timeout=WAIT_S) == f"t{number}"
        except TaskCancelled:
            pytest.fail("nobody cancelled it")


def test_a_client_whose_controller_stays_away_gives_up_and_says_for_how_long(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RECONNECT_S", 1.0)
    site = make_site()
    site.start()
    site.add_worker("w")
    ctx = site.open_ctx()
    future = ctx.run(make_work(), site.files, "left", wait_for="never")
    site.wait_for("left.runs")
    site.end()
    with pytest.raises(TaskLost, match="has not answered for 1 s"):
        future.result(timeout=WAIT_S)
    with pytest.raises(FrayError):
        ctx.run(len, "abc").result(timeout=WAIT_S)
