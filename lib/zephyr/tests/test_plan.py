from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zephyr import Dataset, ExecutionHint, PlanError, StageType, compute_plan
from zephyr.ops import Fold, Map, MapOp, Reduce, Reshard, Scatter, Write

pytestmark = pytest.mark.unit

three = Dataset.from_list([1, 2, 3])


def double(x: int) -> int:
    return 2 * x


def kinds(dataset: Dataset[Any]) -> list[list[type]]:
    return [[type(op) for op in stage.operations] for stage in compute_plan(dataset).stages]


def test_narrow_operations_become_one_map() -> None:
    plan = compute_plan(three.map(double).filter(bool).flat_map(range).map_shard(iter))
    (stage,) = plan.stages
    (fused,) = stage.operations
    assert isinstance(fused, Map) and len(fused.operations) == 4
    assert (stage.stage_type, stage.output_shards, plan.num_shards) == (StageType.WORKER, 3, 3)


def test_reshard_cuts_stages() -> None:
    assert kinds(three.map(double).map(double).reshard(5).map(double)) == [[Map], [Reshard], [Map]]
    assert [stage.output_shards for stage in compute_plan(three.map(double).reshard(5).map(double)).stages] == [3, 5, 5]
    assert three.reshard(None) is three


def test_group_by_scatters_and_reduces() -> None:
    assert kinds(three.map(double).group_by(double, max, 7).map(double)) == [[Map, Scatter], [Reduce, Map]]
    assert [stage.output_shards for stage in compute_plan(three.group_by(double, max, 7)).stages] == [7, 7]


def test_group_by_keeps_the_number_of_shards_up_to_a_limit() -> None:
    assert compute_plan(three.group_by(double, max)).stages[-1].output_shards == 3
    assert compute_plan(Dataset.from_list(range(1000)).group_by(double, max)).stages[-1].output_shards == 64


def test_an_empty_source_has_no_shards_anywhere() -> None:
    plan = compute_plan(Dataset.from_list([]).group_by(double, max, 7).reshard(3).count())
    assert plan.num_shards == 0 and {stage.output_shards for stage in plan.stages} == {0}


def test_reduce_folds_twice() -> None:
    assert kinds(three.map(double).reduce(sum)) == [[Map, Fold], [Reshard], [Fold]]


def test_write_ends_a_stage_with_the_map_before_it() -> None:
    assert kinds(three.map(double).write_jsonl("{shard}.jsonl")) == [[Map, Write]]
    assert kinds(three.map(double).write_jsonl("{shard}.jsonl").load_text()) == [[Map, Write], [Map]]


def test_planning_is_pure_and_datasets_do_not_change() -> None:
    before = three.operations
    dataset = three.map(double).group_by(double, max)
    assert compute_plan(dataset) == compute_plan(dataset) and three.operations == before


def test_operations_show_the_names_of_functions() -> None:
    assert repr(MapOp(double)) == "MapOp(fn=double)"
    assert repr(MapOp(functools.partial(functools.partial(double), 1))) == "MapOp(fn=double)"
    assert three.map(double).group_by(double, max, 2).explain() == (
        "source: 3 items\n"
        "stage 1 (worker), 3 -> 2 shards\n"
        "  Map\n"
        "    MapOp(fn=double)\n"
        "  Scatter(key=double, num_shards=2)\n"
        "stage 2 (worker), 2 -> 2 shards\n"
        "  Reduce(reducer=max)"
    )


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: three.write_jsonl("out.jsonl"), "put {shard} into it"),
        (lambda: three.write_jsonl("{name}.jsonl"), "uses {name}"),
        (lambda: three.write_jsonl("{}.jsonl"), "uses {}"),
        (lambda: three.write_jsonl("{shard"), "malformed"),
        (lambda: three.write_jsonl("{shard:q}"), "malformed"),
        (lambda: three.write_jsonl(lambda shard, total: "same"), "for both shard 0 and shard 1"),
        (lambda: three.write_jsonl("{shard}.jsonl.xz"), "not supported"),
        (lambda: three.write_jsonl("{shard}").map(double), "only a load may follow a write"),
        (lambda: three.write_jsonl("{shard}").group_by(double, max), "only a load may follow a write"),
        (lambda: three.group_by(double, max, 0), "at least 1"),
        (lambda: three.reshard(-1), "at least 1"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(build: Callable[[], Dataset[Any]], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        compute_plan(build())


def test_one_shard_needs_no_shard_in_its_pattern() -> None:
    compute_plan(Dataset.from_list([1]).write_jsonl("out.jsonl"))


def test_what_is_no_function_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="map takes a function, not int"):
        three.map(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -2])
def test_chunk_size_is_positive_or_minus_one(size: int) -> None:
    with pytest.raises(PlanError, match="chunk_size"):
        ExecutionHint(chunk_size=size)


def test_files_are_found_with_stars_and_braces_in_order(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a.txt", "b/c/3.txt", "b/x.csv", "b/y.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = Dataset.from_files(f"{tmp_path}/**/*.txt").source
    assert found.items == tuple(str(tmp_path / name) for name in ("a.txt", "b/2.txt", "b/c/3.txt"))
    assert found.sizes_bytes == (5, 7, 9)
    assert Dataset.from_files(f"{tmp_path}/b/*.{{csv,md}}").source.items == (f"{tmp_path}/b/x.csv", f"{tmp_path}/b/y.md")
    assert compute_plan(Dataset.from_files(f"{tmp_path}/*")).num_shards == 1  # directories are no files


def test_no_matching_file_names_the_pattern(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file matches '.*\.nothing'"):
        Dataset.from_files(f"{tmp_path}/*.nothing")
    assert Dataset.from_files(f"{tmp_path}/*.nothing", empty_glob_ok=True).source.items == ()
