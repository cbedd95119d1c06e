"""An engine's process tree: running it, and what it costs in CPU seconds and memory. Linux only (reads /proc).

The suite adopts orphans (``PR_SET_CHILD_SUBREAPER``), so that daemons which an engine starts stay in its tree, are counted,
and are ended with it. One engine runs at a time: the tree is all descendants of this process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from environments import ENGINES, EngineSpec, clean_environ

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_S = 0.2
"""Memory is read so often: often enough for a peak, seldom enough not to disturb two cores."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 30.0


class EngineFailed(RuntimeError):
    """An engine answered with an error, ended, or took too long; the round is lost."""


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents have ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """Return the ids of all processes below this one, zombies included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time of processes and of their children that have ended."""
    return sum(sum(map(int, fields[11:15])) for fields in map(_stat, pids) if fields) / TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """Return a process's proportional set size: private pages, and its share of shared ones; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def describe(pid: int) -> str:
    """Return a short name for a process, without paths."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return "ended"
    return " ".join(Path(word).name for word in words[:4] if word)[:80]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, or nothing if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class EngineProcess:
    """One running engine script. ``ask`` blocks; ``close`` ends the whole tree and is idempotent."""

    def __init__(self, spec: EngineSpec, python: Path, log: IO[str]) -> None:
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            [python, ENGINES / spec.script, *spec.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean_environ(),
        )

    def ask(self, do: str, timeout_s: float = 600.0, **arguments: Any) -> dict[str, Any]:
        """Send a command and return the answer.

        Raises:
            EngineFailed: if there is no good answer; the log has more.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        alarm = threading.Timer(timeout_s, self._process.kill)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError as error:
            raise EngineFailed(f"{do}: {error}") from error
        finally:
            alarm.cancel()
        if not line:
            raise EngineFailed(f"{do}: the engine ended, or gave no answer within {timeout_s:g} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFailed(f"{do}: {answer['error']}")
        return answer

    def measure(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command; add to the answer what it cost the tree: ``cpu_s`` and ``peak_pss_mb``."""
        pids = descendants()
        before = cpu_seconds(pids)
        with MemoryPeak() as memory:
            answer = self.ask(do, **arguments)
        answer["cpu_s"] = round(cpu_seconds(descendants()) - before, 3)
        answer["peak_pss_mb"] = round(memory.peak / 1e6, 1)
        return answer

    def close(self) -> None:
        """Stop the engine; kill what is left of its tree."""
        with suppress(EngineFailed, OSError):
            self.ask("stop", timeout_s=STOP_TIMEOUT_S)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        deadline = time.monotonic() + 3.0
        while descendants() and time.monotonic() < deadline:
            _reap()
            time.sleep(0.02)
        for pid in descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        while descendants():
            _reap()
            time.sleep(0.02)


class MemoryPeak:
    """Samples the tree's PSS on a thread while the ``with`` block runs, and once at its end."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._look()
        self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, sum(map(pss_bytes, descendants())))


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
