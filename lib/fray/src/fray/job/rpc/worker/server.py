"""Starting and stopping a worker inside a process."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fray.config import load_config, normalize_address
from fray.errors import ConfigurationError, Unavailable
from fray.job.rpc.proto.fray_connect import FrayWorkerASGIApplication
from fray.job.rpc.wire.client import AsyncControllerClient
from fray.job.rpc.wire.errors import unreachable
from fray.job.rpc.wire.server import HttpServer, LoopThread, check_host
from fray.job.rpc.wire.settings import MAX_MESSAGE_BYTES
from fray.job.rpc.worker.agent import Agent
from fray.job.rpc.worker.lanes import LaneServer
from fray.job.rpc.worker.service import WorkerService
from fray.types import TaskOptions

if TYPE_CHECKING:
    from fray.job.rpc.controller.server import FrayControllerServer

DRAIN_GRACE_S = 30.0
"""How long running tasks may go on when a worker is asked to leave."""


class FrayWorker:
    """A worker in this process: an agent on a thread of its own, and executors as child processes.

    ``start``, ``run`` and ``stop`` block and may be called from any thread; ``stop`` is idempotent.
    """

    def __init__(
        self,
        controller_address: str,
        worker_id: str | None = None,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        num_cpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        token: str | None = None,
        insecure: bool = False,
        direct_calls: bool = True,
        embedded_in: FrayControllerServer | None = None,
    ) -> None:
        """Configure a worker.

        Args:
            controller_address: URL of the controller.
            worker_id: a name that stays the same over restarts; None makes one from the host's.
            port: where it answers direct callers; 0 lets the system choose.
            host: address to listen on; other than loopback only with ``insecure``.
            num_cpus: CPUs it offers, one executor each; None takes those this process may use.
            resources: what else it offers, by name; ``memory`` (bytes) defaults to the machine's.
            tags: labels shown in listings.
            token: the cluster's secret; None takes ``FRAY_TOKEN`` or the user's token file.
            insecure: allow unencrypted traffic beyond this machine.
            direct_calls: take calls of actors straight from callers that can reach it, on a port of its own that the system
                chooses; otherwise all calls go by way of the controller.
            embedded_in: the controller, when it runs in this process: both share its event loop, without a network between
                them. It must be started before and stopped after.

        Raises:
            ConfigurationError: if a setting makes no sense.
        """
        check_host(host, insecure)
        self.worker_id = worker_id or f"{socket.gethostname()}-{secrets.token_hex(3)}"
        self._controller_address = normalize_address(controller_address)
        self._host, self._port = host, port
        self._capacity = _capacity(num_cpus, resources or {})
        self._tags = dict(tags or {})
        self._token = load_config(token=token).require_token()
        self._direct_calls = direct_calls
        self._controller = embedded_in
        self._loop = embedded_in.loop if embedded_in is not None else LoopThread("fray-worker")
        self._agent: Agent | None = None
        self._http: HttpServer | None = None
        self._lanes: LaneServer | None = None
        self._stopped = threading.Event()

    @property
    def address(self) -> str:
        """The URL for direct callers; valid after ``start``."""
        if self._http is None:
            raise RuntimeError("the worker is not running; call start()")
        return self._http.address

    def start(self) -> None:
        """Register with the controller and work in the background.

        Raises:
            Unavailable, AuthError, VersionMismatch: if the controller cannot be used.
            ConfigurationError: if the port is taken.
        """
        _allow_many_files()
        if self._controller is None:
            self._loop.start()
        try:
            self._loop.run(self._serve())
        except BaseException:
            self._end_loop()
            raise

    def run(self) -> None:
        """``start``, and block until ``stop`` is called from another thread or a signal handler."""
        self.start()
        self._stopped.wait()

    def stop(self, grace: float = DRAIN_GRACE_S) -> None:
        """Drain: hand back what has not begun, let the rest end within ``grace`` seconds, and leave; 0 ends at once."""
        agent, self._agent = self._agent, None
        if agent is not None:
            try:
                self._loop.run(self._shut_down(agent, grace), grace + 20.0)
            finally:
                self._end_loop()
        self._stopped.set()

    def _end_loop(self) -> None:
        if self._controller is None:
            self._loop.stop()

    async def _serve(self) -> None:
        service = WorkerService()
        app = FrayWorkerASGIApplication(service, read_max_bytes=MAX_MESSAGE_BYTES, compressions=[])
        http = HttpServer(app, self._token, self._host, self._port)
        await http.start()
        client = (
            AsyncControllerClient(self._controller_address, self._token)
            if self._controller is None
            else self._controller.direct_client()
        )
        if self._direct_calls:
            lanes = self._lanes = LaneServer(self._token, self._host, lambda calls, route: agent.desk.take(calls, route))
            await lanes.start()
        lane_address = self._lanes.address if self._lanes is not None else ""
        agent = Agent(client, self._token, self.worker_id, self._capacity, self._tags, http.address, lane_address)
        try:
            await agent.start()
        except BaseException as error:
            await agent.stop()
            await http.stop()
            self._stop_lanes()
            if isinstance(error, Unavailable):
                raise unreachable(self._controller_address, error) from error
            raise
        service.agent = self._agent = agent
        self._http = http

    async def _shut_down(self, agent: Agent, grace: float) -> None:
        if grace > 0:
            await agent.drain(grace)
        await agent.stop()
        self._stop_lanes()
        if self._http is not None:
            await self._http.stop()

    def _stop_lanes(self) -> None:
        if self._lanes is not None:
            self._lanes.stop()


def _allow_many_files() -> None:
    """Raise the limit of open files as far as this process may: the agent holds five for every executor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _capacity(num_cpus: float | None, resources: Mapping[str, float]) -> dict[str, float]:
    capacity = {"cpu": float(num_cpus if num_cpus is not None else len(os.sched_getaffinity(0)))}
    capacity["memory"] = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    capacity.update({name: float(amount) for name, amount in TaskOptions(resources=dict(resources)).resources.items()})
    if capacity["cpu"] <= 0:
        raise ConfigurationError(f"num_cpus={num_cpus!r} must be above 0")
    return capacity
