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


def cpu_by_process(pids: list[int]) -> dict[int, tuple[float, float]]:
    """Return the CPU seconds of processes: their own, and those of their children that have ended and were waited for."""
    found = {pid: fields for pid in pids if (fields := _stat(pid))}
    return {
        pid: (sum(map(int, fields[11:13])) / TICKS_PER_S, sum(map(int, fields[13:15])) / TICKS_PER_S)
        for pid, fields in found.items()
    }


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
        self.name = spec.name
        self._how = (spec, python, log)
        self._closed = False
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
        alarm = threading.Timer(timeout_s, self.kill)  # all of it: forked processes hold the pipe open
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
            raise EngineFailed(f"{do}: {' '.join(answer['error'].split())}")
        return answer

    def measure(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command; add to the answer what it cost the tree: ``cpu_s`` and ``peak_pss_mb``."""
        with TreeMeter() as meter:
            answer = self.ask(do, **arguments)
        return answer | meter.result()

    def again(self) -> EngineProcess:
        """Return a fresh process of the same kind."""
        return EngineProcess(*self._how)

    def kill(self) -> None:
        """Kill the script and then the rest of the tree, as a machine that fails would."""
        self._process.kill()
        _kill_tree()

    def close(self) -> None:
        """Stop the engine; kill what is left of its tree."""
        if self._closed:
            return
        self._closed = True
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
        _kill_tree()
        self._process.wait()
        while descendants():
            _reap()
            time.sleep(0.02)


class TreeMeter:
    """Measures what the tree costs while the ``with`` block runs, on a thread that looks every 0.2 s and once at the end."""

    def __init__(self) -> None:
        self._peak = 0
        self._before = cpu_by_process(descendants())
        self._last = dict(self._before)
        self._now = self._before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="meter", daemon=True)

    def __enter__(self) -> TreeMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def result(self) -> dict[str, Any]:
        """Return ``cpu_s`` and ``peak_pss_mb``; valid once the block has ended.

        A process that has ended is in its parent's account if the parent waited for it, and only in ours, up to the last
        look, if it did not: the larger of the two sums is taken.
        """
        waited_for = sum(map(sum, self._now.values())) - sum(map(sum, self._before.values()))
        seen = sum(own for own, _ in self._last.values()) - sum(own for own, _ in self._before.values())
        return {"cpu_s": round(max(waited_for, seen), 3), "peak_pss_mb": round(self._peak / 1e6, 1)}

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._look()
        self._look()

    def _look(self) -> None:
        pids = descendants()
        self._now = cpu_by_process(pids)
        self._last |= self._now
        self._peak = max(self._peak, sum(map(pss_bytes, pids)))


def _kill_tree() -> None:
    for pid in descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
