"""The executors of a worker, as processes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.pool import ExecutorPool

pytestmark = pytest.mark.integration


def test_work_for_an_executor_that_has_just_died_is_dropped() -> None:
    """Between its end and the news of it, an executor is still there to be given work."""

    async def run() -> list[str]:
        ready, exits = asyncio.Event(), []

        def on_exit(number: int, reason: str) -> None:
            exits.append(reason)

        pool = ExecutorPool(dict(os.environ), lambda number, frame: ready.set(), on_exit, lambda *_: None)
        pool.spawn(1)
        async with asyncio.timeout(30):
            await ready.wait()
        executor = pool.find(1)
        assert executor is not None
        os.kill(executor.process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await executor.link.closed.wait()
        executor.send((frames.RUN, []))
        await pool.close()
        executor.send((frames.RUN, []))
        return exits

    assert uvloop.run(run()) == ["killed by SIGKILL (out of memory, or killed by somebody)"]
