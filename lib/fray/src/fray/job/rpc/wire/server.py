"""Servers: an event loop on a thread of its own, and uvicorn on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvicorn
import uvloop

from fray.errors import ConfigurationError
from fray.job.rpc.wire.auth import App, TokenGate
from fray.job.rpc.wire.faults import with_faults
from fray.job.rpc.wire.settings import KEEP_ALIVE_S, STREAM_SILENCE_S

T = TypeVar("T")

EVERYWHERE = ("0.0.0.0", "::")
"""Listens on all addresses of the machine; others reach it by the machine's name."""


class LoopThread:
    """An event loop (uvloop) on a thread. ``start`` and ``stop`` may be called from any other thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run the loop. Returns when it runs."""
        running = threading.Event()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, running), name=self._name, daemon=True)
        self._thread.start()
        running.wait()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and return its result. Blocks."""
        if self._loop is None:
            raise RuntimeError(f"{self._name} is not running")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def stop(self) -> None:
        """Cancel what runs on the loop, end the loop, join the thread. Idempotent."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(5.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5.0)
        if not thread.is_alive():
            loop.close()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop, running: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.call_soon(running.set)
        loop.run_forever()


class HttpServer:
    """uvicorn on the running loop, behind the token gate. ``address`` is valid once constructed: the port is bound then."""

    def __init__(self, app: App, token: str, host: str, port: int) -> None:
        self._socket = bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        reachable = socket.gethostname() if host in EVERYWHERE else host
        shown = f"[{reachable}]" if ":" in reachable else reachable
        self.address = f"http://{shown}:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                TokenGate(with_faults(app), token),
                http="httptools",
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=2,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections. Returns when it does."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="fray-http")
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Stop accepting, give open calls a moment to end, close all connections. Idempotent."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5.0)
        self._socket.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 lets the system choose.

    Raises:
        ConfigurationError: if the port is taken or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # inherited: else a peer that lost its power is noticed after 15 minutes
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STREAM_SILENCE_S * 1000))
        sock.bind((host, port))
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} on {host} is taken, perhaps by another controller; choose another with --port (0: any free one)"
            ) from error
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return sock


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(host: str, insecure: bool) -> None:
    """Refuse to serve other machines without encryption unless told to.

    Raises:
        ConfigurationError: naming the remedy.
    """
    if not is_loopback(host) and not insecure:
        raise ConfigurationError(
            f"refusing to listen on {host}: traffic and the token would cross the network unencrypted. Use 127.0.0.1 with an "
            "SSH tunnel or VPN, or pass --insecure if the network itself is trusted"
        )


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
