"""The processes of a scenario: a controller by itself, workers, clients; all end with the scenario."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fray.job.rpc.local import Child
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.testing import eventually

TESTS = Path(__file__).parent.parent
CLIENT_S = 3600.0
"""How long a client may take; scenarios are run under limits of their own."""


class Cluster:
    """A controller with its state on disk, and no workers at first."""

    def __init__(self, **limits: float) -> None:
        self.token = secrets.token_urlsafe(24)
        self.folder = Path(tempfile.mkdtemp(prefix="fray-load-"))
        self.storage = self.folder / "storage"
        self.workers: list[Child] = []
        self._limits = limits
        self._clients: list[Client] = []

    def __enter__(self) -> Cluster:
        settings = {"storage": str(self.storage), "limits": self._limits, "state": str(self.folder / "state.db")}
        self._controller = Child({"token": self.token, "controller": settings, "workers": []})
        try:
            self.address = self._controller.wait_ready()["address"]
        except BaseException:
            self._controller.stop()
            raise
        self.client = ControllerClient(self.address, self.token)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        for client in self._clients:
            client.kill()
        for child in (*self.workers, self._controller):
            child.stop()
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """The controller's process."""
        return self._controller.process.pid

    def add_worker(self, num_cpus: int = 2) -> Child:
        """Start a worker process and wait until it is registered."""
        offer = {"num_cpus": num_cpus, "resources": {}, "direct_calls": False}
        child = Child({"token": self.token, "controller_address": self.address, "workers": [offer]})
        self.workers.append(child)
        child.wait_ready()
        return child

    def start_client(self, what: str, reads_output: bool = True, **sizes: Any) -> Client:
        """Start a process that does one thing of ``load.clients``."""
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(TESTS)]))
        env = {**os.environ, "FRAY_ADDRESS": self.address, "FRAY_TOKEN": self.token, "PYTHONPATH": path}
        client = Client([sys.executable, "-m", "load.clients", what, json.dumps(sizes)], env, reads_output)
        self._clients.append(client)
        return client

    def status(self) -> pb.ClusterStatus:
        """Return the controller's own view."""
        status: pb.ClusterStatus = self.client.call("get_status", pb.Empty())
        return status

    def wait_tasks(self, status: str, count: int, timeout: float = CLIENT_S, interval: float = 0.2) -> None:
        """Return when the controller has so many tasks in a state."""
        eventually(lambda: self.status().tasks.get(status, 0) >= count, timeout, interval, f"{count} tasks {status}")

    def wait_empty(self, timeout: float = 60.0) -> None:
        """Return when the controller has no tasks and no sessions."""

        def is_empty() -> bool:
            status = self.status()
            return not status.sessions and not status.tasks and not any(status.used.values())

        eventually(is_empty, timeout, 0.1, "the controller has nothing left")


class Client:
    """A client process; tells what it found as one line of JSON, its last."""

    def __init__(self, command: list[str], env: dict[str, str], reads_output: bool) -> None:
        self._reads_output = reads_output
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def go_on(self) -> None:
        """Let it leave the point where it waits."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def read_line(self) -> str:
        """Return the next line that it prints; blocks."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def finish(self, timeout: float = CLIENT_S) -> dict[str, float]:
        """Return what it found, when it has ended.

        Raises:
            AssertionError: if it failed.
        """
        told, _ = self._process.communicate(timeout=timeout)
        assert self._process.returncode == 0, f"the client failed with {self._process.returncode}"
        found: dict[str, float] = json.loads(told.splitlines()[-1])
        return found

    def kill(self) -> None:
        """End it. Idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
