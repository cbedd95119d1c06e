"""Whatever is pushed into the reading of files, the result is that of one record at a time.

``ZEPHYR_EXAMPLES=5000`` tries more pipelines than the everyday run.
"""

from __future__ import annotations

import csv
import json
import operator
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fray import JobContext, create_job_ctx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zephyr import Backend, Dataset, Expr, col, lit

pytestmark = pytest.mark.unit

EXAMPLES = int(os.environ.get("ZEPHYR_EXAMPLES", "300"))
few = settings(
    deadline=None, max_examples=max(5, EXAMPLES // 5), suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)

Record = dict[str, Any]
COLUMNS = ["a", "b", "c", "d", "zz"]
"""Of which the last is in no file."""
SCHEMA = pa.schema(
    [
        ("a", pa.int64()),
        ("b", pa.float64()),
        ("c", pa.string()),
        ("d", pa.struct([("k", pa.int64())])),
    ]
)


@dataclass(frozen=True)
class Step:
    """An operation and what it does to one record: a list of none or one."""

    text: str
    build: Callable[[Dataset[Any]], Dataset[Any]]
    apply: Callable[[Any], list[Any]]

    def __repr__(self) -> str:
        return self.text


def select_step(columns: list[str]) -> Step:
    return Step(
        f"select{tuple(columns)}",
        lambda items: items.select(*columns),
        lambda record: [{name: record[name] for name in columns if name in record}],
    )


def filter_step(expr: Expr) -> Step:
    return Step(f"filter({expr!r})", lambda items: items.filter(expr), lambda record: [record] if expr.evaluate(record) else [])


def map_step(fn: Callable[[Any], Any]) -> Step:
    return Step(f"map({fn.__name__})", lambda items: items.map(fn), lambda record: [fn(record)])


def keep_step(fn: Callable[[Any], Any]) -> Step:
    return Step(f"filter({fn.__name__})", lambda items: items.filter(fn), lambda record: [record] if fn(record) else [])


def renamed(record: Any) -> Any:
    return {"b": record.get("a"), "a": record.get("b"), **({"c": 1} if "c" in record else {})}


def only_a(record: Any) -> Any:
    return record.get("a")


def refuse_one(record: Any) -> Any:
    if record["a"] == 1:
        raise LookupError("one")
    return record


def has_c(record: Any) -> bool:
    return bool(record["c"])


values = st.sampled_from([None, 0, 1, -2, 7, True, 0.5, 1.0, "", "a", "7"])
nested = st.none() | st.fixed_dictionaries({}, optional={"k": st.sampled_from([0, 1, None, "x"])}) | st.just([1, 2])
ragged = st.fixed_dictionaries({}, optional={"a": values, "b": values, "c": values, "d": nested})
typed = st.fixed_dictionaries(
    {
        "a": st.sampled_from([None, 0, 1, -2, 7]),
        "b": st.sampled_from([None, 0.0, 0.5, -1.0, float("nan")]),
        "c": st.sampled_from([None, "", "a", "7"]),
        "d": st.none() | st.fixed_dictionaries({"k": st.sampled_from([None, 0, 1])}),
    }
)
texts = st.fixed_dictionaries({name: st.sampled_from(["", "0", "1", "x", "a,b", '"\n']) for name in "abcd"})

operands = st.sampled_from([*map(col, COLUMNS), col("d")["k"], *map(lit, [0, 1, 0.5, "a", "7", True])])
arithmetic = st.builds(
    lambda op, left, right: op(left, right),
    st.sampled_from([operator.add, operator.sub, operator.mul, operator.truediv, operator.mod, operator.floordiv]),
    operands,
    operands,
)
numbers = operands | arithmetic | operands.map(lambda expr: expr.cast(int)) | operands.map(operator.neg)
comparisons = st.builds(
    lambda op, left, right: op(left, right),
    st.sampled_from([operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]),
    numbers,
    numbers,
)
tests = comparisons | operands.map(Expr.is_null) | operands.map(lambda expr: expr.is_in([0, 1.0, "a", None])) | operands
expressions = st.recursive(
    tests,
    lambda inner: st.builds(operator.and_, inner, inner) | st.builds(operator.or_, inner, inner) | inner.map(operator.invert),
    max_leaves=4,
)
column_lists = st.lists(st.sampled_from(COLUMNS), unique=True, max_size=4)
pushable = expressions.map(filter_step) | column_lists.map(select_step)
python = st.sampled_from([*map(map_step, (renamed, only_a, refuse_one)), keep_step(has_c)])
pipelines = st.lists(pushable | pushable | python, max_size=5)


def evaluate(records: list[Any], columns: list[str] | None, steps: list[Step]) -> tuple[list[Any], int]:
    """Return the records that come out, and the number of those that raise."""
    found: list[Any] = []
    bad = 0
    for record in records:
        current = [record]
        try:
            for step in [*([] if columns is None or not isinstance(record, dict) else [select_step(columns)]), *steps]:
                current = [result for item in current for result in step.apply(item)]
        except Exception:
            bad += 1
        else:
            found += current
    return found, bad


def write_jsonl(path: Path, records: list[Record]) -> list[Any]:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return records


def write_parquet(path: Path, records: list[Record]) -> list[Any]:
    table = pa.Table.from_pylist(records, SCHEMA)
    pq.write_table(table, path, row_group_size=2)
    return table.to_pylist()  # type: ignore[no-any-return]


def write_csv(path: Path, records: list[Record]) -> list[Any]:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list("abcd"))
        writer.writeheader()
        writer.writerows(records)
    return [{name: record[name] for name in "abcd"} for record in records]


FORMATS: dict[str, tuple[Callable[[Path, list[Record]], list[Any]], Any, Callable[..., Dataset[Any]]]] = {
    "jsonl": (write_jsonl, ragged, Dataset.load_jsonl),
    "parquet": (write_parquet, typed, Dataset.load_parquet),
    "csv": (write_csv, texts, Dataset.load_csv),
}


@pytest.fixture(scope="module")
def one_thread() -> Iterator[JobContext]:
    with create_job_ctx("sync") as context:
        yield context


@pytest.mark.timeout(20 * 60)
@pytest.mark.parametrize("format_", FORMATS)
@few
@given(by_suffix=st.booleans(), data=st.data())
def test_a_loaded_file_gives_what_one_record_at_a_time_gives(
    one_thread: JobContext, format_: str, by_suffix: bool, data: Any
) -> None:
    write, strategy, load = FORMATS[format_]
    records = data.draw(st.lists(strategy, max_size=7), label="records")
    columns = data.draw(st.none() | column_lists, label="columns")
    steps = data.draw(pipelines, label="steps")
    reshard = data.draw(st.integers(0, len(steps)) | st.none(), label="reshard before step")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"in.{format_}"
        expected, bad = evaluate(write(path, records), columns, steps)
        dataset = (Dataset.load_file if by_suffix else load)(Dataset.from_files(str(path)), columns=columns)
        for at, step in enumerate(steps):
            dataset = step.build(dataset.reshard(2) if at == reshard else dataset)
        counters: dict[str, dict[str, int]] = {}
        found = Backend.execute(dataset, one_thread, on_error="skip", counters=counters, storage_path=directory)
        assert repr(found) == repr(expected), dataset.explain()
        assert sum(counted["bad_records"] for counted in counters.values()) == bad, dataset.explain()
        if bad:
            with pytest.raises(Exception) as caught:
                Backend.execute(dataset, one_thread, storage_path=directory)
            assert isinstance(caught.value, (TypeError, ValueError, ArithmeticError, LookupError, AttributeError))
        else:
            assert repr(Backend.execute(dataset, one_thread, storage_path=directory)) == repr(expected)


# What is pushed


@pytest.fixture(params=["jsonl", "parquet", "csv"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset[Any]:
    write, _, load = FORMATS[request.param]
    write(tmp_path / f"in.{request.param}", [{"a": n, "b": None, "c": str(n), "d": None} for n in range(4)])
    return load(Dataset.from_files(f"{tmp_path}/in.{request.param}"))


def plan_lines(dataset: Dataset[Any]) -> list[str]:
    return [line.strip() for line in dataset.explain().splitlines()[3:]]


def test_the_plan_shows_what_is_pushed(loaded: Dataset[Any]) -> None:
    (line,) = plan_lines(loaded.select("c", "a").filter(col("a") > 1).filter(col("c") != "x").select("c"))
    assert "Reader(columns=('c',), predicate=((col('a') > lit(1)) & (col('c') != lit('x')))" in line


def test_the_plan_shows_what_stays_because_its_column_was_dropped(loaded: Dataset[Any]) -> None:
    load, stays = plan_lines(loaded.select("c").filter(col("a") > 1))
    assert "columns=('c',)" in load and "predicate" not in load
    assert stays == "FilterOp(expr=(col('a') > lit(1)))"


def test_nothing_is_pushed_past_a_function(loaded: Dataset[Any]) -> None:
    for opaque in (loaded.map(dict), loaded.filter(bool), loaded.flat_map(lambda record: [record]), loaded.take_per_shard(2)):
        load, _, *rest = plan_lines(opaque.filter(col("a") > 1).filter(col("a") < 9).select("a"))
        assert "predicate" not in load and "columns" not in load
        assert rest == ["FilterOp(expr=((col('a') > lit(1)) & (col('a') < lit(9))))", "SelectOp(columns=('a',))"]


def test_a_filter_that_is_pushed_counts_before_what_comes_after_it(sync: JobContext, loaded: Dataset[Any]) -> None:
    dataset = loaded.filter(col("c") > "0").take_per_shard(2).select("c")
    assert Backend.execute(dataset, sync) == [{"c": "1"}, {"c": "2"}]
    assert Backend.execute(loaded.take_per_shard(2).filter(col("c") > "0").select("c"), sync) == [{"c": "1"}]


# Columns stay columns


@pytest.fixture
def no_text(tmp_path: Path) -> Dataset[Any]:
    """A file with a column that no Python string can hold."""
    count, text = 2_000, b"\xff\xfe"
    offsets = pa.array(range(0, 2 * count + 1, 2), pa.int32()).buffers()[1]
    strings = pa.StringArray.from_buffers(count, offsets, pa.py_buffer(text * count))
    table = pa.table({"n": pa.array(range(count)), "text": strings})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=100, compression="none")
    return Dataset.from_files(f"{tmp_path}/in.parquet").load_parquet()


COLUMNAR: dict[str, tuple[Callable[[Dataset[Any]], Dataset[Any]], list[int]]] = {
    "nothing between": (lambda rows: rows, list(range(2_000))),
    "filter and select": (lambda rows: rows.filter(col("n") >= 1_990).select("text", "n"), list(range(1_990, 2_000))),
    "reshard": (lambda rows: rows.filter(col("n") % 2 == 0).reshard(3).filter(col("n") < 10), [0, 2, 4, 6, 8]),
    "reshard twice": (lambda rows: rows.reshard(4).select("text", "n", "gone").reshard(1), list(range(2_000))),
    "filter on what was dropped": (
        lambda rows: rows.select("n", "text").filter(col("gone").is_null() & (col("n") < 2)),
        [0, 1],
    ),
    "union": (lambda rows: rows.filter(col("n") < 2).union(rows.filter(col("n") == 7)), [0, 1, 7]),
}


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "parts"])
@pytest.mark.parametrize("pipeline", COLUMNAR)
def test_a_columnar_pipeline_makes_no_python_records(
    ctx: JobContext, no_text: Dataset[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, in_parts: bool
) -> None:
    build, expected = COLUMNAR[pipeline]
    if in_parts:
        monkeypatch.setattr("zephyr.plan.splits.PART_BYTES", 10_000)
    written = build(no_text).write_parquet(f"{tmp_path}/out/{{shard}}.parquet")
    paths = Backend.execute(written, ctx, spill_threshold_bytes=0)
    assert sorted(n for path in paths for n in pq.read_table(path, columns=["n"])["n"].to_pylist()) == expected


def test_a_count_makes_no_python_records(ctx: JobContext, no_text: Dataset[Any]) -> None:
    assert Backend.execute(no_text.filter(col("n") >= 1_990).count(), ctx) == [10]
    assert Backend.execute(no_text.reshard(3).count(), ctx) == [2_000]


def test_records_are_made_when_a_function_asks_for_them(sync: JobContext, no_text: Dataset[Any], tmp_path: Path) -> None:
    for dataset in (no_text.map(dict).write_parquet(f"{tmp_path}/out.parquet"), no_text):
        with pytest.raises(UnicodeDecodeError):
            Backend.execute(dataset, sync)
