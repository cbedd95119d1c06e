from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zephyr.errors import PlanError
from zephyr.expr import Expr, col, lit
from zephyr.io.arrow import sniff
from zephyr.io.columnar import ColumnBatches
from zephyr.io.formats import FileSplit, OnBadRecord, Reader, Writer, raise_bad_record
from zephyr.io.parquet import ParquetReader, ParquetWriter
from zephyr.io.vortex import VortexReader, VortexWriter

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


def encode(items: Iterable[Any], writer: VortexWriter | None = None, on_bad: OnBadRecord = raise_bad_record) -> bytes:
    file = io.BytesIO()
    (writer or VortexWriter()).write(file, "a.vortex", items, on_bad)
    return file.getvalue()


def save(path: Path, items: Iterable[Any]) -> str:
    path.write_bytes(encode(items))
    return str(path)


def decode(data: bytes, reader: VortexReader | None = None) -> list[Any]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return list((reader or VortexReader()).read(file.name))


def test_reader_and_writer_fulfil_the_protocols() -> None:
    assert isinstance(VortexReader(), Reader) and isinstance(VortexWriter(), Writer)
    assert VortexReader().has_columns


def test_values_of_many_types_come_back_equal_and_text_is_plain(tmp_path: Path) -> None:
    record = {
        "none": None,
        "int": -5,
        "float": 0.5,
        "text": "é",
        "bytes": b"\xff",
        "decimal": Decimal("1.50"),
        "naive": datetime(2020, 1, 1, 1, 2, 3, 4),  # noqa: DTZ001
        "aware": datetime(2020, 1, 1, tzinfo=UTC),
        "date": date(2020, 1, 1),
        "list": [{"a": [1], "b": "x"}, None],
        "dict": {"x": {"y": [["z"]]}},
        "empty": {},
        "vector": numpy.array([0.5], numpy.float32),
    }
    path = save(tmp_path / "a", [record])
    assert list(VortexReader().read(path)) == [{**record, "vector": [0.5]}]
    (batch,) = VortexReader().read(path).iter_batches()
    assert batch.schema.field("text").type == pa.string() and batch.schema.field("vector").type == pa.list_(pa.float32())
    assert batch.schema.field("dict").type.field("x").type.field("y").type == pa.list_(pa.list_(pa.string()))
    assert sniff(Path(path).read_bytes()[:4]) == "vortex"


def test_later_keys_and_wider_types_keep_every_value() -> None:
    records = [{"a": i} for i in range(70_000)] + [{"a": 0.5, "b": {"c": 1}}]
    found = decode(encode(records))
    assert len(found) == 70_001
    assert found[69_999] == {"a": 69_999.0, "b": None} and found[70_000] == {"a": 0.5, "b": {"c": 1}}


def test_integers_that_are_no_floats_are_an_error_naming_the_column() -> None:
    with pytest.raises(ValueError, match="column 'a' has type double"):
        encode([{"a": 2**53 + 1}, *[{"b": 1}] * 70_000, {"a": 0.5}])


def test_a_given_schema_makes_unknown_keys_and_unfit_values_bad_records() -> None:
    seen: list[int | None] = []
    writer = VortexWriter(pa.schema([("a", pa.int8()), ("b", pa.string())]))
    data = encode([{"a": 1}, {"a": 300}, {"z": 1}, {"b": "x"}, 5], writer, lambda number, record, error: seen.append(number))
    assert decode(data) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    assert seen == [2, 3, 5]


def test_types_that_vortex_lacks_are_errors_naming_the_column() -> None:
    with pytest.raises(ValueError, match="column 'd' of type list<item: duration"):
        encode([{"d": [timedelta(1)]}])
    with pytest.raises(ValueError, match="column 'f'"):
        encode([], VortexWriter(pa.schema([("f", pa.binary(2))])))


def test_the_users_exception_arrives_as_it_is() -> None:
    def items() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        encode(items())


def test_batches_pass_between_formats_without_becoming_records(tmp_path: Path) -> None:
    class Silent(ColumnBatches):
        def __iter__(self) -> Any:
            raise AssertionError("a record was built")

    records = [{"a": i, "b": str(i)} for i in range(1000)]
    path = save(tmp_path / "v", records)
    with (tmp_path / "p").open("wb") as file:
        written = ParquetWriter().write(file, "p", Silent(VortexReader().read(path).iter_batches()))
    assert written.schema == (("a", "int64"), ("b", "string"))
    data = encode(Silent(ParquetReader().read(str(tmp_path / "p")).iter_batches()))
    assert decode(data) == records


def test_nothing_gives_a_file_without_rows(tmp_path: Path) -> None:
    assert decode(encode([])) == []
    data = encode([], VortexWriter(pa.schema([("a", pa.int64())])))
    (tmp_path / "a").write_bytes(data)
    (batch,) = VortexReader().read(str(tmp_path / "a")).iter_batches()
    assert batch.num_rows == 0 and batch.schema.names == ["a"]


def test_remote_files_are_read_through_a_copy_and_local_ones_in_parts() -> None:
    with fsspec.open("memory://a.vortex", "wb") as file:
        file.write(encode([{"a": 1}]))
    assert list(VortexReader().read("memory://a.vortex")) == [{"a": 1}]
    assert VortexReader().can_split("/a.vortex") and not VortexReader().can_split("memory://a.vortex")


@pytest.mark.parametrize("data", [b"", b"VTXF", b"nothing of the kind" * 10, encode([{"a": 1}])[:-20]])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_files_that_are_no_vortex_are_short_errors_naming_them(tmp_path: Path, data: bytes, place: str) -> None:
    path = f"{tmp_path}/bad.vortex" if place == "local" else "memory://bad.vortex"
    with fsspec.open(path, "wb") as file:
        file.write(data)
    with pytest.raises(ValueError) as caught:
        list(VortexReader().read(path))
    assert "bad.vortex" in caught.value.__notes__[0] and "\n" not in str(caught.value)


def test_a_missing_file_is_not_found_when_it_is_read(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/none.vortex", "memory://none.vortex"):
        batches = VortexReader().read(path)
        with pytest.raises(FileNotFoundError) as caught:
            list(batches)
        assert "none.vortex" in caught.value.__notes__[0]


def test_without_the_package_reading_and_writing_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a", [{"a": 1}])
    monkeypatch.setitem(sys.modules, "vortex", None)
    with pytest.raises(ImportError, match=r"pip install 'zephyr\[vortex\]'"):
        list(VortexReader().read(path))
    with pytest.raises(ImportError, match=r"pip install 'zephyr\[vortex\]'"):
        encode([{"a": 1}])


def test_importing_the_format_does_not_import_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vortex", None)
    monkeypatch.delitem(sys.modules, "zephyr.io.vortex")
    import zephyr.io.vortex  # noqa: F401


def test_names_that_promise_compression_are_refused() -> None:
    VortexWriter().check_path("s3://b/a.vortex")
    with pytest.raises(PlanError, match=r"a\.vortex\.zst"):
        VortexWriter().check_path("a.vortex.zst")


def test_batches_stay_small(tmp_path: Path) -> None:
    noise = numpy.random.default_rng(1)
    path = save(tmp_path / "a", ({"t": noise.bytes(1000)} for _ in range(20_000)))
    batches = list(VortexReader().read(path).iter_batches())
    assert sum(batch.num_rows for batch in batches) == 20_000
    assert max(batch.nbytes for batch in batches) <= 10 * 1024 * 1024


def test_rows_for_which_the_predicate_raises_are_told_with_their_number(tmp_path: Path) -> None:
    path = save(tmp_path / "a", ({"n": i % 3} for i in range(300)))
    seen: list[int | None] = []
    reader = VortexReader(None, lit(6) / col("n") > 4)
    assert list(reader.read(path, lambda number, record, error: seen.append(number))) == [{"n": 1}] * 100
    assert seen == list(range(1, 301, 3))
    with pytest.raises(ZeroDivisionError):
        list(reader.read(path))


# Properties

values = {
    "a": st.none() | st.integers(-(2**53), 2**53) | st.floats(),
    "b": st.none() | st.text(max_size=3),
    "c.d": st.none() | st.lists(st.none() | st.lists(st.booleans(), max_size=2), max_size=3),
    "": st.none() | st.fixed_dictionaries({"x": st.none() | st.integers(-9, 9)}),
}
record_lists = st.lists(
    st.fixed_dictionaries({"id": st.integers(0, 99)}, optional=values),  # type: ignore[arg-type]
    max_size=30,
)
predicates: st.SearchStrategy[Expr] = st.sampled_from(
    [
        col("id") > 50,
        ~(col("a") < 0.5),
        col("a") != 0.5,
        col("b").is_null() | (col("id") == 7),
        col("")["x"] > 0,
        col("zz").is_null(),
    ]
)


@settings(max_examples=40, deadline=None)
@given(record_lists)
def test_random_records_come_back_with_every_key_and_value(records: list[dict[str, Any]]) -> None:
    keys = dict.fromkeys(key for record in records for key in record)
    found = decode(encode(records))
    expected = [{key: record.get(key) for key in keys} for record in records]
    floats = any(isinstance(record.get("a"), float) for record in records)
    if floats:
        expected = [{k: float(v) if k == "a" and v is not None else v for k, v in record.items()} for record in expected]
    assert repr(found) == repr(expected)  # also equal for NaN


@settings(max_examples=40, deadline=None)
@given(record_lists, st.none() | st.lists(st.sampled_from(["id", "a", "", "zz"]), max_size=4).map(tuple), predicates)
def test_pushed_down_columns_and_predicates_mean_the_same_as_applied_to_records(
    records: list[dict[str, Any]], columns: tuple[str, ...] | None, predicate: Expr
) -> None:
    data = encode(records)
    kept = [record for record in decode(data) if predicate.evaluate(record)]
    if columns is not None:
        kept = [{name: record[name] for name in columns if name in record} for record in kept]
    assert repr(decode(data, VortexReader(columns, predicate))) == repr(kept)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3000), st.lists(st.floats(0, 1), max_size=6))
def test_parts_of_a_file_hold_every_row_once_and_in_order(rows: int, cuts: list[float]) -> None:
    data = encode({"n": i} for i in range(rows))
    edges = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        parts = [FileSplit(file.name, start, end) for start, end in pairwise(edges)]
        assert [row["n"] for part in parts for row in VortexReader().read(part)] == list(range(rows))
