"""What is counted as the memory of an executor, and when it is too much."""

from __future__ import annotations

import asyncio
import mmap
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


def _take(size: int) -> bytearray:
    return bytearray(b"x") * size


@contextmanager
def _child(code: str) -> Iterator[None]:
    """A process that this one has started, which holds some memory; ends with those that it has started."""
    command = [sys.executable, "-S", "-c", f"{code}\nprint(flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_what_a_process_takes_beyond_its_limit_is_told_in_bytes_and_words() -> None:
    claim = make_claim(os.getpid(), 40 * MB)
    held = _take(60 * MB)
    excess = find_excess(claim)
    assert excess is not None
    assert 59 * MB < excess.used_bytes < 80 * MB
    assert excess.limit_bytes == 40 * MB
    del held


def test_the_words_name_use_limit_option_and_remedy() -> None:
    text = str(Excess(612_300_000, 100 * MB))
    assert text == (
        "used 612.3 MB, its memory limit is 100.0 MB (resources={'memory': 100000000}, in bytes); ask for more or use less"
    )


def test_what_a_process_takes_within_its_limit_is_no_excess() -> None:
    claim = make_claim(os.getpid(), 100 * MB)
    held = _take(60 * MB)
    assert find_excess(claim) is None
    del held


def test_what_a_process_held_before_it_was_given_work_does_not_count() -> None:
    before = _take(60 * MB)
    claim = make_claim(os.getpid(), 40 * MB)
    assert claim.held_bytes > 60 * MB
    assert find_excess(claim) is None
    del before


def test_memory_that_was_given_back_does_not_count() -> None:
    claim = make_claim(os.getpid(), 40 * MB)
    held = _take(60 * MB)
    del held
    assert find_excess(claim) is None


def test_files_that_are_mapped_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(bytes(60 * MB))
    claim = make_claim(os.getpid(), 40 * MB)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped.find(b"x") == -1  # reads all of it
        assert find_excess(claim) is None


def test_what_processes_it_has_started_take_counts() -> None:
    claim = make_claim(os.getpid(), 40 * MB)
    take = "held = bytearray(b'x') * 30_000_000"
    nested = f"import os, signal\nif os.fork():\n    signal.pause()\n{take}"
    with _child(take), _child(nested):
        excess = find_excess(claim)
    assert excess is not None
    assert 59 * MB < excess.used_bytes < 80 * MB


def test_what_processes_share_by_a_fork_counts_once() -> None:
    fork = "import os, signal\nheld = bytearray(b'x') * 60_000_000\nif os.fork() == 0:\n    signal.pause()"
    claim = make_claim(os.getpid(), 40 * MB)
    with _child(fork):
        excess = find_excess(claim)
    assert excess is not None
    assert 55 * MB < excess.used_bytes < 80 * MB


def test_what_processes_share_by_a_fork_is_no_excess_of_a_limit_for_it_once() -> None:
    fork = "import os, signal\nheld = bytearray(b'x') * 60_000_000\nif os.fork() == 0:\n    signal.pause()"
    claim = make_claim(os.getpid(), 80 * MB)
    with _child(fork):
        assert find_excess(claim) is None


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert make_claim(GONE, 1).held_bytes == 0
    assert find_excess(Claim(GONE, 0, 0)) is None


def _watch(limit_bytes: float | None, until_told: bool, ended: bool = False) -> list[tuple[int, Excess]]:
    """Return what a watch of this process tells while it takes 60 MB, until it has told or looked at another one for long."""
    told: list[tuple[int, Excess]] = []

    async def watch() -> None:
        happened = asyncio.Event()

        def on_excess(number: int, excess: Excess) -> None:
            told.append((number, excess))
            if number == (7 if until_told else 8):
                happened.set()

        watched = MemoryWatch(on_excess)
        watched.begin(7, os.getpid(), limit_bytes)
        watched.begin(8, os.getpid(), 1.0)
        if ended:
            watched.end(7)
        held = _take(60 * MB)
        task = asyncio.create_task(watched.run())
        await asyncio.wait_for(happened.wait(), 20)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        del held

    asyncio.run(watch())
    return told


def test_a_watch_tells_of_an_excess_with_the_number_of_the_executor() -> None:
    told = dict(_watch(40.0 * MB, until_told=True))
    assert told[7].limit_bytes == 40 * MB


@pytest.mark.parametrize("limit", [None, 0.0, 100.0 * MB])
def test_a_watch_tells_nothing_of_an_executor_without_a_limit_or_within_it(limit: float | None) -> None:
    assert [number for number, _ in _watch(limit, until_told=False)] == [8]


def test_a_watch_tells_nothing_of_an_executor_whose_work_has_ended() -> None:
    assert [number for number, _ in _watch(1.0, until_told=False, ended=True)] == [8]
