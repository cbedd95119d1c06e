"""Counters: from every function of the user's, by stage, and of the attempts that count alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fray import JobContext
from zephyr import Backend, Dataset, counters

pytestmark = pytest.mark.unit

Totals = dict[str, dict[str, int]]


def counting(name: str, fn: Callable[..., Any], n: int = 1) -> Callable[..., Any]:
    """Return a function that does the same and counts its calls."""

    def counted(*arguments: Any) -> Any:
        counters.increment(name, n)
        return fn(*arguments)

    return counted


def numbers() -> Dataset[int]:
    return Dataset.from_list([range(6), range(6, 10)]).flat_map(iter)


def itself(item: Any) -> Any:
    return item


def parity(n: int) -> int:
    return n % 2


def size(key: Any, values: Iterator[Any]) -> int:
    return sum(1 for _ in values)


def total(values: Iterator[int]) -> int:
    return sum(values)


def each_counted(items: Iterator[int]) -> Iterator[int]:
    for item in items:
        counters.increment("items", 2)
        yield item


KINDS: dict[str, tuple[Callable[[Dataset[int]], Dataset[Any]], Totals]] = {
    "map": (lambda items: items.map(counting("calls", itself)), {"stage 1": {"calls": 10}}),
    "filter": (lambda items: items.filter(counting("calls", parity)), {"stage 1": {"calls": 10}}),
    "flat_map": (lambda items: items.flat_map(counting("calls", range)), {"stage 1": {"calls": 10}}),
    "map_shard": (lambda items: items.map_shard(each_counted), {"stage 1": {"items": 20}}),
    "window_by": (
        lambda items: items.window_by(counting("calls", lambda state, _: (True, state)), 0),
        {"stage 1": {"calls": 10}},
    ),
    "two names": (
        lambda items: items.map(counting("a", itself, 3)).filter(parity).map(counting("b", itself)),
        {"stage 1": {"a": 30, "b": 5}},
    ),
    "group_by": (
        lambda items: items.group_by(counting("keys", parity), counting("reduced", size), sort_by=counting("order", itself)),
        {"stage 1": {"keys": 10, "order": 10}, "stage 2": {"reduced": 2, "order": 10}},
    ),
    "combiner": (
        lambda items: items.group_by(parity, size, 1, combiner=counting("combined", size)),
        {"stage 1": {"combined": 4}},
    ),
    "reduce": (
        lambda items: items.reduce(counting("local", total), counting("global", total)),
        {"stage 1": {"local": 2}, "stage 3": {"global": 1}},
    ),
    "sort": (
        lambda items: items.sort(counting("keys", itself), num_output_shards=2),
        {"stage 1": {"keys": 10}, "stage 2": {"keys": 10}},
    ),
    "join": (
        lambda items: items.join(
            items.map(counting("right", itself)), counting("keys", itself), combiner=counting("pairs", lambda left, right: left)
        ),
        {"stage 1": {"keys": 10}, "stage 2, right side, stage 1": {"right": 10, "keys": 10}, "stage 2": {"pairs": 10}},
    ),
    "union": (
        lambda items: items.union(items.map(counting("other", itself))).map(counting("both", itself)),
        {"stage 2, dataset 1, stage 1": {"other": 10}, "stage 3": {"both": 20}},
    ),
    "nothing": (lambda items: items.map(itself), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_every_kind_count_by_stage(any_ctx: JobContext, kind: str) -> None:
    build, expected = KINDS[kind]
    found: Totals = {}
    Backend.execute(build(numbers()), any_ctx, counters=found)
    assert found == expected


def test_counters_are_the_same_when_everything_is_spilled_and_streamed(ctx: JobContext) -> None:
    build, expected = KINDS["group_by"]
    found: Totals = {}
    assert sorted(Backend.iterate(build(numbers()), ctx, spill_threshold_bytes=0, counters=found)) == [5, 5]
    assert found == expected


def test_nothing_is_counted_outside_of_tasks(sync: JobContext) -> None:
    counters.increment("outside")
    found: Totals = {}
    Backend.execute(numbers().map(itself), sync, counters=found)
    assert found == {}


def test_runs_within_a_function_do_not_count_for_the_run_around_them(sync: JobContext) -> None:
    def run_another(n: int) -> int:
        counters.increment("outer")
        Backend.execute(Dataset.from_list([n]).map(counting("inner", itself)), sync)
        counters.increment("outer")
        return n

    found: Totals = {}
    Backend.execute(Dataset.from_list([1, 2]).map(run_another), sync, counters=found)
    assert found == {"stage 1": {"outer": 4}}


def test_an_attempt_that_failed_does_not_count(any_ctx: JobContext, tmp_path: Path) -> None:
    def fail_once(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            counters.increment("items")
            if item == 4 and not (tmp_path / "failed").exists():
                (tmp_path / "failed").touch()
                raise ConnectionError("the first attempt")
            yield item

    found: Totals = {}
    dataset = numbers().map(counting("calls", itself)).map_shard(fail_once)
    retrying = any_ctx.options(max_retries=1, retry_delay_s=0.0)
    assert Backend.execute(dataset, retrying, counters=found) == list(range(10))
    assert (tmp_path / "failed").exists()
    assert found == {"stage 1": {"calls": 10, "items": 10}}


@pytest.mark.integration
def test_an_attempt_that_was_lost_does_not_count(fray: JobContext, tmp_path: Path) -> None:
    def die_once(n: int) -> int:
        counters.increment("calls")
        if n == 4 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return n

    found: Totals = {}
    assert Backend.execute(numbers().map(die_once), fray, counters=found) == list(range(10))
    assert (tmp_path / "died").exists()
    assert found == {"stage 1": {"calls": 10}}


def test_stages_that_ended_before_a_failure_have_counted(ctx: JobContext) -> None:
    found: Totals = {}
    with pytest.raises(ZeroDivisionError):
        Backend.execute(numbers().map(counting("calls", itself)).reshard(1).map(lambda n: 1 // n), ctx, counters=found)
    assert found == {"stage 1": {"calls": 10}}


def test_a_key_that_raises_counts_no_call_twice(sync: JobContext) -> None:
    found: Totals = {}
    keys = counting("keys", lambda n: 1 // (n - 5))
    Backend.execute(Dataset.from_list([range(9)]).flat_map(iter).group_by(keys, size), sync, on_error="skip", counters=found)
    assert found["stage 1"] == {"keys": 9, "bad_records": 1}


def test_the_manifest_has_the_totals_up_to_its_write(ctx: JobContext, tmp_path: Path) -> None:
    first = numbers().map(counting("calls", itself)).reshard(2).map(counting("calls", itself)).map(counting("late", str))
    written = first.write_text(f"{tmp_path}/{{shard}}.txt").load_text().map(counting("after", itself))
    found: Totals = {}
    Backend.execute(written, ctx, counters=found)
    (entry,) = json.loads((tmp_path / "_manifest.json").read_text())["writes"].values()
    assert entry["counters"] == {"calls": 20, "late": 10}
    assert found["stage 4"] == {"after": 10}


def test_the_progress_line_has_the_totals_of_its_stage(sync: JobContext, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = numbers().map(counting("calls", itself, 1000)).group_by(counting("keys", parity), size, 1)
    Backend.execute(dataset, sync, progress=True)
    first, second = (
        line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "2/2" in line or "1/1" in line
    )
    assert "calls 10,000, keys 10" in first
    assert "calls" not in second
