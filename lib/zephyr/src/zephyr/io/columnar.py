"""Records that are kept as Arrow record batches until somebody asks for Python records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from zephyr.expr import Expr
    from zephyr.io.formats import OnBadRecord


class ColumnBatches:
    """A stream of records that can be read once: as record batches, or as dicts by iterating."""

    def __init__(self, batches: Iterable[pa.RecordBatch], note: str | None = None) -> None:
        self._batches = batches
        self.note = note
        """What to note on an exception when a batch cannot be turned into records."""

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the record batches, in order; reads while it is iterated."""
        return iter(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.iter_batches():
            try:
                records = batch_records(batch)
            except Exception as error:  # text that is no UTF-8, times that Python does not have
                if self.note is not None:
                    error.add_note(self.note)
                raise
            yield from records


def batch_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch as dicts in the order of its columns; several times as fast as pyarrow's own ``to_pylist``."""
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    columns = [column.to_pylist() for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def needed_columns(columns: tuple[str, ...] | None, predicate: Expr | None, names: Iterable[str]) -> list[str] | None:
    """Return which of a file's columns to load for what is kept and what the predicate looks at; None for all."""
    if columns is None:
        return None
    from zephyr.expr import extract_columns

    used = set(columns) if predicate is None else {*columns, *extract_columns(predicate)}
    return [name for name in dict.fromkeys(names) if name in used]


def select_columns(batch: pa.RecordBatch, columns: tuple[str, ...] | None) -> pa.RecordBatch:
    """Return the batch with the columns in their order, without those that it lacks; of equally named ones the last counts."""
    if columns is None:
        return batch
    found = (batch.schema.get_all_field_indices(name) for name in dict.fromkeys(columns))
    return batch.select([indices[-1] for indices in found if indices])


def filter_rows(batch: pa.RecordBatch, predicate: Expr | None, number: int, on_bad: OnBadRecord) -> pa.RecordBatch:
    """Return the rows for which the predicate is true; where it raises, ``on_bad`` decides.

    Args:
        batch: the rows.
        predicate: what they must fulfil; None if nothing.
        number: the number of the first row.
        on_bad: told of each row for which the predicate raises.
    """
    if predicate is None:
        return batch
    from zephyr.expr import compute_mask

    try:
        mask = compute_mask(predicate, batch)
    except Exception:  # raised again below, by the row that is to blame
        mask = _mask_by_rows(batch, predicate, number, on_bad)
    return batch.filter(mask)


def _mask_by_rows(batch: pa.RecordBatch, predicate: Expr, first: int, on_bad: OnBadRecord) -> pa.BooleanArray:
    import pyarrow as pa

    from zephyr.expr import extract_columns

    looked_at = select_columns(batch, tuple(sorted(extract_columns(predicate))))  # others need not be what Python can hold
    mask = []
    for number, record in enumerate(batch_records(looked_at)):
        try:
            mask.append(bool(predicate.evaluate(record)))
        except Exception as error:
            on_bad(first + number, _row(batch, number, record), error)
            mask.append(False)
    return pa.array(mask, pa.bool_())


def _row(batch: pa.RecordBatch, number: int, otherwise: dict[str, Any]) -> dict[str, Any]:
    try:
        return batch_records(batch.slice(number, 1))[0]
    except Exception:  # the record is for a message
        return otherwise


def gather(batches: Iterable[pa.RecordBatch], max_bytes: int, max_rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Yield runs of batches, as many as stay within the limits; a batch beyond them is cut into slices."""
    held: list[pa.RecordBatch] = []
    size = rows = 0
    for batch in (part for whole in batches for part in _slices(whole, max_bytes, max_rows)):
        if held and (size + batch.nbytes > max_bytes or rows + batch.num_rows > max_rows):
            yield held
            held, size, rows = [], 0, 0
        held.append(batch)
        size, rows = size + batch.nbytes, rows + batch.num_rows
    if held:
        yield held


def _slices(batch: pa.RecordBatch, max_bytes: int, max_rows: int) -> Iterator[pa.RecordBatch]:
    rows = max(1, min(max_rows, batch.num_rows * max_bytes // max(batch.nbytes, max_bytes)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
