"""The command line as its users meet it: real processes, their output, and their exit codes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fray.testing import eventually

pytestmark = pytest.mark.integration

Script = Callable[..., Path]
Command = Callable[..., Any]

OWN_CLASS = """
import os
from dataclasses import dataclass

@dataclass(frozen=True)
class Point:
    x: int

def double(point):
    return Point(point.x * 2)

def main():
    pids = Dataset.from_list([os.getpid()]).map(lambda pid: pid == os.getpid())
    print(Backend.execute(pids), Point(2) in Backend.execute(points()))
    return points().group_by(hash, lambda _, group: next(group), num_output_shards=1)

def points():
    return Dataset.from_list([1]).map(Point).map(double)

if __name__ == "__main__":
    raise SystemExit("started itself")
"""
MEETING = """
import sys
from functools import partial
from pathlib import Path
from fray.testing import eventually

def main():
    guests = Dataset.from_list([f"{Path().absolute()}/guest-{number}" for number in range(2)])
    return guests.map(partial(meet, timeout=float(sys.argv[1])))

def meet(name, timeout):
    Path(name).touch()
    eventually(lambda: len(list(Path(name).parent.glob("guest-*"))) == 2, timeout=timeout)
"""
HANG = """
import threading
from pathlib import Path
def hang(path):
    Path(path).touch()
    while True:
        threading.Event().wait(0.1)
def main(): return Dataset.from_list([f"{Path().absolute()}/begun"]).map(hang)
"""


def test_version_and_help_are_printed(process: Command) -> None:
    assert process("--version").out.startswith("zephyr 0.")
    text = process("--help").out
    for word in ("run", "explain", "inspect", "clean", "Exit codes"):
        assert word in text


def test_items_that_are_read_only_in_part_end_the_run_without_a_traceback(script: Script) -> None:
    path = script("def main(): return Dataset.from_list([0]).flat_map(lambda _: range(10**5))\n")
    command = [sys.executable, "-m", "zephyr", "run", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize("where", [["--controller", "local[1]"], ["--context", "ray", "--workers", "1"]], ids=" ".join)
def test_functions_and_classes_of_a_script_arrive_on_workers_and_come_back(
    where: list[str], process: Command, script: Script, tmp_path: Path
) -> None:
    done = process("run", script(OWN_CLASS), *where)
    assert done.lines == ["[False] True", "Point(x=2)"], done.err
    assert find_processes(tmp_path) == []


@pytest.mark.parametrize(("workers", "timeout_s", "code"), [(2, 30, 0), (1, 1, 1)])
def test_private_cluster_has_as_many_slots_as_there_are_workers(
    workers: int, timeout_s: float, code: int, process: Command, script: Script
) -> None:
    assert process("run", script(MEETING), "--context", "fray", "--workers", workers, "--", timeout_s).code == code


def test_absent_controller_ends_with_3(process: Command, script: Script) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    process("run", script("def main(): ...\n"), "--controller", address).assert_fails(3, address)


@pytest.mark.parametrize("where", [["--controller", "local[1]"], ["--context", "threadpool"]], ids=" ".join)
def test_interrupt_ends_with_130_and_leaves_nothing_behind(where: list[str], script: Script, tmp_path: Path) -> None:
    place = tmp_path / "place"
    # Where the tests run in the background of a shell, processes would ignore the signal.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from zephyr.cli import main; main()"
    command = [sys.executable, "-c", program, "run", str(script(HANG)), "--storage", str(place), *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: (tmp_path / "begun").exists() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=30.0)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(place.iterdir()) == []
    eventually(lambda: not find_processes(tmp_path), what="processes left behind")


def find_processes(place: Path) -> list[str]:
    """Return the command lines of living processes that were started by this test's user."""
    mark = f"XDG_CONFIG_HOME={place / 'home'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found
