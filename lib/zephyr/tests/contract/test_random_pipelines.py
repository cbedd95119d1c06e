"""Whatever the pipeline, Zephyr gives what ``naive`` gives: the same for every spill threshold, chunk size and context.

``ZEPHYR_EXAMPLES=5000`` tries more pipelines than the everyday run.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pipelines
import pytest
from fray import JobContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import Shards
from pipelines import HINTS, THRESHOLDS, Run, Step, check
from zephyr import Backend, ExecutionHint

EXAMPLES = int(os.environ.get("ZEPHYR_EXAMPLES", "300"))
few = settings(
    deadline=None, max_examples=max(5, EXAMPLES // 10), suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)
many = settings(few, max_examples=EXAMPLES)
ways = st.tuples(st.sampled_from(THRESHOLDS), st.sampled_from(HINTS))


def runner(ctx: JobContext, threshold: float | None = None, hints: ExecutionHint = ExecutionHint(), **options: Any) -> Run:
    return functools.partial(Backend.execute, context=ctx, hints=hints, spill_threshold_bytes=threshold, **options)


def iterating_runner(ctx: JobContext, threshold: float | None, hints: ExecutionHint) -> Run:
    return lambda dataset: list(Backend.iterate(dataset, ctx, hints, spill_threshold_bytes=threshold))


@pytest.mark.unit
@pytest.mark.timeout(20 * 60)
@many
@given(shards=pipelines.sources, steps=pipelines.pipelines, way=ways, look_way=ways)
def test_a_pipeline_gives_what_it_means(
    sync_ctx: JobContext, shards: Shards, steps: list[Step], way: Any, look_way: Any
) -> None:
    check(shards, steps, runner(sync_ctx, *way), iterating_runner(sync_ctx, *look_way))


@pytest.mark.unit
@pytest.mark.timeout(20 * 60)
@few
@given(
    shards=pipelines.sources,
    file=st.sampled_from(pipelines.FILES[:-1]),
    reading=pipelines.readings,
    way=ways,
)
def test_looking_at_a_part_of_a_file_while_reading_it_changes_nothing(
    sync_ctx: JobContext, shards: Shards, file: Any, reading: Any, way: Any
) -> None:
    check(shards, [pipelines.read_step(*file, reading)], runner(sync_ctx, *way))


@pytest.mark.unit
@pytest.mark.timeout(20 * 60)
@few
@given(shards=pipelines.sources, steps=pipelines.pipelines, way=ways, parallel=st.sampled_from([1, 2, 1024]))
def test_threads_give_the_order_of_the_sync_context_and_give_it_again(
    sync_ctx: JobContext, threadpool_ctx: JobContext, shards: Shards, steps: list[Step], way: Any, parallel: int
) -> None:
    run = runner(threadpool_ctx, *way, max_parallelism=parallel)
    found = check(shards, steps, run, runner(sync_ctx))
    assert repr(found) == repr(check(shards, steps, run, run))


@pytest.mark.integration
@pytest.mark.timeout(20 * 60)
@settings(few, max_examples=max(15, EXAMPLES // 50))
@given(shards=pipelines.sources, steps=pipelines.pipelines, way=ways)
def test_processes_give_the_order_of_the_sync_context(
    sync_ctx: JobContext, fray_ctx: JobContext, shards: Shards, steps: list[Step], way: Any
) -> None:
    check(shards, steps, runner(fray_ctx, *way), runner(sync_ctx))


SHOW = """
import sys
sys.path[:0] = {path!r}
import pipelines
from fray import create_job_ctx
from zephyr import Backend

with create_job_ctx("sync") as ctx:
    for build in pipelines.SHOWCASE.values():
        print(Backend.execute(pipelines.shards_of(build()), ctx, spill_threshold_bytes=0))
"""


@pytest.mark.integration
def test_another_hash_seed_changes_no_order() -> None:
    outputs = set()
    for seed in ("1", "424242"):
        code = SHOW.format(path=[str(Path(pipelines.__file__).parent)])
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1 and len(outputs.pop().splitlines()) == len(pipelines.SHOWCASE)
