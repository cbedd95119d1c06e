"""Which executors take more memory than what runs on them has asked for.

Counted is anonymous memory, in RAM or swapped out, that an executor and the processes that it has started have taken since it
was given its work; what several processes share by a fork counts once. Files that are mapped do not count, such as payloads,
and neither does shared memory: the executor's end would not free it. A kernel that does not tell a process's children (no
``/proc/PID/task/TID/children``) leaves the executor alone to be counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SAMPLE_S = 0.5
"""Between two looks at the executors."""
SAMPLE_SHARE = 0.05
"""Of one CPU, what looking may take: with very many processes looks become rarer."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What an executor may take for what it was given."""

    pid: int
    """Its process."""
    limit_bytes: int
    """More is too much."""
    held_bytes: int
    """What it and the processes that it has started held before, on nobody's account: libraries, caches, helpers."""


@dataclass(frozen=True, slots=True)
class Excess:
    """More than was asked for."""

    used_bytes: int
    """What is used."""
    limit_bytes: int
    """What was asked for."""

    def __str__(self) -> str:
        used, limit = (f"{amount / 1e6:.1f} MB" for amount in (self.used_bytes, self.limit_bytes))
        asked = f"resources={{'memory': {self.limit_bytes}}}"
        return f"used {used}, its memory limit is {limit} ({asked}, in bytes); ask for more or use less"


def make_claim(pid: int, limit_bytes: int) -> Claim:
    """Return the claim of an executor that is about to be given work."""
    return Claim(pid, limit_bytes, sum(map(_anonymous_bytes, _processes(pid))))


def find_excess(claim: Claim) -> Excess | None:
    """Return by how much an executor goes beyond its claim, or None. A process that has ended uses nothing."""
    pids = list(_processes(claim.pid))
    allowed_bytes = claim.held_bytes + claim.limit_bytes
    if sum(map(_anonymous_bytes, pids)) <= allowed_bytes:  # what they share counts in each: it cannot be less than there is
        return None
    used_bytes = sum(map(_share_bytes, pids)) - claim.held_bytes
    return Excess(used_bytes, claim.limit_bytes) if used_bytes > claim.limit_bytes else None


class MemoryWatch:
    """Looks at executors again and again. Belongs to one event loop; reads on another thread."""

    def __init__(self, on_excess: Callable[[int, Excess], None]) -> None:
        """Begin with none. ``on_excess`` is told the number of an executor beyond its claim, once for each claim."""
        self._on_excess = on_excess
        self._claims: dict[int, Claim] = {}
        self._wanted = asyncio.Event()

    def begin(self, number: int, pid: int, limit_bytes: float | None) -> None:
        """Watch an executor that is about to be given work, in the place of what it had; None and 0 are no limit."""
        self.end(number)
        if limit_bytes:
            self._claims[number] = make_claim(pid, int(limit_bytes))
            self._wanted.set()

    def end(self, number: int) -> None:
        """Watch an executor no more. Idempotent."""
        self._claims.pop(number, None)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if not self._claims:
                self._wanted.clear()
                await self._wanted.wait()
            began = time.monotonic()
            for number, excess in (await asyncio.to_thread(_find_all, dict(self._claims))).items():
                self._tell(number, *excess)
            await asyncio.sleep(max(SAMPLE_S, (time.monotonic() - began) / SAMPLE_SHARE))

    def _tell(self, number: int, claim: Claim, excess: Excess) -> None:
        if self._claims.get(number) is claim:  # else it has got other work meanwhile
            self.end(number)
            self._on_excess(number, excess)


def _find_all(claims: Mapping[int, Claim]) -> dict[int, tuple[Claim, Excess]]:
    found = ((number, claim, find_excess(claim)) for number, claim in claims.items())
    return {number: (claim, excess) for number, claim, excess in found if excess is not None}


def _processes(pid: int) -> Iterator[int]:
    """Return a process, those that it has started and those that they have, as far as their parents live."""
    yield pid
    for path in _list(PROC / str(pid) / "task"):
        for child in map(int, _read(path / "children").split()):
            yield from _processes(child)


def _anonymous_bytes(pid: int) -> int:
    return _sum(PROC / str(pid) / "status", ("RssAnon:", "VmSwap:"))


def _share_bytes(pid: int) -> int:
    """As above, but what several processes have together in equal parts. Takes about a millisecond for each gigabyte."""
    return _sum(PROC / str(pid) / "smaps_rollup", ("Pss_Anon:", "SwapPss:"))


def _sum(path: Path, names: tuple[str, ...]) -> int:
    """Return the sum of some lines such as ``VmSwap:  12 kB``, in bytes; 0 if they cannot be read."""
    fields = (line.split() for line in _read(path).splitlines())
    return sum(int(field[1]) * 1024 for field in fields if field and field[0] in names)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")  # names of processes may be of any bytes
    except OSError:  # it has ended, or is not ours any more
        return ""


def _list(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:  # as above
        return []
