"""What goes wrong on a real cluster comes back as a clear error, and the worker lives on."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fray import JobContext, create_job_ctx
from fray.errors import DecodeError, TaskCrashed, TaskTimeout
from fray.job.rpc.local import LocalCluster
from fray.testing import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=1, num_cpus=2, limits={"max_kills": 1}) as running:
        yield running


@pytest.fixture
def ctx(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobContext]:
    monkeypatch.setenv("FRAY_TOKEN", cluster.token)
    with create_job_ctx("fray", controller_address=cluster.address) as opened:
        yield opened


def _segfault() -> None:
    ctypes.string_at(0)


def _exit_hard() -> None:
    os.write(2, b"last words\n")
    os._exit(7)


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fn", "words"),
    [(_segfault, "SIGSEGV"), (_exit_hard, "exit code 7"), (_exit_hard, "last words"), (_kill_self, "SIGKILL")],
    ids=["segfault", "exit", "stderr", "kill"],
)
def test_a_task_that_ends_its_process_is_named_and_the_worker_lives_on(ctx: JobContext, fn: Any, words: str) -> None:
    with pytest.raises(TaskCrashed, match=words):
        ctx.get(ctx.run(fn), timeout=30)
    assert ctx.get(ctx.run(len, "abc"), timeout=30) == 3


def test_a_task_that_crashes_takes_no_neighbour_with_it(ctx: JobContext) -> None:
    def maybe(i: int) -> int:
        if i == 150:
            os._exit(1)
        return i

    ctx.get([ctx.run(maybe, i) for i in range(100)])  # measured as short: what follows is given ahead in batches
    futures = [ctx.run(maybe, i) for i in range(100, 300)]
    values = [future.result(timeout=60) for i, future in enumerate(futures) if i != 50]
    assert values == [i for i in range(100, 300) if i != 150]
    with pytest.raises(TaskCrashed):
        futures[50].result(timeout=60)


def test_a_task_is_tried_on_other_executors_before_its_crashes_count_as_its_own(tmp_path: Path) -> None:
    def crash(path: Path) -> None:
        with path.open("a") as file:
            file.write("x")
        os._exit(3)

    with create_job_ctx("fray", controller_address="local[1]") as own:
        with pytest.raises(TaskCrashed, match=r"3 of 3.*exit code 3") as caught:
            own.get(own.run(crash, tmp_path / "tries"), timeout=60)
        assert (tmp_path / "tries").read_text() == "xxx"
        assert "What happened" in "".join(caught.value.__notes__)


def test_a_task_in_c_code_that_ignores_interrupts_still_times_out(ctx: JobContext) -> None:
    libc = "libc.so.6"

    def sleep_in_c() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            ctypes.CDLL(libc).sleep(60)

    with pytest.raises(TaskTimeout):
        ctx.get(ctx.options(timeout=0.3).run(sleep_in_c), timeout=30)
    assert ctx.get(ctx.run(len, "abc"), timeout=30) == 3


def test_a_result_that_does_not_unpickle_here_says_so(ctx: JobContext) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return _refuse, ()

    with pytest.raises(DecodeError, match="not here"):
        ctx.get(ctx.run(lambda: Bad()), timeout=30)
    assert ctx.get(ctx.run(len, "abc"), timeout=30) == 3


def _refuse() -> None:
    raise ValueError("not here")


def test_output_of_tasks_is_shown_here_unless_switched_off(
    ctx: JobContext, cluster: LocalCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    def talk(text: str) -> None:
        print(f"out {text}")
        print(f"err {text}", file=sys.stderr)
        os.write(1, f"raw {text}\n".encode())

    shown: dict[str, str] = {"out": "", "err": ""}

    def seen(stream: str, text: str) -> bool:
        captured = capfd.readouterr()
        shown["out"] += captured.out
        shown["err"] += captured.err
        return text in shown[stream]

    ctx.get(ctx.run(talk, "loud"), timeout=30)
    eventually(lambda: seen("out", "out loud"))
    eventually(lambda: seen("err", "err loud"))
    eventually(lambda: seen("out", "raw loud"))
    with create_job_ctx("fray", controller_address=cluster.address, log_to_driver=False) as quiet:
        quiet.get(quiet.run(talk, "quiet"), timeout=30)
    ctx.get(ctx.run(talk, "again"), timeout=30)
    eventually(lambda: seen("out", "out again"))
    assert "quiet" not in shown["out"] + shown["err"]


def test_large_arrays_arrive_mapped_not_copied_and_their_files_end_with_the_session(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAY_TOKEN", cluster.token)
    with create_job_ctx("fray", controller_address=cluster.address) as own:
        array = np.arange(1_000_000, dtype=np.float64)
        shared = own.put(array)

        def inspect(values: Any) -> tuple[float, bool, bool]:
            with Path("/proc/self/maps").open() as maps:
                mapped = any(".payload" in line for line in maps)
            return float(values.sum()), bool(values.flags.owndata), mapped

        assert own.get(own.run(inspect, shared), timeout=30) == (array.sum(), False, True)
        doubled = own.get(own.run(lambda values: values * 2, shared), timeout=30)
        assert not doubled.flags.owndata
        assert (doubled == array * 2).all()
        folder = Path(own._session.store.root)  # type: ignore[attr-defined]
        assert list(folder.glob("*.payload"))
    eventually(lambda: not folder.exists())


def test_a_dead_worker_s_tasks_run_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def where(path: Path, go: Path) -> int:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        eventually(go.exists, timeout=60)
        return os.getpid()

    with LocalCluster(workers=1, num_cpus=1) as running:
        monkeypatch.setenv("FRAY_TOKEN", running.token)
        with create_job_ctx("fray", controller_address=running.address) as own:
            future = own.run(where, tmp_path / "pids", tmp_path / "go")
            eventually((tmp_path / "pids").exists)
            first = int((tmp_path / "pids").read_text())
            doomed = running.workers[0]
            os.kill(doomed.process.pid, signal.SIGKILL)
            running.add_worker()
            eventually(lambda: len((tmp_path / "pids").read_text().split()) == 2)
            (tmp_path / "go").touch()
            assert future.result(timeout=30) != first
            eventually(lambda: not Path(f"/proc/{first}").exists(), what="children die with their parent")
            doomed.stop()


def test_what_a_task_has_started_ends_with_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_and_wait(path: Path) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        path.with_suffix(".draft").write_text(str(child.pid))
        path.with_suffix(".draft").rename(path)
        child.wait()

    with LocalCluster(workers=1, num_cpus=1) as running:
        monkeypatch.setenv("FRAY_TOKEN", running.token)
        with create_job_ctx("fray", controller_address=running.address) as own:
            own.run(start_and_wait, tmp_path / "pid")
            eventually((tmp_path / "pid").exists)
            child = int((tmp_path / "pid").read_text())
            os.kill(running.workers[0].process.pid, signal.SIGKILL)
            eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_demand_no_worker_can_meet_is_told_and_met_when_one_comes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with LocalCluster(workers=1, num_cpus=1) as running:
        monkeypatch.setenv("FRAY_TOKEN", running.token)
        with create_job_ctx("fray", controller_address=running.address) as own:
            future = own.options(resources={"gpu": 1}).run(len, "abc")
            told = ""

            def notice() -> bool:
                nonlocal told
                told += capfd.readouterr().err
                return "gpu" in told and "no worker has" in told

            eventually(notice)
            running.add_worker(resources={"gpu": 1})
            assert future.result(timeout=30) == 3
