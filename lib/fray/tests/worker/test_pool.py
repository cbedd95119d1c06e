"""The executors of a worker, as processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import uvloop
from fray import JobContext, create_job_ctx
from fray.errors import TaskCrashed
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.pool import ExecutorPool
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "a-token-that-is-long-enough"
KILLED = "killed by SIGKILL (out of memory, or killed by somebody)"

WORKER = """
import asyncio, os
from fray.job.rpc.worker.pool import ExecutorPool

async def main():
    pool = ExecutorPool(dict(os.environ), lambda number, frame: print(frame[1], flush=True), print, print)
    pool.spawn(1)
    pool.spawn(2)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Watched:
    """A pool whose news are kept."""

    def __init__(self, **environment: str) -> None:
        env = {**os.environ, "FRAY_TOKEN": TOKEN, **environment}
        self.pool = ExecutorPool(env, self._on_frame, self._on_exit, lambda *_: None)
        self.pids: dict[int, int] = {}
        self.exits: dict[int, str] = {}
        self._news = asyncio.Event()

    def _on_frame(self, number: int, frame: frames.Frame) -> None:
        kind, self.pids[number] = frame
        assert kind == frames.READY
        self._news.set()

    def _on_exit(self, number: int, why: str) -> None:
        self.exits[number] = why
        self._news.set()

    async def spawn(self, number: int) -> int:
        """Start an executor and return its pid."""
        self.pool.spawn(number)
        await self._until(lambda: number in self.pids)
        return self.pids[number]

    async def exit(self, number: int) -> str:
        """Wait for an executor's end and return how it ended."""
        await self._until(lambda: number in self.exits)
        return self.exits[number]

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()


def with_pool(scenario: Callable[[Watched], Awaitable[None]], **environment: str) -> None:
    """Run a scenario on the loop that workers run on, then end the pool."""

    async def run() -> None:
        watched = Watched(**environment)
        try:
            await scenario(watched)
        finally:
            await watched.pool.close()

    uvloop.run(run())


def template_of(pid: int) -> psutil.Process:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    assert parent.pid != os.getpid()
    return parent


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_an_executor_says_that_it_is_ready_and_how_it_was_killed() -> None:
    async def scenario(watched: Watched) -> None:
        pid = await watched.spawn(1)
        os.kill(pid, signal.SIGSEGV)
        reason = await watched.exit(1)
        assert reason.startswith("killed by SIGSEGV; last lines of its stderr:\nFatal Python error: Segmentation fault")
        assert watched.pool.find(1) is None

    with_pool(scenario)


def test_an_executor_that_cannot_begin_tells_its_exit_code_and_why() -> None:
    async def scenario(watched: Watched) -> None:
        watched.pool.spawn(1)
        reason = await watched.exit(1)
        assert reason.startswith("exit code 1; last lines of its stderr:\n")
        assert "ConfigurationError" in reason

    with_pool(scenario, FRAY_TOKEN="spaces are refused")


def test_a_template_that_cannot_start_fails_each_executor_with_its_last_words() -> None:
    async def scenario(watched: Watched) -> None:
        watched.pool.spawn(1)
        watched.pool.spawn(2)
        for number in (1, 2):
            reason = await watched.exit(number)
            assert reason.startswith("it could not be started: the template of executors ended: exit code 1; last lines")
            assert "Fatal Python error" in reason

    with_pool(scenario, PYTHONHOME="/nowhere")


def test_an_executor_that_is_killed_before_it_has_started_ends() -> None:
    async def scenario(watched: Watched) -> None:
        watched.pool.spawn(1)
        watched.pool.kill(1)
        assert await watched.exit(1) == KILLED

    with_pool(scenario)


def test_work_for_an_executor_that_has_just_died_is_dropped() -> None:
    """Between its end and the news of it, an executor is still there to be given work."""

    async def scenario(watched: Watched) -> None:
        pid = await watched.spawn(1)
        executor = watched.pool.find(1)
        assert executor is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await executor.link.closed.wait()
        executor.send((frames.RUN, []))
        await watched.pool.close()
        executor.send((frames.RUN, []))
        executor.kill()
        assert watched.exits == {1: KILLED}

    with_pool(scenario)


def test_executors_survive_their_template_their_ends_are_noticed_and_new_ones_start() -> None:
    async def scenario(watched: Watched) -> None:
        old = [await watched.spawn(1), await watched.spawn(2)]
        first = template_of(old[0])
        first.kill()
        new = await watched.spawn(3)
        assert template_of(new).pid != first.pid
        assert not any(is_gone(pid) for pid in old)
        assert not watched.exits
        watched.pool.kill(1)
        assert (await watched.exit(1)).startswith("exit code unknown")
        watched.pool.kill(3)
        assert await watched.exit(3) == KILLED
        await watched.pool.close()
        assert is_gone(old[1])

    with_pool(scenario)


def test_a_closed_pool_has_ended_its_processes_also_those_that_were_starting() -> None:
    async def scenario(watched: Watched) -> None:
        pid = await watched.spawn(1)
        template = template_of(pid)
        for number in range(2, 8):
            watched.pool.spawn(number)
        await watched.pool.close()
        watched.pool.spawn(8)
        assert is_gone(pid)
        assert not template.is_running()
        assert not children() - others

    others = children()
    with_pool(scenario)


def test_a_pool_that_is_closed_while_its_template_starts_leaves_nothing() -> None:
    async def scenario(watched: Watched) -> None:
        watched.pool.spawn(1)
        await asyncio.sleep(0)
        assert children() - others
        await watched.pool.close()
        assert not children() - others

    others = children()
    with_pool(scenario)


def test_executors_end_with_their_worker_even_if_they_are_stuck() -> None:
    env = {**os.environ, "FRAY_TOKEN": TOKEN}
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True, env=env) as worker:
        try:
            assert worker.stdout is not None
            pids = [int(worker.stdout.readline()) for _ in range(2)]
            pids.append(template_of(pids[0]).pid)
            psutil.Process(pids[0]).suspend()
        finally:
            worker.kill()
    eventually(lambda: all(is_gone(pid) for pid in pids))


def test_a_template_ignores_what_asks_its_worker_to_leave() -> None:
    async def scenario(watched: Watched) -> None:
        template = template_of(await watched.spawn(1))
        for signum in (signal.SIGINT, signal.SIGTERM):
            template.send_signal(signum)
        assert template_of(await watched.spawn(2)) == template

    with_pool(scenario)


def test_executors_that_come_and_go_leave_no_open_files() -> None:
    async def scenario(watched: Watched) -> None:
        template = template_of(await watched.spawn(0))
        before = psutil.Process().num_fds(), template.num_fds()
        for number in range(1, 31):
            await watched.spawn(number)
            watched.pool.kill(number)
            await watched.exit(number)
        assert (psutil.Process().num_fds(), template.num_fds()) == before

    with_pool(scenario)


def test_an_executor_holds_no_files_but_its_own() -> None:
    async def scenario(watched: Watched) -> None:
        pids = [await watched.spawn(number) for number in range(5)]
        assert [psutil.Process(pid).num_fds() for pid in pids] == [5] * 5  # three streams, two sockets
        assert template_of(pids[0]).num_threads() == 1

    with_pool(scenario)


@pytest.fixture(scope="module")
def ctx() -> Iterator[JobContext]:
    with create_job_ctx("fray", controller_address="local[2]") as opened:
        yield opened


def test_two_executors_share_no_chance(ctx: JobContext, tmp_path: Path) -> None:
    def draw(name: str, other: str) -> tuple[int, float]:
        (tmp_path / name).touch()
        eventually((tmp_path / other).exists)  # it runs at the same time: on another executor
        return os.getpid(), random.random()

    (pid_a, a), (pid_b, b) = ctx.get([ctx.run(draw, "a", "b"), ctx.run(draw, "b", "a")], timeout=30)
    assert pid_a != pid_b
    assert a != b


def test_an_executor_has_no_network_runtime_until_it_needs_one(ctx: JobContext) -> None:
    def find() -> list[str]:
        return [name for name in ("pyqwest", "connectrpc", "uvicorn", "numpy") if name in sys.modules]

    assert ctx.get(ctx.run(find), timeout=30) == []


def test_what_a_task_has_left_behind_ends_with_its_executor(ctx: JobContext, tmp_path: Path) -> None:
    def leave_and_die() -> None:
        (tmp_path / "pid").write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
        os._exit(5)

    with pytest.raises(TaskCrashed, match="exit code 5"):
        ctx.get(ctx.run(leave_and_die), timeout=30)
    left = int((tmp_path / "pid").read_text())
    eventually(lambda: is_gone(left))
