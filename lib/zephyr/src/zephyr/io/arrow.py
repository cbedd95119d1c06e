"""Records to record batches without silent loss: every key gets a column, and a value that its column cannot hold is an error.

Arrow's own conversion takes columns from the first record and drops unknown nested keys.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import IO, Any, Literal

import pyarrow as pa

from zephyr.io.arrays import as_mapping, build_columns, infer_schema
from zephyr.io.columnar import ColumnBatches, batch_records
from zephyr.io.formats import OnBadRecord
from zephyr.io.kinds import class_kind
from zephyr.io.widening import fit_batch, make_batch, merge_schemas

PIECE_BYTES = 1024 * 1024
"""Arrow bytes to convert at a time."""
PIECE_ROWS = 256
"""Records to convert at a time, at most; bounds what is held when records suddenly become large."""


def sniff(head: bytes) -> Literal["parquet", "vortex"] | None:
    """Tell the format of a file from its first four bytes or more; None if it is neither."""
    if head.startswith(b"PAR1"):
        return "parquet"
    return "vortex" if head.startswith(b"VTXF") else None


class Converter:
    """Turns records, or batches of any schemas, into batches of one schema, which widens when later records need it.

    ``schema`` is the widest so far. With a given schema it is that: nothing widens, and floats may be rounded to its width.
    """

    def __init__(self, schema: pa.Schema | None, on_bad: OnBadRecord) -> None:
        self.schema: pa.Schema = pa.schema([]) if schema is None else schema
        self._fixed = schema is not None
        self._on_bad = on_bad
        self._number = 1

    def convert(self, items: Iterable[Any]) -> Iterator[pa.RecordBatch]:
        """Yield batches, each of the schema as it is then, without what ``on_bad`` leaves out."""
        if isinstance(items, ColumnBatches):
            for batch in items.iter_batches():
                yield from self._adopt(batch)
            return
        iterator, size = iter(items), 16
        while records := list(islice(iterator, size)):
            found = self._convert(records, self._number)
            self._number += len(records)
            yield from found
            if arrow_bytes := sum(batch.nbytes for batch in found):
                size = max(1, min(PIECE_ROWS, PIECE_BYTES * len(records) // arrow_bytes))

    def _adopt(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        number, self._number = self._number, self._number + batch.num_rows
        try:
            schema = self.schema if self._fixed else merge_schemas(self.schema, batch.schema)
            fitted = fit_batch(batch, schema)
        except ValueError:
            return self._convert(batch_records(batch), number)
        self.schema = schema
        return [fitted] if fitted.num_rows else []

    def _convert(self, records: list[Any], number: int) -> list[pa.RecordBatch]:
        """Convert all at once, or halves of them, down to the records that cannot be converted."""
        try:
            return [self._convert_all(records)]
        except (ValueError, TypeError) as error:
            failure = error
        if len(records) == 1:
            self._on_bad(number, records[0], failure)
            return []
        middle = len(records) // 2
        return self._convert(records[:middle], number) + self._convert(records[middle:], number + middle)

    def _convert_all(self, records: list[Any]) -> pa.RecordBatch:
        rows = _record_mappings(records)
        with suppress(*(() if self._fixed else (ValueError,))):
            return _build_batch(rows, self.schema, self._fixed)
        schema = merge_schemas(self.schema, infer_schema(rows))
        batch = _build_batch(rows, schema, self._fixed)
        self.schema = schema
        return batch


def _record_mappings(records: list[Any]) -> list[Mapping[str, Any]]:
    for cls in set(map(type, records)):
        if class_kind(cls) != "struct":
            raise TypeError(f"a record must be a mapping, a dataclass or a msgspec Struct to have columns, not {cls.__name__}")
    return records if set(map(type, records)) == {dict} else [as_mapping(record) for record in records]


def _build_batch(rows: list[Mapping[str, Any]], schema: pa.Schema, rounding: bool) -> pa.RecordBatch:
    return make_batch(build_columns(rows, list(schema), "", rounding), schema, len(rows))


class Spool:
    """Batches of any schemas, kept in a temporary local file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="zephyr-")  # noqa: SIM115
        self._starts: list[int] = []

    def append(self, batches: list[pa.RecordBatch]) -> None:
        """Keep batches of one schema."""
        self._starts.append(self._file.tell())
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._file, batches[0].schema, options=options) as stream:
            for batch in batches:
                stream.write_batch(batch)

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield what was kept, in order."""
        for start in self._starts:
            self._file.seek(start)
            with pa.ipc.open_stream(self._file) as stream:
                yield from stream

    def close(self) -> None:
        """Remove the file. Idempotent."""
        self._file.close()
