"""Narrow operations on the stream of one shard: lazy, one item at a time, or record batches as long as nobody needs records."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from zephyr.bad_records import BadRecords, Place
from zephyr.io.columnar import ColumnBatches, filter_rows, select_columns
from zephyr.io.formats import FileSplit, Reader
from zephyr.ops import (
    FilterOp,
    FlatMapOp,
    LoadOp,
    MapOp,
    MapShardOp,
    NarrowOp,
    SelectOp,
    TakeOp,
    WindowByOp,
    WindowOp,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from zephyr.expr import Expr


class Pipeline:
    """Applies operations to the items of one shard."""

    def __init__(self, place: Place, bad: BadRecords) -> None:
        self._place = place
        self._bad = bad
        self._columnar = False  # whether the file that is read has rows instead of lines

    def apply(self, ops: Sequence[NarrowOp], items: Iterable[Any]) -> Iterable[Any]:
        """Return the stream behind the operations; nothing is read yet."""
        for op in ops:
            items = self._apply(op, items)
        return items

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items and take note of their position."""
        place = self._place
        for place.position, item in enumerate(items, 1):
            yield item

    def add_bad(self, operation: str, record: Any, error: Exception) -> None:
        """Take note of a bad record where the pipeline is now; see ``BadRecords.add``."""
        self._bad.add(self._place, operation, record, error)

    def on_bad(self, operation: str) -> Callable[[int | None, Any, Exception], None]:
        """Return what readers tell of bad records: the line of a text file, or the row."""

        def add(number: int | None, record: Any, error: Exception) -> None:
            known = {"position" if self._columnar else "line": number}
            with self._place.at(**known):
                self._bad.add(self._place, operation, record, error)

        return add

    def add_unwritten(self, operation: str) -> Callable[[int | None, Any, Exception], None]:
        """Return what writers tell of bad records; their numbers are those of the output, and no place in the input."""

        def add(number: int | None, record: Any, error: Exception) -> None:
            which = "" if number is None else f", record {number} of the output"
            with self._place.at():
                self._bad.add(self._place, operation + which, record, error)

        return add

    def _apply(self, op: NarrowOp, items: Iterable[Any]) -> Iterable[Any]:
        if isinstance(op, LoadOp):
            return self._load(op, items)
        if isinstance(items, ColumnBatches) and isinstance(op, SelectOp):
            return ColumnBatches((select_columns(batch, op.columns) for batch in items.iter_batches()), items.note)
        if isinstance(items, ColumnBatches) and isinstance(op, FilterOp) and op.expr is not None:
            return ColumnBatches(self._filter_batches(op, op.expr, items), items.note)
        if isinstance(op, (MapOp, SelectOp)):
            return self._map(op, op.fn if isinstance(op, MapOp) else _selector(op.columns), items)
        if isinstance(op, FlatMapOp):
            return self._flat_map(op, items)
        if isinstance(op, FilterOp):
            return self._filter(op, items)
        if isinstance(op, MapShardOp):
            return self._map_shard(op, items)
        if isinstance(op, TakeOp):
            return itertools.islice(items, op.count)
        return self.unplaced(_windows(iter(items), op.size) if isinstance(op, WindowOp) else self._window_by(op, items))

    # Generators, not map() and filter(): those take a StopIteration that leaks from user code for the end of the data.

    def _map(self, op: NarrowOp, fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            try:
                result = fn(item)
            except Exception as error:
                self._bad.add(self._place, repr(op), item, error)
                continue
            yield result

    def _flat_map(self, op: FlatMapOp, items: Iterable[Any]) -> Iterator[Any]:
        fn = op.fn
        for item in items:
            try:
                yield from fn(item)
            except Exception as error:
                self._bad.add(self._place, repr(op), item, error)

    def _guarded(self, op: NarrowOp, item: Any, results: Iterable[Any]) -> Iterator[Any]:
        """Yield what an operation gives for an item until it fails."""
        try:
            yield from results
        except Exception as error:
            if _is_out_of_reach(error):
                raise
            self._bad.add(self._place, repr(op), item, error)

    def _filter(self, op: FilterOp, items: Iterable[Any]) -> Iterator[Any]:
        fn = op.expr.evaluate if op.expr is not None else op.fn
        assert fn is not None
        for item in items:
            try:
                kept = fn(item)
                if not kept:
                    continue
            except Exception as error:
                self._bad.add(self._place, repr(op), item, error)
                continue
            yield item

    def _filter_batches(self, op: FilterOp, expr: Expr, items: ColumnBatches) -> Iterator[pa.RecordBatch]:
        def on_bad(_: int | None, record: Any, error: Exception) -> None:
            self.add_bad(repr(op), record, error)

        for batch in items.iter_batches():
            yield filter_rows(batch, expr, 1, on_bad)

    def unplaced(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items that come from no one record."""
        place = self._place
        try:
            for item in items:
                place.position = None
                yield item
        finally:
            place.position = None

    def _map_shard(self, op: MapShardOp, items: Iterable[Any]) -> Iterator[Any]:
        arguments = (self._place.shard, iter(items)) if op.numbered else (iter(items),)
        yield from self.unplaced(op.fn(*arguments))

    def _window_by(self, op: WindowByOp, items: Iterable[Any]) -> Iterator[list[Any]]:
        window: list[Any] = []
        state = op.initial_state
        for item in items:
            joins, state = op.folder(state, item)
            if not joins and window:
                yield window
                window = []
                _, state = op.folder(op.initial_state, item)
            window.append(item)
        if window:
            yield window

    def _load(self, op: LoadOp, paths: Iterable[Any]) -> Iterable[Any]:
        """Return the records of files; record batches if there is one file, in a format that has them."""
        paths = iter(paths)
        first = list(itertools.islice(paths, 2))
        if len(first) == 1:
            loaded = self._read(op, first[0])
            if self._columnar:
                assert isinstance(loaded, ColumnBatches)
                return ColumnBatches(self._guarded(op, first[0], loaded.iter_batches()), loaded.note)
            return self._records(op, first[0], loaded)
        return (record for path in itertools.chain(first, paths) for record in self._records(op, path, self._read(op, path)))

    def _read(self, op: LoadOp, path: Any) -> Iterable[Any]:
        if isinstance(path, PurePath):
            path = os.fspath(path)
        if not isinstance(path, (str, FileSplit)):
            error = TypeError(f"a load needs paths, not {type(path).__name__}: {path!r:.80}. Put a map before it")
            self._bad.add(self._place, repr(op), path, error)
            return ()
        self._place.file = path if isinstance(path, str) else path.path
        self._place.position = None
        loaded = op.reader.read(path, self.on_bad(repr(op)))
        self._columnar = isinstance(loaded, ColumnBatches)
        return loaded

    def _records(self, op: LoadOp, path: Any, records: Iterable[Any]) -> Iterator[Any]:
        guarded = self._guarded(op, path, records)
        return self.counted(guarded) if _positions_known(op.reader, path) else guarded


def _is_out_of_reach(error: Exception) -> bool:
    """Tell whether it is the storage that fails: then records would be lost that are not bad at all."""
    known = isinstance(error, (FileNotFoundError, PermissionError, ConnectionError, TimeoutError))
    return known or (isinstance(error, OSError) and error.errno is not None)


def _positions_known(reader: Reader, path: Any) -> bool:
    return reader.predicate is None and (not isinstance(path, FileSplit) or path.start == 0)


def _selector(columns: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    return lambda record: {name: record[name] for name in columns if name in record}


def _windows(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while window := list(itertools.islice(items, size)):
        yield window
