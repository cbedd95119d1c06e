"""The reducer's side: merge sorted runs in batches, and hand out the values of one key at a time.

A batched merge takes all entries below a bound from all runs at once and lets one sort put them in order, instead of comparing
entry by entry. Entries of a hot key are streamed. At most one frame and one block of each of ``MAX_FAN_IN`` runs are held: more
runs than that are merged to fewer first.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from types import GeneratorType
from typing import Any

from zephyr.shuffle.scatter import Entry
from zephyr.storage import ChunkRef, ChunkWriter

MAX_FAN_IN = 256
"""Runs that are merged at once."""

_encoded_key = itemgetter(0)


def merge_runs(runs: Iterable[Iterator[list[Entry]]]) -> Iterator[Entry]:
    """Yield the entries of sorted runs, given as batches, in order of key, those of equal keys in the order of the runs."""
    cursors = [cursor for cursor in map(_Cursor, runs) if cursor.refill()]
    while cursors:
        bound = min(cursor.batch[-1][0] for cursor in cursors)
        below: list[Entry] = []
        for cursor in cursors:
            below += cursor.take_below(bound)
        below.sort(key=_encoded_key)  # stable: entries of one key stay in the order of the runs
        yield from below
        for cursor in cursors:
            yield from cursor.take_equal(bound)
        cursors = [cursor for cursor in cursors if cursor.batch]


class _Cursor:
    """A position in one run."""

    def __init__(self, batches: Iterator[list[Entry]]) -> None:
        self._batches = batches
        self._at = 0
        self.batch: list[Entry] = []
        """The entries at hand; empty at the end of the run."""

    def refill(self) -> bool:
        self.batch, self._at = next(self._batches, []), 0
        return bool(self.batch)

    def take_below(self, bound: bytes) -> list[Entry]:
        end = bisect_left(self.batch, bound, self._at, key=_encoded_key)
        start, self._at = self._at, end
        return self.batch[start:end]

    def take_equal(self, bound: bytes) -> Iterator[Entry]:
        while self.batch:
            end = bisect_right(self.batch, bound, self._at, key=_encoded_key)
            yield from self.batch[self._at : end]
            self._at = end
            if end < len(self.batch):
                return
            self.refill()


def reduce_runs(
    chunks: Sequence[ChunkRef],
    reducer: Callable[[Any, Any], Any],
    sort_by: Callable[[Any], Any] | None,
    create_writer: Callable[[], ChunkWriter],
) -> Iterator[Any]:
    """Yield the results of the reducer for each key of the runs; the reducer may leave values unread.

    ``create_writer`` makes a place for what has to be merged in between.
    """
    while len(chunks) > MAX_FAN_IN:
        chunks = [_merge(chunks[at : at + MAX_FAN_IN], create_writer()) for at in range(0, len(chunks), MAX_FAN_IN)]
    entries = merge_runs(chunk.iter_batches() for chunk in chunks)
    for _, group in itertools.groupby(entries, key=_encoded_key):
        first = next(group)
        values = _iter_values(itertools.chain((first,), group), sort_by)  # noqa: B031
        result = reducer(first[1], values)
        if isinstance(result, GeneratorType):
            yield from result
        else:
            yield result


def _merge(chunks: Sequence[ChunkRef], writer: ChunkWriter) -> ChunkRef:
    try:
        for entry in merge_runs(chunk.iter_batches() for chunk in chunks):
            writer.write(entry)
        return writer.finish()
    finally:
        writer.abort()


def _iter_values(entries: Iterable[Entry], sort_by: Callable[[Any], Any] | None) -> Iterator[Any]:
    values = itertools.chain.from_iterable(entry[2] for entry in entries)
    yield from values if sort_by is None else sorted(values, key=sort_by)
