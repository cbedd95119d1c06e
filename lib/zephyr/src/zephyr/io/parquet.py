"""Parquet files: read by column, filtered and split by row group; written with a schema that is given or widens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, Any, Literal, get_args

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from zephyr.errors import PlanError
from zephyr.expr import Expr, prune_expr
from zephyr.io.arrow import Converter, Spool
from zephyr.io.columnar import ColumnBatches, filter_rows, gather, needed_columns, select_columns
from zephyr.io.compression import compression_of
from zephyr.io.formats import FileSplit, OnBadRecord, Written, raise_bad_record
from zephyr.io.widening import empty_batch, fit_batch
from zephyr.storage.files import is_local, locate

ROW_GROUP_BYTES = 32 * 1024 * 1024
ROW_GROUP_ROWS = 1_000_000
BATCH_BYTES = 8 * 1024 * 1024
"""Arrow bytes of a batch that is read, as far as the footer tells."""
BATCH_ROWS = 16 * 1024
"""Rows of a batch at most: dictionaries may make the footer's sizes much too small."""
BUFFER_BYTES = 32 * 1024 * 1024
"""Encoded bytes to hold while reading, for all columns together."""
MIN_BUFFER_BYTES = 64 * 1024
MAX_BUFFER_BYTES = 4 * 1024 * 1024

Compression = Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"]


@dataclass(frozen=True, slots=True)
class ParquetReader:
    """Reads Parquet files; loads only columns and row groups that may matter."""

    columns: tuple[str, ...] | None = None
    """See ``Reader``."""
    predicate: Expr | None = None
    """See ``Reader``."""

    @property
    def has_columns(self) -> bool:
        """Records are mappings."""
        return True

    def can_split(self, path: str) -> bool:
        """Every Parquet file can be read in parts; a row group belongs to the part in which its first byte lies."""
        return True

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> ColumnBatches:
        """Return the records; ``on_bad`` is told of those for which the predicate raises.

        Raises:
            FileNotFoundError, OSError, pyarrow.ArrowInvalid: while iterating, with a note that names the file.
        """
        split = FileSplit(source, 0, 2**63) if isinstance(source, str) else source
        note = f"while reading the Parquet file {split.path}"
        return ColumnBatches(_read(self, split, note, on_bad), note)


def _read(reader: ParquetReader, split: FileSplit, note: str, on_bad: OnBadRecord) -> Iterator[pa.RecordBatch]:
    try:
        with _open(split.path) as file:
            yield from _read_batches(reader, file, split, on_bad)
    except Exception as error:
        error.add_note(note)
        raise


@contextmanager
def _open(path: str) -> Iterator[Any]:
    fs, inner = locate(path)
    # Arrow asks for the ranges that it needs, so read-ahead would only fetch what nobody wants.
    with pa.OSFile(inner) if is_local(fs) else fs.open(inner, "rb", cache_type="none") as file:
        yield file


def _read_batches(reader: ParquetReader, file: Any, split: FileSplit, on_bad: OnBadRecord) -> Iterator[pa.RecordBatch]:
    footer = pq.read_metadata(file)
    schema = footer.schema.to_arrow_schema()
    names = needed_columns(reader.columns, reader.predicate, schema.names)
    numbers = list(accumulate((footer.row_group(i).num_rows for i in range(footer.num_row_groups)), initial=1))
    groups = _surviving(
        reader.predicate, file, schema, [i for i in range(footer.num_row_groups) if _begins_in(footer, i, split)]
    )
    empty = True
    for number, batch in _load(file, footer, groups, names, numbers):
        kept = filter_rows(batch, reader.predicate, number, on_bad)
        if kept.num_rows:
            empty = False
            yield select_columns(kept, reader.columns)
    if empty:  # tells at least the schema
        yield select_columns(empty_batch(schema), reader.columns)


def _begins_in(footer: Any, group: int, split: FileSplit) -> bool:
    metadata = footer.row_group(group)
    if metadata.num_columns == 0:
        return split.start == 0
    column = metadata.column(0)
    start: int = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    return split.start <= start < split.end


def _surviving(predicate: Expr | None, file: Any, schema: pa.Schema, groups: list[int]) -> list[int]:
    """Return the row groups whose statistics do not rule out that the predicate holds for some row."""
    pruned = None if predicate is None or not groups else prune_expr(predicate, schema)
    if pruned is None:
        return groups
    fragment = pyarrow.dataset.ParquetFileFormat().make_fragment(file, row_groups=groups)
    return sorted(group.id for group in fragment.subset(pruned, schema=schema).row_groups)


def _load(
    file: Any, footer: Any, groups: list[int], names: list[str] | None, numbers: list[int]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches, each with the number of its first row."""
    leaves = [i for i in range(footer.num_columns) if names is None or _is_below(footer.schema.column(i).path, names)]
    buffer = max(MIN_BUFFER_BYTES, min(MAX_BUFFER_BYTES, BUFFER_BYTES // max(1, len(leaves))))
    parquet = pq.ParquetFile(file, metadata=footer, buffer_size=buffer)
    row_bytes = 1
    for group in groups:
        metadata, number = footer.row_group(group), numbers[group]
        encoded = sum(metadata.column(i).total_uncompressed_size for i in leaves)
        row_bytes = max(row_bytes, encoded // max(1, metadata.num_rows))
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=names):
            row_bytes = max(row_bytes, batch.nbytes // max(1, batch.num_rows))
            yield number, batch
            number += batch.num_rows


def _is_below(path: str, names: list[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


@dataclass(frozen=True, slots=True)
class ParquetWriter:
    """Writes Parquet files."""

    schema: pa.Schema | None = None
    """Columns of the file; None to infer them and widen them as needed. Keys that it lacks are then bad records."""
    row_group_bytes: int = ROW_GROUP_BYTES
    """Arrow bytes of a row group at most, and about what is held while writing."""
    compression: Compression = "zstd"
    """Codec of the pages."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            PlanError: naming the option.
        """
        if self.compression not in get_args(Compression):
            raise PlanError(f"no compression {self.compression!r} for Parquet; use one of {', '.join(get_args(Compression))}")
        if self.row_group_bytes < 1:
            raise PlanError(f"row_group_bytes={self.row_group_bytes} must be at least 1")

    def check_path(self, path: str) -> None:
        """Refuse suffixes that promise compression around the file.

        Raises:
            PlanError: naming the path.
        """
        if suffix := compression_of(path):
            raise PlanError(
                f"cannot write {path}: Parquet is compressed inside. Drop the suffix {suffix}, and see compression="
            )

    def within(self, memory_bytes: int) -> ParquetWriter:
        """Return a writer whose row groups take an eighth of the memory: they are there as records, as Arrow and encoded."""
        return replace(self, row_group_bytes=max(1, min(self.row_group_bytes, memory_bytes // 8)))

    def write(self, file: IO[bytes], path: str, items: Iterable[Any], on_bad: OnBadRecord = raise_bad_record) -> Written:
        """Write the items; a second pass is made only if the schema had to be widened.

        Raises:
            ValueError: if Parquet cannot hold the schema, or a column that came to need floats has integers that are no floats.
        """
        if self.schema is not None:
            _check_storable(self.schema)
        converter, rows = Converter(self.schema, on_bad), 0
        with ExitStack() as stack:
            sink = _Sink(file, self, stack)
            for batches in gather(converter.convert(items), self.row_group_bytes, ROW_GROUP_ROWS):
                sink.write(batches)
                rows += sum(batch.num_rows for batch in batches)
            if rows:
                _check_storable(converter.schema)
            sink.finish(converter.schema)
        return Written(rows, tuple((field.name, str(field.type)) for field in converter.schema))


class _Sink:
    """Writes to the file while the schema stays; keeps elsewhere what needs a wider one, then writes the file anew."""

    def __init__(self, file: IO[bytes], options: ParquetWriter, stack: ExitStack) -> None:
        self._file, self._options, self._stack = file, options, stack
        self._spool = stack.enter_context(closing(Spool()))
        self._schema: pa.Schema | None = None
        self._writer: Any = None

    def write(self, batches: list[pa.RecordBatch]) -> None:
        """Take the next row group; the schemas of its batches only ever widen."""
        schema = batches[-1].schema
        if self._schema is None:
            self._schema = schema
            if _find_unstorable(schema) is None:  # else later records may make it storable
                self._open(schema)
        if self._writer is not None and schema.equals(self._schema):
            self._write_group(batches)
        else:
            self._spool.append([fit_batch(batch, schema) for batch in batches])

    def finish(self, schema: pa.Schema) -> None:
        """Complete the file, all of it with this schema."""
        earlier: list[Iterable[pa.RecordBatch]] = [self._spool.iter_batches()]
        if self._writer is not None and not schema.equals(self._schema):
            earlier.insert(0, self._take_back())
        if self._writer is None:
            self._open(schema)
        widened = (fit_batch(batch, schema) for batch in chain.from_iterable(earlier))
        for batches in gather(widened, self._options.row_group_bytes, ROW_GROUP_ROWS):
            self._write_group(batches)
        self._writer.close()

    def _open(self, schema: pa.Schema) -> None:
        # Closing twice is fine; a writer that is not closed would write to the file when it is collected.
        writer = pq.ParquetWriter(self._file, schema.remove_metadata(), compression=self._options.compression)
        self._writer = self._stack.enter_context(closing(writer))

    def _write_group(self, batches: list[pa.RecordBatch]) -> None:
        schema = batches[-1].schema
        table = pa.Table.from_batches([fit_batch(batch, schema) for batch in batches], schema).combine_chunks()
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _take_back(self) -> Iterator[pa.RecordBatch]:
        """Empty the file, and return what was in it."""
        self._writer.close()
        self._writer = None
        copy = self._stack.enter_context(tempfile.TemporaryFile(prefix="zephyr-"))  # noqa: SIM115
        self._file.flush()
        with _reopen(self._file) as file:
            shutil.copyfileobj(file, copy)
        self._file.seek(0)
        self._file.truncate()
        return _iter_groups(pq.ParquetFile(copy, buffer_size=MAX_BUFFER_BYTES))


def _iter_groups(parquet: Any) -> Iterator[pa.RecordBatch]:
    for group in range(parquet.num_row_groups):  # one by one, as Arrow keeps what it has read of all that it is asked for
        yield from parquet.iter_batches(BATCH_ROWS, row_groups=[group])


@contextmanager
def _reopen(file: IO[bytes]) -> Iterator[IO[bytes]]:
    if file.readable():
        file.seek(0)
        yield file
    else:
        with Path(file.name).open("rb") as readable:
            yield readable


def _check_storable(schema: pa.Schema) -> None:
    found = _find_unstorable(schema)
    if found is not None:
        raise ValueError(f"Parquet cannot store {found}; drop it from the records, or give schema= with a field in it")


def _find_unstorable(schema: pa.Schema) -> str | None:
    if not len(schema):
        return "records without any key"
    return next((f"column {name!r}, which holds only empty dicts" for name in map(_empty_struct, schema) if name), None)


def _empty_struct(field: pa.Field) -> str | None:
    if pa.types.is_struct(field.type) and field.type.num_fields == 0:
        return str(field.name)
    children = [field.type.field(i) for i in range(field.type.num_fields)]
    return next((f"{field.name}.{name}" for name in map(_empty_struct, children) if name), None)
