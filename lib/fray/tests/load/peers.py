"""Peers that speak the wire by themselves, and misbehave: streams as bare sockets, which need not be read."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.auth import call_headers
from fray.serialization import encode_callable
from fray.serialization.envelope import encode_parts

from load.cluster import Cluster

SMALL_BUFFER = 4096
"""Bytes the system keeps for a stream that is not read, about."""


class Stream:
    """A server stream on a socket of its own. Nothing is read unless asked for."""

    def __init__(self, cluster: Cluster, rpc: str, message: Any) -> None:
        host, port = cluster.address.removeprefix("http://").split(":")
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self._socket.settimeout(30.0)
        self._socket.connect((host, int(port)))
        body = message.to_binary()
        headers = {
            **call_headers(cluster.token),
            "host": f"{host}:{port}",
            "content-type": "application/connect+proto",
            "connect-protocol-version": "1",
            "content-length": str(len(body) + 5),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"POST /fray.FrayController/{rpc} HTTP/1.1\r\n{head}\r\n".encode()
        self._socket.sendall(request + struct.pack(">BI", 0, len(body)) + body)

    def wait_begun(self) -> None:
        """Return when the server has begun to answer.

        Raises:
            AssertionError: if it refuses.
        """
        answer = self._socket.recv(12)
        assert answer == b"HTTP/1.1 200", answer

    def read(self, size: int = 65536) -> bytes:
        """Return some of what has come; empty at the end."""
        return self._socket.recv(size)

    def break_off(self) -> None:
        """End the connection with a reset, as a crash does. Idempotent."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class Peer:
    """A client without manners: one session, whose calls are made by hand."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.id = cluster, name
        self.batch = self.sent = 0
        self._function = encode_callable(_make_function())

    def open(self) -> None:
        """Introduce itself; again is no harm."""
        self.cluster.client.call("open_session", pb.OpenSessionRequest(session_id=self.id, name=self.id))

    def submit(self, arguments: Iterable[tuple[int, int]], acked_seq: int = 0) -> None:
        """Send tasks in one request: each returns its number and so many bytes.

        Raises:
            Refused: if the controller has no room for them.
        """
        tasks = [self._spec(number, size) for number, size in arguments]
        code = [pb.Function(function_id=self._function.function_id, code=self._function.code)]
        request = pb.SubmitTasksRequest(
            session_id=self.id, batch=self.batch + 1, tasks=tasks, functions=code, acked_seq=acked_seq
        )
        self.cluster.client.call("submit_tasks", request)
        self.batch += 1
        self.sent += len(tasks)

    def watch(self) -> Stream:
        """Open a stream of results."""
        return Stream(self.cluster, "WatchTasks", pb.WatchTasksRequest(session_id=self.id))

    def close(self) -> None:
        """Say goodbye."""
        self.cluster.client.call("close_session", pb.SessionRef(session_id=self.id))

    def _spec(self, number: int, size: int) -> pb.TaskSpec:
        return pb.TaskSpec(
            task_id=f"{self.id}-{self.batch}-{number}",
            session_id=self.id,
            function_id=self._function.function_id,
            name="peer",
            serialized_data=b"".join(encode_parts(((number, size), {}))),
        )


class MuteWorker:
    """A worker that registers and attaches, and never says anything else."""

    def __init__(self, cluster: Cluster, worker_id: str, life: int = 0, num_cpus: int = 1) -> None:
        self._cluster = cluster
        self.incarnation = f"{worker_id}.{life}"
        info = pb.WorkerInfo(worker_id=worker_id, incarnation=self.incarnation, resources={"cpu": float(num_cpus)})
        cluster.client.call("register_worker", info)
        self.stream: Stream | None = None

    def attach(self) -> Stream:
        """Open the stream of orders anew."""
        self.stream = Stream(self._cluster, "Attach", pb.AttachRequest(incarnation=self.incarnation))
        return self.stream

    def report(self, **news: Any) -> pb.ReportResponse:
        """Say something."""
        answer: pb.ReportResponse = self._cluster.client.call("report", pb.ReportRequest(incarnation=self.incarnation, **news))
        return answer

    def vanish(self) -> None:
        """End the connection, if there is one. Idempotent."""
        if self.stream is not None:
            self.stream.break_off()


def _make_function() -> Any:
    def answer(number: int, size: int) -> tuple[int, bytes]:
        return number, bytes(size)

    return answer
