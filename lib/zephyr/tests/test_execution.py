from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fray import FrayError, JobContext, create_job_ctx
from zephyr import Backend, BackendConfig, Dataset, ExecutionHint, PlanError, Shard, StageContext, compute_plan, run_stage
from zephyr.ops import Map, MapOp
from zephyr.storage import InlineRef, StorageManager

pytestmark = pytest.mark.unit

ITEMS = [(1, {"a"}), datetime.fromisoformat("2020-01-01"), Decimal("1.50"), {"x": (1, 2), 2: b"\0"}, None, "text", [1.5, True]]


def test_items_come_in_the_order_of_shards(ctx: JobContext) -> None:
    dataset = Dataset.from_iterable(iter(range(50))).flat_map(range).filter(lambda x: x % 2).map(lambda x: -x)
    assert Backend.execute(dataset, ctx) == [-x for n in range(50) for x in range(n) if x % 2]


def test_a_dataset_without_operations_returns_its_items(ctx: JobContext) -> None:
    assert Backend.execute(Dataset.from_list(ITEMS), ctx) == ITEMS
    assert Backend.execute(Dataset.from_list([]), ctx) == []


@pytest.mark.parametrize("threshold", [0, 1, math.inf])
@pytest.mark.parametrize("chunk_size", [1, 3, -1])
def test_spilling_and_chunking_change_no_result(ctx: JobContext, threshold: float, chunk_size: int) -> None:
    grouped = (
        Dataset.from_list([ITEMS] * 4)
        .flat_map(iter)
        .reshard(3)
        .group_by(lambda x: x, lambda key, values: (key, list(values)), 5)
        .map(lambda pair: pair)
        .reshard(2)
    )
    found = Backend.execute(grouped, ctx, ExecutionHint(chunk_size), spill_threshold_bytes=threshold)
    assert found == Backend.execute(grouped, ctx)
    assert sorted(map(repr, found)) == sorted(repr((item, [item] * 4)) for item in ITEMS)


def test_map_shard_keeps_state_over_a_shard_and_sees_empty_ones(ctx: JobContext) -> None:
    dataset = Dataset.from_list([3, 0, 2]).flat_map(range).map_shard(lambda items: [sum(1 for _ in items)])
    assert Backend.execute(dataset, ctx) == [3, 0, 2]


def test_reduce_and_count_give_one_value(ctx: JobContext) -> None:
    dataset = Dataset.from_list([3, 0, 4]).flat_map(range)
    assert Backend.execute(dataset.count(), ctx) == [7]
    assert Backend.execute(dataset.reduce(sum), ctx) == [9]
    assert Backend.execute(dataset.reduce(list, lambda lists: max(lists, key=len)), ctx) == [[0, 1, 2, 3]]
    assert Backend.execute(Dataset.from_list([]).count(), ctx) == []


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 30])
def test_reshard_splits_evenly_and_keeps_the_order(ctx: JobContext, shards: int) -> None:
    dataset = Dataset.from_list([20, 0, 1]).flat_map(range).reshard(shards)
    parts = Backend.execute(dataset.map_shard(lambda items: [list(items)]), ctx, ExecutionHint(4))
    assert len(parts) == shards and list(itertools.chain(*parts)) == [*range(20), 0]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Backend.execute(dataset.reshard(3).reshard(2), ctx) == [*range(20), 0]


def test_iterate_yields_the_same_and_cleans_up_when_closed(ctx: JobContext, base: Path) -> None:
    dataset = Dataset.from_list([5] * 4).flat_map(range)
    assert list(Backend.iterate(dataset, ctx)) == Backend.execute(dataset, ctx)
    items = Backend.iterate(dataset, ctx, spill_threshold_bytes=0)
    assert next(items) == 0 and len(list(base.iterdir())) == 1
    items.close()  # type: ignore[attr-defined]
    assert list(base.iterdir()) == []
    with pytest.raises(PlanError):
        Backend.iterate(dataset.write_jsonl("same"), ctx)


def test_the_default_context_is_frays() -> None:
    from fray import fray_default_job_ctx

    with create_job_ctx("sync") as ctx, fray_default_job_ctx(ctx):
        assert Backend.execute(Dataset.from_list([1])) == [1]


def test_dry_run_prints_the_plan_and_does_nothing(ctx: JobContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.from_list([1]).map(lambda x: 1 // 0).write_jsonl(f"{tmp_path}/out.jsonl")
    before = list(tmp_path.iterdir())
    assert Backend.execute(dataset, ctx, dry_run=True) == []
    assert capsys.readouterr().out == dataset.explain() + "\n" and list(tmp_path.iterdir()) == before


def test_verbose_prints_the_plan_too(sync: JobContext, capsys: pytest.CaptureFixture[str]) -> None:
    assert Backend.execute(Dataset.from_list([1]), sync, verbose=True) == [1]
    assert capsys.readouterr().out == "source: 1 item\n"


def test_progress_counts_shards_and_rows(sync: JobContext, capsys: pytest.CaptureFixture[str]) -> None:
    Backend.execute(Dataset.from_list([2, 3]).flat_map(range), sync, name="job", progress=True)
    assert "job: stage 1 of 1" in (text := capsys.readouterr().err) and "2/2" in text and "5 rows" in text


class Mine(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def test_the_users_exception_arrives_as_itself_with_its_place(ctx: JobContext, tmp_path: Path, base: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(str(number))

    def fail(line: str) -> str:
        if line == "1":
            raise Mine(7)
        return line

    with pytest.raises(Mine) as caught:
        dataset = Dataset.from_files(f"{tmp_path}/*.txt").load_text().map(fail)
        Backend.execute(dataset, ctx, name="job", spill_threshold_bytes=0, max_parallelism=1)
    assert caught.value.code == 7
    step, place = caught.value.__notes__
    assert step == f"in MapOp(fn={fail.__qualname__}), given '1'"
    assert place.startswith("in job: stage 1 of 1 (Map(LoadOp(reader=TextReader(")
    assert place.endswith(f"MapOp(fn={fail.__qualname__}))), shard 1 of 3, file {tmp_path}/1.txt, record 1")
    assert list(base.iterdir()) == []


@pytest.mark.parametrize("parallel", [1, 1024])
def test_no_shard_starts_after_the_first_failure(sync: JobContext, parallel: int) -> None:
    started = []

    def fail_at_two(x: int) -> int:
        started.append(x)
        if x == 2:
            raise Mine(x)
        return x

    with pytest.raises(Mine):
        Backend.execute(Dataset.from_list(range(10)).map(fail_at_two), sync, max_parallelism=parallel)
    assert started == [0, 1, 2]


def test_at_most_max_parallelism_shards_are_under_way() -> None:
    lock, now, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    def meet(x: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(10)
        with lock:
            now -= 1
        return x

    with create_job_ctx("threadpool", max_workers=8) as ctx:
        assert Backend.execute(Dataset.from_list(range(6)).map(meet), ctx, max_parallelism=2) == list(range(6))
    assert most == 2


def test_what_is_under_way_is_cancelled_on_failure() -> None:
    waiting, stopped = threading.Event(), threading.Event()

    def work(x: int) -> int:
        if x == 0:
            waiting.wait(10)
            raise Mine(x)
        try:
            waiting.set()
            while True:
                pass
        finally:
            stopped.set()

    with create_job_ctx("threadpool", max_workers=2) as ctx, pytest.raises(Mine):
        Backend.execute(Dataset.from_list([0, 1]).map(work), ctx)
    assert stopped.wait(10)


def test_a_stop_iteration_from_user_code_does_not_end_the_data(ctx: JobContext) -> None:
    for dataset in (
        Dataset.from_list([[], [1]]).map(lambda x: next(iter(x))),
        Dataset.from_list([[]]).filter(lambda x: next(iter(x))),
    ):
        with pytest.raises(RuntimeError, match="StopIteration"):
            Backend.execute(dataset, ctx)


def test_thousands_of_tiny_files_share_tasks(tmp_path: Path, sync: JobContext) -> None:
    for number in range(300):
        (tmp_path / f"{number:03d}.txt").write_text(f"{number}\n{number}\n")
    calls = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(sync, name)

        def options(self, **_: Any) -> Counting:
            return self

        def run(self, *args: Any) -> Any:
            calls.append(args)
            return sync.run(*args)

    files = Dataset.from_files(f"{tmp_path}/*.txt")
    lines = [str(number) for number in range(300) for _ in range(2)]
    assert Backend.execute(files.load_text(), Counting()) == lines  # type: ignore[arg-type]
    assert 64 <= len(calls) <= 100
    grouped = files.load_text().group_by(lambda line: line, lambda line, lines: (line, len(list(lines))), 3)
    assert sorted(Backend.execute(grouped, sync)) == sorted((str(number), 2) for number in range(300))
    sizes = Backend.execute(files.load_text().map_shard(lambda shard: [len(list(shard))]), sync)
    assert sizes == [2] * 300


def test_run_stage_returns_headers_and_references(tmp_path: Path) -> None:
    shard = Shard((InlineRef(b"", 0),))
    plan = compute_plan(Dataset.from_list([3]).flat_map(range))
    with StorageManager(str(tmp_path)) as storage, create_job_ctx("sync") as ctx:
        assert [list(shard) for shard in Backend(ctx, BackendConfig(), storage).run(plan)] == [[0, 1, 2]]
        context = StageContext(shard, 0, 1, 2, storage.stage_path)
        assert run_stage(context, [Map((MapOp(str),))]) == []
        (source,) = Backend(ctx, BackendConfig(), storage).run(compute_plan(Dataset.from_list([5]).flat_map(range)))
        found = run_stage(StageContext(source, 4, 9, 2, storage.stage_path), [Map((MapOp(str),))])
    assert [(header.shard_idx, header.count, list(ref)) for header, ref in found] == [
        (4, 2, ["0", "1"]),
        (4, 2, ["2", "3"]),
        (4, 1, ["4"]),
    ]
    assert [list(chunk) for chunk in Shard(tuple(ref for _, ref in found)).iter_chunks()] == [["0", "1"], ["2", "3"], ["4"]]


@pytest.mark.parametrize("options", [{"max_parallelism": 0}, {"progress": "sometimes"}])
def test_options_that_make_no_sense_are_refused(sync: JobContext, options: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        Backend.execute(Dataset.from_list([1]), sync, **options)


def add(key: int, values: Iterator[int]) -> tuple[int, int]:
    return key, sum(values)


@pytest.mark.integration
def test_results_on_fray_are_those_of_the_sync_context(sync: JobContext, tmp_path: Path) -> None:
    def build(name: str) -> list[Dataset[Any]]:
        grouped = Dataset.from_list(range(20)).flat_map(range).group_by(lambda x: x % 5, lambda k, v: (k, sum(v)), 3)
        return [grouped, grouped.write_jsonl(f"{tmp_path}/{name}/{{shard}}.jsonl").load_text(), grouped.count()]

    def fail(x: int) -> int:
        raise ValueError(f"bad {x}")

    with create_job_ctx("fray", controller_address="local[2]") as fray:
        for one, other in zip(build("sync"), build("fray"), strict=True):
            for threshold in (0, None):
                expected = Backend.execute(one, sync)
                assert Backend.execute(other, fray, spill_threshold_bytes=threshold) == expected
        with pytest.raises(ValueError, match="bad 1") as caught:
            Backend.execute(Dataset.from_list([1]).map(fail), fray)
        assert any("shard 0 of 1" in note for note in caught.value.__notes__)
        with pytest.raises(FrayError) as crashed:
            Backend.execute(Dataset.from_list([1, 9]).map(os._exit), fray, max_parallelism=1)
        assert any("shard 0 of 2" in note for note in crashed.value.__notes__)
