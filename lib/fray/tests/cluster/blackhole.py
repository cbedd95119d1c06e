"""A network before a controller that tests which block can cut: ``chaos.proxy`` on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from chaos.proxy import BOTH, Cut, Proxy, Way

__all__ = ["BOTH", "Blackhole", "Way"]

T = TypeVar("T")


class Blackhole:
    """Passes connections on to a server of this machine until it is told not to. Its methods block until it is done."""

    def __init__(self, address: str) -> None:
        """Stand before the server with this URL."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="blackhole")
        self._proxy = Proxy(int(address.rpartition(":")[2]))

    @property
    def address(self) -> str:
        """The URL that stands for the server's."""
        return self._proxy.address

    @property
    def swallowed_bytes(self) -> int:
        """How much was lost so far."""
        return self._proxy.swallowed_bytes

    def swallow(self, ways: frozenset[Way] = BOTH) -> None:
        """Lose what is said from now on; neither side is told, and connections that said something are lost for good."""
        self._do(lambda: self._proxy.cut(Cut.SWALLOW, ways))

    def hold(self, ways: frozenset[Way] = BOTH) -> None:
        """Keep back what is said until ``heal``, as the system does that sends again what was not confirmed."""
        self._do(lambda: self._proxy.cut(Cut.HOLD, ways))

    def heal(self) -> None:
        """Pass on again."""
        self._do(self._proxy.heal)

    def reset(self) -> int:
        """End all connections, at both ends; return how many."""
        return self._do(self._proxy.reset)

    def __enter__(self) -> Blackhole:
        self._thread.start()
        self._run(self._proxy.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, step: Callable[[], T]) -> T:
        async def do() -> T:
            return step()

        return self._run(do())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)
