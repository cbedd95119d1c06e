"""The memory limit is kept, measured as the growth of a process's resident memory; each scenario is a process of its own."""

from __future__ import annotations

import functools
import gc
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from fray import create_job_ctx
from zephyr import Backend, Dataset, ExecutionHint

pytestmark = pytest.mark.integration

MB = 1024 * 1024
LIMIT_MB = 24
REST_MB = 40
"""What a task holds beside what the limit is about: buffers of readers and writers, a block of items, the allocator's slack."""
WIDE_MB = 10 * LIMIT_MB
ROWS = 320_000
SHARDS = 4


def rows(shard: int, count: int = ROWS // SHARDS) -> Iterator[dict[str, Any]]:
    """Yield records of which every fifth has the key "hot"; they take about 500 bytes each on the heap."""
    for at in range(count):
        number = (at * 7919 + shard) % count
        yield {"key": "hot" if at % 5 == 0 else f"{shard}-{number}", "n": number, "text": f"{shard}-{at}" * 20}


def source() -> Dataset[Any]:
    return Dataset.from_list(range(SHARDS)).flat_map(rows)


def count_ordered(key: Any, records: Iterator[Any]) -> tuple[Any, int]:
    last, count = -1, 0
    for count, record in enumerate(records, 1):  # noqa: B007
        assert record["n"] >= last
        last = record["n"]
    return key, count


def sizes(items: Iterator[Any]) -> list[int]:
    return [sum(1 for _ in items)]


def check_sorted(items: Iterator[Any]) -> list[int]:
    last, count = "", 0
    for count, record in enumerate(items, 1):  # noqa: B007
        assert record["text"] >= last
        last = record["text"]
    return [count]


def run(dataset: Dataset[Any], limit_mb: int) -> list[Any]:
    with create_job_ctx("sync") as ctx:
        return Backend.execute(dataset, ctx, ExecutionHint(memory_bytes=limit_mb * MB))


def group(limit_mb: int) -> None:
    found = run(source().group_by(itemgetter("key"), count_ordered, 2, sort_by=itemgetter("n")), limit_mb)
    assert sum(count for _, count in found) == ROWS
    assert dict(found)["hot"] == ROWS // 5


def deduplicate(limit_mb: int) -> None:
    assert sum(run(source().deduplicate(itemgetter("text"), 2).map_shard(sizes), limit_mb)) == ROWS


def sort(limit_mb: int) -> None:
    assert sum(run(source().sort(itemgetter("text"), 2).map_shard(check_sorted), limit_mb)) == ROWS


def join(limit_mb: int, text_bytes: int = 100) -> None:
    left = Dataset.from_list([{"key": "hot", "left": at} for at in range(2)])
    right = Dataset.from_list([WIDE_MB * MB // text_bytes // 2] * 2).flat_map(functools.partial(hot, text_bytes))
    found = run(left.join(right, "key", num_output_shards=1).map_shard(sizes), limit_mb)
    assert found == [2 * 2 * (WIDE_MB * MB // text_bytes // 2)]


def hot(text_bytes: int, count: int) -> Iterator[dict[str, Any]]:
    for at in range(count):
        yield {"key": "hot", "right": at, "text": random.randbytes(text_bytes)}


def join_wide(limit_mb: int) -> None:
    join(limit_mb, 32 * 1024)


def write_parquet(limit_mb: int) -> None:
    count = WIDE_MB * MB // 10_000
    path = f"{os.environ['FRAY_STORAGE']}/out.parquet"
    run(Dataset.from_list([count]).flat_map(functools.partial(hot, 10_000)).write_parquet(path), limit_mb)
    assert Path(path).stat().st_size > 0.9 * WIDE_MB * MB


def status_mb(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measure(work: Callable[[], None]) -> float:
    """Return by how many MB the memory of this process grows at most while ``work`` runs."""
    gc.collect()
    before = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    work()
    return status_mb("VmHWM") - before


if __name__ == "__main__":
    name, limit = sys.argv[1], int(sys.argv[2])
    if name in ("write_parquet", "join_wide", "join"):
        scale, WIDE_MB = WIDE_MB, 1
    else:
        scale, ROWS = ROWS, 2_000
    import time

    t = time.time()
    print(json.dumps(measure(lambda: globals()[name](limit))), time.time() - t)
