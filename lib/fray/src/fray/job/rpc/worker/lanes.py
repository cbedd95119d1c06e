"""Where a worker takes calls of its actors straight from their callers: see ``fray.job.rpc.wire.lane``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import cast

from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire import lane
from fray.job.rpc.wire.server import EVERYWHERE, bind

log = logging.getLogger("fray.worker")

HELLO_TIMEOUT_S = 5.0
"""A connection that has not proved itself within this is closed."""


class LaneServer:
    """Listens for callers. All methods belong to the event loop; the port is bound when it is made."""

    def __init__(self, token: str, host: str, on_calls: Callable[[pb.ActorCalls, LaneConnection], None]) -> None:
        self._key = lane.derive_lane_key(token)
        self._on_calls = on_calls
        self._socket = bind(host, 0)
        reachable = socket.gethostname() if host in EVERYWHERE else host
        port = self._socket.getsockname()[1]
        self.address = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
        self._server: asyncio.Server | None = None
        self._connections: set[LaneConnection] = set()

    async def start(self) -> None:
        """Accept connections. Returns when it does."""
        loop = asyncio.get_running_loop()

        def connect() -> LaneConnection:
            connection = LaneConnection(self._key, self._on_calls, self._connections.discard)
            self._connections.add(connection)
            return connection

        self._server = await loop.create_server(connect, sock=self._socket)

    def stop(self) -> None:
        """Close everything. Idempotent."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for connection in list(self._connections):
            connection.close()


class LaneConnection(asyncio.Protocol):
    """One caller's connection."""

    def __init__(
        self,
        key: bytes,
        on_calls: Callable[[pb.ActorCalls, LaneConnection], None],
        on_end: Callable[[LaneConnection], None],
    ) -> None:
        self._key, self._on_calls, self._on_end = key, on_calls, on_end
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._nonces: tuple[bytes, bytes] | None = None
        self._reader: lane.LaneReader | None = None
        self._timeout: asyncio.TimerHandle | None = None

    def send(self, answers: pb.ActorAnswers) -> None:
        """Send answers; into the void when the caller has gone, who will ask again if it comes back."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(lane.pack(answers))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self.close)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
        self._on_end(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._reader is None:
                self._early += data
                data = self._shake_hands()
            if self._reader is not None:
                for message in self._reader.feed(data):
                    self._take(message)
        except lane.LaneBroken as error:
            log.warning("a caller of actors is cut off: %s", error)
            self.close()

    def _take(self, message: object) -> None:
        if not isinstance(message, pb.ActorCalls):
            raise lane.LaneBroken("a caller sent answers")
        self._on_calls(message, self)

    def _shake_hands(self) -> bytes:
        """Go on with the greeting; return what came after it."""
        early = self._early
        if self._nonces is None:
            if len(early) < lane.CLIENT_HELLO_BYTES:
                return b""
            hello, nonce = bytes(early[: len(lane.HELLO)]), bytes(early[len(lane.HELLO) : lane.CLIENT_HELLO_BYTES])
            del early[: lane.CLIENT_HELLO_BYTES]
            if hello != lane.HELLO:
                raise lane.LaneBroken("it speaks another protocol, or another version of this one")
            self._nonces = (nonce, lane.make_nonce())
            if self._transport is not None:
                self._transport.write(self._nonces[1] + lane.prove(self._key, b"server", *self._nonces))
        if len(early) < lane.PROOF_BYTES:
            return b""
        if not lane.is_proof(bytes(early[: lane.PROOF_BYTES]), self._key, b"client", *self._nonces):
            raise lane.LaneBroken("it does not know the cluster's token")
        if self._timeout is not None:
            self._timeout.cancel()
        self._reader = lane.LaneReader()
        rest = bytes(early[lane.PROOF_BYTES :])
        early.clear()
        return rest
