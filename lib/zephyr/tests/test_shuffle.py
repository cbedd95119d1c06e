from __future__ import annotations

import enum
import itertools
import math
import random
import subprocess
import sys
import threading
from collections import defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest
from fray import JobContext
from hypothesis import given, settings
from hypothesis import strategies as st
from zephyr import Backend, Dataset, ExecutionHint, StageError
from zephyr.shuffle import merge
from zephyr.shuffle.keys import encode_key, partition_of

pytestmark = pytest.mark.unit


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclass(frozen=True)
class Place:
    name: str
    number: int


Pair = namedtuple("Pair", "a b")

EQUAL = [
    (1, 1.0),
    (1, True),
    (0.0, -0.0),
    (1, Decimal("1.00")),
    (0.5, Fraction(1, 2)),
    (1, 1 + 0j),
    (1, numpy.int8(1)),
    (0.5, numpy.float32(0.5)),
    (True, numpy.bool_(True)),
    (10**30, float(10**30)) if float(10**30) == 10**30 else (2**100, float(2**100)),
    (1, Level.LOW),
    (b"a", bytearray(b"a")),
    ((2, 1), Pair(2.0, True)),
    ({1, 2}, frozenset([2, 1])),
    ({"a": 1, "b": 2}, {"b": 2.0, "a": True}),
    (datetime(2020, 1, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 3, tzinfo=timezone(timedelta(hours=2)))),
    (math.nan, float("nan")),
]
DIFFERENT = [
    None, 0, 1, "", "1", b"", b"1", (), (None,), ("a", "b"), ("ab",), (("a",), "b"), [], ["a", "b"], {}, {"a": None}, set(),
    math.inf, -math.inf, math.nan, 1.5, -1, 2**70, -(2**70), Color.RED, Color.BLUE, Place("a", 1), Place("a", 2),
    date(2020, 1, 1), datetime.fromisoformat("2020-01-01"), datetime(2020, 1, 1, tzinfo=UTC), timedelta(1),
    int, str, range(3), 1j,
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=repr)
def test_equal_keys_have_equal_bytes(one: Any, other: Any) -> None:
    assert encode_key(one) == encode_key(other)


def test_different_keys_have_different_bytes() -> None:
    assert len({encode_key(key) for key in DIFFERENT}) == len(DIFFERENT)


@given(st.integers() | st.floats(allow_nan=False) | st.booleans(), st.integers() | st.floats(allow_nan=False) | st.booleans())
def test_numbers_have_equal_bytes_exactly_when_they_are_equal(one: float, other: float) -> None:
    assert (encode_key(one) == encode_key(other)) == (one == other)


def test_the_partition_of_a_key_does_not_depend_on_the_process() -> None:
    code = (
        "from zephyr.shuffle.keys import *; import datetime, uuid;"
        "keys = ['a', b'a', 1, None, ('a', 2), {'b': 'a'}, {'x', 'y', 'z'}, datetime.date(2020, 1, 1), uuid.UUID(int=5)];"
        "print([partition_of(encode_key(key), 1000) for key in keys])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and outputs.pop().startswith(f"[{partition_of(encode_key('a'), 1000)}, ")


def pairs(key: Any, values: Iterator[Any]) -> tuple[Any, list[Any]]:
    return key, list(values)


SMALL = ExecutionHint(memory_bytes=8 * 1024 * 1024)
"""Makes tasks write runs of a few thousand small items."""


def group(
    ctx: JobContext,
    lists: list[list[Any]],
    key: Any,
    *,
    shards: int = 3,
    hints: ExecutionHint = ExecutionHint(),
    **options: Any,
) -> list[Any]:
    dataset = Dataset.from_list(lists).flat_map(iter).group_by(key, options.pop("reducer", pairs), shards, **options)
    return Backend.execute(dataset, ctx, hints)


def test_values_come_in_source_order_and_each_key_once(ctx: JobContext) -> None:
    lists = [[(i % 7, shard, i) for i in range(50)] for shard in range(9)]
    found = group(ctx, lists, lambda item: item[0])
    assert sorted(key for key, _ in found) == list(range(7))
    for key, values in found:
        assert values == [item for each in lists for item in each if item[0] == key]


def test_equal_keys_of_different_types_group_together_and_none_is_a_key(ctx: JobContext) -> None:
    found = group(ctx, [[1, None], [1.0, True, Decimal(1)], [None]], lambda item: item)
    assert sorted(map(repr, found)) == ["(1, [1, 1.0, True, Decimal('1')])", "(None, [None, None])"]


def test_lists_dicts_and_nan_are_keys(ctx: JobContext) -> None:
    found = group(ctx, [[{"a": [1]}, math.nan], [{"a": [1.0]}, float("nan"), [2]]], lambda item: item)
    assert sorted(len(values) for _, values in found) == [1, 2, 2]


def test_reducer_may_return_any_one_value_or_generate_many(ctx: JobContext) -> None:
    def many(key: int, values: Iterator[int]) -> Iterator[Any]:
        yield key
        yield from values

    assert group(ctx, [[1, 1]], lambda x: x, reducer=lambda key, values: None) == [None]
    assert group(ctx, [[1, 1]], lambda x: x, reducer=lambda key, values: [key, 5]) == [[1, 5]]
    assert group(ctx, [[1, 1]], lambda x: x, reducer=many) == [1, 1, 1]
    assert group(ctx, [[1, 1, 2]], lambda x: x, shards=1, reducer=lambda key, values: next(values)) == [1, 2]


def test_sort_by_orders_the_values(ctx: JobContext) -> None:
    found = group(ctx, [["b3", "a1"], ["a0", "b2"]], lambda item: item[0], sort_by=lambda item: item[1])
    assert sorted(found) == [("a", ["a0", "a1"]), ("b", ["b2", "b3"])]


@pytest.mark.parametrize("generates", [False, True])
def test_combiner_changes_no_result(ctx: JobContext, generates: bool) -> None:
    def total(key: int, values: Iterator[int]) -> int:
        return sum(values)

    def totals(key: int, values: Iterator[int]) -> Iterator[int]:
        yield sum(values)

    lists = [list(range(100)) for _ in range(5)]
    options = {"reducer": lambda key, values: (key, sum(values)), "shards": 4}
    combined = group(ctx, lists, lambda x: x % 3, combiner=totals if generates else total, **options)
    assert combined == group(ctx, lists, lambda x: x % 3, **options)


def test_num_output_shards_is_exact_and_order_depends_on_keys_alone(ctx: JobContext) -> None:
    numbers = list(range(200))
    random.Random(1).shuffle(numbers)
    sizes = Dataset.from_list([numbers]).flat_map(iter).group_by(lambda x: x, lambda k, _: k, 5).map_shard(lambda s: [list(s)])
    shards = Backend.execute(sizes, ctx)
    assert len(shards) == 5 and sorted(itertools.chain(*shards)) == sorted(numbers)
    again = Dataset.from_list([sorted(numbers)]).flat_map(iter).group_by(lambda x: x, lambda k, _: k, 5)
    assert Backend.execute(again, ctx) == list(itertools.chain(*shards))


def test_a_hot_key_and_many_keys_survive_small_limits(sync: JobContext) -> None:
    lists = [[("hot", shard, i) for i in range(30_000)] + [(f"key{i}", shard, i) for i in range(700)] for shard in range(3)]
    found = dict(group(sync, lists, lambda item: item[0], shards=2, hints=SMALL))
    assert len(found) == 701
    assert found["hot"] == [item for each in lists for item in each if item[0] == "hot"]


def test_a_combiner_survives_small_limits(sync: JobContext) -> None:

    def add(key: str, values: Iterator[tuple[str, int]]) -> tuple[str, int]:
        return key, sum(count for _, count in values)

    lists = [[("hot", 1)] * 30_000 + [(f"key{i}", 1) for i in range(700)] for _ in range(3)]
    counts = group(sync, lists, lambda item: item[0], reducer=add, combiner=add, shards=2, hints=SMALL)
    assert dict(counts) == {"hot": 90_000} | {f"key{i}": 3 for i in range(700)}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(-3, 3) | st.sampled_from(["a", None, (1, 2), 1.0, True]), max_size=12), max_size=5), st.data()
)
def test_group_by_equals_a_plain_loop(lists: list[list[Any]], data: st.DataObject) -> None:
    from fray import create_job_ctx

    expected: dict[Any, list[Any]] = defaultdict(list)
    for item in itertools.chain(*lists):
        expected[item].append(item)
    with create_job_ctx("sync") as ctx:
        dataset = Dataset.from_list(lists).flat_map(iter).group_by(lambda x: x, pairs, data.draw(st.integers(1, 4)))
        found = Backend.execute(dataset, ctx, spill_threshold_bytes=data.draw(st.sampled_from([0, 1, math.inf])))
    assert len(found) == len(expected) and {key: list(map(repr, v)) for key, v in found} == {
        key: list(map(repr, v)) for key, v in expected.items()
    }


def test_a_key_that_cannot_be_told_apart_is_a_stage_error(sync: JobContext) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(StageError, match="contains itself") as caught:
        group(sync, [[1]], lambda item: endless)
    assert any("shard 0 of 1" in note for note in caught.value.__notes__)


def test_spilled_maps_are_one_object_each(sync: JobContext, base: Path) -> None:
    seen: list[int] = []

    def look(items: Iterator[Any]) -> Iterator[Any]:
        seen.append(len([path for path in base.rglob("stage-001/*") if path.is_file()]))
        return items

    dataset = Dataset.from_list([range(100)] * 3).flat_map(iter).group_by(lambda x: x, lambda k, v: k, 8).map_shard(look)
    assert sorted(Backend.execute(dataset, sync, spill_threshold_bytes=0)) == list(range(100))
    assert seen == [3] * 8


@pytest.mark.parametrize("threshold", [0, math.inf])
def test_more_runs_than_can_be_merged_at_once_keep_their_order(
    sync: JobContext, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    monkeypatch.setattr(merge, "MAX_FAN_IN", 2)
    lists = [[(i % 3, shard, i) for i in range(10)] for shard in range(9)]
    dataset = Dataset.from_list(lists).flat_map(iter).group_by(lambda item: item[0], pairs, 1)
    found = dict(Backend.execute(dataset, sync, spill_threshold_bytes=threshold))
    assert found == {key: [item for each in lists for item in each if item[0] == key] for key in range(3)}


@pytest.mark.parametrize(
    "keys", [[b"k", bytearray(b"k")], [True, numpy.True_], [(1, b"k"), (1, bytearray(b"k"))], ["a", "a"]], ids=repr
)
@pytest.mark.parametrize("sort_by", [None, lambda pair: -pair[1]])
def test_equal_keys_of_several_kinds_are_one_key_with_values_in_order(sync: JobContext, keys: list[Any], sort_by: Any) -> None:
    items = [(keys[n % 2], n) for n in range(4)]
    ((_, values),) = group(sync, [items], lambda pair: pair[0], sort_by=sort_by)
    assert [n for _, n in values] == ([0, 1, 2, 3] if sort_by is None else [3, 2, 1, 0])


def test_a_combiner_whose_results_grow_is_bounded_like_others(sync: JobContext) -> None:
    lengths: list[int] = []

    def join_texts(key: int, texts: Iterator[str]) -> str:
        joined = "".join(texts)
        lengths.append(len(joined))
        return joined

    source = Dataset.from_list([range(30_000)]).flat_map(lambda numbers: (f"{n:01000d}" for n in numbers))
    grouped = source.group_by(lambda text: int(text) % 5, lambda key, texts: sum(map(len, texts)), 1, combiner=join_texts)
    assert sum(Backend.execute(grouped, sync, SMALL)) == 30_000_000
    assert max(lengths) * 5 < 16 * 1024 * 1024  # of 30 MB; the limit is 8 MiB, and results are looked at from time to time


def test_a_key_that_is_found_but_cannot_be_used_is_a_bad_record(sync: JobContext) -> None:
    dataset = Dataset.from_list([[1, 2, 3, 4]]).flat_map(iter)
    keyed = dataset.group_by(lambda n: threading.Lock() if n == 2 else n % 2, pairs, 2)
    with pytest.raises(StageError, match="lock"):
        Backend.execute(keyed, sync)
    assert sorted(Backend.execute(keyed, sync, on_error="skip")) == [(0, [4]), (1, [1, 3])]
