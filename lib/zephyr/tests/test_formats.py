"""Readers and writers of lines, JSON, CSV, text and bytes, by themselves."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from zephyr.errors import PlanError
from zephyr.expr import Expr, col
from zephyr.io.binary import BinaryWriter
from zephyr.io.csv import CsvReader
from zephyr.io.files import open_binary
from zephyr.io.formats import FileSplit, Reader, Writer
from zephyr.io.jsonl import JsonlReader, JsonlWriter
from zephyr.io.load import FileReader, load_csv, load_file, load_jsonl, load_text, reader_for
from zephyr.io.text import BLOCK_BYTES, TextReader, TextWriter

pytestmark = pytest.mark.unit

BOM = b"\xef\xbb\xbf"
LONG = "x" * (2 * BLOCK_BYTES + 7)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
}


@pytest.fixture(autouse=True, scope="module")
def no_files_in_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").rm("/formats", recursive=True)


class Bad:
    """An ``on_bad`` that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int | None, Any]] = []
        self.errors: list[Exception] = []

    def __call__(self, number: int | None, record: Any, error: Exception) -> None:
        self.seen.append((number, record))
        self.errors.append(error)


def put(content: bytes, name: str = "a.jsonl") -> str:
    path = f"memory://formats/{name}"
    with fsspec.open(path, "wb") as file:
        file.write(content)
    return path


def read(content: bytes, reader: Reader | None = None, bad: Bad | None = None, name: str = "a.jsonl") -> list[Any]:
    reader = JsonlReader() if reader is None else reader
    source = put(content, name)
    return list(reader.read(source) if bad is None else reader.read(source, bad))


def written(writer: Writer, items: Any, path: str = "a", bad: Bad | None = None) -> bytes:
    file = io.BytesIO()
    writer.write(file, path, items) if bad is None else writer.write(file, path, items, bad)
    return file.getvalue()


def notes_of(error: BaseException) -> str:
    return "; ".join(getattr(error, "__notes__", ()))


@pytest.mark.parametrize("value", [JsonlReader(), TextReader(), CsvReader(), FileReader()], ids=repr)
def test_readers_are_values_that_travel(value: Any) -> None:
    assert isinstance(value, Reader) and pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("value", [JsonlWriter(), TextWriter(), BinaryWriter()], ids=repr)
def test_writers_are_values_that_travel(value: Any) -> None:
    assert isinstance(value, Writer) and pickle.loads(pickle.dumps(value)) == value


# JSON lines, reading


def test_blank_lines_crlf_byte_order_mark_and_a_missing_last_newline_are_fine() -> None:
    assert read(BOM + b'{"a":1}\r\n\n \t\r\n[2]\n"\xc3\xa9"') == [{"a": 1}, [2], "é"]


def test_a_line_longer_than_a_block_is_read_whole() -> None:
    lines = [["before"], [LONG], ["after"]]
    assert read("\n".join(map(json.dumps, lines)).encode()) == lines


def test_an_empty_file_has_no_records() -> None:
    assert read(b"") == read(BOM) == read(gzip.compress(b""), name="a.jsonl.gz") == []


def test_bad_lines_are_told_one_by_one_and_the_others_keep_their_order() -> None:
    bad = Bad()
    assert read(b'1\n\nNaN\n2 3\n4\n[5,\n6]\n"\xff"\n7\n{"a":', bad=bad) == [1, 4, 7]
    lines = [(3, b"NaN"), (4, b"2 3"), (6, b"[5,"), (7, b"6]"), (8, b'"\xff"'), (10, b'{"a":')]
    assert bad.seen == lines
    assert all(isinstance(error, ValueError) for error in bad.errors)
    assert notes_of(bad.errors[0]) == "while reading memory://formats/a.jsonl, line 3"


def test_lines_are_numbered_through_all_blocks() -> None:
    bad = Bad()
    assert len(read(b'"0123456789"\n' * 60_000 + b"x\n1", bad=bad)) == 60_001
    assert bad.seen == [(60_001, b"x")]


def test_records_before_a_bad_line_come_first_and_its_error_names_file_and_line() -> None:
    records = JsonlReader().read(put(b"1\n2\nx\n3"))
    assert [next(records), next(records)] == [1, 2]
    with pytest.raises(ValueError, match="malformed") as caught:
        next(records)
    assert "memory://formats/a.jsonl, line 3" in notes_of(caught.value)


NEEDED: list[tuple[tuple[str, ...] | None, Expr | None]] = [
    (("b", "a", "b"), None),
    ((), None),
    (('"', "é", "", "\\"), None),
    (None, col("a") > 1),
    (("c",), col("a") > 1),
    (("c", '"'), (col("a") > 1) & col("b").is_null()),
]


def evaluate(line: bytes, columns: tuple[str, ...] | None, predicate: Expr | None) -> list[Any]:
    record = read(line)[0]
    if predicate is not None and not predicate.evaluate(record):
        return []
    return [record if columns is None else {name: record[name] for name in columns if name in record}]


def naive(lines: list[bytes], columns: tuple[str, ...] | None, predicate: Expr | None) -> tuple[list[Any], list[Any]]:
    records, errors = [], []
    for number, line in enumerate(lines, 1):
        try:
            records += evaluate(line, columns, predicate)
        except Exception as error:
            errors.append((number, type(error), str(error)))
    return records, errors


SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
RECORDS = st.dictionaries(st.sampled_from(["a", "b", "c", '"', "é", "", "other"]), VALUES, max_size=5)
BROKEN = st.sampled_from(
    [
        b'{"a":2',
        b'{"a":2}}',
        b'{"a":5,"other":"\xff"}',
        b'{"a":5,"other":"\\ud800"}',
        b'{"a":2,"a":3}',
        b'{"\\u0061":2}',
        b"[1]",
        b"3",
    ]
)
LINES = st.tuples(RECORDS | VALUES, st.booleans()).map(lambda pair: json.dumps(pair[0], ensure_ascii=pair[1]).encode()) | BROKEN


@pytest.mark.parametrize(("columns", "predicate"), NEEDED, ids=repr)
@settings(max_examples=40, deadline=None)
@given(lines=st.lists(LINES, max_size=6))
def test_columns_and_predicate_give_what_naive_evaluation_gives(
    columns: tuple[str, ...] | None, predicate: Expr | None, lines: list[bytes]
) -> None:
    bad = Bad()
    records = read(b"\n".join(lines), JsonlReader(columns, predicate), bad)
    expected, errors = naive(lines, columns, predicate)
    assert records == expected and [list(r) for r in records if isinstance(r, dict)] == [
        list(r) for r in expected if isinstance(r, dict)
    ]
    assert [(number, type(e), str(e)) for (number, _), e in zip(bad.seen, bad.errors, strict=True)] == errors


def test_columns_keep_the_given_order_whatever_their_names() -> None:
    line = '{"a":1,"q\\"":2,"é":3,"z":4}\n'
    for names in (("z", "é", "missing", "a"), ("z", 'q"', "a")):
        (record,) = read(line.encode(), JsonlReader(names))
        assert list(record) == [name for name in names if name != "missing"]


def test_a_predicate_that_fails_makes_the_line_bad() -> None:
    bad = Bad()
    assert read(b'{"a":"x","b":0}\n{"a":2,"b":1}', JsonlReader(("b",), col("a") + 1 > 0), bad) == [{"b": 1}]
    assert bad.seen == [(1, b'{"a":"x","b":0}')] and isinstance(bad.errors[0], TypeError)


def test_a_number_beyond_floats_is_bad_only_where_it_is_needed() -> None:
    bad = Bad()
    assert read(b'{"a":1e999,"b":1}', JsonlReader(("b",)), bad) == [{"b": 1}]
    assert read(b'{"a":1e999,"b":1}', JsonlReader(("a",)), bad) == []
    assert len(bad.seen) == 1


# Parts of files


@pytest.mark.parametrize("reader", [JsonlReader(), TextReader()], ids=repr)
@settings(max_examples=150, deadline=None)
@given(lines=st.lists(st.integers(0, 10**4), max_size=12), end=st.sampled_from(["\n", "\r\n"]), data=st.data())
def test_the_parts_of_a_file_hold_every_record_once_in_order(
    reader: Reader, lines: list[int], end: str, data: st.DataObject
) -> None:
    last = data.draw(st.sampled_from(["", end]))
    content = data.draw(st.sampled_from([b"", BOM])) + (end.join(map(str, lines)) + last).encode()
    path = put(content)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content) + 3), max_size=6)))
    bounds = [0, *cuts, max(len(content), *cuts)] if cuts else [0, len(content)]
    parts = [FileSplit(path, start, stop) for start, stop in pairwise(bounds)]
    assert [record for part in parts for record in reader.read(part)] == list(reader.read(path))


def test_parts_of_long_lines_hold_every_record_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps([n, LONG[: n * 70_000]]) for n in range(8)))
    for size in (1000, BLOCK_BYTES, BLOCK_BYTES + 1):
        starts = range(0, path.stat().st_size, size)
        parts = [FileSplit(str(path), start, start + size) for start in starts]
        assert [record[0] for part in parts for record in JsonlReader().read(part)] == list(range(8))


def test_a_part_looks_at_nothing_beyond_its_lines() -> None:
    path = put(b'"\xff"\n[1]\n[2]\n"\xff"')
    assert list(JsonlReader().read(FileSplit(path, 4, 9))) == [[1], [2]]
    assert list(JsonlReader().read(FileSplit(path, 4, 8))) == [[1]]


def test_a_bad_line_in_a_later_part_has_no_number_and_names_the_part() -> None:
    bad, path = Bad(), put(b"1\n2\nx\n3")
    assert list(JsonlReader().read(FileSplit(path, 2, 7), bad)) == [2, 3]
    assert list(JsonlReader().read(FileSplit(path, 0, 5), bad)) == [1, 2]
    assert bad.seen == [(None, b"x"), (3, b"x")]
    assert "a.jsonl, in the part from byte 2" in notes_of(bad.errors[0]) and "line 3" in notes_of(bad.errors[1])


def test_plain_files_of_lines_can_be_split_and_no_others() -> None:
    assert JsonlReader().can_split("a.jsonl") and TextReader().can_split("a.txt") and FileReader().can_split("a.txt")
    assert not any(JsonlReader().can_split(f"a.jsonl{suffix}") for suffix in (".gz", ".ZST", ".bz2", ".xz", ".zip"))
    assert not CsvReader().can_split("a.csv") and not TextReader().can_split("a.gz") and not FileReader().can_split("a.csv")
    for reader, name in ((JsonlReader(), "a.jsonl.gz"), (CsvReader(), "a.csv")):
        with pytest.raises(ValueError, match="cannot be read in parts"):
            list(reader.read(FileSplit(put(COMPRESS[".gz"](b"1"), name), 0, 1)))


# Compression


@pytest.mark.parametrize("suffix", COMPRESS)
def test_files_are_decompressed_by_suffix_also_in_capitals(suffix: str) -> None:
    for name in (f"a.jsonl{suffix}", f"a.jsonl{suffix.upper()}"):
        assert read(COMPRESS[suffix](b'[1]\n["x"]'), name=name) == [[1], ["x"]]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_files_of_several_members_are_read_to_the_end(suffix: str) -> None:
    members = [json.dumps([LONG]).encode(), b"", b"\n[1]\n", b"[2]"]
    assert read(b"".join(map(COMPRESS[suffix], members)), name=f"a{suffix}") == [[LONG], [1], [2]]


CONTENT = b"".join(b"%d\n" % zlib.crc32(b"%d" % n) for n in range(3000))
CRC = -8  # where gzip keeps its checksum, from the end


def damaged(suffix: str, how: str) -> bytes:
    data = COMPRESS[suffix](CONTENT)
    flipped = bytearray(data)
    flipped[CRC] ^= 1
    return {
        "cut": data[:-9],
        "cut early": data[:5],
        "empty": b"",
        "garbage": b"no such thing\n" * 9,
        "flipped": bytes(flipped),
    }[how]


@pytest.mark.parametrize("how", ["cut", "cut early", "empty", "garbage"])
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_damaged_compressed_file_is_an_error_that_names_it(suffix: str, how: str) -> None:
    with pytest.raises(Exception) as caught:
        read(damaged(suffix, how), name=f"a{suffix}")
    assert f"while reading memory://formats/a{suffix}, after line 0" in notes_of(caught.value)
    if how != "garbage":
        assert isinstance(caught.value, EOFError)


def test_a_wrong_gzip_checksum_is_an_error_that_names_the_file() -> None:
    with pytest.raises(gzip.BadGzipFile) as caught:
        read(damaged(".gz", "flipped"), TextReader(), name="a.txt.gz")
    assert "a.txt.gz" in notes_of(caught.value)


def test_a_compression_that_is_not_supported_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\.zip is not supported"):
        read(b"PK", name="a.jsonl.zip")


@pytest.mark.parametrize("reader", [JsonlReader(), TextReader(), CsvReader()], ids=repr)
def test_a_file_that_is_gone_names_itself(reader: Reader) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list(reader.read("memory://formats/gone"))
    assert "memory://formats/gone" in notes_of(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".zstd"])
@pytest.mark.parametrize(
    ("writer", "items", "content"),
    [
        (JsonlWriter(), [{"a": "é"}, 1] * 2000, '{"a":"é"}\n1\n'.encode() * 2000),
        (TextWriter(), ["é", ""] * 2000, "é\n\n".encode() * 2000),
        (BinaryWriter(), [b"a\n", b"", bytearray(b"b")] * 2000, b"a\nb" * 2000),
    ],
    ids=["jsonl", "text", "binary"],
)
def test_what_is_written_is_compressed_by_suffix_and_the_same_each_time(
    writer: Writer, items: list[Any], content: bytes, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as file:
        assert writer.write(file, str(path), iter(items)).rows == len(items)
        assert not file.closed
    with open_binary(str(path)) as file:
        assert file.read() == content
    assert path.read_bytes() == written(writer, items, f"elsewhere{suffix}")
    assert not suffix or path.stat().st_size < len(content)


def test_gzip_is_readable_by_others_and_holds_neither_time_nor_name() -> None:
    for level in (None, 0, 3, 6):
        data = written(JsonlWriter(level), [1], "name.gz")
        assert gzip.decompress(data) == b"1\n" and data[3:8] == bytes(5)


def test_the_level_decides_about_the_size() -> None:
    rows = [[n * k % 97 for k in range(20)] for n in range(2000)]
    for path, low, high in (("a.gz", 0, 9), ("a.gz", 1, 3), ("a.zst", 1, 19)):
        assert len(written(JsonlWriter(low), rows, path)) > len(written(JsonlWriter(high), rows, path))
    for path, usual in (("a.gz", 2), ("a.zst", 3)):
        assert written(JsonlWriter(usual), rows, path) == written(JsonlWriter(), rows, path)


def test_gzip_levels_above_three_are_those_of_zlib() -> None:
    raw = written(JsonlWriter(), range(9999))
    stream = zlib.compressobj(6, wbits=31)
    assert written(JsonlWriter(6), range(9999), "a.gz") == stream.compress(raw) + stream.flush()


WITHOUT_ISAL = """
import gzip, sys
from pathlib import Path
sys.modules["isal"] = None
from zephyr.io.jsonl import JsonlReader, JsonlWriter
path = sys.argv[1]
with open(path, "wb") as file:
    JsonlWriter(3).write(file, path, [1, [2]])
assert gzip.decompress(Path(path).read_bytes()) == b"1\\n[2]\\n"
assert list(JsonlReader().read(path)) == [1, [2]]
"""


@pytest.mark.integration
def test_gzip_is_written_and_read_where_isal_is_missing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_ISAL, str(tmp_path / "a.gz")], check=True, timeout=60)


@pytest.mark.parametrize("suffix", [".bz2", ".xz", ".zip", ".lz4", ".BZ2"])
@pytest.mark.parametrize("writer", [JsonlWriter(), TextWriter(), BinaryWriter()], ids=repr)
def test_a_compression_that_cannot_be_written_is_a_plan_error(writer: Writer, suffix: str) -> None:
    with pytest.raises(PlanError, match=f"out/a{suffix}.* not supported"):
        writer.check_path(f"out/a{suffix}")
    with pytest.raises(PlanError):
        written(writer, [], f"out/a{suffix}")


@pytest.mark.parametrize(("level", "path"), [(10, "a.gz"), (-1, "a.gz"), (0, "a.zst"), (23, "a.zst"), (3, "a.jsonl")])
def test_a_level_that_does_not_exist_is_a_plan_error(level: int, path: str) -> None:
    JsonlWriter().check_path(path)
    with pytest.raises(PlanError, match=f"{path} with level={level}"):
        JsonlWriter(level).check_path(path)


# JSON lines, writing


@dataclass
class Row:
    name: str
    at: datetime


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (Row("é", datetime.fromisoformat("2020-01-01")), '{"name":"é","at":"2020-01-01T00:00:00"}'),
        ({"d": Decimal("1.50"), "s": {1}, "t": (1, None)}, '{"d":"1.50","s":[1],"t":[1,null]}'),
        ([numpy.int64(3), numpy.float32(0.5), numpy.bool_(True), numpy.str_("x"), numpy.arange(2)], '[3,0.5,true,"x",[0,1]]'),
        (numpy.array(["2020-01-01T00:00:00.123456789"], "datetime64[ns]"), '["2020-01-01T00:00:00.123456789"]'),
        (numpy.datetime64("2020-01-01"), '"2020-01-01"'),
        ({1: 2, 1.5: 3}, '{"1":2,"1.5":3}'),
        (
            [float("nan"), float("inf"), -float("inf"), numpy.float64("nan"), numpy.array([numpy.nan])],
            "[null,null,null,null,[null]]",
        ),
        (10**30, str(10**30)),
        ("a\nb\u2028", '"a\\nb\u2028"'),
    ],
)
def test_values_are_written_as_json_can_hold_them(value: Any, line: str) -> None:
    assert written(JsonlWriter(), [value]).decode() == f"{line}\n"


@settings(max_examples=50, deadline=None)
@given(records=st.lists(VALUES))
def test_json_values_come_back_as_they_were(records: list[Any]) -> None:
    assert read(written(JsonlWriter(), records)) == records


@pytest.mark.parametrize(
    ("writer", "good", "bads"),
    [
        (JsonlWriter(), [[1], {"a": 2}], [3j, {(1, 2): 3}, {None: 1}, "\ud800"]),
        (TextWriter(), ["a", "b c"], [1, b"x", "x\ny", "x\r", "\ud800"]),
        (BinaryWriter(), [b"a", b""], ["x", 1, None]),
    ],
    ids=["jsonl", "text", "binary"],
)
def test_items_that_cannot_be_written_are_told_and_left_out(writer: Writer, good: list[Any], bads: list[Any]) -> None:
    bad, clean = Bad(), good * 100
    items = [*clean[:150], *bads, *clean[150:], bads[0]]
    file = io.BytesIO()
    assert writer.write(file, "out/a", items, bad).rows == len(clean)
    assert file.getvalue() == written(writer, clean)
    assert bad.seen == [*zip(range(151, 151 + len(bads)), bads, strict=True), (len(items), bads[0])]
    assert notes_of(bad.errors[0]) == "while writing out/a"
    with pytest.raises(type(bad.errors[0])) as caught:
        written(writer, items)
    assert "record 151" in notes_of(caught.value)


def test_an_error_of_the_items_passes_through_a_writer() -> None:
    with pytest.raises(ZeroDivisionError):
        written(JsonlWriter(), (1 // x for x in (1, 0)), bad=Bad())


# Text


def test_only_line_feeds_end_lines_of_text_with_a_carriage_return_before_them() -> None:
    content = BOM + "a\x0cb\u2028c\x85\rd\r\n\n \r\r\nlast\r".encode()
    assert read(content, TextReader()) == ["a\x0cb\u2028c\x85\rd", "", " \r", "last"]


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]))))
def test_lines_of_text_come_back_as_they_were(lines: list[str]) -> None:
    assert read(written(TextWriter(), lines), TextReader()) == lines


def test_a_line_that_is_no_utf8_is_bad_unless_replaced() -> None:
    bad, content = Bad(), b"one\n\xff\ntwo"
    assert read(content, TextReader(), bad) == ["one", "two"] and bad.seen == [(2, b"\xff")]
    assert read(content, TextReader("replace")) == ["one", "\N{REPLACEMENT CHARACTER}", "two"]
    with pytest.raises(UnicodeDecodeError) as caught:
        list(load_text(put(content)))
    assert "a.jsonl, line 2" in notes_of(caught.value)


# CSV


def test_rows_are_dicts_of_strings_and_quotes_may_hold_anything() -> None:
    content = BOM + 'id,text\r\n1,"a\nb, ""c"""\r\n\r\n2,é\n3,\n'.encode()
    assert read(content, CsvReader()) == [{"id": "1", "text": 'a\nb, "c"'}, {"id": "2", "text": "é"}, {"id": "3", "text": ""}]
    assert read(gzip.compress(content), CsvReader(), name="a.csv.gz") == read(content, CsvReader())
    assert read(b"", CsvReader()) == read(b"id,text\n", CsvReader()) == []


def test_fields_may_be_longer_than_a_block() -> None:
    assert read(f'a,b\n"{LONG}\n",1'.encode(), CsvReader()) == [{"a": f"{LONG}\n", "b": "1"}]


def test_names_and_delimiter_may_be_given() -> None:
    assert read(b"1;2\n3;4", CsvReader(delimiter=";", header=["x", "y"])) == [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]


def test_columns_and_predicate_apply_to_rows() -> None:
    reader = CsvReader(("c", "z", "a"), col("b") == "1")
    assert [list(row.items()) for row in read(b"a,b,c\n1,1,x\n2,2,y", reader)] == [[("c", "x"), ("a", "1")]]


def test_bad_rows_are_told_with_the_number_of_their_first_line() -> None:
    bad = Bad()
    content = b'a,b\n1,2\n3\n\n"4\n",5,6\n7,"8"x\n9,\xff\n10,11\n12,"13'
    assert read(content, CsvReader(), bad) == [{"a": "1", "b": "2"}, {"a": "10", "b": "11"}]
    assert bad.seen == [(3, ["3"]), (5, ["4\n", "5", "6"]), (7, b'7,"8"x'), (8, b"9,\xff"), (10, b'12,"13')]
    assert str(bad.errors[0]) == "the row has 1 fields, but there are 2 columns"
    assert all(f"a.jsonl, line {number}" in notes_of(e) for (number, _), e in zip(bad.seen, bad.errors, strict=True))


def test_a_predicate_that_fails_makes_the_row_bad() -> None:
    bad = Bad()
    assert read(b"a\n1", CsvReader(predicate=col("a") + 1 > 0), bad) == [] and bad.seen == [(2, ["1"])]


def test_two_columns_of_one_name_are_an_error() -> None:
    with pytest.raises(ValueError, match="more than one column named 'a'"):
        read(b"a,b,a\n1,2,3", CsvReader(), Bad())


def test_a_bad_row_of_names_is_raised_whatever_becomes_of_bad_records() -> None:
    with pytest.raises(UnicodeDecodeError):
        read(b"a,\xff\n1,2", CsvReader(), Bad())


# Which reader


@pytest.mark.parametrize(
    ("name", "content", "records"),
    [
        ("a.jsonl", b'{"a":1,"b":2}', [{"a": 1, "b": 2}]),
        ("a.NDJSON", b'{"a":1}', [{"a": 1}]),
        ("a.csv", b"a,b\n1,2", [{"a": "1", "b": "2"}]),
        ("a.tsv", b"a\tb\n1\t2", [{"a": "1", "b": "2"}]),
        ("a.txt", b"a,b", ["a,b"]),
        ("a.b.text", b"x", ["x"]),
    ],
)
@pytest.mark.parametrize("suffix", COMPRESS)
def test_files_are_read_by_their_suffix(name: str, content: bytes, records: list[Any], suffix: str) -> None:
    assert list(load_file(put(COMPRESS[suffix](content), name + suffix))) == records


@pytest.mark.parametrize(("name", "said"), [("a.foo", r"'\.foo': known are \.jsonl"), ("a.json", "load_jsonl"), ("a.gz", "''")])
def test_a_suffix_that_is_not_known_is_an_error(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_file(f"memory://formats/{name}")
    with pytest.raises(ValueError, match=said):
        reader_for(name)


def test_columns_and_predicate_apply_whatever_the_format() -> None:
    reader = FileReader(("a",), col("b") == "2")
    for name, content in (("a.jsonl", b'{"a":1,"b":"2"}\n{"a":3,"b":"4"}'), ("a.csv", b"a,b\n1,2\n3,4")):
        assert [str(row["a"]) for row in read(content, reader, name=name)] == ["1"]
    bad = Bad()
    assert read(b"line", FileReader(predicate=col("a") == 1), bad, "a.txt") == [] and bad.seen == [(None, "line")]


def test_load_functions_take_columns_and_return_iterators() -> None:
    for load, content, name in (
        (load_jsonl, b'{"a":"1","b":"2"}', "x"),
        (load_csv, b"a,b\n1,2", "x"),
        (load_file, b"a,b\n1,2", "x.csv"),
    ):
        assert next(load(put(content, name), ["b"])) == {"b": "2"}
        assert next(load(put(content, name))) == {"a": "1", "b": "2"}
