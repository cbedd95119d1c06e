"""Large files are read in parts, and tiny ones together, and neither changes what comes out."""

from __future__ import annotations

import itertools
import json
import operator
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fray import JobContext, create_job_ctx
from zephyr import Backend, Dataset, col, counters, lit

pytestmark = pytest.mark.unit

PART_BYTES = "zephyr.plan.splits.PART_BYTES"
SMALL = 2_000
"""Bytes of a part in these tests."""
ROWS = {"a": 7, "big": 900, "c": 0, "d": 11}
"""Records by file: one is large beside the others."""

Build = Callable[[Dataset[Any], Path], Dataset[Any]]


def record(number: int) -> dict[str, Any]:
    return {"n": number, "k": number % 7, "text": f"é{number}" * (number % 5), "f": number / 4 if number % 3 else None}


@pytest.fixture(params=["jsonl", "parquet"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset[Any]:
    """The records of the files, in formats that can be read in parts."""
    place = tmp_path / "in"
    place.mkdir()
    numbers = itertools.count()
    for name, count in ROWS.items():
        rows = [record(next(numbers)) for _ in range(count)]
        write(place / f"{name}.{request.param}", rows)
    return Dataset.from_files(f"{place}/*").load_file()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        return
    schema = pa.schema([("n", pa.int64()), ("k", pa.int64()), ("text", pa.string()), ("f", pa.float64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=20, compression="none")


def content(path: Path) -> Any:
    return pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()


def whole(items: Iterator[Any]) -> list[Any]:
    return [list(items)]


def numbered(items: Iterator[Any]) -> Iterator[Any]:
    yield from enumerate(items)


def pairs(key: Any, values: Iterator[Any]) -> tuple[Any, list[Any]]:
    return key, list(values)


def size(key: Any, values: Iterator[Any]) -> int:
    return sum(1 for _ in values)


def twice(row: dict[str, Any]) -> list[Any]:
    return [row["n"], row["text"]]


def same_k(state: Any, row: dict[str, Any]) -> tuple[bool, Any]:
    return state is None or row["k"] > state, row["k"]


def named(shard: int, total: int) -> str:
    return f"{shard}-of-{total}"


by_k, by_n = operator.itemgetter("k"), operator.itemgetter("n")

NARROW: dict[str, Build] = {
    "nothing": lambda rows, _: rows,
    "map": lambda rows, _: rows.map(by_n),
    "flat_map": lambda rows, _: rows.flat_map(twice).filter(bool),
    "filter and select": lambda rows, _: rows.filter(col("k") > 2).select("text", "n"),
    "filter that is not pushed": lambda rows, _: rows.select("n").filter(col("f").is_null() & (col("n") > 3)),
}
WHOLE_SHARDS: dict[str, Build] = {
    "map_shard": lambda rows, _: rows.map_shard(whole),
    "state over a shard": lambda rows, _: rows.map(by_n).map_shard(numbered).filter(lambda pair: pair[0] % 2),
    "take_per_shard": lambda rows, _: rows.take_per_shard(450),
    "window": lambda rows, _: rows.map(by_n).window(7),
    "window_by": lambda rows, _: rows.window_by(same_k, None),
    "shards after a filter": lambda rows, _: rows.filter(col("k") == 1).map_shard(whole),
    "fold": lambda rows, _: rows.map(by_n).reduce(list, lambda lists: sorted(itertools.chain(*lists))),
    "count": lambda rows, _: rows.count(),
    "shuffle": lambda rows, _: rows.shuffle(3, 2).map_shard(whole),
    "sample": lambda rows, _: rows.sample(0.3, 3),
    "write_jsonl": lambda rows, out: rows.write_jsonl(f"{out}/{{shard}}-of-{{total}}-{{basename}}.jsonl.gz"),
    "write_parquet": lambda rows, out: rows.filter(col("k") > 2).write_parquet(f"{out}/{{shard}}.parquet"),
    "write_text": lambda rows, out: rows.map(str).write_text(lambda shard, total: f"{out}/{named(shard, total)}.txt"),
    "write and read": lambda rows, out: rows.write_jsonl(f"{out}/{{basename}}.jsonl").load_jsonl().map_shard(whole),
    "sorted_merge_join": lambda rows, _: rows.sorted_merge_join(rows.select("n", "f"), by_n, by_n, how="left"),
}
SHUFFLED: dict[str, Build] = {
    "group_by": lambda rows, _: rows.group_by(by_k, pairs, 3).map_shard(whole),
    "group_by with a combiner": lambda rows, _: rows.group_by(
        by_k, lambda key, values: key, 3, combiner=lambda _, rows: next(rows)
    ),
    "group_by with an order": lambda rows, _: rows.group_by(by_k, pairs, 3, sort_by=operator.itemgetter("text")),
    "deduplicate": lambda rows, _: rows.deduplicate(by_k, 2),
    "join": lambda rows, _: rows.join(rows.filter(col("n") < 99), "k", num_output_shards=2),
    "sort": lambda rows, _: rows.sort(by_k, 3),
    "sort into one shard": lambda rows, _: rows.sort(by_k, 1, reverse=True),
    "reshard": lambda rows, _: rows.reshard(5).map_shard(whole),
    "union": lambda rows, _: rows.union(rows).map_shard(whole),
}
PIPELINES = NARROW | WHOLE_SHARDS | SHUFFLED


def outcome(build: Build, rows: Dataset[Any], out: Path, ctx: JobContext) -> tuple[str, list[Any], dict[str, Any]]:
    dataset = build(rows, out)
    found = Backend.execute(dataset, ctx)
    written = {path.name: content(path) for path in out.glob("*") if path.name != "_manifest.json"}
    for path in out.glob("*"):
        path.unlink()
    return dataset.explain(), found, written


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_reading_in_parts_changes_no_result(
    sync: JobContext, files: Dataset[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    build, out = PIPELINES[pipeline], tmp_path / "out"
    text, found, written = outcome(build, files, out, sync)
    assert " parts" not in text
    monkeypatch.setattr(PART_BYTES, SMALL)
    text, found_in_parts, written_in_parts = outcome(build, files, out, sync)
    assert " parts" in text.splitlines()[0]
    assert (repr(found_in_parts), written_in_parts) == (repr(found), written)


def test_the_plan_tells_in_how_many_parts_files_are_read(files: Dataset[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = files.source.sizes_bytes
    assert sizes is not None
    monkeypatch.setattr(PART_BYTES, SMALL)
    parts = sum(max(1, round(size / SMALL)) for size in sizes)
    assert parts > 10
    assert f"read in {parts} parts" in files.explain().splitlines()[0]


def test_a_task_reads_one_part(
    sync: JobContext, files: Dataset[Any], monkeypatch: pytest.MonkeyPatch, recording: Callable[[JobContext], Any]
) -> None:
    whole_files, parts = recording(sync), recording(sync)
    Backend.execute(files.map(by_n), whole_files)
    monkeypatch.setattr(PART_BYTES, SMALL)
    Backend.execute(files.map(by_n), parts)
    assert len(whole_files.calls) == len(ROWS)
    assert len(parts.calls) > 10


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv", "x.parquet.jsonl.zst"])
def test_files_that_cannot_be_read_in_parts_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(b"x" * 100 * SMALL)
    monkeypatch.setattr(PART_BYTES, SMALL)
    assert "parts" not in Dataset.from_files(f"{tmp_path}/*").load_file().explain()


def test_files_of_one_size_stay_whole_where_whole_shards_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * 10 * SMALL)
    lines = Dataset.from_files(f"{tmp_path}/*.txt").load_text()
    monkeypatch.setattr(PART_BYTES, SMALL)
    assert "read in 50 parts" in lines.map(len).explain()
    assert "parts" not in lines.window(2).explain()


def test_lines_longer_than_a_part_are_read_once(sync: JobContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a", "b" * 10 * SMALL, "", "c" * SMALL, "d" * (SMALL - 1), "e\r", "f" * 3 * SMALL]
    (tmp_path / "in.txt").write_bytes("\n".join(lines).encode())
    monkeypatch.setattr(PART_BYTES, SMALL)
    files = Dataset.from_files(f"{tmp_path}/in.txt")
    assert " parts" in files.load_text().explain()
    assert Backend.execute(files.load_text(), sync) == [line.removesuffix("\r") for line in lines]


def test_bad_records_of_parts_are_left_out_and_counted(
    sync: JobContext, files: Dataset[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PART_BYTES, SMALL)
    good = files.filter(lit(1) / col("k") > 0).map(by_n)
    found: dict[str, dict[str, int]] = {}
    numbers = range(sum(ROWS.values()))
    assert Backend.execute(good, sync, on_error="skip", counters=found) == [n for n in numbers if n % 7]
    assert found == {"stage 1": {"bad_records": sum(n % 7 == 0 for n in numbers)}}


@pytest.mark.parametrize("end", ["chunks", "group_by", "write"])
def test_one_large_file_keeps_every_worker_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    write(tmp_path / "in.jsonl", [record(number) for number in range(200)])
    monkeypatch.setattr(PART_BYTES, (tmp_path / "in.jsonl").stat().st_size // 2)
    both = threading.Barrier(2)
    met = set()

    def meet(row: dict[str, Any]) -> dict[str, Any]:
        if threading.get_ident() not in met:
            met.add(threading.get_ident())
            both.wait(20)  # broken, unless two parts are read at once
        return row

    rows = Dataset.from_files(f"{tmp_path}/in.jsonl").load_jsonl().map(meet)
    build: dict[str, Callable[[], Dataset[Any]]] = {
        "chunks": lambda: rows.map(by_n),
        "group_by": lambda: rows.group_by(by_n, lambda key, values: key, 1).sort(num_output_shards=1),
        "write": lambda: rows.write_jsonl(f"{tmp_path}/out.jsonl").load_jsonl().map(by_n),
    }
    with create_job_ctx("threadpool", max_workers=2) as ctx:
        assert Backend.execute(build[end](), ctx) == list(range(200))
    assert len(met) == 2


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_what_exists_is_not_read_again(sync: JobContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool) -> None:
    for name, count in (("big", 900), ("small", 3)):
        write(tmp_path / f"{name}.jsonl", [record(number) for number in range(count)])
    if parts:
        monkeypatch.setattr(PART_BYTES, SMALL)

    def seen(row: dict[str, Any]) -> dict[str, Any]:
        counters.increment("seen")
        return row

    rows = Dataset.from_files(f"{tmp_path}/*.jsonl").load_jsonl().map(seen)
    written = rows.write_jsonl(f"{tmp_path}/out/{{basename}}.jsonl", skip_existing=True)
    assert (" parts" in written.explain()) == parts
    first: dict[str, dict[str, int]] = {}
    Backend.execute(written, sync, counters=first)
    assert first["stage 1"] == {"seen": 903}
    (tmp_path / "out" / "small.jsonl").unlink()
    again: dict[str, dict[str, int]] = {}
    assert len(Backend.execute(written, sync, counters=again)) == 2
    assert again["stage 1"] == {"seen": 3}


def test_ten_thousand_tiny_files_are_few_tasks(
    sync: JobContext, tmp_path: Path, recording: Callable[[JobContext], Any]
) -> None:
    count = 10_000
    for number in range(count):
        (tmp_path / f"{number:05d}.txt").write_text(str(number) if number % 10 else "")
    sums = Dataset.from_files(f"{tmp_path}/*.txt").load_text().map(int).map_shard(lambda items: [sum(items)])
    context = recording(sync)
    assert Backend.execute(sums, context) == [number if number % 10 else 0 for number in range(count)]
    assert 64 <= len(context.calls) <= 100
