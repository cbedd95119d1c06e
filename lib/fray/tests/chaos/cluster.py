"""A cluster of real processes: a controller, workers and clients, each behind what the run does to them.

Every process of a run carries a mark in its environment, executors and their children included, so that none can hide.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from fray.errors import FrayError
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient

from chaos.ledger import Book
from chaos.networks import Network
from chaos.proxy import Proxy

TESTS = Path(__file__).parent.parent
MARK = "FRAY_CHAOS_RUN"
START_S = 30.0
STOP_S = 45.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a cluster is, and when its controller gives up on others."""

    workers: int = 2
    cpus: int = 2
    silence_s: float = 2.0
    session_grace_s: float = 20.0
    is_durable: bool = True
    has_networks: bool = False
    """Whether each worker is on a network of its own."""

    def limits(self) -> str:
        """Return the controller's limits as JSON. What takes many executors with it is none of the tasks' faults here."""
        return json.dumps(
            {
                "silence_s": self.silence_s,
                "session_grace_s": self.session_grace_s,
                "reattach_grace_s": 1.0,
                "max_kills": 100,
                "max_losses": 1000,
            }
        )


async def until(condition: Callable[[], object], timeout: float, interval: float = 0.02) -> bool:
    """Wait until a condition holds; tell whether it does."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(interval)
    return True


@dataclass(eq=False)
class Member:
    """A process that may be replaced by another one, and its way to the controller."""

    kind: str
    """controller, worker or client"""
    name: str
    proxy: Proxy | None = None
    network: Network | None = None
    process: asyncio.subprocess.Process | None = None
    is_busy: bool = False
    """Whether something is being done to it."""

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.process is not None and self.process.returncode is None

    def tree(self) -> list[int]:
        """Return its process and all that came from it."""
        try:
            process = psutil.Process(self.pid)
            return [self.pid, *(child.pid for child in process.children(recursive=True))]
        except psutil.Error:
            return []

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal, if it is there."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass
class Cluster:
    """All processes of a run. Belongs to one event loop."""

    folder: Path
    shape: Shape
    book: Book
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))
    port: int = 0
    controller: Member = field(default_factory=lambda: Member("controller", "controller"))
    workers: list[Member] = field(default_factory=list)
    clients: dict[str, Member] = field(default_factory=dict)
    """By workload."""
    killed_clients: set[str] = field(default_factory=set)
    stats: Counter[str] = field(default_factory=Counter)
    """What the controllers that are gone have counted."""
    starts_s: list[float] = field(default_factory=list)
    """How long each start of the controller took until it served."""
    proxies: list[Proxy] = field(default_factory=list)
    clients_started: int = 0

    async def start(self, workloads: tuple[str, ...], seed: int) -> None:
        """Start everything."""
        for name in ("facts", "storage", "logs", "tmp"):
            (self.folder / name).mkdir()
        self.port = _find_port()
        await self.start_controller()
        for number in range(self.shape.workers):
            member = Member("worker", f"w{number}")
            self.workers.append(member)
            if self.shape.has_networks:
                member.network = Network()
                member.network.create()
            member.proxy = await self._open_proxy(member.network.near if member.network is not None else "127.0.0.1")
            await self.start_worker(member)
        for workload in workloads:
            self.clients[workload] = Member("client", workload, await self._open_proxy())
            await self.start_client(workload, seed)

    async def start_controller(self) -> None:
        """Start the controller and wait until it serves.

        Raises:
            RuntimeError: if it does not.
        """
        began = time.monotonic()
        state = str(self.folder / "state.db") if self.shape.is_durable else ":memory:"
        arguments = [str(self.port), state, str(self.folder / "storage"), self.shape.limits()]
        process = self.controller.process = await self._spawn("chaos.serve", arguments, "controller", is_asked=True)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
        except TimeoutError:
            line = b""
        if not line:
            raise RuntimeError(f"the controller did not start: {self.read_log('controller')[-3000:]}")
        self.starts_s.append(time.monotonic() - began)

    async def start_worker(self, member: Member) -> None:
        """Start a worker; does not wait until it is registered."""
        assert member.proxy is not None
        arguments = [
            "worker",
            "--controller",
            member.proxy.address,
            "--num-cpus",
            str(self.shape.cpus),
            "--worker-id",
            member.name,
        ]
        if member.network is not None:
            arguments += ["--host", member.network.far, "--insecure"]
        member.process = await self._spawn("fray", arguments, member.name, network=member.network)

    async def start_client(self, workload: str, seed: int) -> None:
        """Start a client of a workload."""
        member = self.clients[workload]
        self.clients_started += 1
        member.name = f"{workload}-{self.clients_started}"
        assert member.proxy is not None
        arguments = [workload, member.name, f"{seed}/{member.name}", str(self.folder)]
        member.process = await self._spawn("chaos.clients", arguments, member.name, address=member.proxy.address)

    def ask(self, method: str, request: object) -> object:
        """Make a call to the controller. Blocks."""
        client = ControllerClient(f"http://127.0.0.1:{self.port}", self.token)
        try:
            return client.call(method, request, 10.0)
        finally:
            client.close()

    def read_stats(self) -> Counter[str]:
        """Return what the controller has counted in this life. Blocks."""
        try:
            status = self.ask("get_status", pb.Empty())
        except FrayError:
            return Counter()
        return Counter(dict(status.stats))  # type: ignore[attr-defined]

    def explain(self, task: str) -> list[str]:
        """Return a task's story."""
        try:
            return list(self.ask("explain_task", pb.TaskHandle(task_id=task)).story)  # type: ignore[attr-defined]
        except Exception as error:
            return [f"no story: {error}"]

    def read_log(self, name: str) -> str:
        """Return what a process wrote."""
        path = self.folder / "logs" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def find_processes(self) -> dict[int, str]:
        """Return the processes of this run that live, with their command lines."""
        wanted = f"{MARK}={self.run_id}".encode()
        found = {}
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if wanted in Path(f"/proc/{process.pid}/environ").read_bytes():
                    found[process.pid] = " ".join(process.cmdline())[:120]
        return found

    async def stop(self) -> None:
        """End workers, then the controller, as their owner would; kill what does not end."""
        for member in [*self.workers, self.controller]:
            member.send(signal.SIGCONT)
            member.send(signal.SIGTERM)
            await _wait_end(member)
        for proxy in self.proxies:
            await proxy.close()

    async def kill_all(self) -> None:
        """End whatever is left of the run. Idempotent."""
        for member in [*self.clients.values(), *self.workers, self.controller]:
            member.send(signal.SIGKILL)
            if member.process is not None:
                await member.process.wait()
        for pid in self.find_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for proxy in self.proxies:
            await proxy.close()
        for member in self.workers:
            if member.network is not None:
                member.network.remove()

    async def _open_proxy(self, host: str = "127.0.0.1") -> Proxy:
        proxy = Proxy(self.port, host)
        await proxy.start()
        self.proxies.append(proxy)
        return proxy

    async def _spawn(
        self,
        module: str,
        arguments: list[str],
        log: str,
        is_asked: bool = False,
        address: str = "",
        network: Network | None = None,
    ) -> asyncio.subprocess.Process:
        path = os.pathsep.join([str(TESTS), str(TESTS / "actors"), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "FRAY_TOKEN": self.token,
            "TMPDIR": str(self.folder / "tmp"),
            MARK: self.run_id,
        }
        environment.pop("FRAY_ADDRESS", None)
        if address:
            environment["FRAY_ADDRESS"] = address
        with (self.folder / "logs" / log).open("ab") as file:
            return await asyncio.create_subprocess_exec(
                *(network.enter() if network is not None else []),
                sys.executable,
                "-m",
                module,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if is_asked else file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )


async def _wait_end(member: Member) -> bool:
    if member.process is None:
        return True
    try:
        await asyncio.wait_for(member.process.wait(), STOP_S)
    except TimeoutError:
        member.send(signal.SIGKILL)
        await member.process.wait()
        return False
    return True


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def list_files(folder: Path) -> list[str]:
    """Return all files below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
