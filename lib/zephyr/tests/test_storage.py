from __future__ import annotations

import math
import string
import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
from fray import create_job_ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from zephyr import Backend, ChunkCorrupted, ChunkMissing, Dataset, StageError
from zephyr.config import resolve_base_path
from zephyr.storage import ChunkWriter, InlineRef, SliceRef, StorageManager, StorageRef

pytestmark = pytest.mark.unit

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC) | st.none())
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.fractions()
)
hashable = st.recursive(leaves, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
values = st.recursive(
    hashable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hashable, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


def write(items: list[Any], path: str, threshold: float) -> InlineRef | StorageRef:
    writer = ChunkWriter(path, threshold)
    try:
        for item in items:
            writer.write(item)
        return writer.finish()
    finally:
        writer.abort()


def shape(value: Any) -> Any:
    """Types all the way down: equality alone takes 1 for True."""
    if isinstance(value, dict):
        return dict, [(shape(k), shape(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(each) for each in value]
    return type(value)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=40), st.sampled_from([0, 1, 100, math.inf]))
def test_chunks_return_any_items_as_they_were(tmp_path_factory: pytest.TempPathFactory, items: list[Any], limit: float) -> None:
    path = str(tmp_path_factory.mktemp("chunk") / "chunk")
    ref = write(items, path, limit)
    assert list(ref) == items and [shape(item) for item in ref] == [shape(item) for item in items]
    assert ref.count == len(items)


@dataclass(frozen=True)
class Point:
    x: int
    when: datetime


@pytest.mark.parametrize("threshold", [0, math.inf])
def test_chunks_keep_dataclasses_arrays_and_local_functions(tmp_path: Path, threshold: float) -> None:
    ref = write(
        [Point(1, datetime.fromisoformat("2020-01-01")), numpy.arange(4), {1, 2}, lambda x: x + 1],
        str(tmp_path / "c"),
        threshold,
    )
    point, array, numbers, function = ref
    assert point == Point(1, datetime.fromisoformat("2020-01-01")) and type(point) is Point
    assert array.dtype == numpy.arange(4).dtype and array.tolist() == [0, 1, 2, 3]
    assert numbers == {1, 2} and function(1) == 2


def test_chunk_is_spilled_from_the_threshold_on(tmp_path: Path) -> None:
    size = len(write([1, 2, 3], str(tmp_path / "a"), math.inf).data)  # type: ignore[union-attr]
    assert isinstance(write([1, 2, 3], str(tmp_path / "a"), size + 1), InlineRef)
    assert not (tmp_path / "a").exists()
    spilled = write([1, 2, 3], str(tmp_path / "a"), size)
    assert isinstance(spilled, StorageRef) and (tmp_path / "a").stat().st_size == size == spilled.length


def test_threshold_zero_spills_everything_but_an_empty_chunk(tmp_path: Path) -> None:
    assert isinstance(write([None], str(tmp_path / "a"), 0), StorageRef)
    empty = write([], str(tmp_path / "b"), 0)
    assert list(empty) == [] and empty.count == 0 and not (tmp_path / "b").exists()


def test_large_chunks_have_many_frames_and_can_be_sliced(tmp_path: Path) -> None:
    items = [(i, string.ascii_letters * (i % 50)) for i in range(20_000)]
    ref = write(items, str(tmp_path / "a"), 0)
    assert sum(1 for _ in ref.iter_batches()) > 3
    assert list(ref) == items
    assert list(SliceRef(ref, 7_000, 6_000)) == items[7_000:13_000]
    assert list(StorageRef(str(tmp_path / "a"), ref.count)) == items


@pytest.mark.parametrize("at", [0, 5, 13, 18, 40, -1])
def test_any_changed_byte_is_named_as_corruption(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a"
    ref = write(list(range(100)), str(path), 0)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(ChunkCorrupted, match=str(path)):
        list(ref)


@pytest.mark.parametrize("kept", [1, 10, 60])
def test_a_chunk_cut_short_is_named_as_corruption(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a"
    ref = write(list(range(100)), str(path), 0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ChunkCorrupted, match=str(path)):
        list(ref)
    with pytest.raises(ChunkCorrupted, match=str(path)):
        list(StorageRef(str(path), 100))


def test_a_chunk_with_another_number_of_items_is_corrupted(tmp_path: Path) -> None:
    inline = write([1, 2], str(tmp_path / "a"), math.inf)
    assert isinstance(inline, InlineRef)
    with pytest.raises(ChunkCorrupted, match="2 items instead of 3"):
        list(InlineRef(inline.data, 3))


def test_a_removed_chunk_is_named_as_missing(tmp_path: Path) -> None:
    ref = write([1], str(tmp_path / "a"), 0)
    (tmp_path / "a").unlink()
    with pytest.raises(ChunkMissing, match=str(tmp_path / "a")):
        list(ref)


def test_an_item_that_cannot_be_pickled_is_named_by_type(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="item of type lock"):
        write([1, 2, threading.Lock()], str(tmp_path / "a"), 0)


def test_chunks_go_to_any_fsspec_storage() -> None:
    ref = write([1, date(2020, 1, 1), Decimal("1.0")], "memory://chunks/a", 0)
    assert list(ref) == [1, date(2020, 1, 1), Decimal("1.0")]


def test_manager_names_stages_and_removes_all_at_the_end(tmp_path: Path) -> None:
    with StorageManager(str(tmp_path), 0) as manager:
        assert manager.job_path == f"{tmp_path}/{manager.job_id}"
        first = manager.chunk_path(1, 2)
        manager.next_stage()
        assert manager.chunk_path(1, 2) != first
        writer = manager.create_writer(1, 2)
        writer.write("x")
        ref = writer.finish()
        assert list(ref) == ["x"] and Path(manager.chunk_path(1, 2)).exists()
    assert list(tmp_path.iterdir()) == []
    manager.cleanup()


def test_cleanup_logs_what_it_cannot_remove(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = StorageManager("broken://place")
    from fsspec.implementations.memory import MemoryFileSystem

    class Broken(MemoryFileSystem):
        protocol = "broken"

        def exists(self, path: str, **kwargs: Any) -> bool:
            return True

        def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
            raise PermissionError("no")

    import fsspec

    fsspec.register_implementation("broken", Broken, clobber=True)
    manager.cleanup()
    assert f"could not remove {manager.job_path}" in caplog.text


def test_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        StorageManager("x", -1)


def test_base_path_is_argument_then_environment_then_private_directory(tmp_path: Path) -> None:
    env = {"FRAY_STORAGE": "s3://a", "MARIN_PREFIX": "gs://b/", "TMPDIR": str(tmp_path)}
    assert resolve_base_path("mem/x/", env) == str(Path("mem/x").absolute())
    assert resolve_base_path(None, env) == "s3://a/zephyr"
    assert resolve_base_path(None, {**env, "FRAY_STORAGE": ""}) == "gs://b/zephyr"
    private = Path(resolve_base_path(None, {"TMPDIR": str(tmp_path)}))
    assert private.parent == tmp_path and private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("format_", ["parquet", "vortex"])
def test_a_reference_may_name_a_columnar_file_whatever_it_is_called(tmp_path: Path, format_: str) -> None:
    records = [{"a": n, "b": str(n)} for n in range(10)]
    with create_job_ctx("sync") as ctx:
        rows = Dataset.from_list([records]).flat_map(iter)
        (path,) = Backend.execute(getattr(rows, f"write_{format_}")(f"{tmp_path}/rows.{format_}"), ctx)
    renamed = Path(path).rename(tmp_path / "chunk.zep")
    assert list(StorageRef(str(renamed), 10)) == records
    assert list(SliceRef(StorageRef(str(renamed), 10), 3, 2)) == records[3:5]
    with pytest.raises(ChunkCorrupted, match="10 items instead of 11"):
        list(StorageRef(str(renamed), 11))
