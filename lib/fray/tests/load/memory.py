"""What processes and directories take, as the system counts it (Linux)."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

SAMPLE_S = 0.1
"""Between two looks at a directory."""


def read_private_bytes(pid: int) -> int:
    """Return the memory that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def reset_peak(pid: int) -> None:
    """Let ``read_peak_bytes`` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def read_peak_bytes(pid: int) -> int:
    """Return the most resident memory that a process had since ``reset_peak``."""
    return _read_status(pid, "VmHWM") * 1024


def read_resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return _read_status(pid, "VmRSS") * 1024


def read_cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def measure_directory(folder: Path) -> int:
    """Return the bytes of all files below a directory."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(root) / name).stat().st_size
    return total


class DiskWatch:
    """Remembers the most bytes that were in a directory while it was watched."""

    def __init__(self, folder: Path) -> None:
        self.peak_bytes = 0
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)

    def __enter__(self) -> DiskWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, measure_directory(self._folder))


def _read_status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} has ended")
