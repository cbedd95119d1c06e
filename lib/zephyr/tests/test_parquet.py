from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec
import msgspec
import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zephyr.errors import PlanError
from zephyr.expr import Expr, col, lit
from zephyr.io.arrow import sniff
from zephyr.io.columnar import ColumnBatches
from zephyr.io.formats import FileSplit, Reader, Writer
from zephyr.io.parquet import ParquetReader, ParquetWriter

pytestmark = pytest.mark.unit


class Seen:
    """Keeps what is told of bad records."""

    def __init__(self) -> None:
        self.bad: list[tuple[int | None, Any, str]] = []

    def __call__(self, number: int | None, record: Any, error: Exception) -> None:
        self.bad.append((number, record, str(error)))

    @property
    def numbers(self) -> list[int | None]:
        return [number for number, _, _ in self.bad]


@dataclass
class Point:
    x: int
    tags: list[str]


class Pair(msgspec.Struct):
    x: int
    y: float


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


def encode(items: Iterable[Any], writer: ParquetWriter | None = None, on_bad: Seen | None = None) -> bytes:
    file = io.BytesIO()
    more = () if on_bad is None else (on_bad,)
    written = (writer or ParquetWriter()).write(file, "a.parquet", items, *more)
    assert pq.read_metadata(file).num_rows == written.rows
    return file.getvalue()


def save(path: Path, items: Iterable[Any], writer: ParquetWriter | None = None) -> str:
    path.write_bytes(encode(items, writer))
    return str(path)


def decode(data: bytes, reader: ParquetReader | None = None) -> list[Any]:
    with fsspec.open("memory://decode.parquet", "wb") as file:
        file.write(data)
    return list((reader or ParquetReader()).read("memory://decode.parquet"))


def groups_of(data: bytes) -> list[int]:
    footer = pq.read_metadata(io.BytesIO(data))
    return [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]


def completed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with all keys of any of them, in the order of first appearance; nested ones too."""
    return [complete_like(record, records) for record in records]


def complete_like(value: Any, values: list[Any]) -> Any:
    others = [other for other in values if other is not None]
    if isinstance(value, dict):
        keys = dict.fromkeys(key for other in others for key in other)
        return {key: complete_like(value.get(key), [other.get(key) for other in others]) for key in keys}
    if isinstance(value, list):
        return [complete_like(item, [i for other in others for i in other]) for item in value]
    return value


def test_reader_and_writer_fulfil_the_protocols() -> None:
    assert isinstance(ParquetReader(), Reader) and isinstance(ParquetWriter(), Writer)
    assert ParquetReader().has_columns and ParquetReader().can_split("s3://b/a.parquet")


# Values


def test_values_of_many_types_come_back_equal() -> None:
    record = {
        "none": None,
        "int": -5,
        "unsigned": 2**64 - 1,
        "float": 0.5,
        "text": "é",
        "bytes": b"\xff",
        "decimal": Decimal("1.50"),
        "naive": datetime(2020, 1, 1, 1, 2, 3, 4),  # noqa: DTZ001
        "aware": datetime(2020, 1, 1, tzinfo=UTC),
        "date": date(2020, 1, 1),
        "time": time(1, 2, 3),
        "duration": timedelta(days=1, microseconds=3),
        "uuid": UUID(int=7),
        "list": [{"a": [1]}, {"b": "x"}, None],
        "dict": {"x": {"y": [[]]}},
        "bool": True,
    }
    expected = {**record, "list": [{"a": [1], "b": None}, {"a": None, "b": "x"}, None]}
    assert decode(encode([record])) == [expected]


def test_numpy_values_keep_their_numbers_and_vectors_their_width() -> None:
    record = {
        "int": numpy.int8(3),
        "float": numpy.float32(0.1),
        "bool": numpy.bool_(True),
        "vector": numpy.array([0.1, 0.2], numpy.float32),
        "matrix": numpy.zeros((1, 2), numpy.int64),
        "at": numpy.datetime64("2020-01-01T00:00:01"),
        "for": numpy.timedelta64(3, "s"),
    }
    data = encode([record])
    (found,) = decode(data)
    assert found == {
        "int": 3,
        "float": float(numpy.float32(0.1)),
        "bool": True,
        "vector": record["vector"].tolist(),  # type: ignore[attr-defined]
        "matrix": [[0, 0]],
        "at": datetime(2020, 1, 1, 0, 0, 1),  # noqa: DTZ001
        "for": timedelta(seconds=3),
    }
    assert pq.read_schema(io.BytesIO(data)).field("vector").type == pa.list_(pa.float32())


def test_dataclasses_structs_and_tuples_are_records_and_lists() -> None:
    found = decode(encode([Point(1, ["a"]), Pair(2, 0.5), {"inner": Point(3, []), "t": (1, 2)}]))
    assert found == [
        {"x": 1, "tags": ["a"], "y": None, "inner": None, "t": None},
        {"x": 2, "tags": None, "y": 0.5, "inner": None, "t": None},
        {"x": None, "tags": None, "y": None, "inner": {"x": 3, "tags": []}, "t": [1, 2]},
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, "a"),
        ("a", b"a"),
        (True, 1),
        (1.5, True),
        (date(2020, 1, 1), datetime(2020, 1, 1)),  # noqa: DTZ001
        (datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)),  # noqa: DTZ001
        (2**53 + 1, 0.5),
        (2**63, -1),
        ([1], [["a"]]),
        ({"a": 1}, {"a": {"b": 1}}),
        (1.5, Decimal(1)),
    ],
)
@pytest.mark.parametrize("between", [0, 5000])
def test_values_that_no_column_holds_exactly_are_errors_naming_the_column(first: Any, second: Any, between: int) -> None:
    records = [{"c": first}, *({"d": 1} for _ in range(between)), {"c": second}]
    with pytest.raises(ValueError, match=r"column 'c.*schema=") as caught:
        encode(records, ParquetWriter(row_group_bytes=1000))
    notes = getattr(caught.value, "__notes__", [])
    assert notes == [f"at record {between + 2}: {records[-1]!r}"] or (type(first), type(second)) == (int, float)


def test_a_type_that_does_not_widen_is_named_with_the_other() -> None:
    with pytest.raises(ValueError, match=r"column 'c\.d' has type int64.*string"):
        encode([{"c": {"d": 1}}, {"c": {"d": "x"}}])


@pytest.mark.parametrize("value", [object(), 2**64, Decimal("NaN"), "\ud800", {1: 2}, {1}, time(1, tzinfo=UTC)])
def test_values_that_parquet_has_no_type_for_are_bad_records_and_others_stay(value: Any) -> None:
    seen = Seen()
    data = encode([{"c": None, "n": 1}, {"c": value, "n": 2}, {"c": None, "n": 3}], on_bad=seen)
    assert [record["n"] for record in decode(data)] == [1, 3]
    assert seen.numbers == [2] and "c" in seen.bad[0][2]


def test_items_that_are_no_mappings_are_bad_records() -> None:
    seen = Seen()
    assert decode(encode([{"a": 1}, 5, {"a": 2}, "x"], on_bad=seen)) == [{"a": 1}, {"a": 2}]
    assert [(number, record) for number, record, _ in seen.bad] == [(2, 5), (4, "x")]
    with pytest.raises(TypeError, match=r"a record must be a mapping.*not int") as caught:
        encode([{"a": 1}, 5])
    assert caught.value.__notes__ == ["at record 2: 5"]


# Widening


def test_later_keys_and_wider_types_keep_every_value() -> None:
    early = [{"a": None, "b": 1, "d": {"x": 1}, "l": []} for _ in range(300)]
    late = [{"a": "x", "b": 0.5, "c": True, "d": {"y": [1]}, "l": [{"z": 1}], "e": Decimal("1.5")}, {"e": 10**6}]
    data = encode(early + late, ParquetWriter(row_group_bytes=1000))
    assert decode(data) == completed(early + late)
    assert len(groups_of(data)) > 2


@pytest.mark.parametrize(
    ("narrow", "wide", "type_"),
    [
        (pa.array([1], pa.int8()), pa.array([300], pa.int16()), pa.int16()),
        (pa.array([1], pa.uint32()), pa.array([-1], pa.int32()), pa.int64()),
        (pa.array([0.5], pa.float16()), pa.array([0.5], pa.float32()), pa.float32()),
        (pa.array([1], pa.timestamp("ms")), pa.array([1], pa.timestamp("us")), pa.timestamp("us")),
        (pa.array([1], pa.time32("ms")), pa.array([1], pa.time64("us")), pa.time64("us")),
        (pa.array(["a"]), pa.array(["a"], pa.large_string()), pa.large_string()),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.string()),
        (pa.array(["a"], pa.string_view()), pa.array(["b"]), pa.string()),
        (
            pa.array([{}, None, {"a": 1}], pa.map_("string", "int8")).slice(2),
            pa.array([{"a": 1}], pa.map_("string", "int64")),
            None,
        ),
    ],
)
def test_batches_of_other_schemas_widen_columns(narrow: pa.Array, wide: pa.Array, type_: pa.DataType | None) -> None:
    batches = [pa.record_batch({"c": narrow}), pa.record_batch({"c": wide, "d": pa.array([1])})]
    data = encode(ColumnBatches(batches), ParquetWriter(row_group_bytes=1))
    expected = [{"c": narrow[0].as_py(), "d": None}, {"c": wide[0].as_py(), "d": 1}]
    assert decode(data) == expected
    assert pq.read_schema(io.BytesIO(data)).field("c").type == (wide.type if type_ is None else type_)


def test_lists_of_nothing_but_nulls_survive_widening_beside_them() -> None:
    early = [{"s": {"l": [None, None], "m": [[None], []]}, "l": [[None] * 3]}] * 3
    late = [{"s": {"l": [None], "x": 1}, "l": None}, {"s": None, "l": [[1]]}]
    assert decode(encode(early + late, ParquetWriter(row_group_bytes=1))) == completed(early + late)
    batch = pa.RecordBatch.from_pylist(early).slice(1)
    assert decode(encode(ColumnBatches([batch, pa.RecordBatch.from_pylist(late)]))) == completed(early[1:] + late)


def test_widening_rewrites_a_file_that_can_only_be_written_to(tmp_path: Path) -> None:
    with (tmp_path / "a").open("xb") as file:
        ParquetWriter(row_group_bytes=100).write(file, "a", ({"a": i, f"k{i // 500}": i} for i in range(1000)))
    assert [(r["a"], r["k0"], r["k1"]) for r in ParquetReader().read(str(tmp_path / "a"))] == [
        (i, i if i < 500 else None, i if i >= 500 else None) for i in range(1000)
    ]


def test_dicts_without_keys_are_stored_once_a_later_one_has_some() -> None:
    assert decode(encode([{"m": {}}, *[{"m": {}}] * 3000, {"m": {"a": 1}}], ParquetWriter(row_group_bytes=100)))[-1] == {
        "m": {"a": 1}
    }
    with pytest.raises(ValueError, match=r"column 'm\.n', which holds only empty dicts"):
        encode([{"m": {"n": {}}}])
    with pytest.raises(ValueError, match="records without any key"):
        encode([{}, {}])


def test_nothing_gives_a_file_without_columns_and_rows() -> None:
    data = encode([])
    assert decode(data) == [] and pq.read_schema(io.BytesIO(data)).names == []


def test_the_same_records_give_the_same_bytes() -> None:
    records = [{"a": i, "b": [str(i)], f"k{i // 900}": {"x": i}} for i in range(1000)]
    writer = ParquetWriter(row_group_bytes=5000)
    assert encode(records, writer) == encode(records, writer)


def test_what_was_written_is_told() -> None:
    written = ParquetWriter().write(io.BytesIO(), "a", [{"a": 1}, {"b": ["x"]}])
    assert written.rows == 2 and written.schema == (("a", "int64"), ("b", "list<item: string>"))


# A given schema


def test_a_given_schema_makes_unknown_keys_and_unfit_values_bad_records() -> None:
    inner = pa.struct([("x", pa.int8())])
    schema = pa.schema([("i", pa.int32()), ("s", pa.string()), ("f", pa.float32()), ("d", inner)])
    records: list[dict[str, Any]] = [
        {"i": 1, "f": 0.1},
        {"i": 2**31},
        {"i": 1.0},
        {"i": True},
        {"s": b"x"},
        {"f": 1e300},
        {"z": 1},
        {"d": {"y": 1}},
        {"d": {"x": 1}, "s": "a"},
    ]
    seen = Seen()
    found = decode(encode(records, ParquetWriter(schema), seen))
    assert [row["f"] for row in found] == [numpy.float32(0.1), None]
    assert found[1] == {"i": None, "s": "a", "f": None, "d": {"x": 1}}
    assert seen.numbers == [2, 3, 4, 5, 6, 7, 8]
    assert "'z'" in seen.bad[5][2] and "'d.y'" in seen.bad[6][2]


def test_a_given_schema_converts_to_its_types_and_keeps_required_columns() -> None:
    schema = pa.schema(
        [
            pa.field("m", pa.map_(pa.string(), pa.int64())),
            pa.field("c", pa.dictionary(pa.int32(), pa.string())),
            pa.field("t", pa.timestamp("ms", "UTC")),
            pa.field("p", pa.list_(pa.float64(), 2)),
            pa.field("e", pa.decimal128(5, 2)),
            pa.field("r", pa.int64(), nullable=False),
        ]
    )
    at = datetime(2020, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))
    good = {"m": {"a": 1}, "c": "x", "t": at, "p": [1, 2], "e": 3, "r": 1}
    bad = [
        {**good, "r": None},
        {**good, "p": [1]},
        {**good, "t": at.replace(microsecond=1)},
        {**good, "t": at.replace(tzinfo=None)},
    ]
    seen = Seen()
    data = encode([good, *bad], ParquetWriter(schema), seen)
    assert decode(data) == [{**good, "m": [("a", 1)]}]
    assert seen.numbers == [2, 3, 4, 5]
    assert pq.read_schema(io.BytesIO(data)).equals(schema)


def test_a_given_schema_holds_for_batches_row_by_row() -> None:
    batch = pa.record_batch({"i": pa.array([1, 2**40, 3])})
    seen = Seen()
    assert decode(encode(ColumnBatches([batch]), ParquetWriter(pa.schema([("i", pa.int32())])), seen)) == [{"i": 1}, {"i": 3}]
    assert seen.numbers == [2]
    with pytest.raises(ValueError, match="'z'"):
        encode(ColumnBatches([pa.record_batch({"z": pa.array([1])})]), ParquetWriter(pa.schema([("i", pa.int32())])))
    with pytest.raises(ValueError, match="column 'i' has type int32"):  # Arrow would read the text as a number
        encode(ColumnBatches([pa.record_batch({"i": pa.array(["1"])})]), ParquetWriter(pa.schema([("i", pa.int32())])))


# Row groups and options


def test_row_groups_are_bounded_by_bytes_for_records_and_batches() -> None:
    records = [{"t": "x" * 1000, "n": i} for i in range(2000)]
    writer = ParquetWriter(row_group_bytes=100_000)
    data = encode(records, writer)
    assert max(groups_of(data)) <= 100 and len(groups_of(data)) <= 30
    batches = list(ParquetReader().read(save_bytes(data)).iter_batches())
    assert max(groups_of(encode(ColumnBatches(batches), ParquetWriter(row_group_bytes=50_000)))) <= 50
    assert groups_of(encode(ColumnBatches(batches))) == [2000]


def save_bytes(data: bytes) -> str:
    with fsspec.open("memory://saved.parquet", "wb") as file:
        file.write(data)
    return "memory://saved.parquet"


def test_batches_pass_without_becoming_records() -> None:
    batches = [pa.record_batch({"a": pa.array([i])}) for i in range(3)]

    class Silent(ColumnBatches):
        def __iter__(self) -> Any:
            raise AssertionError("a record was built")

    assert groups_of(encode(Silent(batches))) == [3]


def test_compression_is_what_was_asked_for() -> None:
    for name in ("zstd", "snappy", "none"):
        footer = pq.read_metadata(io.BytesIO(encode([{"a": 1}], ParquetWriter(compression=name))))
        assert footer.row_group(0).column(0).compression == name.upper().replace("NONE", "UNCOMPRESSED")
    with pytest.raises(PlanError, match=r"'zip'.*zstd"):
        ParquetWriter(compression="zip")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="row_group_bytes"):
        ParquetWriter(row_group_bytes=0)


def test_names_that_promise_compression_are_refused() -> None:
    ParquetWriter().check_path("s3://b/a.parquet")
    ParquetWriter().check_path("b/a")
    with pytest.raises(PlanError, match=r"a\.parquet\.gz"):
        ParquetWriter().check_path("a.parquet.gz")


def test_the_users_exception_arrives_as_it_is_and_nothing_else_happens() -> None:
    def items() -> Iterable[dict[str, int]]:
        yield from ({"a": 1} for _ in range(5000))
        raise KeyError("mine")

    file = io.BytesIO()
    with pytest.raises(KeyError, match="mine"):
        ParquetWriter(row_group_bytes=100).write(file, "a", items())
    file.close()


# Reading


def test_columns_are_kept_in_the_given_order_without_missing_ones() -> None:
    data = encode([{"a": 1, "b": 2, "a.b": {"c": 3}, "c": 4}, {"a": 5}])
    assert [list(r.items()) for r in decode(data, ParquetReader(("c", "zz", "a", "c")))] == [
        [("c", 4), ("a", 1)],
        [("c", None), ("a", 5)],
    ]
    assert decode(data, ParquetReader(("a.b",))) == [{"a.b": {"c": 3}}, {"a.b": None}]
    assert decode(data, ParquetReader(("zz",))) == [{}, {}]
    assert decode(data, ParquetReader((), col("a") == 5)) == [{}]


def test_a_predicate_may_use_columns_that_are_not_kept_or_not_there() -> None:
    data = encode([{"a": i, "b": str(i)} for i in range(5)])
    assert decode(data, ParquetReader(("b",), col("a") > 3)) == [{"b": "4"}]
    assert decode(data, ParquetReader(("b",), col("zz") > 3)) == []
    assert len(decode(data, ParquetReader(("zz",), col("zz").is_null()))) == 5


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        Counting.total += len(data)
        return data


def bytes_read(monkeypatch: pytest.MonkeyPatch, data: bytes, reader: ParquetReader) -> tuple[int, list[Any]]:
    monkeypatch.setattr(fsspec.filesystem("memory"), "open", lambda *args, **options: Counting(data))
    Counting.total = 0
    found = list(reader.read("memory://counted.parquet"))
    return Counting.total, found


def test_unneeded_columns_and_row_groups_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = numpy.random.default_rng(1)
    records = [{"n": i, "text": noise.bytes(1000)} for i in range(2000)]
    data = encode(records, ParquetWriter(row_group_bytes=100_000))
    everything, found = bytes_read(monkeypatch, data, ParquetReader())
    assert everything > len(data) and len(found) == 2000
    narrow, found = bytes_read(monkeypatch, data, ParquetReader(("n",)))
    assert narrow < len(data) / 5 and found[-1] == {"n": 1999}
    pruned, found = bytes_read(monkeypatch, data, ParquetReader(None, col("n") == 77))
    assert pruned < len(data) / 3 and [record["n"] for record in found] == [77]


def test_batches_stay_small_whatever_the_row_groups() -> None:
    wide = encode([{"t": bytes(range(256)) * 40 + str(i).encode()} for i in range(3000)])
    narrow = encode(ColumnBatches([pa.record_batch({"a": pa.array(range(200_000))})]))
    for data, rows in ((wide, 3000), (narrow, 200_000)):
        batches = list(ParquetReader().read(save_bytes(data)).iter_batches())
        assert sum(batch.num_rows for batch in batches) == rows
        assert max(batch.num_rows for batch in batches) <= 65536
        assert max(batch.nbytes for batch in batches) <= 10 * 1024 * 1024


def test_rows_for_which_the_predicate_raises_are_told_with_their_number() -> None:
    data = encode([{"n": i % 3} for i in range(300)], ParquetWriter(row_group_bytes=800))
    assert len(groups_of(data)) > 2
    predicate = lit(6) / col("n") > 4
    with pytest.raises(ZeroDivisionError) as caught:
        decode(data, ParquetReader(None, predicate))
    assert caught.value.__notes__[0].startswith("at record 1:") and "decode.parquet" in caught.value.__notes__[1]
    seen = Seen()
    found = list(ParquetReader(None, predicate).read(save_bytes(data), seen))
    assert found == [{"n": 1}] * 100
    assert seen.numbers == list(range(1, 301, 3)) and seen.bad[0][1] == {"n": 0}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"nothing of the kind" * 10, encode([{"a": 1}])[:-20], encode([{"a": 1}])[20:]])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_files_that_are_no_parquet_are_errors_naming_them(tmp_path: Path, data: bytes, place: str) -> None:
    path = f"{tmp_path}/bad.parquet" if place == "local" else "memory://bad.parquet"
    with fsspec.open(path, "wb") as file:
        file.write(data)
    with pytest.raises((OSError, pa.ArrowInvalid)) as caught:
        list(ParquetReader().read(path))
    assert "bad.parquet" in caught.value.__notes__[0]


def test_a_missing_file_is_not_found_when_it_is_read(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/none.parquet", "memory://none.parquet"):
        batches = ParquetReader().read(path)
        with pytest.raises(FileNotFoundError) as caught:
            list(batches)
        assert "none.parquet" in caught.value.__notes__[0]


def test_text_that_is_no_unicode_is_an_error_naming_the_file(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"t": text}), tmp_path / "bad.parquet")
    with pytest.raises(UnicodeDecodeError) as caught:
        list(ParquetReader().read(str(tmp_path / "bad.parquet")))
    assert "bad.parquet" in caught.value.__notes__[0]


def test_a_file_without_rows_still_tells_its_schema(tmp_path: Path) -> None:
    path = save(tmp_path / "a", [], ParquetWriter(pa.schema([("a", pa.int64()), ("b", pa.string())])))
    assert list(ParquetReader().read(path)) == []
    assert decode(encode(ParquetReader(("b",)).read(path))) == []
    assert pq.read_schema(io.BytesIO(encode(ParquetReader(("b",)).read(path)))).names == ["b"]


def test_of_equally_named_columns_the_last_counts(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"])
    pq.write_table(table, tmp_path / "a")
    path = str(tmp_path / "a")
    assert list(ParquetReader().read(path)) == list(ParquetReader(("a",)).read(path)) == [{"a": 3}, {"a": 4}]
    assert list(ParquetReader(("a",), col("a") == 4).read(path)) == [{"a": 4}]
    assert decode(encode(ParquetReader().read(path))) == [{"a": 3}, {"a": 4}]


def test_formats_are_told_by_their_first_bytes() -> None:
    assert sniff(encode([])[:4]) == "parquet"
    assert sniff(b"VTXF\0") == "vortex"
    assert sniff(b"") is None and sniff(b"PAR") is None and sniff(b'{"a"') is None


# Properties

names = st.sampled_from(["a", "b", "c.d", "", "é"])
leaves = st.one_of(st.none(), st.integers(-(2**53), 2**53))
values = {
    "a": st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False),
    "b": st.none() | st.text(max_size=3),
    "c.d": st.none() | st.lists(st.none() | st.lists(st.booleans(), max_size=2), max_size=3),
    "": st.none() | st.fixed_dictionaries({"x": st.none() | st.integers(-9, 9)}, optional={"y": st.lists(leaves, max_size=2)}),
    "é": st.none() | st.datetimes() | st.none(),
}
record_lists = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 99)}, optional=values),  # type: ignore[arg-type]
    max_size=30,
)
writers = st.builds(ParquetWriter, row_group_bytes=st.sampled_from([1, 60, 500, 10**6]))
predicates: st.SearchStrategy[Expr] = st.sampled_from(
    [
        col("id") > 50,
        (col("id") > 20) & (col("a") < 3),
        ~(col("a") < 0.5),
        col("a") != 0.5,
        col("b") == "",
        col("b").is_null() | (col("id") == 7),
        col("")["x"] > 0,
        col("zz") == 1,
        col("id").is_in([1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ]
)


@settings(max_examples=40, deadline=None)
@given(record_lists, writers)
def test_random_records_come_back_with_every_key_and_value(records: list[dict[str, Any]], writer: ParquetWriter) -> None:
    assert decode(encode(records, writer)) == completed(records)


@settings(max_examples=50, deadline=None)
@given(
    record_lists,
    writers,
    st.none() | st.lists(st.sampled_from(["id", "a", "b", "", "zz"]), max_size=4).map(tuple),
    predicates,
)
def test_pushed_down_columns_and_predicates_mean_the_same_as_applied_to_records(
    records: list[dict[str, Any]], writer: ParquetWriter, columns: tuple[str, ...] | None, predicate: Expr
) -> None:
    data = encode(records, writer)
    kept = [record for record in decode(data) if predicate.evaluate(record)]
    if columns is not None:
        kept = [{name: record[name] for name in columns if name in record} for record in kept]
    assert decode(data, ParquetReader(columns, predicate)) == kept


def test_predicates_find_nan_whatever_the_statistics() -> None:
    rows = [{"a": a} for a in (1.0, float("nan"), 1.0, None)]
    for predicate in (col("a") != 1.0, ~(col("a") < 2.0), col("a") == 1.0):
        found = decode(encode(rows, ParquetWriter(row_group_bytes=16)), ParquetReader(None, predicate))
        assert repr(found) == repr([row for row in rows if predicate.evaluate(row)])


@settings(max_examples=40, deadline=None)
@given(record_lists, writers, st.lists(st.floats(0, 1), max_size=6))
def test_parts_of_a_file_hold_every_row_once_and_in_order(
    records: list[dict[str, Any]], writer: ParquetWriter, cuts: list[float]
) -> None:
    data = encode(records, writer)
    path = save_bytes(data)
    edges = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
    parts = [FileSplit(path, start, end) for start, end in pairwise(edges)]
    assert [row for part in parts for row in ParquetReader().read(part)] == decode(data)


def test_row_numbers_in_a_part_are_those_in_the_file() -> None:
    data = encode([{"n": i} for i in range(200)], ParquetWriter(row_group_bytes=400))
    seen = Seen()
    half = FileSplit(save_bytes(data), len(data) // 3, len(data))
    list(ParquetReader(None, lit(1) / (col("n") - 199) < 0).read(half, seen))
    assert seen.numbers == [200]
