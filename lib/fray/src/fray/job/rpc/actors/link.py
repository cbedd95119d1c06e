"""A caller's connection to one worker: the client's side of the direct lane (see ``fray.job.rpc.wire.lane``)."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable

from fray.errors import Unavailable
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire import lane

log = logging.getLogger("fray.client")

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
        self.delivers_once = True
        self._on_answers = on_answers
        self._on_break: Callable[[WorkerLink], None] = lambda _: None
        self._lock = threading.Lock()  # guards _backlog, and the order on the socket
        self._backlog: deque[bytes] = deque()
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
        """Send calls; into the void when the connection is over, which its thread notices.

        Does not block: what a slow worker does not take at once is sent by a thread of its own. How much that can be is
        bounded by what lanes have under way.
        """
        data = lane.pack(calls)
        with self._lock:
            if self._backlog:
                self._backlog.append(data)
                return
            try:
                sent = self._socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent < len(data):
                self._backlog.append(data[sent:])
                threading.Thread(target=self._send_backlog, name="fray-lane-send", daemon=True).start()

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._on_break = lambda _: None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CONNECT_TIMEOUT_S)
        self._socket.close()

    def _send_backlog(self) -> None:
        """Send what is in the backlog; it is empty when, and only when, this thread is about to end."""
        data = self._backlog[0]
        while True:
            with contextlib.suppress(OSError):  # broken: what is left goes into the void, as all else
                self._socket.sendall(data)
            with self._lock:
                self._backlog.popleft()
                if not self._backlog:
                    return
                data = self._backlog[0]

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

    def _deliver(self, answers: pb.ActorAnswers) -> None:
        try:
            self._on_answers(answers)
        except Exception:  # a defect of ours must not end the thread that all calls of this worker's actors wait for
            log.exception("answers of an actor could not be taken")

    def _read(self) -> None:
        reader = lane.LaneReader()
        try:
            with contextlib.suppress(OSError, lane.LaneBroken):
                while data := self._socket.recv(1 << 18):
                    for message in reader.feed(data):
                        if isinstance(message, pb.ActorAnswers):
                            self._deliver(message)
        finally:
            self.is_broken = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._on_break(self)
            with self._lock:
                self._socket.close()
