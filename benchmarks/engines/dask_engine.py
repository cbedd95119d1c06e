"""Dask: a local cluster of two worker processes with one thread each, without dashboard.

Many tasks go through ``Client.map``, Dask's own way to submit many; ``pure=False`` keeps it from running equal calls once.
Actors share the two workers; calls to one that were begun at once are carried out in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import Engine, serve


def noop(_item: int = 0) -> None:
    """Do nothing; the item is there because ``Client.map`` needs one."""
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


class DaskEngine(Engine):
    """Dask's distributed client."""

    packages = ("dask", "distributed")
    noop, square, sleep_for = staticmethod(noop), staticmethod(square), staticmethod(sleep_for)
    keeps_order = False  # its calls go over several connections at once

    def start(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
        self._client = Client(self._cluster)

    def submit(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        columns = list(zip(*calls, strict=True)) or [range(len(calls))]
        futures: list[Any] = self._client.map(fn, *columns, pure=False)
        return futures

    def gather(self, futures: list[Any]) -> list[Any]:
        results: list[Any] = self._client.gather(futures)
        return results

    def call(self, fn: Callable[..., Any]) -> Any:
        return self._client.submit(fn, pure=False).result()

    def create_actor(self) -> Any:
        return self._client.submit(Counter, actor=True, pure=False).result()

    def begin_call(self, actor: Any) -> Any:
        return actor.add()

    def gather_calls(self, futures: list[Any]) -> list[Any]:
        return [future.result() for future in futures]

    def call_actor(self, actor: Any) -> Any:
        return actor.add().result()

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()


if __name__ == "__main__":
    serve(DaskEngine())
