"""The floor: what one bare unary Connect call costs with the server and the client that Fray uses, without any Fray."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protocol import Engine, serve


class FloorEngine(Engine):
    """A server in a process of its own and a blocking client; a call is one round trip."""

    packages = ("connectrpc", "protobuf-py", "pyqwest", "uvicorn", "uvloop")

    @staticmethod
    def noop() -> None:
        """Stand for the call itself: the server runs nothing."""

    def start(self) -> None:
        from fray.job.rpc.proto import fray_pb as pb
        from fray.job.rpc.wire.client import ControllerClient

        token = secrets.token_urlsafe(16)
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("floor_server.py")), token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        self._client = ControllerClient(self._server.stdout.readline().strip(), token)
        self._request = pb.TaskHandle(task_id="a-task-id-of-usual-length")

    def submit(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        raise NotImplementedError("a bare call has no tasks to submit")

    def gather(self, futures: list[Any]) -> list[Any]:
        raise NotImplementedError("a bare call has no tasks to gather")

    def call(self, fn: Callable[..., Any]) -> Any:
        answer = self._client.call("get_task_status", self._request)
        return None if answer.task_id == self._request.task_id else answer

    def verb_check(self, n: int) -> dict[str, Any]:
        for _ in range(n):
            self._expect(self.call(self.noop), None)
        return {"n": n}

    def stop(self) -> None:
        self._client.close()
        self._server.communicate()


if __name__ == "__main__":
    serve(FloorEngine())
