"""A worker that is lost in any way loses its place, never a result: its task runs elsewhere, once more, and tells why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from blackhole import BOTH, Blackhole, Way
from fray import JobContext, create_job_ctx
from fray.errors import TaskCrashed
from fray.job.rpc.controller import FrayControllerServer, Limits
from fray.job.rpc.local import Child, LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "losses"
UP, DOWN = frozenset({Way.UP}), frozenset({Way.DOWN})


def _make_task() -> Callable[[Path], str]:
    def attempt(folder: Path) -> str:
        number = len(list(folder.glob("*.begun"))) + 1
        (folder / "draft").write_text(str(os.getpid()))
        (folder / "draft").rename(folder / f"{number}.begun")
        eventually((folder / f"{number}.go").exists, timeout=60)
        (folder / f"{number}.over").touch()
        return f"attempt {number}"

    return attempt


class Scene:
    """A controller, a client, and the attempts of one task, each of which goes on when it is told to."""

    def __init__(self, server: FrayControllerServer, ctx: JobContext, folder: Path) -> None:
        self.address = server.address
        self.ctx, self.folder = ctx, folder
        self.future: Any = None
        self._controller = ControllerClient(server.address, TOKEN)
        self._stack = contextlib.ExitStack()

    def submit(self, **options: Any) -> None:
        self.future = self.ctx.options(**options).run(_make_task(), self.folder)

    def wait_begun(self, number: int) -> int:
        """Return the process of an attempt."""
        eventually((self.folder / f"{number}.begun").exists, what=f"attempt {number} begins")
        return int((self.folder / f"{number}.begun").read_text())

    def let_go_on(self, number: int) -> None:
        (self.folder / f"{number}.go").touch()

    def wait_over(self, number: int) -> None:
        eventually((self.folder / f"{number}.over").exists, what=f"attempt {number} ends")

    def start_worker(self, name: str, address: str = "", num_cpus: int = 1) -> FrayWorker:
        """Start a worker whose agent is a thread here and whose executors are processes."""
        worker = FrayWorker(address or self.address, name, token=TOKEN, num_cpus=num_cpus, direct_calls=False)
        worker.start()
        self._stack.callback(worker.stop, 0.0)
        return worker

    def start_process(self, name: str, address: str = "") -> Child:
        """Start a worker that is a process."""
        worker = {"worker_id": name, "num_cpus": 1, "direct_calls": False}
        child = Child({"token": TOKEN, "controller_address": address or self.address, "workers": [worker]})
        self._stack.callback(child.stop)
        child.wait_ready()
        return child

    def open_network(self) -> Blackhole:
        return self._stack.enter_context(Blackhole(self.address))

    def ask(self, method: str, request: Any = None) -> Any:
        return self._controller.call(method, request or pb.Empty())

    def story(self) -> str:
        return "\n".join(self.ask("explain_task", pb.TaskHandle(task_id=self.future.task_id)).story)

    def count(self, what: str) -> int:
        return int(self.ask("get_status").stats.get(what, 0))

    def workers(self) -> list[str]:
        return [worker.worker_id for worker in self.ask("list_workers").workers]

    def finish_on_second(self, because: str) -> None:
        """See the second attempt through on a worker of its own: one result, the right one, and a story that says why."""
        self.wait_begun(2)
        self.let_go_on(2)
        assert self.future.result(timeout=30) == "attempt 2"
        story = self.story()
        assert because in story
        assert story.index("assigned to first") < story.index(because) < story.index("assigned to second")
        assert len(list(self.folder.glob("*.begun"))) == 2
        eventually(lambda: set(self.ask("get_status").used.values()) <= {0.0}, what="what it took is free")

    def close(self) -> None:
        self._stack.close()
        eventually(lambda: not self.workers(), what="all workers are given up")
        self._controller.close()


def _serve(**limits: float) -> FrayControllerServer:
    server = FrayControllerServer(token=TOKEN, limits=Limits(**limits))  # type: ignore[arg-type]
    server.start()
    return server


@pytest.fixture(scope="module")
def server() -> Iterator[FrayControllerServer]:
    server = _serve(silence_s=1.0, reattach_grace_s=0.2)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def patient_server() -> Iterator[FrayControllerServer]:
    server = _serve(silence_s=1000, reattach_grace_s=0.2, max_kills=1)
    yield server
    server.stop()


@contextlib.contextmanager
def _scene(server: FrayControllerServer, folder: Path) -> Iterator[Scene]:
    with create_job_ctx("fray", controller_address=server.address) as ctx:
        scene = Scene(server, ctx, folder)
        try:
            yield scene
        finally:
            scene.close()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)


@pytest.fixture
def scene(server: FrayControllerServer, tmp_path: Path) -> Iterator[Scene]:
    with _scene(server, tmp_path) as scene:
        yield scene


def _kill_all(child: Child) -> None:
    """End a worker with all its processes, as a machine ends whose power fails."""
    processes = [psutil.Process(child.process.pid)]
    processes += processes[0].children(recursive=True)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.process.wait()


def test_a_worker_that_is_killed_is_noticed_by_its_connection_alone(
    patient_server: FrayControllerServer, tmp_path: Path
) -> None:
    with _scene(patient_server, tmp_path) as scene:
        first = scene.start_process("first")
        scene.submit()
        pid = scene.wait_begun(1)
        first.process.kill()
        eventually(lambda: scene.workers() == [], what="the worker is given up, though silence would be borne for long")
        assert "no worker is connected" in scene.ask("explain_task", pb.TaskHandle(task_id=scene.future.task_id)).task.reason
        scene.start_worker("second")
        scene.finish_on_second("the connection to its worker first broke (1 of 10 losses)")
        eventually(lambda: not psutil.pid_exists(pid))


def test_a_worker_whose_power_fails_is_given_up_after_as_much_silence_as_was_set(
    server: FrayControllerServer, patient_server: FrayControllerServer, tmp_path: Path
) -> None:
    folders = [tmp_path / "patient", tmp_path / "quick"]
    for folder in folders:
        folder.mkdir()
    with _scene(server, folders[1]) as quick, _scene(patient_server, folders[0]) as patient:
        network = patient.open_network()
        patient.start_worker("first", network.address)
        patient.submit()
        patient.wait_begun(1)
        network.swallow()
        network = quick.open_network()
        first = quick.start_process("first", network.address)
        quick.submit()
        quick.wait_begun(1)
        network.swallow()
        _kill_all(first)  # nobody hears of it: its connections stay open at the other end
        quick.start_worker("second")
        quick.finish_on_second("its worker first was silent for")
        assert patient.workers() == ["first"]  # which has been silent for longer
        assert "assigned to first" in patient.story().splitlines()[-1]


@pytest.mark.parametrize("ways", [UP, DOWN, pytest.param(BOTH, marks=pytest.mark.slow)], ids=["up", "down", "both"])
def test_a_worker_that_is_cut_off_is_replaced_and_its_late_result_refused(scene: Scene, ways: frozenset[Way]) -> None:
    network = scene.open_network()
    scene.start_worker("first", network.address)
    scene.submit()
    scene.wait_begun(1)
    refused = scene.count("stale reports refused")
    network.hold(ways)
    scene.start_worker("second")
    scene.wait_begun(2)
    scene.let_go_on(1)
    scene.wait_over(1)
    network.heal()
    eventually(lambda: scene.count("stale reports refused") > refused, what="the late result is refused")
    scene.finish_on_second("its worker first was silent for")
    eventually(lambda: sorted(scene.workers()) == ["first", "second"], what="the one that was cut off works again")


def test_a_worker_that_is_frozen_is_replaced_and_its_late_result_refused(scene: Scene) -> None:
    first = scene.start_process("first")
    scene.submit()
    scene.wait_begun(1)
    refused = scene.count("stale reports refused")
    first.process.send_signal(signal.SIGSTOP)
    scene.start_worker("second")
    scene.wait_begun(2)
    scene.let_go_on(1)
    scene.wait_over(1)
    first.process.send_signal(signal.SIGCONT)
    eventually(lambda: scene.count("stale reports refused") > refused, what="the late result is refused")
    assert json.loads(_fray("status", "--json", address=scene.address))["stats"]["stale reports refused"] > refused
    scene.finish_on_second("its worker first was silent for")
    eventually(lambda: sorted(scene.workers()) == ["first", "second"], what="the one that was frozen works again")


def test_an_executor_that_is_killed_for_want_of_memory_is_named_and_its_task_runs_again(scene: Scene) -> None:
    scene.start_worker("first")
    scene.submit()
    pid = scene.wait_begun(1)
    scores = [int(Path(f"/proc/{process}/oom_score_adj").read_text()) for process in (pid, "self")]
    assert scores[0] > scores[1]  # it goes before others
    os.kill(pid, signal.SIGKILL)  # as the kernel does
    scene.wait_begun(2)
    scene.let_go_on(2)
    assert scene.future.result(timeout=30) == "attempt 2"
    told = json.loads(_fray("why", scene.future.task_id, "--json", address=scene.address))["story"]
    assert "its executor died (1 of 3): killed by SIGKILL (out of memory, or killed by somebody)" in "".join(told)
    eventually(lambda: not psutil.pid_exists(pid))


def test_a_task_that_takes_more_memory_than_it_asked_for_is_stopped_and_told_so(
    patient_server: FrayControllerServer, tmp_path: Path
) -> None:
    def take(size: int, go: Path) -> int:
        held = bytearray(b"x") * size
        eventually(go.exists, timeout=60)
        return len(held)

    with _scene(patient_server, tmp_path) as scene:
        scene.start_worker("first", num_cpus=2)
        limited = scene.ctx.options(resources={"cpu": 1, "memory": 60e6})
        within, scene.future = limited.run(take, 10_000_000, tmp_path / "go"), limited.run(take, 150_000_000, tmp_path / "go")
        with pytest.raises(TaskCrashed, match=r"used \d+\.\d MB, its memory limit is 60\.0 MB .*; ask for more or use less"):
            scene.future.result(timeout=30)
        assert "its executor died (1 of 1): used" in scene.story()
        (tmp_path / "go").touch()
        assert within.result(timeout=30) == 10_000_000
        assert scene.ctx.run(take, 150_000_000, tmp_path / "go").result(timeout=30) == 150_000_000  # it has asked for nothing


def _fray(*arguments: str, address: str) -> str:
    command = [sys.executable, "-m", "fray", *arguments, "--controller", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs a small file system: {made.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_disk_that_is_full_is_named_and_the_work_goes_on_when_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700_000))
    server = FrayControllerServer(token=TOKEN, storage=str(small_disk), limits=Limits(reattach_grace_s=0.2))
    server.start()
    with create_job_ctx("fray", controller_address=server.address) as ctx:
        scene = Scene(server, ctx, tmp_path)
        scene.start_worker("first")
        with pytest.raises(OSError, match="No space left on device") as of_argument:
            ctx.run(len, bytes(500_000))
        assert str(small_disk) in "".join(of_argument.value.__notes__)
        with pytest.raises(OSError, match="No space left on device") as of_result:
            ctx.get(ctx.run(bytes, 500_000), timeout=30)
        assert str(small_disk) in "".join(of_result.value.__notes__)
        assert ctx.get(ctx.run(len, bytes(1000)), timeout=30) == 1000  # what is small needs no disk
        scene.future = ctx.options(max_retries=-1, retry_delay_s=0.05).run(bytes, 500_000)
        eventually(lambda: "attempt 2 failed" in scene.story())
        assert "No space left on device" in scene.story()
        ballast.unlink()
        assert scene.future.result(timeout=30) == bytes(500_000)
        assert len(list(small_disk.rglob("*.payload"))) == 1
        assert not list(small_disk.rglob("*.draft"))
        scene.close()
    server.stop()
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_a_controller_that_did_not_run_for_a_while_gives_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(workers=1, num_cpus=1, limits={"silence_s": 1.0}) as cluster:
        monkeypatch.setenv("FRAY_TOKEN", cluster.token)
        assert cluster.controller is not None
        pid = cluster.controller.process.pid
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            future = ctx.run(_make_task(), tmp_path)
            eventually((tmp_path / "1.begun").exists)
            os.kill(pid, signal.SIGSTOP)
            woken_at = time.monotonic() + 2.5
            eventually(lambda: time.monotonic() > woken_at)
            os.kill(pid, signal.SIGCONT)
            (tmp_path / "1.go").touch()
            assert future.result(timeout=30) == "attempt 1"
            client = ControllerClient(cluster.address, cluster.token)
            assert client.call("get_status", pb.Empty()).stats.get("workers lost", 0) == 0
            client.close()
