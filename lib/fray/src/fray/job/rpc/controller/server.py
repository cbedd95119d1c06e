"""Binding, starting and stopping a controller inside a process."""

from __future__ import annotations

import asyncio
import secrets

from fray.config import default_storage_root, load_config
from fray.job.rpc.controller.core.model import Limits
from fray.job.rpc.controller.direct import DirectClient
from fray.job.rpc.controller.driver import Driver
from fray.job.rpc.controller.journal import Journal, Saved, draw_generation
from fray.job.rpc.controller.service import ControllerService
from fray.job.rpc.proto.fray_connect import FrayControllerASGIApplication
from fray.job.rpc.wire.server import HttpServer, LoopThread, check_host
from fray.job.rpc.wire.settings import MAX_MESSAGE_BYTES

IN_MEMORY = ":memory:"
"""Instead of a path: keep nothing beyond the process."""


class FrayControllerServer:
    """A controller in this process, on a thread of its own.

    ``start`` and ``stop`` block and may be called from any thread; ``stop`` is idempotent. With a state file, what was accepted
    survives the process: a controller that is started with the same file, storage and address goes on.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        token: str | None = None,
        storage: str | None = None,
        state: str = IN_MEMORY,
        limits: Limits | None = None,
        insecure: bool = False,
    ) -> None:
        """Configure a controller.

        Args:
            port: where to listen; 0 lets the system choose.
            host: address to listen on; other than loopback only with ``insecure``.
            token: the cluster's secret; None takes ``FRAY_TOKEN`` or the user's token file, which is made if need be.
            storage: fsspec URL under which sessions keep large payloads; None takes ``FRAY_STORAGE`` or a private directory.
            state: path of the state file, made if there is none; ``:memory:`` keeps the state in this process only.
            limits: when to give up on clients, workers and tasks.
            insecure: allow unencrypted traffic beyond this machine.

        Raises:
            ConfigurationError: if the settings contradict each other.
        """
        check_host(host, insecure)
        config = load_config(storage=storage, token=token)
        self._host, self._port = host, port
        self._token = config.require_token()
        self._storage = config.storage or default_storage_root()
        self._limits = limits or Limits()
        self._journal = Journal(state) if state != IN_MEMORY else None
        self._loop = LoopThread("fray-controller")
        self._driver: Driver | None = None
        self._service: ControllerService | None = None
        self._http: HttpServer | None = None

    @property
    def address(self) -> str:
        """The URL for clients and workers; valid after ``start``."""
        if self._http is None:
            raise RuntimeError("the controller is not running; call start()")
        return self._http.address

    def start(self) -> int:
        """Serve. Returns the port when the controller accepts calls.

        Raises:
            ConfigurationError: if the port is taken.
            StateError: if the state file cannot be used.
        """
        self._loop.start()
        try:
            self._loop.run(self._serve())
        except BaseException:
            self._loop.stop()
            raise
        return self.port

    @property
    def port(self) -> int:
        """The port it listens on; valid after ``start``."""
        return int(self.address.rpartition(":")[2])

    def describe_restored(self) -> str:
        """Return, for people, what of an earlier life goes on; empty for nothing. Valid after ``start``."""
        stats = self._driver.state.stats if self._driver is not None else {}
        found = [(stats["tasks restored"], "tasks"), (stats["actors restored"], "actors")]
        return "".join(f"; {count} {what} of before go on" for count, what in found if count)

    @property
    def loop(self) -> LoopThread:
        """The thread it serves on, for a worker that shares it."""
        return self._loop

    def direct_client(self) -> DirectClient:
        """Return a client for a worker on the same loop; valid after ``start``."""
        if self._service is None:
            raise RuntimeError("the controller is not running; call start()")
        return DirectClient(self._service, self.address)

    def stop(self, grace: float = 5.0) -> None:
        """End all streams, give open calls up to ``grace`` seconds, release everything."""
        if self._http is None:
            return
        http, self._http = self._http, None
        try:
            self._loop.run(self._shut_down(http), grace + 10.0)
        finally:
            self._loop.stop()

    async def _serve(self) -> None:
        saved = Saved(secrets.token_hex(6), draw_generation())
        if self._journal is not None:
            saved = await asyncio.to_thread(self._journal.open)
        try:
            self._driver = Driver(self._storage, self._limits, saved, self._journal)
        except Exception as error:
            if self._journal is None:
                raise
            self._journal.close()
            raise self._journal.damaged(f"{type(error).__name__}: {error}") from error
        self._service = ControllerService(self._driver)
        app = FrayControllerASGIApplication(
            self._service,
            read_max_bytes=MAX_MESSAGE_BYTES,
            compressions=[],
        )
        http = HttpServer(app, self._token, self._host, self._port)
        await self._driver.start()
        try:
            await http.start()
        except BaseException:
            await self._driver.stop()
            raise
        self._http = http

    async def _shut_down(self, http: HttpServer) -> None:
        if self._driver is not None:
            await self._driver.stop()
        await http.stop()
