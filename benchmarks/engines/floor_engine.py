"""The floor: what the ways cost that calls take, without any Fray.

For tasks, one bare unary Connect call with the server and the client that Fray uses. For actors, one message over a TCP
connection to a process that passes it on to its child, and back.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protocol import Engine, serve

MESSAGE_BYTES = 128
"""About what a call of a method without arguments takes."""


class Echo:
    """Stands for an actor: a blocking connection to an agent, whose child sends back what it gets."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sent = 0

    def send(self) -> None:
        """Send the number of this message."""
        self._sent += 1
        self._socket.sendall(self._sent.to_bytes(MESSAGE_BYTES))

    def receive(self) -> int:
        """Wait for the next answer and return it."""
        return int.from_bytes(self._socket.recv(MESSAGE_BYTES, socket.MSG_WAITALL))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class FloorEngine(Engine):
    """Servers in processes of their own and blocking clients; a call is one round trip."""

    packages = ("connectrpc", "protobuf-py", "pyqwest", "uvicorn", "uvloop")

    @staticmethod
    def noop() -> None:
        """Stand for the call itself: the server runs nothing."""

    def start(self) -> None:
        from fray.job.rpc.proto import fray_pb as pb
        from fray.job.rpc.wire.client import ControllerClient

        token = secrets.token_urlsafe(16)
        self._servers: list[subprocess.Popen[str]] = []
        self.actors = []
        self._client = ControllerClient(self._serve("floor_server.py", token), token)
        self._request = pb.TaskHandle(task_id="a-task-id-of-usual-length")

    def _serve(self, script: str, *arguments: str) -> str:
        """Start a server and return what it prints: where it listens."""
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout is not None
        return server.stdout.readline().strip()

    def submit(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        raise NotImplementedError("a bare call has no tasks to submit")

    def gather(self, futures: list[Any]) -> list[Any]:
        raise NotImplementedError("a bare call has no tasks to gather")

    def call(self, fn: Callable[..., Any]) -> Any:
        answer = self._client.call("get_task_status", self._request)
        return None if answer.task_id == self._request.task_id else answer

    def create_actor(self) -> Any:
        return Echo(int(self._serve("floor_agent.py")))

    def begin_call(self, actor: Any) -> Any:
        actor.send()
        return actor

    def gather_calls(self, futures: list[Any]) -> list[Any]:
        return [actor.receive() for actor in futures]

    def call_actor(self, actor: Any) -> Any:
        actor.send()
        return actor.receive()

    def verb_check(self, n: int) -> dict[str, Any]:
        for _ in range(n):
            self._expect(self.call(self.noop), None)
        return {"n": n}

    def stop(self) -> None:
        self._client.close()
        for actor in self.actors:
            actor.close()
        for server in self._servers:
            server.communicate()


if __name__ == "__main__":
    serve(FloorEngine())
