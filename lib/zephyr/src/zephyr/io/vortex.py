"""Vortex files: read by column and range of rows, written with a schema that is given or widens. Needs ``zephyr[vortex]``."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from zephyr.errors import PlanError
from zephyr.expr import Expr
from zephyr.io.arrow import Converter, Spool
from zephyr.io.columnar import ColumnBatches, filter_rows, gather, needed_columns, select_columns
from zephyr.io.compression import compression_of
from zephyr.io.formats import FileSplit, OnBadRecord, StreamWriter, Written, raise_bad_record
from zephyr.io.widening import empty_batch, fit_batch, without_views
from zephyr.storage.files import is_local, locate

BATCH_BYTES = 8 * 1024 * 1024
"""Arrow bytes of a batch, about, if data shrinks by ``COMPRESSION``."""
BATCH_ROWS = 64 * 1024
COMPRESSION = 4


def _vortex() -> Any:
    try:
        return importlib.import_module("vortex")
    except ImportError as error:
        raise ImportError("Vortex files need another package: pip install 'zephyr[vortex]'") from error


@contextmanager
def _explained() -> Iterator[None]:
    """Shorten what Vortex raises to its first line; the rest is about its own code."""
    try:
        yield
    except (RuntimeError, pa.ArrowException) as error:
        raise ValueError(f"Vortex: {str(error).partition(chr(10))[0]}") from error


@dataclass(frozen=True, slots=True)
class VortexReader:
    """Reads Vortex files; loads only columns that matter."""

    columns: tuple[str, ...] | None = None
    """See ``Reader``."""
    predicate: Expr | None = None
    """See ``Reader``. Applied to what is loaded, as Vortex's own filters mean other things for nulls and NaN."""

    @property
    def has_columns(self) -> bool:
        """Records are mappings."""
        return True

    def can_split(self, path: str) -> bool:
        """Local files can be read in parts; others are copied whole before they are read."""
        return is_local(locate(path)[0])

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> ColumnBatches:
        """Return the records; ``on_bad`` is told of those for which the predicate raises.

        A part of a file has the same share of its rows as of its bytes.

        Raises:
            ImportError: while iterating, if Vortex is not installed.
            FileNotFoundError, OSError, ValueError: while iterating, with a note that names the file.
        """
        split = FileSplit(source, 0, 2**63) if isinstance(source, str) else source
        note = f"while reading the Vortex file {split.path}"
        return ColumnBatches(_read(self, split, note, on_bad), note)


def _read(reader: VortexReader, split: FileSplit, note: str, on_bad: OnBadRecord) -> Iterator[pa.RecordBatch]:
    try:
        with _local_copy(split.path) as local:
            yield from _read_batches(reader, local, split, on_bad)
    except Exception as error:
        error.add_note(note)
        raise


@contextmanager
def _local_copy(path: str) -> Iterator[Path]:
    fs, inner = locate(path)
    if is_local(fs):
        yield Path(inner)
        return
    with tempfile.TemporaryDirectory(prefix="zephyr-") as directory:
        fs.get_file(inner, f"{directory}/copy")
        yield Path(directory, "copy")


def _read_batches(reader: VortexReader, path: Path, split: FileSplit, on_bad: OnBadRecord) -> Iterator[pa.RecordBatch]:
    size = path.stat().st_size
    with _explained():
        file = _vortex().open(str(path), without_segment_cache=True)
        schema, rows = without_views(file.dtype.to_arrow_schema()), len(file)
    names = needed_columns(reader.columns, reader.predicate, schema.names)
    schema = schema if names is None else pa.schema([schema.field(name) for name in names])
    start, end = (rows * min(byte, size) // size for byte in (split.start, split.end))
    step = max(1, min(BATCH_ROWS, BATCH_BYTES * rows // (COMPRESSION * size)))
    empty = True
    for number, batch in _scan(file, schema, range(start, end, step), end):
        kept = filter_rows(batch, reader.predicate, number, on_bad)
        if kept.num_rows:
            empty = False
            yield select_columns(kept, reader.columns)
    if empty:  # tells at least the schema
        yield select_columns(empty_batch(schema), reader.columns)


def _scan(file: Any, schema: pa.Schema, starts: range, end: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches, each with the number of its first row; a scan of all would read far ahead of who takes them."""
    if not starts:
        return
    with _explained():
        scan = file.to_repeated_scan(schema.names)
    for start in starts:
        number = start + 1
        with _explained():
            batches = list(scan.execute(row_range=(start, min(start + starts.step, end))).to_arrow())
        for batch in batches:
            yield number, fit_batch(batch, schema)
            number += batch.num_rows


@dataclass(frozen=True, slots=True)
class VortexWriter(StreamWriter):
    """Writes Vortex files. What it holds grows slowly with the file, as Vortex keeps its chunks' statistics and buffers."""

    schema: pa.Schema | None = None
    """Columns of the file; None to infer them and widen them as needed. Keys that it lacks are then bad records."""

    def check_path(self, path: str) -> None:
        """Refuse suffixes that promise compression around the file.

        Raises:
            PlanError: naming the path.
        """
        if suffix := compression_of(path):
            raise PlanError(f"cannot write {path}: Vortex is compressed inside. Drop the suffix {suffix}")

    def write(self, file: IO[bytes], path: str, items: Iterable[Any], on_bad: OnBadRecord = raise_bad_record) -> Written:
        """Write the items, after all of them were kept in a temporary local file.

        Vortex would take them in a thread of its own, where exceptions lose their type.

        Raises:
            ImportError: if Vortex is not installed.
            ValueError: if Vortex cannot hold the schema, or a column that came to need floats has integers that are no floats.
        """
        vortex = _vortex()
        if self.schema is not None:
            _check_storable(self.schema)
        converter, rows = Converter(self.schema, on_bad), 0
        with closing(Spool()) as spool, tempfile.TemporaryDirectory(prefix="zephyr-") as directory:
            for batches in gather(converter.convert(items), BATCH_BYTES, BATCH_ROWS):
                schema = batches[-1].schema
                spool.append([fit_batch(batch, schema) for batch in batches])
                rows += sum(batch.num_rows for batch in batches)
            _write_spool(vortex, spool, converter.schema, f"{directory}/draft")
            with Path(directory, "draft").open("rb") as draft:
                shutil.copyfileobj(draft, file)
        return Written(rows, tuple((field.name, str(field.type)) for field in converter.schema))


def _write_spool(vortex: Any, spool: Spool, schema: pa.Schema, target: str) -> None:
    _check_storable(schema)
    failures: list[ValueError] = []

    def widened() -> Iterator[pa.RecordBatch]:
        try:
            for batch in spool.iter_batches():
                yield fit_batch(batch, schema)
        except ValueError as error:
            failures.append(error)
            raise

    try:
        with _explained():
            vortex.io.write(pa.RecordBatchReader.from_batches(schema, widened()), target)
    except ValueError:
        if failures:
            raise failures[0] from None
        raise


def _check_storable(schema: pa.Schema) -> None:
    for field in schema:
        if not _is_storable(field.type):
            raise ValueError(f"Vortex cannot store column {field.name!r} of type {field.type}; convert its values before")


def _is_storable(type_: pa.DataType) -> bool:
    if pa.types.is_duration(type_) or pa.types.is_fixed_size_binary(type_) or pa.types.is_interval(type_):
        return False
    return all(_is_storable(type_.field(i).type) for i in range(type_.num_fields))
