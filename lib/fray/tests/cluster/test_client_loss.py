"""A client that is lost takes its work with it, after a grace period; one that comes back within it has missed nothing.

No process is left behind by any end of any process. What user code starts in its executor's process group ends with the
executor; a process that has made a session of its own has left the executor, and lives on as its user wanted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from blackhole import Blackhole, Way
from fray import create_job_ctx
from fray.errors import ActorNotFound, ContextClosed, TaskLost
from fray.job.rpc.controller import FrayControllerServer, Limits
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.wire.server import bind
from fray.job.rpc.wire.settings import STREAM_SILENCE_S
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "clients"
DOWN = frozenset({Way.DOWN})


class Cluster:
    """A controller and a worker, and questions to them."""

    def __init__(self, grace_s: float) -> None:
        self._server = FrayControllerServer(token=TOKEN, limits=Limits(session_grace_s=grace_s))
        self._server.start()
        self.address = self._server.address
        self._worker = FrayWorker(self.address, token=TOKEN, num_cpus=2)
        self._worker.start()
        self._controller = ControllerClient(self.address, TOKEN)

    def ask(self, method: str, request: Any = None) -> Any:
        return self._controller.call(method, request or pb.Empty())

    def count(self, what: str) -> int:
        return int(self.ask("get_status").stats.get(what, 0))

    def wait_count(self, what: str, at_least: int) -> None:
        eventually(lambda: self.count(what) >= at_least, what=f"{at_least} {what}")

    def is_idle(self) -> bool:
        status = self.ask("get_status")
        return status.sessions == 0 and not any(status.used.values())

    def stop(self) -> None:
        self._controller.close()
        self._worker.stop(grace=0)
        self._server.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    running = Cluster(grace_s=0.3)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def patient_cluster() -> Iterator[Cluster]:
    running = Cluster(grace_s=1000)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)


@contextlib.contextmanager
def _script(code: str, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run a program that prints one line of JSON when all is as it should be, and then stays; give that line."""
    code = f"import json, os, sys, threading\nimport fray\n{code}\nthreading.Event().wait()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


TASKS = """
from pathlib import Path
folder = Path(sys.argv[2])

def hold(name):
    (folder / f"{name}.begun").touch()
    try:
        threading.Event().wait()
    finally:
        (folder / f"{name}.interrupted").touch()

def wait_for_child():
    child = fray.get_default_job_ctx().run(hold, "child")
    (folder / "parent.begun").touch()
    try:
        child.result()
    finally:
        (folder / "parent.interrupted").touch()

ctx = fray.create_job_ctx("fray", controller_address=sys.argv[1])
shared = ctx.put(bytes(500_000))
tasks = [ctx.run(wait_for_child), ctx.run(hold, "single"), ctx.run(hold, "queued")]
print(json.dumps({"session": ctx.session.store.root, "tasks": [task.task_id for task in tasks]}), flush=True)
"""


def test_work_of_a_client_that_is_killed_is_cancelled_and_so_is_the_work_of_its_tasks(cluster: Cluster, tmp_path: Path) -> None:
    with _script(TASKS, cluster.address, tmp_path) as (client, told):
        for name in ("parent", "child", "single"):
            eventually((tmp_path / f"{name}.begun").exists, what=f"{name} begins")
        assert list(Path(told["session"]).glob("*.payload"))
        expired = cluster.count("sessions expired")
        client.kill()
        for name in ("parent", "child", "single"):
            eventually((tmp_path / f"{name}.interrupted").exists, what=f"{name} is interrupted")
    eventually(cluster.is_idle, what="nothing of it is left at the controller and on the worker")
    assert cluster.count("sessions expired") == expired + 1
    assert not (tmp_path / "queued.begun").exists()
    for task in told["tasks"]:
        explanation = cluster.ask("explain_task", pb.TaskHandle(task_id=task))
        assert explanation.task.status == pb.TaskStatus.CANCELLED
        assert "its client went away" in explanation.story[-1]
    eventually(lambda: not Path(told["session"]).exists(), what="its payloads are deleted")
    with create_job_ctx("fray", controller_address=cluster.address) as other:
        assert other.get([other.run(pow, 2, 3) for _ in range(4)], timeout=30) == [8] * 4


def _make_task() -> Callable[[Path, int, Path], int]:
    def square(folder: Path, i: int, go: Path) -> int:
        eventually(go.exists, timeout=60)
        with (folder / "runs").open("a") as file:
            file.write(f"{i}\n")
        return i * i

    return square


@pytest.mark.parametrize("is_held_up", [False, True], ids=["cut", "held up and cut"])
def test_a_client_whose_connections_are_cut_gets_every_result_once(
    patient_cluster: Cluster, tmp_path: Path, is_held_up: bool
) -> None:
    settled: Counter[int] = Counter()
    with Blackhole(patient_cluster.address) as network, create_job_ctx("fray", controller_address=network.address) as ctx:
        futures = []
        for first in range(0, 120, 40):
            accepted, finished = map(patient_cluster.count, ("tasks accepted", "tasks finished"))
            go = tmp_path / f"{first}.go"
            futures += [ctx.run(_make_task(), tmp_path, i, go) for i in range(first, first + 40)]
            for i in range(first, first + 40):
                futures[i].add_done_callback(lambda _, i=i: settled.update([i]))
            patient_cluster.wait_count("tasks accepted", accepted + 40)
            if is_held_up:
                network.hold(DOWN)
            go.touch()
            patient_cluster.wait_count("tasks finished", finished + (40 if is_held_up else 10))
            assert network.reset() > 0
            network.heal()
        assert ctx.get(futures, timeout=60) == [i * i for i in range(120)]
    assert settled == Counter(range(120))
    assert sorted(map(int, (tmp_path / "runs").read_text().split())) == list(range(120))
    assert patient_cluster.count("sessions expired") == 0


def test_a_client_that_comes_back_too_late_is_told_and_nothing_of_it_hangs(cluster: Cluster) -> None:
    with Blackhole(cluster.address) as network, create_job_ctx("fray", controller_address=network.address) as ctx:
        future = ctx.run(lambda: eventually(lambda: False, timeout=60))
        eventually(lambda: any(cluster.ask("get_status").used.values()))
        expired = cluster.count("sessions expired")
        network.hold()
        network.reset()
        cluster.wait_count("sessions expired", expired + 1)
        network.heal()
        with pytest.raises(TaskLost, match="lost this session"):
            future.result(timeout=30)
        with pytest.raises(ContextClosed):
            ctx.run(len, "abc")
    eventually(cluster.is_idle)


ACTORS = """
def make_class():
    class Adder:
        def __init__(self):
            self.total = 0

        def add(self):
            self.total += 1
            return os.getpid(), self.total

    return Adder

def make_in_task():
    made = fray.get_default_job_ctx().create_actor(make_class(), name="of-a-task", lifetime="detached")
    return made.add.remote().result()

ctx = fray.create_job_ctx("fray", controller_address=sys.argv[1])
kept = ctx.create_actor(make_class(), name="kept", lifetime="detached")
mine = ctx.create_actor(make_class(), name="mine")
print(json.dumps([ctx.get(kept.add.remote())[0], ctx.get(ctx.run(make_in_task))[0], ctx.get(mine.add.remote())[0]]), flush=True)
"""


def test_detached_actors_of_a_client_that_is_killed_live_on_and_are_found_by_name(cluster: Cluster) -> None:
    with _script(ACTORS, cluster.address) as (client, (kept, of_a_task, mine)):
        client.kill()
        eventually(lambda: not psutil.pid_exists(mine), what="the actor that is not detached ends")
    with create_job_ctx("fray", controller_address=cluster.address) as other:
        with pytest.raises(ActorNotFound):
            other.get_actor("mine")
        for name, pid in (("kept", kept), ("of-a-task", of_a_task)):
            actor = other.get_actor(name)
            assert other.get(actor.add.remote(), timeout=30) == (pid, 2)
            other.kill(actor)
    eventually(lambda: not psutil.pid_exists(kept) and not psutil.pid_exists(of_a_task), what="killed ones end")


LOCAL = """
ctx = fray.create_job_ctx("fray", controller_address="local[3]")
"""
WORKERS = """
from fray.job.rpc.local import LocalCluster
cluster = LocalCluster(workers=1, num_cpus=3)
cluster.start()
os.environ["FRAY_TOKEN"] = cluster.token
ctx = fray.create_job_ctx("fray", controller_address=cluster.address)
"""
ORPHANS = """
import ctypes, subprocess
from pathlib import Path
folder = Path(sys.argv[1])

def tell(name, *pids):
    (folder / f"{name}.draft").write_text(json.dumps([os.getpid(), *pids]))
    (folder / f"{name}.draft").rename(folder / name)

def start_child():
    child = subprocess.Popen(["sleep", "1000"])
    tell("child", child.pid)
    child.wait()

def leave_child():
    subprocess.run("sleep 1000 & echo $!", shell=True, stdout=(folder / "left.draft").open("w"))
    (folder / "left.draft").rename(folder / "left")
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    tell("away", child.pid)
    threading.Event().wait()

def hold_the_interpreter():
    tell("stuck")
    ctypes.PyDLL(None).sleep(1000)

tasks = [ctx.run(task) for task in (start_child, leave_child, hold_the_interpreter)]
print("null", flush=True)
"""


@pytest.mark.parametrize(
    ("start", "victim"),
    [(LOCAL, "client"), pytest.param(WORKERS, "client", marks=pytest.mark.slow), (WORKERS, "worker")],
    ids=["client of its own cluster", "parent of a cluster", "worker"],
)
def test_no_process_outlives_a_kill(start: str, victim: str, tmp_path: Path) -> None:
    with _script(start + ORPHANS, tmp_path) as (client, _):
        for name in ("child", "left", "away", "stuck"):
            eventually((tmp_path / name).exists, what=f"{name} is there")
        _, away = json.loads((tmp_path / "away").read_text())
        started = [int((tmp_path / "left").read_text()), *json.loads((tmp_path / "child").read_text())]
        killed = psutil.Process(client.pid)
        if victim == "worker":
            (killed,) = [process for process in killed.children() if _is_worker(process)]
        ends = [*killed.children(recursive=True), *map(psutil.Process, started)]
        killed.kill()
        eventually(lambda: not [process for process in ends if _is_alive(process) and process.pid != away], what="all end")
    assert _is_alive(psutil.Process(away))  # it has a session of its own: it is its user's
    os.kill(away, signal.SIGKILL)


def _is_worker(process: psutil.Process) -> bool:
    return any("template" in " ".join(child.cmdline()) for child in process.children())


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_peer_that_lost_its_power_is_noticed_by_the_servers_connections() -> None:
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == STREAM_SILENCE_S * 1000
