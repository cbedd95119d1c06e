"""Fray: a local controller and a worker with two executor slots; or, with the argument ``threadpool``, two threads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from protocol import Engine, serve


def noop() -> None:
    """Do nothing."""
    return


def square(x: int) -> int:
    """Return the square."""
    return x * x


def sleep_for(item: int, sleep_s: float) -> int:
    """Sleep and return the item."""
    import time

    time.sleep(sleep_s)
    return item


class Counter:
    """The actor: counts its calls."""

    def __init__(self) -> None:
        self._calls = 0

    def add(self) -> int:
        """Return how often this was called."""
        self._calls += 1
        return self._calls


class FrayEngine(Engine):
    """Fray through its public names only."""

    packages = ("fray", "connectrpc", "protobuf-py", "pyqwest", "uvicorn", "uvloop", "cloudpickle")
    noop, square, sleep_for = staticmethod(noop), staticmethod(square), staticmethod(sleep_for)

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def start(self) -> None:
        from fray import create_job_ctx

        if self._kind == "threadpool":
            self._ctx = create_job_ctx("threadpool", max_workers=2)
        else:
            self._ctx = create_job_ctx("fray", controller_address="local[2]")

    def submit(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        run = self._ctx.run
        return [run(fn, *call) for call in calls]

    def gather(self, futures: list[Any]) -> list[Any]:
        results: list[Any] = self._ctx.get(futures)
        return results

    def call(self, fn: Callable[..., Any]) -> Any:
        return self._ctx.get(self._ctx.run(fn))

    def create_actor(self) -> Any:
        return self._ctx.create_actor(Counter)

    def begin_call(self, actor: Any) -> Any:
        return actor.add.remote()

    def call_actor(self, actor: Any) -> Any:
        return actor.add.remote().result()

    def stop(self) -> None:
        self._ctx.close()


if __name__ == "__main__":
    serve(FrayEngine(sys.argv[1] if len(sys.argv) > 1 else "fray"))
