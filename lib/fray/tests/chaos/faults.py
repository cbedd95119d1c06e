"""What is done to a cluster, at random, from a seed: every kind of fault in a shuffled order, again and again.

Faults overlap, but a process that something is being done to is left alone by others.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from chaos.cluster import Cluster, Member, until
from chaos.proxy import BOTH, Cut, Way

PARTS_S = 10.0
"""Until a worker has started its executors, at most."""
GONE_S = 10.0
"""Within this all that came from a killed process must be gone."""
WAYS = [frozenset({Way.UP}), frozenset({Way.DOWN}), BOTH, BOTH]

Deed = tuple[str, str]
"""A kind of fault and its target."""

KILLS: list[Deed] = [("kill", target) for target in ("controller", "worker", "executor", "template", "client")]
OTHERS: list[Deed] = [
    *[("stop", target) for target in ("controller", "worker", "host", "executor", "client")],
    *[("restart", target) for target in ("controller", "worker")],
    *[(kind, target) for kind in ("blackhole", "stall", "reset") for target in ("controller", "worker", "client")],
]
PARTITION: Deed = ("partition", "worker")
"""For workers on networks of their own."""
DEEDS = [*KILLS, *OTHERS]
"""All kinds. A blackhole swallows what is sent, a stall holds it up; those of the controller hit all connections."""


@dataclass(slots=True, eq=False)
class Strike:
    """One fault."""

    kind: str
    target: str
    victim: str
    at: float
    """Monotonic seconds."""
    pids: list[int]
    """The processes that it hit, and those that came from them."""
    detail: str = ""
    ended_at: float = 0.0
    gone_s: float = 0.0
    """How long it took until nothing of a killed process was left."""

    @property
    def deed(self) -> Deed:
        return self.kind, self.target

    def __str__(self) -> str:
        return f"{self.kind} {self.target} {self.victim} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done, and for how long. Seconds, as (least, most)."""

    seconds: float
    pause_s: tuple[float, float] = (0.5, 2.0)
    """Between the beginnings of two faults."""
    worker_s: tuple[float, float] = (0.3, 5.0)
    """Stops and cuts of workers: some shorter, some longer than the controller's patience."""
    other_s: tuple[float, float] = (0.3, 3.0)
    """Stops and cuts of others."""
    down_s: tuple[float, float] = (0.0, 1.0)
    """Until a killed process is replaced."""


@dataclass
class Chaos:
    """Does it."""

    cluster: Cluster
    pace: Pace
    seed: int
    deeds: tuple[Deed, ...] = tuple(DEEDS)
    """Kinds of faults; the first ones come first, the first time."""
    strikes: list[Strike] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    worker_exits: int = 0
    """Workers that ended by themselves, as they could not reach the controller when they started."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Do one thing after the other for a while, and each at least once; wait until all is undone."""
        end = time.monotonic() + self.pace.seconds
        first = deck = list(reversed(self.deeds))
        keeper = asyncio.create_task(self._keep_workers())
        try:
            while time.monotonic() < end or first:
                await asyncio.sleep(self._chance.uniform(*self.pace.pause_s))
                if self.deeds:
                    deck = deck or self._chance.sample(self.deeds, len(self.deeds))
                    self._begin(deck)
            while self._under_way:
                await asyncio.gather(*self._under_way)
        finally:
            keeper.cancel()

    def _begin(self, deck: list[Deed]) -> None:
        """Begin the next fault whose target is free; others keep their places."""
        for position in range(len(deck) - 1, -1, -1):
            kind, target = deck[position]
            member = self._choose(target)
            if member is not None:
                del deck[position]
                task = asyncio.create_task(self._strike(kind, target, member))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                return

    def _choose(self, target: str) -> Member | None:
        groups = {"controller": [self.cluster.controller], "client": list(self.cluster.clients.values())}
        free = [each for each in groups.get(target, self.cluster.workers) if each.is_running and not each.is_busy]
        return self._chance.choice(free) if free else None

    async def _strike(self, kind: str, target: str, member: Member) -> None:
        strike = Strike(kind, target, member.name, time.monotonic(), [member.pid])
        member.is_busy = True
        deeds: dict[str, Callable[[Strike, Member], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "restart": self._restart,
            "blackhole": self._cut,
            "stall": self._cut,
            "partition": self._part,
            "reset": self._reset,
        }
        try:
            await deeds[kind](strike, member)
        finally:
            member.is_busy = False
            strike.ended_at = time.monotonic()

    def _note(self, strike: Strike) -> None:
        self.strikes.append(strike)
        self.cluster.book.write("fault", strike.target, text=str(strike))

    # --- kills

    async def _kill(self, strike: Strike, member: Member) -> None:
        if strike.target in ("executor", "template"):
            await self._kill_part(strike, member)
            return
        strike.pids = member.tree()
        self._note(strike)
        if strike.target == "client":
            self.cluster.killed_clients.add(member.name)
        await self._keep_stats(strike)
        member.send(signal.SIGKILL)
        assert member.process is not None
        await member.process.wait()
        await self._check_gone(strike)
        await asyncio.sleep(self._chance.uniform(*self.pace.down_s))
        await self._replace(strike.target, member)

    async def _kill_part(self, strike: Strike, member: Member) -> None:
        def find() -> list[psutil.Process]:
            templates, executors = find_parts(member)
            return templates if strike.target == "template" else executors

        await until(lambda: bool(find()), PARTS_S)  # a worker that has just been started has none yet
        parts = find()
        if not parts:
            return
        part = self._chance.choice(parts)
        with suppress(psutil.Error):
            strike.pids = [part.pid, *(child.pid for child in part.children(recursive=True))]
            strike.detail = f"pid {part.pid}"
            self._note(strike)
            part.kill()
        if strike.target == "template":  # its executors finish what they run
            strike.pids = [part.pid]
        await self._check_gone(strike)

    async def _keep_stats(self, strike: Strike) -> None:
        if strike.target == "controller":
            self.cluster.stats += await asyncio.to_thread(self.cluster.read_stats)
            strike.at = time.monotonic()

    async def _check_gone(self, strike: Strike) -> None:
        began = time.monotonic()
        if not await until(lambda: not any(map(is_alive, strike.pids)), GONE_S):
            left = [pid for pid in strike.pids if is_alive(pid)]
            self.problems.append(f"orphans: {left} are left {GONE_S} s after: {strike}")
        strike.gone_s = time.monotonic() - began

    async def _replace(self, target: str, member: Member) -> None:
        if target == "controller":
            await self.cluster.start_controller()
        elif target == "worker":
            await self.cluster.start_worker(member)
        else:
            await self.cluster.start_client(member.name.rpartition("-")[0], self.seed)

    async def _keep_workers(self) -> None:
        """Start workers again that ended by themselves, as whoever runs them would."""
        while True:
            await asyncio.sleep(0.3)
            for member in self.cluster.workers:
                if not member.is_busy and not member.is_running:
                    self.worker_exits += 1
                    await self.cluster.start_worker(member)

    # --- what is undone

    async def _stop(self, strike: Strike, member: Member) -> None:
        processes = self._find_stopped(strike.target, member)
        if not processes:
            return
        seconds = self._draw(strike.target)
        strike.pids, strike.detail = [process.pid for process in processes], f"for {seconds:.1f} s"
        self._note(strike)
        for process in processes:
            with suppress(psutil.Error):
                process.suspend()
        try:
            await asyncio.sleep(seconds)
        finally:
            for process in processes:
                with suppress(psutil.Error):
                    process.resume()

    def _find_stopped(self, target: str, member: Member) -> list[psutil.Process]:
        with suppress(psutil.Error):
            process = psutil.Process(member.pid)
            if target == "host":
                return [process, *process.children(recursive=True)]
            if target == "executor":
                _, executors = find_parts(member)
                return [self._chance.choice(executors)] if executors else []
            return [process]
        return []

    async def _restart(self, strike: Strike, member: Member) -> None:
        strike.pids = member.tree()
        self._note(strike)
        await self._keep_stats(strike)
        member.send(signal.SIGTERM)
        assert member.process is not None
        await member.process.wait()
        await self._check_gone(strike)
        await self._replace(strike.target, member)

    async def _cut(self, strike: Strike, member: Member) -> None:
        how = Cut.SWALLOW if strike.kind == "blackhole" else Cut.HOLD
        ways = self._chance.choice(WAYS)
        seconds = self._draw(strike.target)
        strike.pids = member.tree() if strike.target == "worker" else []
        strike.detail = f"{'+'.join(sorted(way.value for way in ways))} for {seconds:.1f} s"
        self._note(strike)
        proxies = self.cluster.proxies if strike.target == "controller" else [member.proxy]
        for proxy in filter(None, proxies):
            proxy.cut(how, ways)
        try:
            await asyncio.sleep(seconds)
        finally:
            for proxy in filter(None, proxies):
                proxy.heal()

    async def _part(self, strike: Strike, member: Member) -> None:
        seconds = self._draw(strike.target)
        strike.pids, strike.detail = member.tree(), f"for {seconds:.1f} s"
        self._note(strike)
        assert member.network is not None
        member.network.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            member.network.heal()

    async def _reset(self, strike: Strike, member: Member) -> None:
        strike.pids = []
        proxies = self.cluster.proxies if strike.target == "controller" else [member.proxy]
        self._note(strike)
        strike.detail = f"{sum(proxy.reset() for proxy in filter(None, proxies))} connections"

    def _draw(self, target: str) -> float:
        return self._chance.uniform(*(self.pace.worker_s if target in ("worker", "host") else self.pace.other_s))


def find_parts(member: Member) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Return the templates and the executors of a worker."""
    with suppress(psutil.Error):
        templates = psutil.Process(member.pid).children()
        return templates, [child for template in templates for child in template.children()]
    return [], []


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
