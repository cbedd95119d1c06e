"""Bad records: left out alone, counted exactly, kept as dead letters, and named with the place where they are."""

from __future__ import annotations

import gzip
import json
import operator
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fray import JobContext
from zephyr import Backend, Dataset, PlanError, TooManyBadRecords, col, lit

# What is under way on a thread when a run fails is interrupted, maybe between the opening of a file and the ``with`` that
# closes it: then the collector closes it. On processes it cannot be so.
pytestmark = [
    pytest.mark.unit,
    pytest.mark.filterwarnings("ignore:(?s).*_io.FileIO.*unclosed file:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:(?s)Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
]

BAD = (3, 14)
GOOD = [n for n in range(20) if n not in BAD]
Build = Callable[[Dataset[int]], Dataset[Any]]


class Refused(Exception):
    pass


def refuse(n: Any) -> Any:
    if n in BAD:
        raise Refused(f"not {n}")
    return n


def numbers() -> Dataset[int]:
    return Dataset.from_list([range(10), range(10, 20)]).flat_map(iter)


def as_record(n: int) -> dict[str, Any]:
    return {"n": n, "divisor": 0 if n in BAD else 1}


def odd_for_bad(n: int) -> dict[str, Any]:
    return {"n": object() if n in BAD else n}


def twice(n: int) -> Iterator[int]:
    yield n
    yield n


def pair_up(left: Any, right: Any) -> Any:
    return left


def bad_records(counters: dict[str, dict[str, int]]) -> int:
    return sum(counted.get("bad_records", 0) for counted in counters.values())


def letters_in(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(directory.glob("*.jsonl")) for line in path.read_text().splitlines()]


def letters_of(dataset: Dataset[Any], ctx: JobContext, storage: Path) -> list[dict[str, Any]]:
    Backend.execute(dataset, ctx, on_error="dead_letter", storage_path=str(storage), name="job")
    return letters_in(storage / "dead-letters" / "job")


def place_of(dataset: Dataset[Any], ctx: JobContext) -> str:
    """Return what the error of a run says about shard, file and record."""
    with pytest.raises(Exception) as caught:
        Backend.execute(dataset, ctx)
    (note,) = [note for note in caught.value.__notes__ if note.startswith("in stage ")]
    return note[note.rindex(")), shard ") + 4 :] if ")), shard " in note else note[note.rindex("), shard ") + 3 :]


def write_lines(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join(line.encode() + b"\n" if isinstance(line, str) else line + b"\n" for line in lines))
    return path


def records(*numbers: int) -> list[str]:
    return [json.dumps(as_record(n)) for n in numbers]


# Left out, and nothing else


OPERATIONS: dict[str, Build] = {
    "map": lambda items: items.map(refuse),
    "filter": lambda items: items.filter(lambda n: refuse(n) is not None),
    "flat_map": lambda items: items.flat_map(lambda n: [refuse(n)]),
    "flat_map that fails later": lambda items: items.flat_map(lambda n: (refuse(n) for _ in range(1))),
    "expression": lambda items: items.map(as_record).filter(lit(1) / col("divisor") > 0).map(operator.itemgetter("n")),
    "select": lambda items: items.map(lambda n: None if n in BAD else {"n": n}).select("n").map(operator.itemgetter("n")),
    "behind other operations": lambda items: items.map(str).filter(str.isdigit).map(int).window(1).map(lambda w: refuse(w[0])),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_raises_loses_that_item_alone_and_keeps_the_order(ctx: JobContext, operation: str) -> None:
    counters: dict[str, dict[str, int]] = {}
    found = Backend.execute(OPERATIONS[operation](numbers()), ctx, on_error="skip", counters=counters)
    assert found == GOOD
    assert counters == {"stage 1": {"bad_records": len(BAD)}}
    with pytest.raises((Refused, ZeroDivisionError, TypeError)):
        Backend.execute(OPERATIONS[operation](numbers()), ctx)


KEYED: dict[str, Build] = {
    "group_by": lambda items: items.group_by(refuse, lambda key, values: key, 3),
    "deduplicate": lambda items: items.flat_map(twice).deduplicate(refuse),
    "join, left": lambda items: items.join(numbers(), refuse, right_on=lambda n: n, combiner=pair_up),
    "join, right": lambda items: items.join(numbers(), lambda n: n, right_on=refuse, combiner=pair_up),
    "sort into one shard": lambda items: items.sort(refuse, num_output_shards=1),
}


@pytest.mark.parametrize("verb", KEYED)
def test_a_key_that_raises_loses_that_item_alone(ctx: JobContext, verb: str) -> None:
    counters: dict[str, dict[str, int]] = {}
    assert sorted(Backend.execute(KEYED[verb](numbers()), ctx, on_error="skip", counters=counters)) == GOOD
    assert bad_records(counters) == len(BAD) * (2 if verb == "deduplicate" else 1)


def test_a_key_that_raises_loses_that_item_in_a_sort_into_several_shards(sync: JobContext) -> None:
    assert Backend.execute(numbers().sort(refuse, num_output_shards=2), sync, on_error="skip") == GOOD


WRITERS: dict[str, tuple[Callable[[Dataset[int], str], Dataset[str]], Callable[[str], list[Any]]]] = {
    "jsonl": (
        lambda items, path: items.map(odd_for_bad).write_jsonl(f"{path}.jsonl"),
        lambda path: [json.loads(line)["n"] for line in Path(path).read_text().splitlines()],
    ),
    "parquet": (
        lambda items, path: items.map(odd_for_bad).write_parquet(f"{path}.parquet"),
        lambda path: pq.read_table(path)["n"].to_pylist(),
    ),
    "text": (
        lambda items, path: items.map(lambda n: n if n in BAD else str(n)).write_text(f"{path}.txt"),
        lambda path: list(map(int, Path(path).read_text().splitlines())),
    ),
    "binary": (
        lambda items, path: items.map(lambda n: n if n in BAD else bytes([n])).write_binary(f"{path}.bin"),
        lambda path: list(Path(path).read_bytes()),
    ),
}


@pytest.mark.parametrize("format_", WRITERS)
def test_a_record_that_cannot_be_written_is_left_out_and_the_manifest_says_so(
    ctx: JobContext, tmp_path: Path, format_: str
) -> None:
    build, read = WRITERS[format_]
    counters: dict[str, dict[str, int]] = {}
    dataset = build(numbers(), f"{tmp_path}/out/{{shard}}")
    paths = Backend.execute(dataset, ctx, on_error="skip", counters=counters)
    assert [n for path in paths for n in read(path)] == GOOD
    assert counters == {"stage 1": {"bad_records": len(BAD)}}
    (entry,) = json.loads((tmp_path / "out" / "_manifest.json").read_text())["writes"].values()
    assert (entry["bad_records"], entry["rows"]) == (len(BAD), len(GOOD))
    with pytest.raises((TypeError, ValueError)):
        Backend.execute(build(numbers(), f"{tmp_path}/other/{{shard}}"), ctx, max_parallelism=1)
    assert not (tmp_path / "other" / "_SUCCESS").exists()


def test_bad_lines_are_left_out_alone(ctx: JobContext, tmp_path: Path) -> None:
    write_lines(tmp_path / "0.jsonl", "1", "{", b'"\xff"', "4", "", '{"a": 1} 2', "7")
    write_lines(tmp_path / "1.txt", "one", b"\xfftwo", "three")
    write_lines(tmp_path / "2.csv", "a,b", "1,2", "3", b'"\xff",4', '"x\ny",5', "6,7,8", "9,10")
    counters: dict[str, dict[str, int]] = {}
    found = Backend.execute(Dataset.from_files(f"{tmp_path}/*.*").load_file(), ctx, on_error="skip", counters=counters)
    rows = [{"a": "1", "b": "2"}, {"a": "x\ny", "b": "5"}, {"a": "9", "b": "10"}]
    assert found == [1, 4, 7, "one", "three", *rows]
    assert counters == {"stage 1": {"bad_records": 3 + 1 + 3}}


@pytest.mark.parametrize("format_", ["jsonl", "parquet", "csv"])
def test_an_expression_that_raises_while_a_file_is_read_loses_that_record_alone(
    ctx: JobContext, tmp_path: Path, format_: str
) -> None:
    if format_ == "parquet":
        pq.write_table(pa.Table.from_pylist(list(map(as_record, range(20)))), tmp_path / "in.parquet", row_group_size=4)
    elif format_ == "jsonl":
        write_lines(tmp_path / "in.jsonl", *records(*range(20)))
    else:
        write_lines(tmp_path / "in.csv", "n,divisor", *(f"{n},{int(n not in BAD)}" for n in range(20)))
    dataset = Dataset.from_files(f"{tmp_path}/in.*").load_file().filter(lit(1) / col("divisor").cast(int) > 0)
    assert "predicate=" in dataset.explain()
    counters: dict[str, dict[str, int]] = {}
    found = Backend.execute(dataset, ctx, on_error="skip", counters=counters)
    assert [int(record["n"]) for record in found] == GOOD
    assert counters == {"stage 1": {"bad_records": len(BAD)}}


def test_of_a_truncated_file_what_was_read_counts_and_the_file_is_one_bad_record(ctx: JobContext, tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = [json.dumps({"n": n, "noise": rng.random()}) for n in range(40_000)]
    data = gzip.compress("\n".join(lines).encode(), 1)
    (tmp_path / "0.jsonl.gz").write_bytes(data[: len(data) // 2])
    write_lines(tmp_path / "1.jsonl", *records(7))
    files = Dataset.from_files(f"{tmp_path}/*.jsonl*").load_jsonl().map(operator.itemgetter("n"))
    counters: dict[str, dict[str, int]] = {}
    found = Backend.execute(files, ctx, on_error="skip", counters=counters)
    *read, last = found
    assert last == 7
    assert read == list(range(len(read)))
    assert 10_000 < len(read) < 30_000
    assert counters == {"stage 1": {"bad_records": 1}}
    (letter,) = letters_of(files, ctx, tmp_path / "letters")
    assert (letter["record"], letter["error"]) == (f"{tmp_path}/0.jsonl.gz", "EOFError")
    with pytest.raises(EOFError):
        Backend.execute(files, ctx)


def test_what_is_no_path_is_a_bad_record_but_a_file_that_is_missing_fails_the_run(ctx: JobContext, tmp_path: Path) -> None:
    there, gone = write_lines(tmp_path / "there.txt", "a", "b"), tmp_path / "gone.txt"
    counters: dict[str, dict[str, int]] = {}
    paths: list[Any] = [7, str(there), there]
    assert Backend.execute(Dataset.from_list(paths).load_text(), ctx, on_error="skip", counters=counters) == list("abab")
    assert counters == {"stage 1": {"bad_records": 1}}
    with pytest.raises(FileNotFoundError):
        Backend.execute(Dataset.from_list([str(gone), str(there)]).load_text(), ctx, on_error="skip")


def test_bad_records_are_counted_by_stage_and_summed_in_the_manifest(ctx: JobContext, tmp_path: Path) -> None:
    dataset = numbers().map(refuse).reshard(3).map(odd_for_bad).filter(lambda record: 1 // record["n"] < 2)
    counters: dict[str, dict[str, int]] = {}
    Backend.execute(dataset.write_jsonl(f"{tmp_path}/{{shard}}.jsonl"), ctx, on_error="skip", counters=counters)
    assert counters == {"stage 1": {"bad_records": 2}, "stage 3": {"bad_records": 1}}
    (entry,) = json.loads((tmp_path / "_manifest.json").read_text())["writes"].values()
    assert entry["bad_records"] == 3


# Not too many


@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_as_many_bad_records_as_allowed_pass_and_one_more_fails(ctx: JobContext, tmp_path: Path, on_error: Any) -> None:
    for dataset in (numbers().map(refuse), numbers().reshard(1).map(refuse)):  # in different tasks, in one
        allowed = Backend.execute(dataset, ctx, on_error=on_error, max_errors=len(BAD), storage_path=str(tmp_path / "s"))
        assert allowed == GOOD
        with pytest.raises(TooManyBadRecords, match="2 bad records are more than the 1") as caught:
            Backend.execute(dataset, ctx, on_error=on_error, max_errors=1, storage_path=str(tmp_path / "s"))
        assert (caught.value.count, caught.value.max_errors) == (2, 1)


def test_bad_records_of_earlier_stages_count_against_the_limit(ctx: JobContext) -> None:
    dataset = numbers().map(refuse).reshard(1).map(lambda n: 1 // n)
    assert len(Backend.execute(dataset, ctx, on_error="skip", max_errors=3)) == 17
    with pytest.raises(TooManyBadRecords, match="3 bad records are more than the 2"):
        Backend.execute(dataset, ctx, on_error="skip", max_errors=2)


def test_no_shard_starts_after_one_bad_record_too_many(sync: JobContext) -> None:
    started = []

    def refuse_all(n: int) -> int:
        started.append(n)
        raise Refused(n)

    with pytest.raises(TooManyBadRecords):
        Backend.execute(Dataset.from_list(range(9)).map(refuse_all), sync, on_error="skip", max_errors=3)
    assert started == [0, 1, 2, 3]


@pytest.mark.parametrize("build", [lambda items: items, lambda items: items.reshard(1)], ids=["tasks", "one task"])
def test_too_many_bad_records_tell_of_the_last(any_ctx: JobContext, build: Build) -> None:
    with pytest.raises(TooManyBadRecords, match=r"Refused: not 14, in stage .* shard [01] of .* MapOp") as caught:
        Backend.execute(build(numbers()).map(refuse), any_ctx, on_error="skip", max_errors=1, max_parallelism=1)
    assert caught.value.count == 2


def test_an_error_without_a_text_is_left_out_like_others(sync: JobContext) -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise RecursionError

    def fail(_: int) -> int:
        raise Wordless

    assert Backend.execute(Dataset.from_list([0]).map(fail), sync, on_error="skip") == []


def test_the_limit_does_not_matter_when_errors_fail(sync: JobContext) -> None:
    with pytest.raises(Refused, match="not 3"):
        Backend.execute(numbers().map(refuse), sync, max_errors=9)


@pytest.mark.parametrize("options", [{"on_error": "ignore"}, {"max_errors": -1}])
def test_options_that_make_no_sense_are_refused(sync: JobContext, options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=next(iter(options))):
        Backend.execute(Dataset.from_list([1]), sync, **options)


# Kept


def test_a_dead_letter_tells_what_where_and_why(ctx: JobContext, tmp_path: Path) -> None:
    write_lines(tmp_path / "0.jsonl", *records(1, 2))
    bad = write_lines(tmp_path / "1.jsonl", *records(1), "{]", *records(3))
    dataset = Dataset.from_files(f"{tmp_path}/*.jsonl").load_jsonl().map(lambda record: refuse(record["n"]))
    counters: dict[str, dict[str, int]] = {}
    out = dataset.map(lambda n: {"n": n}).write_jsonl(f"{tmp_path}/out/{{shard}}.jsonl")
    Backend.execute(out, ctx, on_error="dead_letter", counters=counters)
    assert counters == {"stage 1": {"bad_records": 2}}
    line, call = letters_in(tmp_path / "out" / "_dead_letters")
    assert [path.name for path in (tmp_path / "out" / "_dead_letters").iterdir()] == ["stage-1.jsonl"]
    for letter in (line, call):
        assert letter["stage"].startswith("stage 1")
        assert (letter["shard"], letter["file"]) == (1, str(bad))
    assert (line["line"], line["position"], line["record"], line["error"]) == (2, None, "{]", "DecodeError")
    assert line["operation"].startswith("LoadOp(")
    assert "JSON" in line["message"]
    assert (call["line"], call["position"]) == (None, 2)  # the second of the records that could be read
    assert (call["record"], call["error"], call["message"]) == (as_record(3), "Refused", "not 3")
    assert call["operation"].startswith("MapOp(")
    assert "refuse" in call["traceback"]


def test_dead_letters_of_a_run_that_writes_nothing_go_below_its_storage(any_ctx: JobContext, tmp_path: Path) -> None:
    letters = letters_of(numbers().map(refuse).reshard(1).map(lambda n: 1 // n), any_ctx, tmp_path / "kept")
    assert [(letter["shard"], letter["record"]) for letter in letters] == [(0, 3), (1, 14), (0, 0)]
    names = sorted(path.name for path in (tmp_path / "kept" / "dead-letters" / "job").iterdir())
    assert names == ["stage-1.jsonl", "stage-3.jsonl"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["dead-letters"]


def test_skip_keeps_nothing(sync: JobContext, tmp_path: Path) -> None:
    Backend.execute(numbers().map(refuse), sync, on_error="skip", storage_path=str(tmp_path / "kept"), name="job")
    assert list((tmp_path / "kept").iterdir()) == []


def test_dead_letters_of_an_earlier_run_go_with_a_clean_one(ctx: JobContext, tmp_path: Path) -> None:
    def letters(*items: int) -> list[Any]:
        written = Dataset.from_list(items).map(refuse).map(str).write_text(f"{tmp_path}/{{shard}}.txt")
        Backend.execute(written, ctx, on_error="dead_letter")
        return [letter["record"] for letter in letters_in(tmp_path / "_dead_letters")]

    assert letters(1, 3, 14) == [3, 14]
    assert letters(1, 14, 2) == [14]
    assert letters(1, 2) == []
    assert list((tmp_path / "_dead_letters").iterdir()) == []


def test_a_task_that_is_tried_again_keeps_its_dead_letters_once(any_ctx: JobContext, tmp_path: Path) -> None:
    marker = tmp_path / "tried"

    def fail_once(items: Iterator[int]) -> Iterator[int]:
        yield from items
        if not marker.exists():
            marker.touch()
            raise Refused("the first attempt")

    retrying = any_ctx.options(max_retries=2, retry_delay_s=0.0)
    dataset = numbers().reshard(1).map(refuse).map_shard(fail_once)
    assert [letter["record"] for letter in letters_of(dataset, retrying, tmp_path / "kept")] == list(BAD)
    assert marker.exists()


ODD_RECORDS: dict[str, tuple[Any, Any]] = {
    "text": (b"caf\xc3\xa9", "café"),
    "other bytes": (b"\xff\x00a", "\\xff\x00a"),
    "nested": ({"a": [1, None, {"b": "é"}]}, {"a": [1, None, {"b": "é"}]}),
    "tuple": ((1, 2), [1, 2]),
    "None": (None, None),
    "large": (2**80, 2**80),
    "complex": (1j, "1j"),
    "keys that are no text": ({(1, 2): 3}, "{(1, 2): 3}"),
    "half a surrogate": ("\ud800", "'\\ud800'"),
    "object": (Refused("x"), "Refused('x')"),
}


@pytest.mark.parametrize("kind", ODD_RECORDS)
def test_a_record_of_any_kind_can_be_a_dead_letter(ctx: JobContext, tmp_path: Path, kind: str) -> None:
    record, expected = ODD_RECORDS[kind]

    def fail(_: Any) -> None:
        raise Refused("x")

    (letter,) = letters_of(Dataset.from_list([record]).map(fail), ctx, tmp_path / "kept")
    assert letter["record"] == expected


def test_a_record_that_cannot_be_pickled_can_be_a_dead_letter(ctx: JobContext, tmp_path: Path) -> None:
    dataset = Dataset.from_list([0]).map(lambda _: threading.Lock()).map(lambda _: 1 // 0)
    (letter,) = letters_of(dataset, ctx, tmp_path / "kept")
    assert letter["record"].startswith("<unlocked _thread.lock")


class Mute:
    def __repr__(self) -> str:
        raise Refused("no words")


@pytest.mark.parametrize("on_error", ["fail", "dead_letter"])
def test_a_record_without_a_repr_hides_no_error(sync: JobContext, tmp_path: Path, on_error: Any) -> None:
    dataset = Dataset.from_list([0]).map(lambda _: Mute()).map(lambda _: 1 // 0)
    if on_error == "fail":
        with pytest.raises(ZeroDivisionError):
            Backend.execute(dataset, sync)
        return
    assert len(letters_of(dataset, sync, tmp_path / "kept")) == 1


def test_an_error_with_odd_text_can_be_in_a_dead_letter(sync: JobContext, tmp_path: Path) -> None:
    def fail(_: int) -> int:
        raise Refused("\ud800")

    assert len(letters_of(Dataset.from_list([0]).map(fail), sync, tmp_path / "kept")) == 1


def test_an_error_that_is_raised_again_in_the_next_run_is_left_out_there(sync: JobContext) -> None:
    always = Refused("the same object")

    def fail(_: int) -> int:
        raise always

    with pytest.raises(Refused):
        Backend.execute(Dataset.from_list([0]).map(fail), sync)
    assert Backend.execute(Dataset.from_list([0]).map(fail), sync, on_error="skip") == []


def test_a_dead_letter_names_its_stage_whatever_the_run_is_called(sync: JobContext, tmp_path: Path) -> None:
    storage = tmp_path / "kept"
    Backend.execute(numbers().map(refuse), sync, on_error="dead_letter", storage_path=str(storage), name="nightly (new)")
    stages = {letter["stage"] for letter in letters_in(next((storage / "dead-letters").iterdir()))}
    assert stages == {"nightly (new): stage 1 of 1"}


# Named


def fail_at(number: int) -> Callable[[Any], Any]:
    def fail(record: Any) -> Any:
        if int(record["n"] if isinstance(record, dict) else record) == number:
            raise Refused(number)
        return record

    return fail


@pytest.fixture
def two(tmp_path: Path) -> Dataset[str]:
    """Two files of JSON lines: 0 to 4 and 5 to 9."""
    write_lines(tmp_path / "a.jsonl", *records(*range(5)))
    write_lines(tmp_path / "b.jsonl", *records(*range(5, 10)))
    return Dataset.from_files(f"{tmp_path}/[ab].jsonl")


@pytest.mark.parametrize("suffix", ["jsonl", "txt"])
def test_a_bad_line_is_named(ctx: JobContext, tmp_path: Path, suffix: str) -> None:
    write_lines(tmp_path / f"a.{suffix}", "1")
    path = write_lines(tmp_path / f"b.{suffix}", "1", "2", b"\xff")
    assert place_of(Dataset.from_files(f"{tmp_path}/*.{suffix}").load_file(), ctx) == f"shard 1 of 2, file {path}, line 3"


BEHIND: dict[str, Callable[[Dataset[Any]], Dataset[Any]]] = {
    "load": lambda items: items,
    "filter": lambda items: items.filter(lambda record: record["n"] % 2),
    "flat_map": lambda items: items.flat_map(lambda record: [record, record]),
    "map and flat_map": lambda items: items.map(lambda record: record["n"]).flat_map(lambda n: [n] if n > 5 else []),
    "select": lambda items: items.select("n"),
    "take_per_shard": lambda items: items.take_per_shard(4),
}


@pytest.mark.parametrize("between", BEHIND)
def test_an_error_names_the_record_of_the_file_also_behind_other_operations(
    ctx: JobContext, two: Dataset[str], tmp_path: Path, between: str
) -> None:
    dataset = BEHIND[between](two.load_jsonl()).map(fail_at(7))
    assert place_of(dataset, ctx) == f"shard 1 of 2, file {tmp_path}/b.jsonl, record 3"


def test_an_error_in_each_kind_of_function_names_the_record(sync: JobContext, two: Dataset[str], tmp_path: Path) -> None:
    fail = fail_at(8)
    loaded = two.load_jsonl()
    for dataset in (loaded.map(fail), loaded.filter(fail), loaded.flat_map(lambda record: [fail(record)])):
        assert place_of(dataset, sync) == f"shard 1 of 2, file {tmp_path}/b.jsonl, record 4"


def test_an_error_names_the_row_of_a_table_of_separated_values(sync: JobContext, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.csv", "n,text", '1,"two\nlines"', "2,x", "3,x")
    dataset = Dataset.from_files(str(path)).load_csv().filter(lambda row: row["n"] != "1").map(fail_at(2))
    assert place_of(dataset, sync) == f"shard 0 of 1, file {path}, record 2"


def test_an_error_names_the_item_of_a_shard_that_is_no_file(ctx: JobContext) -> None:
    dataset = Dataset.from_list([50]).flat_map(range).reshard(2).filter(lambda n: n % 2 == 0).flat_map(twice)
    assert place_of(dataset.map(fail_at(30)), ctx) == "shard 1 of 2, record 6"


def test_the_row_of_a_columnar_file_is_named_where_the_file_is_read(sync: JobContext, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": range(100)}), path, row_group_size=10)
    loaded = Dataset.from_files(str(path)).load_parquet()
    named = loaded.filter(lit(1) / (col("n") - 57) > -9)
    assert place_of(named, sync).endswith(f"shard 0 of 1, file {path}, record 58")
    assert place_of(loaded.map(fail_at(57)), sync) == f"shard 0 of 1, file {path}"  # batches: unknown, and never wrong


def test_a_number_that_push_down_makes_unknown_is_left_out(sync: JobContext, two: Dataset[str], tmp_path: Path) -> None:
    dataset = two.load_jsonl().filter(col("n") > 5).map(fail_at(8))
    assert place_of(dataset, sync) == f"shard 1 of 2, file {tmp_path}/b.jsonl"


def test_a_number_that_splitting_makes_unknown_is_left_out(
    sync: JobContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "a.jsonl", *records(*range(100)))
    monkeypatch.setattr("zephyr.plan.splits.PART_BYTES", 500)
    loaded = Dataset.from_files(str(path)).load_jsonl()
    assert "parts" in loaded.explain()
    assert place_of(loaded.map(fail_at(2)), sync) == f"shard 0 of 1, file {path}, record 3"
    assert place_of(loaded.map(fail_at(90)), sync) == f"shard 0 of 1, file {path}"
    path.write_text(path.read_text() + "{\n")
    assert place_of(Dataset.from_files(str(path)).load_jsonl(), sync) == f"shard 0 of 1, file {path}"


def test_the_key_of_a_group_names_the_file_but_no_record(sync: JobContext, two: Dataset[str], tmp_path: Path) -> None:
    dataset = two.load_jsonl().group_by(fail_at(8), lambda key, values: key)
    assert place_of(dataset, sync) == f"shard 1 of 2, file {tmp_path}/b.jsonl"


@pytest.mark.parametrize("write", ["write_jsonl", "write_parquet"])
def test_a_record_that_cannot_be_written_has_no_wrong_number(
    sync: JobContext, two: Dataset[str], tmp_path: Path, write: str
) -> None:
    dataset = two.load_jsonl().filter(lambda record: record["n"] > 6).map(lambda record: odd_for_bad(record["n"] + 6))
    place = place_of(getattr(dataset, write)(f"{tmp_path}/out/{{shard}}.{write[6:]}"), sync)  # 8, the fourth of the file
    assert place in (f"shard 1 of 2, file {tmp_path}/b.jsonl", f"shard 1 of 2, file {tmp_path}/b.jsonl, record 4")


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_a_bad_record_that_was_read_leaves_no_number_for_the_next(sync: JobContext, tmp_path: Path, format_: str) -> None:
    if format_ == "jsonl":
        write_lines(tmp_path / "in.jsonl", *records(*range(9)))
    else:
        pq.write_table(pa.Table.from_pylist(list(map(as_record, range(9)))), tmp_path / "in.parquet")
    files = Dataset.from_files(f"{tmp_path}/in.*").load_file()
    first, second = letters_of(files.filter(lit(1) / col("divisor") > 0).map(fail_at(7)), sync, tmp_path / "kept")
    assert first["line" if format_ == "jsonl" else "position"] == 4
    assert (second["position"], second["record"]["n"]) in ((None, 7), (8, 7))


@pytest.mark.parametrize("case", ["path read ahead", "file that is missing"])
def test_a_shard_of_several_files_gives_no_wrong_number(sync: JobContext, two: Dataset[str], tmp_path: Path, case: str) -> None:
    if case == "path read ahead":
        dataset = two.reshard(1).load_jsonl().filter(col("n") > 0).map(fail_at(4))
        assert place_of(dataset, sync) in (
            f"shard 0 of 1, file {tmp_path}/a.jsonl",
            f"shard 0 of 1, file {tmp_path}/a.jsonl, record 5",
        )
    else:
        paths = Dataset.from_list([f"{tmp_path}/a.jsonl", f"{tmp_path}/gone.jsonl"]).reshard(1)
        assert place_of(paths.load_jsonl(), sync) == f"shard 0 of 1, file {tmp_path}/gone.jsonl"


@pytest.mark.parametrize("case", ["map_shard", "unpicklable"])
def test_reading_ahead_gives_no_wrong_number(sync: JobContext, two: Dataset[str], tmp_path: Path, case: str) -> None:
    if case == "map_shard":
        dataset: Dataset[Any] = two.load_jsonl().map_shard(list).map(fail_at(1))
    else:
        dataset = two.load_jsonl().map(lambda record: threading.Lock() if record["n"] == 1 else record)
    place = f"shard 0 of 2, file {tmp_path}/a.jsonl"
    assert place_of(dataset, sync) in (place, f"{place}, record 2")


def test_a_bad_line_has_the_number_of_its_line_and_a_record_its_own(sync: JobContext, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", *records(0), "", "{", "", *records(1))
    letters = letters_of(Dataset.from_files(str(path)).load_jsonl().map(fail_at(1)), sync, tmp_path / "kept")
    assert [(letter["line"], letter["position"]) for letter in letters] == [(3, None), (None, 2)]


@pytest.mark.parametrize("pushed", [True, False])
def test_a_row_of_a_parquet_file_is_bad_alone_whatever_its_other_columns_are(
    sync: JobContext, tmp_path: Path, pushed: bool
) -> None:
    table = pa.table({"w": [1, 0, 3], "took": pa.array([1, 2, 3], pa.duration("ns"))})
    pq.write_table(table, tmp_path / "in.parquet")
    rows = Dataset.from_files(f"{tmp_path}/in.parquet").load_parquet()
    kept = (rows if pushed else rows.reshard(1)).filter(lit(6) / col("w") > 0).select("w")
    assert Backend.execute(kept, sync, on_error="skip") == [{"w": 1}, {"w": 3}]


def test_dead_letters_of_shards_that_are_kept_stay(sync: JobContext, tmp_path: Path) -> None:
    def run() -> list[Any]:
        dataset = Dataset.from_files(f"{tmp_path}/*.txt").load_text().map(int)
        out = dataset.write_jsonl(f"{tmp_path}/out/{{basename}}.jsonl", skip_existing=True)
        Backend.execute(out, sync, on_error="dead_letter")
        return [(letter["shard"], letter["record"]) for letter in letters_in(tmp_path / "out" / "_dead_letters")]

    write_lines(tmp_path / "a.txt", "1", "x")
    assert run() == [(0, "x")]
    write_lines(tmp_path / "b.txt", "2")
    assert run() == [(0, "x")]
    write_lines(tmp_path / "c.txt", "y")
    assert run() == [(0, "x"), (2, "y")]
