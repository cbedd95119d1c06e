"""A caller's connection to one worker: the client's side of the direct lane (see ``fray.job.rpc.wire.lane``)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from fray.errors import Unavailable
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire import lane

SILENCE_MS = 10_000
"""A worker whose machine has not acknowledged what was sent for so long is taken as gone: the connection breaks."""
PROBE_S = 3
"""An idle connection is probed so often by the system."""
CONNECT_TIMEOUT_S = 2.0
"""A worker that cannot be reached within this is called by way of the controller."""


class WorkerLink:
    """One TCP connection, with a thread that reads it. ``send`` may be called from any thread."""

    def __init__(self, address: str, token: str, on_answers: Callable[[pb.ActorAnswers], None]) -> None:
        """Connect. Blocks up to ``CONNECT_TIMEOUT_S``.

        Raises:
            Unavailable: if nobody answers there, or somebody who does not know the token.
        """
        self.address = address
        self.is_broken = False
        self._on_answers = on_answers
        self._on_break: Callable[[WorkerLink], None] = lambda _: None
        self._lock = threading.Lock()  # one message at a time on the socket
        host, _, port = address.rpartition(":")
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S)
            try:
                self._greet(lane.derive_lane_key(token))
            except BaseException:
                self._socket.close()
                raise
        except (OSError, lane.LaneBroken) as error:
            raise Unavailable(f"the worker at {address} takes no calls: {error}") from error
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, name="fray-lane", daemon=True)

    def start(self, on_break: Callable[[WorkerLink], None]) -> None:
        """Begin to read; ``on_break`` is called once, when the connection is over, unless ``close`` ended it."""
        self._on_break = on_break
        self._thread.start()

    def send(self, calls: pb.ActorCalls) -> None:
        """Send calls; into the void when the connection is over, which its thread notices. Blocks while the worker is slow."""
        data = lane.pack(calls)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(data)

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._on_break = lambda _: None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CONNECT_TIMEOUT_S)
        self._socket.close()

    def _greet(self, key: bytes) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, PROBE_S)
        mine = lane.make_nonce()
        self._socket.sendall(lane.HELLO + mine)
        answer = b""
        while len(answer) < lane.SERVER_HELLO_BYTES:
            chunk = self._socket.recv(lane.SERVER_HELLO_BYTES - len(answer))
            if not chunk:
                raise lane.LaneBroken("it hung up on the greeting")
            answer += chunk
        theirs, proof = answer[: lane.NONCE_BYTES], answer[lane.NONCE_BYTES :]
        if not lane.is_proof(proof, key, b"server", mine, theirs):
            raise lane.LaneBroken("it does not know the cluster's token")
        self._socket.sendall(lane.prove(key, b"client", mine, theirs))

    def _read(self) -> None:
        reader = lane.LaneReader()
        with contextlib.suppress(OSError, lane.LaneBroken):
            while data := self._socket.recv(1 << 18):
                for message in reader.feed(data):
                    if isinstance(message, pb.ActorAnswers):
                        self._on_answers(message)
        self.is_broken = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._on_break(self)
