"""What is counted as the memory of an executor, and when it is too much."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fray.job.rpc.worker.memory import Claim, Excess, MemoryWatch, find_excess, make_claim

pytestmark = pytest.mark.unit

MB = 1_000_000
GONE = 2**22 + 1
"""No process has this number."""
TAKE = "held = bytearray(b'x') * 60_000_000"
"""60 MB, every page of it written."""
SHARE = f"{TAKE}\nif os.fork() == 0:\n    signal.pause()"
"""60 MB that two processes have together."""
LOOP = """
import mmap, os, signal, subprocess, sys
def start(code):
    command = [sys.executable, "-S", "-c", f"import os, signal\\n{code}\\nprint(flush=True)\\nsignal.pause()"]
    subprocess.Popen(command, stdout=subprocess.PIPE).stdout.readline()
print(flush=True)
for line in sys.stdin:
    exec(eval(line))
    print(flush=True)
"""


class Executor:
    """A process that does what it is told, in the place of an executor."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process
        self._read()

    def run(self, code: str) -> None:
        """Run some lines in it; blocks until they have ended. ``start(code)`` runs lines in a process of its own."""
        assert self._process.stdin is not None
        print(repr(code), file=self._process.stdin, flush=True)
        self._read()

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "\n", "it has failed, see stderr"


@contextmanager
def _executor() -> Iterator[Executor]:
    command = [sys.executable, "-S", "-c", LOOP]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            yield Executor(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it, and those that it has started


@pytest.fixture
def executor() -> Iterator[Executor]:
    with _executor() as executor:
        yield executor


def test_what_a_process_takes_beyond_its_limit_is_told_in_bytes_and_words(executor: Executor) -> None:
    claim = make_claim(executor.pid, 40 * MB)
    executor.run(TAKE)
    excess = find_excess(claim)
    assert excess is not None
    assert 59 * MB < excess.used_bytes < 80 * MB
    assert excess.limit_bytes == 40 * MB


def test_the_words_name_use_limit_option_and_remedy() -> None:
    text = str(Excess(612_300_000, 100 * MB))
    assert text == (
        "used 612.3 MB, its memory limit is 100.0 MB (resources={'memory': 100000000}, in bytes); ask for more or use less"
    )


def test_what_a_process_takes_within_its_limit_is_no_excess(executor: Executor) -> None:
    claim = make_claim(executor.pid, 100 * MB)
    executor.run(TAKE)
    assert find_excess(claim) is None


def test_what_a_process_held_before_it_was_given_work_does_not_count(executor: Executor) -> None:
    executor.run(TAKE)
    claim = make_claim(executor.pid, 40 * MB)
    assert claim.held_bytes > 60 * MB
    assert find_excess(claim) is None


def test_what_processes_it_had_started_before_hold_does_not_count(executor: Executor) -> None:
    executor.run(f"start({TAKE!r})")
    claim = make_claim(executor.pid, 40 * MB)
    assert claim.held_bytes > 60 * MB
    assert find_excess(claim) is None


def test_memory_that_was_given_back_does_not_count(executor: Executor) -> None:
    claim = make_claim(executor.pid, 40 * MB)
    executor.run(TAKE)
    executor.run("del held")
    assert find_excess(claim) is None


def test_files_that_are_mapped_do_not_count(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(bytes(60 * MB))
    claim = make_claim(executor.pid, 40 * MB)
    executor.run(f"file = open({str(path)!r}, 'rb')\nmapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)")
    executor.run("assert mapped.find(b'x') == -1")  # reads all of it
    assert find_excess(claim) is None


def test_what_processes_it_has_started_take_counts(executor: Executor) -> None:
    claim = make_claim(executor.pid, 40 * MB)
    take = "held = bytearray(b'x') * 30_000_000"
    nested = f"if os.fork():\n    signal.pause()\n{take}"
    executor.run(f"start({take!r})")
    executor.run(f"start({nested!r})")
    excess = find_excess(claim)
    assert excess is not None
    assert 59 * MB < excess.used_bytes < 80 * MB


def test_what_processes_share_by_a_fork_counts_once(executor: Executor) -> None:
    claim = make_claim(executor.pid, 40 * MB)
    executor.run(SHARE)
    excess = find_excess(claim)
    assert excess is not None
    assert 55 * MB < excess.used_bytes < 80 * MB


def test_what_processes_share_by_a_fork_is_no_excess_of_a_limit_for_it_once(executor: Executor) -> None:
    claim = make_claim(executor.pid, 80 * MB)
    executor.run(SHARE)
    assert find_excess(claim) is None


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert make_claim(GONE, 1).held_bytes == 0
    assert find_excess(Claim(GONE, 0, 0)) is None


def _watch(limit_bytes: float | None, until_told: bool, ended: bool = False) -> list[tuple[int, Excess]]:
    """Return what a watch of a process tells while it takes 60 MB, until it has told or looked at another one for long."""
    told: list[tuple[int, Excess]] = []

    async def watch(executor: Executor, other: Executor) -> None:
        happened = asyncio.Event()

        def on_excess(number: int, excess: Excess) -> None:
            told.append((number, excess))
            if number == (7 if until_told else 8):
                happened.set()

        watched = MemoryWatch(on_excess)
        watched.begin(7, executor.pid, limit_bytes)
        watched.begin(8, other.pid, 1.0)
        if ended:
            watched.end(7)
        executor.run(TAKE)
        other.run(TAKE)
        task = asyncio.create_task(watched.run())
        await asyncio.wait_for(happened.wait(), 20)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with _executor() as executor, _executor() as other:
        asyncio.run(watch(executor, other))
    return told


def test_a_watch_tells_of_an_excess_with_the_number_of_the_executor() -> None:
    told = dict(_watch(40.0 * MB, until_told=True))
    assert told[7].limit_bytes == 40 * MB


@pytest.mark.parametrize("limit", [None, 0.0, 100.0 * MB])
def test_a_watch_tells_nothing_of_an_executor_without_a_limit_or_within_it(limit: float | None) -> None:
    assert [number for number, _ in _watch(limit, until_told=False)] == [8]


def test_a_watch_tells_nothing_of_an_executor_whose_work_has_ended() -> None:
    assert [number for number, _ in _watch(1.0, until_told=False, ended=True)] == [8]
