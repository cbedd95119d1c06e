"""Every verb on every context: nothing at all, empty shards, None, keys that have no hash, generators, functions that raise."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import random
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import naive
import pipelines
import pytest
import zephyr
from fray import JobContext, create_job_ctx
from naive import Shards
from pipelines import Box, Point, Refused, Step, by_n, check, refuse, refuse_late, shards_of, source_of
from zephyr import Backend, Dataset, PlanError, ZephyrError, compute_plan, expr


@pytest.fixture(scope="module")
def ray_ctx() -> Iterator[JobContext]:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("CI"):
            pytest.fail("Ray is not installed: it must be for CI")
        pytest.skip("Ray is not installed: pip install 'fray[ray]'")
    with create_job_ctx("ray", max_workers=2) as context:
        yield context


HERE = [pytest.param(name, marks=pytest.mark.unit) for name in ("sync", "threadpool")]
FRAY = pytest.param("fray", marks=pytest.mark.integration)
RAY = pytest.param("ray", marks=pytest.mark.integration)


@pytest.fixture(params=[*HERE, FRAY])
def anywhere(request: pytest.FixtureRequest) -> JobContext:
    context: JobContext = request.getfixturevalue(f"{request.param}_ctx")
    return context


@pytest.fixture(params=[*HERE, FRAY, RAY])
def everywhere(request: pytest.FixtureRequest) -> JobContext:
    """With Ray, which is slow: for a few tests only."""
    context: JobContext = request.getfixturevalue(f"{request.param}_ctx")
    return context


SITUATIONS: dict[str, Shards] = {
    "an empty source": [],
    "empty shards": [[], []],
    "empty shards among others": [[], [1, 2, 3], [], [4]],
    "one item": [[7]],
    "None": [[None, None], [None]],
    "keys without a hash, of several types": [[[1], {"a": 1}, 1, "1"], [1.0, True, [1.0]], [{"a": True}, (1,), [1], b"1"]],
    "dataclasses": [[Point(1, "a"), Box(2)], [Point(1.0, "a"), Box(2.0), Point(None)]],
}
OTHERS: Shards = [[None, 1, [1], "a"], [], [{"a": 1}, 1.0]]
VERBS: list[Step] = [
    pipelines.map_step(pipelines.identity),
    pipelines.map_step(pipelines.nothing),
    pipelines.map_step(pipelines.boxed),
    pipelines.flat_map_step(pipelines.twice),
    pipelines.filter_step(pipelines.identity),
    pipelines.where_step(pipelines.compare("n", ">", 2)),
    pipelines.where_step(pipelines.negated(pipelines.compare("n", "==", 3))),
    pipelines.where_step(pipelines.is_null("s"), pipelines.as_ragged_record),
    pipelines.select_step(True, ["v", "n", "missing"]),
    pipelines.map_shard_step(pipelines.numbered),
    pipelines.map_shard_step(pipelines.first_two_reversed),
    pipelines.take_step(1),
    pipelines.take_step(0),
    pipelines.window_step(2),
    pipelines.window_step(2, "batch"),
    pipelines.window_by_step(pipelines.budget, 0),
    pipelines.window_by_step(pipelines.same_kind, None),
    pipelines.window_by_step(pipelines.never, None),
    pipelines.reshard_step(1),
    pipelines.reshard_step(5),
    pipelines.group_by_step(pipelines.identity, pipelines.pairs, None),
    pipelines.group_by_step(pipelines.identity, pipelines.each_of, 3),
    pipelines.group_by_step(pipelines.identity, pipelines.none_of, 2),
    pipelines.group_by_step(pipelines.nothing, pipelines.list_of, 2, pipelines.size),
    pipelines.combine_step(pipelines.concatenate, 2),
    pipelines.combine_step(pipelines.concatenate_twice, None),
    pipelines.deduplicate_step(pipelines.identity, None),
    pipelines.deduplicate_step(pipelines.kind, 3),
    pipelines.reduce_step(pipelines.total_size, sum),
    pipelines.reduce_step(list, pipelines.flattened),
    pipelines.count_step(),
    pipelines.merge_join_step(OTHERS, "inner"),
    pipelines.merge_join_step(OTHERS, "left", pipelines.pair),
    pipelines.join_step(OTHERS, "k", "inner"),
    pipelines.join_step([], "k", "inner"),
    *(pipelines.join_step(OTHERS, "k", "left", None, side) for side in pipelines.RIGHT_SIDES if side != "plain"),
    *(pipelines.join_step(others, "k", how) for how in ("left", "right", "outer") for others in (OTHERS, [])),
    pipelines.join_step(OTHERS, pipelines.by_k, "outer", pipelines.sides),
    *(pipelines.join_step(others, "k", how) for how in ("semi", "anti") for others in (OTHERS, [])),
    pipelines.sort_step(pipelines.size, None, False),
    pipelines.sort_step(repr, 3, True),
    pipelines.sort_step(pipelines.kind, 1, True),
    pipelines.shuffle_step(1),
    pipelines.sample_step(0.5, 1),
    pipelines.sample_step(0, 1),
    pipelines.sample_step(1, 1),
    pipelines.union_step(OTHERS),
    pipelines.union_with_itself_step(),
    pipelines.union_step([], OTHERS, [[]]),
    pipelines.file_step("jsonl", pipelines.as_json, ".jsonl.gz"),
    pipelines.file_step("text", pipelines.as_line, ".txt"),
    pipelines.file_step("parquet", pipelines.as_row, ".parquet"),
    pipelines.file_step("vortex", pipelines.as_row, ".vortex"),
]


@pytest.mark.parametrize("verb", VERBS, ids=repr)
def test_a_verb_means_the_same_anywhere_whatever_the_items(anywhere: JobContext, verb: Step) -> None:
    for situation, shards in SITUATIONS.items():
        try:
            check(shards, [verb], functools.partial(Backend.execute, context=anywhere))
        except BaseException as error:
            error.add_note(f"with {situation}: {shards}")
            raise


@pytest.mark.parametrize("verb", pipelines.SHOWCASE)
def test_the_order_is_that_of_the_sync_context(sync_ctx: JobContext, everywhere: JobContext, verb: str) -> None:
    dataset = shards_of(pipelines.SHOWCASE[verb]())
    expected = Backend.execute(dataset, sync_ctx)
    assert repr(Backend.execute(dataset, everywhere)) == repr(expected)
    assert list(map(repr, Backend.iterate(dataset, everywhere, spill_threshold_bytes=0))) == list(map(repr, expected))


# Functions that raise.

records = source_of([[{"n": 1}, {"n": 2}], [{"n": 2}]])
RAISING: dict[str, Callable[[Dataset[Any], Any], Dataset[Any]]] = {
    "map": lambda d, fn: d.map(fn),
    "flat_map": lambda d, fn: d.flat_map(fn),
    "filter": lambda d, fn: d.filter(fn),
    "map_shard": lambda d, fn: d.map_shard(fn),
    "window_by": lambda d, fn: d.window_by(fn, 0),
    "group_by key": lambda d, fn: d.group_by(fn, pipelines.pairs),
    "group_by reducer": lambda d, fn: d.group_by(by_n, fn),
    "group_by sort_by": lambda d, fn: d.group_by(by_n, pipelines.pairs, sort_by=fn),
    "group_by combiner": lambda d, fn: d.map(lambda _: {"n": 1}).group_by(by_n, pipelines.pairs, combiner=fn),
    "deduplicate": lambda d, fn: d.deduplicate(fn),
    "reduce local": lambda d, fn: d.reduce(fn, sum),
    "reduce global": lambda d, fn: d.reduce(pipelines.total_size, fn),
    "join on": lambda d, fn: d.join(records, on=fn),
    "join combiner": lambda d, fn: d.join(records, on="n", combiner=fn),
    "join right side": lambda d, fn: d.join(records.map(fn), on="n"),
    "sorted_merge_join key": lambda d, fn: d.sorted_merge_join(records, by_n, fn),
    "sorted_merge_join combiner": lambda d, fn: d.sorted_merge_join(records, by_n, by_n, fn),
    "sorted_merge_join right side": lambda d, fn: d.sorted_merge_join(records.map(fn), by_n, by_n),
    "sort": lambda d, fn: d.sort(fn),
    "sort into shards": lambda d, fn: d.sort(fn, num_output_shards=3),
    "union": lambda d, fn: d.union(records.map(fn)),
    "after sample": lambda d, fn: d.sample(1, 1).map(fn),
    "after shuffle": lambda d, fn: d.shuffle(1).map(fn),
    "after a join": lambda d, fn: d.join(records, on="n").map(fn),
    "after count": lambda d, fn: d.count().map(fn),
}


@pytest.mark.parametrize("where", RAISING)
def test_what_a_function_raises_arrives_as_it_is_with_its_place(anywhere: JobContext, where: str) -> None:
    check_refused(anywhere, RAISING[where](records, refuse))


@pytest.mark.parametrize("where", ["flat_map", "map_shard", "group_by reducer", "group_by combiner"])
def test_what_a_generator_raises_arrives_as_it_is_with_its_place(anywhere: JobContext, where: str) -> None:
    check_refused(anywhere, RAISING[where](records, refuse_late))


@pytest.mark.integration
@pytest.mark.parametrize("where", ["map", "group_by reducer", "join combiner"])
def test_what_a_function_raises_arrives_from_ray(ray_ctx: JobContext, where: str) -> None:
    check_refused(ray_ctx, RAISING[where](records, refuse))


@pytest.mark.parametrize("where", RAISING)
def test_a_stop_iteration_from_a_function_is_no_end_of_the_data(anywhere: JobContext, where: str) -> None:
    with pytest.raises((RuntimeError, StopIteration), match=r"StopIteration|nothing more"):
        Backend.execute(RAISING[where](records, pipelines.stop), anywhere)


def check_refused(ctx: JobContext, dataset: Dataset[Any]) -> None:
    with pytest.raises(Refused) as caught:
        Backend.execute(dataset, ctx)
    assert type(caught.value) is Refused and (caught.value.code, caught.value.reason) == (7, "not today")
    notes = "\n".join(getattr(caught.value, "__notes__", []))
    assert re.search(r"stage \d+ of \d+", notes) and re.search(r"shards? \d+", notes), f"no place in the notes: {notes!r}"


@pytest.mark.parametrize("shards", [1, 3])
def test_keys_that_cannot_be_sorted_are_a_type_error_that_names_the_stage(anywhere: JobContext, shards: int) -> None:
    with pytest.raises(TypeError, match="not supported between") as caught:
        Backend.execute(source_of([[1, None], ["a"]]).sort(pipelines.identity, num_output_shards=shards), anywhere)
    assert any(re.search(r"stage \d+ of \d+", note) for note in getattr(caught.value, "__notes__", []))


@pytest.mark.parametrize("late", [False, True])
def test_no_shard_and_no_stage_starts_after_a_failure(everywhere: JobContext, tmp_path: Path, late: bool) -> None:
    def start(stage: str, number: int) -> None:
        (tmp_path / f"{stage}-{number}-{uuid.uuid4().hex}").touch()

    def fail_at_two(number: int) -> Iterator[int]:
        start("map", number)
        if late:
            yield 0
        if number == 2:
            raise Refused(number, "stop")
        yield number

    def reduce(key: int, values: Iterator[int]) -> int:
        start("reduce", key)
        return key

    dataset = Dataset.from_list(range(8)).flat_map(fail_at_two).group_by(lambda number: number, reduce)
    with pytest.raises(Refused):
        Backend.execute(dataset, everywhere, max_parallelism=1)
    assert sorted(path.name[:-33] for path in tmp_path.glob("*-*-*")) == ["map-0", "map-1", "map-2"]


# What verbs promise beyond the table.


def test_take_per_shard_reads_no_more_than_it_takes(anywhere: JobContext) -> None:
    dataset = Dataset.from_list([0, 1]).flat_map(lambda _: refuse_late()).take_per_shard(1)
    assert Backend.execute(dataset, anywhere) == [1, 1]


def test_windows_are_lists(anywhere: JobContext) -> None:
    source = source_of([[1, 2, 3]])
    assert Backend.execute(source.window(2), anywhere) == [[1, 2], [3]]
    assert Backend.execute(source.window_by(lambda state, item: (item < 3, state), None), anywhere) == [[1, 2], [3]]


def test_a_window_begins_with_the_state_of_its_first_item(anywhere: JobContext) -> None:
    source = source_of([[5, 3, 4, 9, 1, 7, 1, 1]])
    found = Backend.execute(source.window_by(lambda total, n: (total + n <= 8, total + n), 0), anywhere)
    assert found == [[5, 3], [4], [9], [1, 7], [1, 1]]


def test_a_sort_spreads_over_its_shards_and_is_stable(anywhere: JobContext) -> None:
    numbers = list(range(400)) * 2
    random.Random(3).shuffle(numbers)
    source = source_of([list(enumerate(numbers))[at : at + 100] for at in range(0, 800, 100)])
    for reverse in (False, True):
        shards = Backend.execute(shards_of(source.sort(pipelines.second, 4, reverse)), anywhere)
        assert list(itertools.chain(*shards)) == sorted(enumerate(numbers), key=pipelines.second, reverse=reverse)
        assert len(shards) == 4 and max(map(len, shards)) < 500


@pytest.mark.parametrize("threshold", [0, None])
def test_values_that_sort_by_finds_equal_keep_their_order_when_only_less_than_is_defined(
    anywhere: JobContext, threshold: float | None
) -> None:
    source = source_of([[("a", 0), ("b", 1)], [("c", 0), ("d", 0), ("e", 1)], [("f", 0)]])
    grouped = source.group_by(pipelines.nothing, pipelines.pairs, sort_by=lambda item: pipelines.Ordered(item[1]))
    ((_, values),) = Backend.execute(grouped, anywhere, spill_threshold_bytes=threshold)
    assert "".join(letter for letter, _ in values) == "acdfbe"


def test_a_shuffle_mixes_across_shards_and_follows_its_seed(anywhere: JobContext) -> None:
    source = Dataset.from_list([range(at, at + 50) for at in range(0, 200, 50)]).flat_map(iter)
    shards = Backend.execute(shards_of(source.shuffle(1)), anywhere)
    mixed = list(itertools.chain(*shards))
    assert sorted(mixed) == list(range(200)) and mixed != list(range(200))
    assert all(len({number // 50 for number in shard}) > 1 for shard in shards if len(shard) > 20)
    assert all(shard != sorted(shard) for shard in shards if len(shard) > 20)
    assert Backend.execute(source.shuffle(1), anywhere) == mixed
    assert Backend.execute(source.shuffle(2), anywhere) != mixed


def test_a_shuffle_puts_equal_items_anywhere(anywhere: JobContext) -> None:
    source = Dataset.from_list([["same"] * 100] * 4).flat_map(iter)
    sizes = list(map(len, Backend.execute(shards_of(source.shuffle(1)), anywhere)))
    assert sum(sizes) == 400 and max(sizes) < 400


def test_a_sample_has_about_its_fraction_and_follows_its_seed(anywhere: JobContext) -> None:
    source = Dataset.from_list([range(at, at + 500) for at in range(0, 2000, 500)]).flat_map(iter)
    some = Backend.execute(source.sample(0.25, 1), anywhere)
    assert 350 < len(some) < 650 and some == sorted(set(some))
    assert Backend.execute(source.sample(0.25, 1), anywhere) == some
    assert Backend.execute(source.sample(0.25, 2), anywhere) != some


def test_a_sample_chooses_differently_in_each_shard(anywhere: JobContext) -> None:
    source = Dataset.from_list([0] * 4).flat_map(lambda _: range(100)).sample(0.5, 1)
    assert len(set(map(tuple, Backend.execute(shards_of(source), anywhere)))) == 4


def test_a_joined_record_has_the_columns_of_both_and_the_values_of_the_right(anywhere: JobContext) -> None:
    left = source_of([[{"id": 1, "a": "l1", "x": 0}, {"id": 1, "a": "l2", "x": 0}], [{"id": 2, "a": "l3", "x": 0}]])
    right = source_of([[{"id": 1.0, "b": "r1", "x": 1}, {"id": 3, "b": "r2", "x": 1}, {"id": 1, "b": "r3", "x": 1}]])
    found = Backend.execute(left.join(right, on="id", how="outer"), anywhere)
    assert sorted(found, key=repr) == [
        {"id": 1, "a": "l1", "x": 1, "b": "r3"},
        {"id": 1, "a": "l2", "x": 1, "b": "r3"},
        {"id": 1.0, "a": "l1", "x": 1, "b": "r1"},
        {"id": 1.0, "a": "l2", "x": 1, "b": "r1"},
        {"id": 2, "a": "l3", "x": 0},
        {"id": 3, "b": "r2", "x": 1},
    ]
    assert Backend.execute(left.join(right, on="id", how="semi").count(), anywhere) == [2]
    assert Backend.execute(left.join(right, on="id", how="anti"), anywhere) == [{"id": 2, "a": "l3", "x": 0}]
    assert len(Backend.execute(left.join(right, on="id"), anywhere)) == 4


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sorted_merge_join_detects_unsorted_input(anywhere: JobContext, side: str) -> None:
    tidy, untidy = source_of([[{"n": 1}, {"n": 2}, {"n": 3}]]), source_of([[{"n": 2}, {"n": 1}, {"n": 3}]])
    left, right = (untidy, tidy) if side == "left" else (tidy, untidy)
    with pytest.raises((ValueError, ZephyrError), match="sorted"):
        Backend.execute(left.sorted_merge_join(right, by_n, by_n), anywhere)


@pytest.mark.parametrize("verb", ["jsonl", "parquet", "vortex", "text", "binary"])
def test_a_write_yields_a_path_per_shard_and_empty_shards_have_files(anywhere: JobContext, tmp_path: Path, verb: str) -> None:
    make = {"text": pipelines.as_line, "binary": pipelines.as_bytes}.get(verb, pipelines.as_flat_row)
    shards = naive.map_([["one", "two"], [], ["three"]], make)
    pattern = f"{tmp_path}/out/{{shard:02d}}-of-{{total}}.{'txt' if verb == 'text' else verb}"
    written = getattr(source_of(shards), f"write_{verb}")(pattern)
    paths = Backend.execute(written, anywhere)
    assert paths == [pattern.format(shard=shard, total=3) for shard in range(3)]
    assert all(Path(path).is_file() for path in paths)
    if verb == "binary":
        assert [Path(path).read_bytes() for path in paths] == [b"".join(shard) for shard in shards]
    else:
        loaded = Backend.execute(shards_of(getattr(Dataset.from_list(paths), f"load_{verb}")()), anywhere)
        assert loaded == shards


@pytest.mark.parametrize("verb", ["jsonl", "parquet", "vortex"])
def test_columns_of_a_file_are_chosen_in_their_order(anywhere: JobContext, tmp_path: Path, verb: str) -> None:
    source = source_of([[{"a": 1, "b": 2, "c": 3}], [{"a": 4, "b": None, "c": 6}]])
    paths = Backend.execute(getattr(source, f"write_{verb}")(f"{tmp_path}/{{shard}}.{verb}"), anywhere)
    files = Dataset.from_files(f"{tmp_path}/*.{verb}")
    for loaded in (
        getattr(files, f"load_{verb}")(columns=["c", "b"]),
        files.load_file(["c", "b"]),
        files.load_file().select("c", "b"),
    ):
        assert list(map(repr, Backend.execute(loaded, anywhere))) == ["{'c': 3, 'b': 2}", "{'c': 6, 'b': None}"]
    load = getattr(zephyr, f"load_{verb}")
    assert Backend.execute(Dataset.from_list(paths).flat_map(load), anywhere) == Backend.execute(source, anywhere)


def test_a_file_of_an_unknown_kind_is_refused(anywhere: JobContext, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(ValueError, match=r"a\.xyz"):
        Backend.execute(Dataset.from_files(f"{tmp_path}/*").load_file(), anywhere)


def test_a_csv_file_gives_strings_by_column(anywhere: JobContext, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('n,s\n1,"x, y"\n2,\n')
    files = Dataset.from_files(f"{tmp_path}/*.csv")
    assert Backend.execute(files.load_csv(), anywhere) == [{"n": "1", "s": "x, y"}, {"n": "2", "s": ""}]
    assert Backend.execute(files.load_csv(columns=["s"]), anywhere) == [{"s": "x, y"}, {"s": ""}]
    assert Backend.execute(files.load_file().select("n"), anywhere) == [{"n": "1"}, {"n": "2"}]


def test_a_pattern_may_be_a_function_and_may_name_the_input_file(anywhere: JobContext, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name)
    files = Dataset.from_files(f"{tmp_path}/*.txt").load_text()
    assert Backend.execute(files.write_jsonl(lambda shard, total: f"{tmp_path}/{shard}/{total}.jsonl"), anywhere) == [
        f"{tmp_path}/0/2.jsonl",
        f"{tmp_path}/1/2.jsonl",
    ]
    named = Backend.execute(files.write_text(f"{tmp_path}/named/{{basename}}-{{shard}}.out"), anywhere)
    assert [Path(path).read_text() for path in named] == ["a\n", "b\n"]
    for number, (name, path) in enumerate(zip("ab", named, strict=True)):
        assert re.fullmatch(rf"{name}(\.txt)?-{number}\.out", Path(path).name)


# Plans that make no sense.

three = Dataset.from_list([1, 2, 3])
SENSELESS: dict[str, Callable[[], Dataset[Any]]] = {
    "reshard(0)": lambda: three.reshard(0),
    "reshard(-1)": lambda: three.reshard(-1),
    "window(0)": lambda: three.window(0),
    "batch(-1)": lambda: three.batch(-1),
    "take_per_shard(-1)": lambda: three.take_per_shard(-1),
    "group_by into 0": lambda: three.group_by(str, pipelines.pairs, 0),
    "deduplicate into 0": lambda: three.deduplicate(str, 0),
    "sort into 0": lambda: three.sort(str, num_output_shards=0),
    "sample(1.5)": lambda: three.sample(1.5, 1),
    "sample(-0.1)": lambda: three.sample(-0.1, 1),
    "unknown join": lambda: three.join(three, on=str, how="sideways"),
    "unknown merge join": lambda: three.sorted_merge_join(three, str, str, how="outer"),
    "one file for all": lambda: three.write_jsonl("out.jsonl"),
    "map after write": lambda: three.write_jsonl("{shard}.jsonl").map(str),
    "union after write": lambda: three.write_jsonl("{shard}.jsonl").union(three),
    "sort after write": lambda: three.write_jsonl("{shard}.jsonl").sort(str),
    "join after write": lambda: three.write_jsonl("{shard}.jsonl").join(three, on=str),
    "basename of nothing": lambda: three.write_jsonl("{basename}.jsonl"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", SENSELESS)
def test_a_plan_that_makes_no_sense_is_refused_when_it_is_computed(case: str) -> None:
    with pytest.raises(PlanError):
        compute_plan(SENSELESS[case]())


@pytest.mark.unit
def test_shard_counts_of_a_sorted_merge_join_must_be_equal() -> None:
    with pytest.raises(ValueError, match=r"^Sorted merge join requires equal shard counts\. Left has 3\b.*\b2\b"):
        compute_plan(three.sorted_merge_join(Dataset.from_list([1, 2]), str, str))


@pytest.mark.unit
def test_reshard_none_changes_nothing(sync_ctx: JobContext) -> None:
    assert Backend.execute(shards_of(three.reshard(None)), sync_ctx) == [[1], [2], [3]]


@pytest.mark.unit
def test_datasets_do_not_change_when_verbs_are_added(sync_ctx: JobContext) -> None:
    base = source_of([[3, 1], [2]])
    for verb in VERBS:
        verb.build(base, "unused")
    assert Backend.execute(base, sync_ctx) == [3, 1, 2]


@pytest.mark.unit
def test_expressions_treat_missing_columns_as_none(sync_ctx: JobContext) -> None:
    rows = source_of([[{"a": 1}, {"a": None}, {}]])
    assert Backend.execute(rows.filter(expr.col("a") == 1), sync_ctx) == [{"a": 1}]
    assert Backend.execute(rows.filter(expr.col("a").is_null()), sync_ctx) == [{"a": None}, {}]
