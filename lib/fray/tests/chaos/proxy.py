"""A TCP proxy whose connections can be cut as networks cut them: bytes vanish or are held up, one way or both, without a word.

While a network is cut, an existing connection is told nothing: neither of data nor of an end. What was swallowed is gone, so
such a connection is dead for ever, as behind a firewall that has forgotten it. What was held up comes when the network is
whole, as after retransmissions; and so do connections that are opened meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from contextlib import suppress

BLOCK_BYTES = 65536


class Cut(enum.Enum):
    """What becomes of bytes."""

    SWALLOW = "swallow"
    """They are lost, and the connection with them."""
    HOLD = "hold"
    """They arrive later."""


class Way(enum.Enum):
    """A direction."""

    UP = "up"
    """To the controller."""
    DOWN = "down"
    """From the controller."""


BOTH = frozenset(Way)


class Proxy:
    """Passes connections on to one port of this machine. Belongs to one event loop."""

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self.host, self.port = host, 0
        self.swallowed_bytes = 0
        self._target_port = target_port
        self._cut: Cut | None = None
        self._ways: frozenset[Way] = frozenset()
        self._whole = asyncio.Event()
        self._whole.set()
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """The URL that stands for the controller's."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, how: Cut, ways: frozenset[Way]) -> None:
        """Cut the network until ``heal``."""
        self._cut, self._ways = how, ways
        self._whole.clear()

    def heal(self) -> None:
        """Make the network whole again. Idempotent."""
        self._cut, self._ways = None, frozenset()
        self._whole.set()

    def reset(self) -> int:
        """End all connections abruptly, at both ends; return how many."""
        links = list(self._links)
        for link in links:
            link.abort()
        return len(links)

    async def close(self) -> None:
        """End everything."""
        self.heal()
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def pass_on(self, link: _Link, way: Way, data: bytes) -> bool:
        """Wait until some bytes may go on; tell whether they may."""
        if self._cut is Cut.SWALLOW and way in self._ways and not link.is_new:
            link.lost.add(way)
        if way in link.lost:
            self.swallowed_bytes += len(data)
            return False
        while way in self._ways:
            await self._whole.wait()
        return True

    async def wait_whole(self, way: Way) -> None:
        """Wait until the end of a connection can be told."""
        while way in self._ways:
            await self._whole.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            _abort(writer)
            return
        link = _Link(self, writer, target[1], is_new=self._cut is not None)
        task = asyncio.create_task(link.run(reader, target[0]))
        self._links.add(link)
        self._serving.add(task)
        try:
            await task
        finally:
            self._links.discard(link)
            self._serving.discard(task)


class _Link:
    """One connection and its continuation."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter, is_new: bool) -> None:
        self.is_new = is_new
        """Whether it was opened while the network was cut: what it says is repeated by the system until it arrives."""
        self.lost: set[Way] = set()
        self._proxy = proxy
        self._near, self._far = near, far

    async def run(self, near: asyncio.StreamReader, far: asyncio.StreamReader) -> None:
        """Pass bytes on, both ways, until either end is over."""
        ways = [self._pump(Way.UP, near, self._far), self._pump(Way.DOWN, far, self._near)]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.abort() if self.lost else self._close()

    def abort(self) -> None:
        """Reset both ends."""
        _abort(self._near)
        _abort(self._far)

    def _close(self) -> None:
        for writer in (self._near, self._far):
            with suppress(OSError, RuntimeError):
                writer.close()

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(BLOCK_BYTES):
                if await self._proxy.pass_on(self, way, data):
                    writer.write(data)
                    await writer.drain()
        await self._proxy.wait_whole(way)


def _abort(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
