"""The memory limit is kept, measured as the growth of a process's resident memory. Each measurement is a process of its own."""

from __future__ import annotations

import functools
import gc
import json
import math
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
LOOSE_MB = 20 * LIMIT_MB
REST_MB = 40
"""What a task holds besides: buffers of readers and writers, a block of items, the allocator's slack."""
DRIVER_MB = 40
ROWS = 300_000
"""Of about 500 bytes on the heap each: in each of two shards three times the limit and more."""
WIDE_ROWS = 24_000
"""The same for records of 4 kB."""
SHARDS = 2


def narrow(count: int, shard: int) -> Iterator[dict[str, Any]]:
    """Yield records of which every fifth has the key "hot"."""
    for at in range(count):
        number = (at * 7919 + shard) % count
        yield {"key": "hot" if at % 5 == 0 else f"{shard}-{number}", "n": number, "text": f"{shard}-{at}" * 20}


def wide(count: int, shard: int) -> Iterator[dict[str, Any]]:
    """Yield records that all have one key, and hardly compress."""
    for at in range(count):
        yield {"key": "hot", "n": at, "text": random.randbytes(4096)}


def source(records: Callable[[int, int], Iterator[Any]], rows: int) -> Dataset[Any]:
    return Dataset.from_list(range(SHARDS)).flat_map(functools.partial(records, rows // SHARDS))


def count_ordered(key: Any, records: Iterator[Any]) -> tuple[Any, int]:
    last = -1
    count = 0
    for record in records:
        assert record["n"] >= last
        last = record["n"]
        count += 1
    return key, count


def check_sorted(items: Iterator[Any]) -> list[int]:
    last = ""
    count = 0
    for record in items:
        assert record["text"] >= last
        last = record["text"]
        count += 1
    return [count]


def size(items: Iterator[Any]) -> list[int]:
    return [sum(1 for _ in items)]


# Scenarios: the limit in MB, and the number of rows.


def run(dataset: Dataset[Any], limit_mb: int) -> list[Any]:
    with create_job_ctx("sync") as ctx:
        return Backend.execute(dataset, ctx, ExecutionHint(memory_bytes=limit_mb * MB))


def group_by(limit_mb: int, rows: int) -> None:
    ordered = source(narrow, rows).group_by(itemgetter("key"), count_ordered, 2, sort_by=itemgetter("n"))
    found = run(ordered, limit_mb)
    assert sum(count for _, count in found) == rows
    assert dict(found)["hot"] == rows // 5


def deduplicate(limit_mb: int, rows: int) -> None:
    assert sum(run(source(narrow, rows).deduplicate(itemgetter("text"), 2).map_shard(size), limit_mb)) == rows


def sort(limit_mb: int, rows: int) -> None:
    assert sum(run(source(narrow, rows).sort(itemgetter("text"), 2).map_shard(check_sorted), limit_mb)) == rows


def group_wide(limit_mb: int, rows: int) -> None:
    grouped = source(wide, rows).group_by(itemgetter("key"), count_ordered, 1, sort_by=itemgetter("n"))
    assert run(grouped, limit_mb) == [("hot", rows)]


def join(limit_mb: int, rows: int) -> None:
    left = Dataset.from_list([{"key": "hot", "left": at} for at in range(2)])
    assert run(left.join(source(wide, rows), "key", num_output_shards=1).map_shard(size), limit_mb) == [2 * rows]


def write_parquet(limit_mb: int, rows: int) -> None:
    path = f"{os.environ['FRAY_STORAGE']}/out.parquet"
    run(source(wide, rows).reshard(1).write_parquet(path), limit_mb)
    assert Path(path).stat().st_size > 4096 * rows


def blobs(count: int) -> Iterator[tuple[int, bytes]]:
    for at in range(count):
        yield at, random.randbytes(10_000)


def values(key: Any, found: Iterator[Any]) -> int:
    return sum(1 for _ in found)


def shuffle_on_fray(mappers: int) -> Callable[[], None]:
    """Return a shuffle of 4 MB for each mapper."""
    dataset = Dataset.from_list([400] * mappers).flat_map(blobs).group_by(itemgetter(0), values, 8)
    return lambda: check_on_fray(dataset, None, lambda found: sum(found) == 400 * mappers)


def chunks_on_fray(tasks: int, threshold: float | None = None) -> Callable[[], None]:
    """Return a run of tasks of which each makes a chunk of 0.9 MB, less than what is spilled where there are few tasks."""
    dataset = Dataset.from_list([900_000] * tasks).map(random.randbytes).reshard(tasks).map(len)
    return lambda: check_on_fray(dataset, threshold, lambda found: found == [900_000] * tasks)


def check_on_fray(dataset: Dataset[Any], threshold: float | None, check: Callable[[list[Any]], bool]) -> None:
    with create_job_ctx("fray", controller_address="local[2]") as ctx:
        assert check(Backend.execute(dataset, ctx, spill_threshold_bytes=threshold))


SCENARIOS = {scenario.__name__: scenario for scenario in (group_by, deduplicate, sort, group_wide, join, write_parquet)}
DRIVERS = {
    "shuffle": (shuffle_on_fray(2), shuffle_on_fray(48)),
    "chunks": (chunks_on_fray(2), chunks_on_fray(200)),
    "chunks inline": (chunks_on_fray(2, math.inf), chunks_on_fray(100, math.inf)),
}


def status_mb(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measure_growth_mb(warm_up: Callable[[], None], work: Callable[[], None]) -> float:
    """Return by how many MB the memory of this process grows at most while ``work`` runs."""
    warm_up()
    gc.collect()
    before = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    work()
    return status_mb("VmHWM") - before


def in_a_process(storage: Path, *arguments: Any) -> float:
    environment = {**os.environ, "FRAY_STORAGE": str(storage)}
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout))


def rows_of(scenario: str) -> int:
    return ROWS if scenario in ("group_by", "deduplicate", "sort") else WIDE_ROWS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_task_holds_no_more_than_its_limit(tmp_path: Path, scenario: str) -> None:
    assert in_a_process(tmp_path, scenario, LIMIT_MB) < LIMIT_MB + REST_MB


@pytest.mark.parametrize("scenario", ["sort", "write_parquet"])
def test_a_task_holds_more_when_it_may(tmp_path: Path, scenario: str) -> None:
    assert in_a_process(tmp_path, scenario, LOOSE_MB) > 1.2 * (LIMIT_MB + REST_MB)


@pytest.mark.parametrize("scenario", ["shuffle", "chunks"])
def test_the_driver_holds_references_and_no_data(tmp_path: Path, scenario: str) -> None:
    assert in_a_process(tmp_path, scenario) < DRIVER_MB


def test_the_driver_holds_what_is_never_spilled(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "chunks inline") > 1.5 * DRIVER_MB


if __name__ == "__main__":
    name, *limits = sys.argv[1:]
    if name in DRIVERS:
        growth_mb = measure_growth_mb(*DRIVERS[name])
    else:
        run_scenario = functools.partial(SCENARIOS[name], int(limits[0]))
        growth_mb = measure_growth_mb(lambda: run_scenario(400), lambda: run_scenario(rows_of(name)))
    print(json.dumps(growth_mb))
