"""A network between a client or worker and its controller that blocking tests can cut: ``chaos.proxy`` on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chaos.proxy import BOTH, Cut, Proxy, Way
from fray.job.rpc.wire.server import LoopThread

__all__ = ["BOTH", "Blackhole", "Way"]

T = TypeVar("T")


class Blackhole:
    """Passes connections on to a server of this machine until it is told not to. Its methods block until it is done."""

    def __init__(self, address: str) -> None:
        """Stand before the server with this URL."""
        self._loop = LoopThread("blackhole")
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
        self._loop.start()
        self._loop.run(self._proxy.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._proxy.close())
        self._loop.stop()

    def _do(self, step: Callable[[], T]) -> T:
        async def do() -> T:
            return step()

        return self._loop.run(do())
