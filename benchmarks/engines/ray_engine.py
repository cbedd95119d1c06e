"""Ray: one local node with two CPUs, without dashboard, telemetry and forwarded logs."""

from __future__ import annotations

import os
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


class RayEngine(Engine):
    """Ray's core API."""

    packages = ("ray",)
    noop, square, sleep_for = staticmethod(noop), staticmethod(square), staticmethod(sleep_for)

    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._ray = ray
        self._remote = {fn: ray.remote(fn) for fn in (noop, square, sleep_for)}
        self._counter = ray.remote(Counter)

    def submit(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        start = self._remote[fn].remote
        return [start(*call) for call in calls]

    def gather(self, futures: list[Any]) -> list[Any]:
        results: list[Any] = self._ray.get(futures)
        return results

    def call(self, fn: Callable[..., Any]) -> Any:
        return self._ray.get(self._remote[fn].remote())

    def create_actor(self) -> Any:
        return self._counter.remote()

    def begin_call(self, actor: Any) -> Any:
        return actor.add.remote()

    def call_actor(self, actor: Any) -> Any:
        return self._ray.get(actor.add.remote())

    def stop(self) -> None:
        self._ray.shutdown()


if __name__ == "__main__":
    serve(RayEngine())
