"""What client processes do: ``python -m load.clients WHAT SIZES``; the cluster is that of the environment, SIZES are JSON.

The last line that is printed is what was found, as JSON. The functions of tasks are local ones: executors cannot import this.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fray import JobContext, create_job_ctx

from load.memory import read_peak_bytes, read_resident_bytes, reset_peak

Found = dict[str, float]


def count(tasks: int) -> Found:
    """Queue tasks, wait to be told, then take their results."""

    def same(number: int) -> int:
        return number

    with create_job_ctx("fray") as ctx:
        before = _begin_to_measure()
        began = time.monotonic()
        futures = [ctx.run(same, number) for number in range(tasks)]
        submitted_s = time.monotonic() - began
        print("queued", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        wrong = sum(future.result() != number for number, future in enumerate(futures))
        drained_s = time.monotonic() - began
        return {"wrong": wrong, "submitted_s": submitted_s, "drained_s": drained_s, "grown_bytes": _measure(before)}


def feed(tasks: int, size_bytes: int, task_s: float) -> Found:
    """Submit large arguments as fast as the session takes them, and check what the tasks saw of them."""

    def look(data: bytes) -> tuple[int, int]:
        threading.Event().wait(task_s)
        return len(data), zlib.crc32(data)

    with create_job_ctx("fray") as ctx:
        before = _begin_to_measure()
        began = time.monotonic()
        futures = []
        wanted = []
        for number in range(tasks):
            data = struct.pack(">Q", number) * (size_bytes // 8)
            wanted.append((len(data), zlib.crc32(data)))
            futures.append(ctx.run(look, data))
        submitted_s = time.monotonic() - began
        waiting = sum(not future.done() for future in futures)
        wrong = sum(future.result() != want for future, want in zip(futures, wanted, strict=True))
        spent_s = time.monotonic() - began
        found = {"wrong": wrong, "submitted_s": submitted_s, "spent_s": spent_s, "waiting_when_submitted": waiting}
        found["grown_bytes"] = _measure(before)
        print("done", flush=True)
        sys.stdin.readline()
        return found


def fetch(tasks: int, size_bytes: int) -> Found:
    """Queue tasks with large results, wait to be told, then take them."""

    def make(number: int) -> tuple[int, bytes]:
        return number, bytes(size_bytes)

    with create_job_ctx("fray") as ctx:
        futures = [ctx.run(make, number) for number in range(tasks)]
        print("queued", flush=True)
        sys.stdin.readline()
        results = (future.result() for future in futures)
        return {"wrong": sum(got != (number, bytes(size_bytes)) for number, got in enumerate(results))}


def crowd(clients: int, tasks: int) -> Found:
    """Be many clients at once, each with a session and some tasks."""

    def add(client: int, number: int) -> tuple[int, int]:
        return client, number

    def work(client: int, ctx: JobContext) -> int:
        futures = [ctx.run(add, client, number) for number in range(tasks)]
        return sum(future.result() != (client, number) for number, future in enumerate(futures))

    before = _begin_to_measure()
    began = time.monotonic()
    with ThreadPoolExecutor(min(clients, 50)) as pool:
        contexts = list(pool.map(lambda _: create_job_ctx("fray"), range(clients)))
    opened_s = time.monotonic() - began
    print("opened", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        wrong = sum(pool.map(work, range(clients), contexts))
        spent_s = time.monotonic() - began
        list(pool.map(lambda ctx: ctx.close(), contexts))
    return {"wrong": wrong, "opened_s": opened_s, "spent_s": spent_s, "grown_bytes": _measure(before)}


def trip(tasks: int) -> Found:
    """Make round trips one after the other, and a burst; when told to, the same again while something odd goes on."""

    def same(number: int) -> int:
        return number

    def measure() -> tuple[int, float, float]:
        began = time.monotonic()
        wrong = sum(ctx.get(ctx.run(same, number)) != number for number in range(tasks))
        trips_s = time.monotonic() - began
        futures = [ctx.run(same, number) for number in range(10 * tasks)]
        wrong += sum(future.result() != number for number, future in enumerate(futures))
        return wrong, trips_s, time.monotonic() - began - trips_s

    with create_job_ctx("fray") as ctx:
        measure()  # warm
        calm = measure()
        print("calm", flush=True)
        sys.stdin.readline()
        odd = measure()
    return {"wrong": calm[0] + odd[0], "trips": calm[1] / odd[1], "bursts": calm[2] / odd[2]}


def chatter(tasks: int, lines: int) -> Found:
    """Let tasks print much, while nobody reads what this process prints of it."""

    def talk(number: int) -> int:
        for line in range(lines):
            print(f"task {number} line {line} {'x' * 80}")
        return number

    with create_job_ctx("fray") as ctx:
        futures = [ctx.run(talk, number) for number in range(tasks)]
        wrong = sum(future.result() != number for number, future in enumerate(futures))
    return {"wrong": wrong}


def _begin_to_measure() -> int:
    reset_peak(os.getpid())
    return read_resident_bytes(os.getpid())


def _measure(before: int) -> int:
    return read_peak_bytes(os.getpid()) - before


def main() -> None:
    """Do one thing and tell what was found."""
    things: dict[str, Callable[..., Found]] = {thing.__name__: thing for thing in (count, feed, fetch, crowd, trip, chatter)}
    sizes: dict[str, Any] = json.loads(sys.argv[2])
    threading.stack_size(256 * 1024)
    print(json.dumps(things[sys.argv[1]](**sizes)), flush=True)


if __name__ == "__main__":
    main()
