"""A private cluster on this machine: child processes that end with the process that started them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

from fray.errors import FrayError, Unavailable

START_TIMEOUT_S = 30.0
"""How long a child may take to start serving."""
STOP_TIMEOUT_S = 10.0
"""How long a child may take to end before it is killed."""


class Child:
    """One child process that serves a controller, workers, or both (``fray.job.rpc.serve``)."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._link, child_end = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fray.job.rpc.serve", str(child_end.fileno())],
                pass_fds=[child_end.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            child_end.close()
        self._link.sendall(json.dumps(settings).encode() + b"\n")

    def wait_ready(self) -> dict[str, Any]:
        """Return what the child says when it serves. Blocks.

        Raises:
            FrayError: with the child's own words if it could not start.
            Unavailable: if it ended or hung instead.
        """
        self._link.settimeout(START_TIMEOUT_S)
        data = b""
        try:
            while not data.endswith(b"\n"):
                chunk = self._link.recv(65536)
                if not chunk:
                    raise Unavailable(f"a process of the local cluster ended while starting (exit code {self.process.wait()})")
                data += chunk
        except TimeoutError as error:
            raise Unavailable(f"a process of the local cluster did not start within {START_TIMEOUT_S:g} s") from error
        ready: dict[str, Any] = json.loads(data)
        if "error" in ready:
            raise FrayError(ready["error"])
        return ready

    def stop(self) -> None:
        """End the process and wait until it has ended. Idempotent."""
        self._link.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class LocalCluster:
    """A controller and workers of one's own, with a token of their own.

    ``workers=0`` puts the worker into the controller's process: the leanest form, for one program. With ``workers=N`` every
    worker is a process of its own. ``start`` and ``stop`` block; ``stop`` is idempotent.
    """

    def __init__(
        self,
        workers: int = 0,
        num_cpus: float | None = None,
        *,
        storage: str | None = None,
        resources: dict[str, float] | None = None,
        limits: dict[str, float] | None = None,
        direct_calls: bool = True,
        state: str = ":memory:",
    ) -> None:
        """Configure a cluster; ``num_cpus``, ``resources`` and ``direct_calls`` are those of each worker.

        ``state`` is the controller's file; by default it saves nothing, as everything here ends together.
        """
        self.token = secrets.token_urlsafe(24)
        self.address = ""
        self.controller: Child | None = None
        self.workers: list[Child] = []
        self._count = workers
        self._worker = {"num_cpus": num_cpus, "resources": resources or {}, "direct_calls": direct_calls}
        self._controller = {"storage": storage, "limits": limits or {}, "state": state}
        self._lock = threading.Lock()  # guards controller and workers while stopping

    def start(self) -> str:
        """Start all processes; return the controller's URL when the workers are registered."""
        try:
            embedded = [] if self._count else [self._worker]
            self.controller = Child({"token": self.token, "controller": self._controller, "workers": embedded})
            self.address = self.controller.wait_ready()["address"]
            children = [self.add_worker(wait=False) for _ in range(self._count)]
            for child in children:
                child.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self.address

    def add_worker(self, wait: bool = True, **settings: Any) -> Child:
        """Start another worker process; ``settings`` change what it offers."""
        worker = {**self._worker, **settings}
        child = Child({"token": self.token, "controller_address": self.address, "workers": [worker]})
        self.workers.append(child)
        if wait:
            child.wait_ready()
        return child

    def stop(self) -> None:
        """End all processes, workers first."""
        with self._lock:
            children, self.workers = self.workers, []
            controller, self.controller = self.controller, None
        for child in children:
            child.stop()
        if controller is not None:
            controller.stop()

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
