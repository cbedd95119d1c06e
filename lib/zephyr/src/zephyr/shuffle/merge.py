"""The reducer's side: merge sorted runs in batches, and hand out the values of one key at a time.

A batched merge takes all entries below a bound from all runs at once and lets one sort put them in order, instead of comparing
entry by entry. The values of a key that goes on beyond the bound are streamed, so a hot key is never held. At most one frame
and one block of each run are held; more runs than fit into the memory are merged to fewer first.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import GeneratorType
from typing import Any

from zephyr.shuffle.measure import heap_bytes
from zephyr.shuffle.runs import FRAME_BYTES, Entry, values_per_entry
from zephyr.storage import ChunkRef, ChunkWriter

RUN_BYTES = 16 * FRAME_BYTES
"""What a run holds while it is merged: a block as it was read, a frame as objects, and what was taken of the one before."""
MIN_FAN_IN = 4
MAX_FAN_IN = 256
"""Runs that are merged at once at the most, whatever the memory: each is an open position in a file."""

_order = itemgetter(0)
SortBy = Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class Merging:
    """What a merge may use."""

    memory_bytes: int
    """What it may hold of the runs."""
    create_writer: Callable[[], ChunkWriter]
    """Makes a place for what has to be merged, or set aside, in between."""

    @property
    def fan_in(self) -> int:
        """Runs that are merged at once."""
        return max(MIN_FAN_IN, min(MAX_FAN_IN, self.memory_bytes // RUN_BYTES))


class Run:
    """A position in a sorted run of tuples, each of which begins with its key. Compares by ``<`` alone, as sorting does."""

    def __init__(self, batches: Iterator[list[Any]], side: int = 0) -> None:
        self._batches = batches
        self._at = 0
        self.side = side
        """Which input of a join the run belongs to."""
        self.batch: list[Any] = []
        """The tuples at hand; empty at the end of the run."""

    def refill(self) -> bool:
        """Read the next batch and tell whether there is one."""
        self.batch, self._at = next(self._batches, []), 0
        return bool(self.batch)

    def take_below(self, bound: Any) -> list[Any]:
        """Return the tuples at hand below the bound."""
        end = bisect_left(self.batch, bound, self._at, key=_order)
        start, self._at = self._at, end
        return self.batch[start:end]

    def take_equal(self, bound: Any) -> Iterator[Any]:
        """Yield the tuples equal to the bound, reading on where needed; all before them must have been taken."""
        while self.batch:
            end = bisect_right(self.batch, bound, self._at, key=_order)
            yield from itertools.islice(self.batch, self._at, end)
            self._at = end
            if end < len(self.batch):
                return
            self.refill()


Part = tuple[int, list[list[Any]] | Iterator[list[Any]]]
"""(side, values in their order, in lists) of one key from one run: all of them, or an iterator that reads on."""
Group = tuple[Any, Any, list[Part]]
"""(order key, key, parts in the order of the runs)."""


def merge_groups(runs: Iterable[Run]) -> Iterator[Group]:
    """Yield the keys of sorted runs in order, with the values of each run apart. Read a group before the next one."""
    live = [run for run in runs if run.refill()]
    while live:
        bound = min(run.batch[-1][0] for run in live)
        yield from _groups_below(live, bound)
        yield _group_at(live, bound)
        for run in live:  # what the reader left
            for _ in run.take_equal(bound):
                pass
        live = [run for run in live if run.batch]


def _groups_below(runs: Sequence[Run], bound: Any) -> Iterator[Group]:
    # Complete: every run's batch ends at the bound or behind it.
    below: list[tuple[Any, Any, list[Any], int]] = []
    for run in runs:
        side = run.side
        below += [(order, key, values, side) for order, key, values in run.take_below(bound)]
    below.sort(key=_order)  # stable: entries of one key stay in the order of the runs
    for order, group in itertools.groupby(below, key=_order):
        entries = list(group)
        yield order, entries[0][1], [(side, [values]) for _, _, values, side in entries]


def _group_at(runs: Sequence[Run], bound: Any) -> Group:
    key: Any = None
    parts: list[Part] = []
    for run in runs:
        entries = run.take_equal(bound)
        first = next(entries, None)
        if first is not None:
            key = first[1] if not parts else key
            parts.append((run.side, _value_lists(itertools.chain((first,), entries))))
    return bound, key, parts


def _value_lists(entries: Iterable[Entry]) -> Iterator[list[Any]]:
    for entry in entries:
        yield entry[2]


def values_of(parts: Sequence[Part], sort_by: SortBy) -> Iterator[Any]:
    """Return the values of a key: run after run, or merged by ``sort_by``, in whose order each part is already."""
    lists = itertools.chain.from_iterable(lists for _, lists in parts)
    if sort_by is None or len(parts) == 1:
        return itertools.chain.from_iterable(lists)
    if all(isinstance(lists, list) for _, lists in parts):
        return iter(sorted(itertools.chain.from_iterable(lists), key=sort_by))
    return _merge_values([lists for _, lists in parts], sort_by)


def _merge_values(parts: Iterable[Iterable[list[Any]]], sort_by: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the values of sorted parts in order, those that are equal in the order of the parts, holding a list of each."""
    runs = [Run([(sort_by(value), value) for value in values] for values in part) for part in parts]
    live = [run for run in runs if run.refill()]
    while live:
        bound = min(run.batch[-1][0] for run in live)
        below = [pair for run in live for pair in run.take_below(bound)]
        below.sort(key=_order)
        for _, value in below:
            yield value
        for run in live:
            for _, value in run.take_equal(bound):
                yield value
        live = [run for run in live if run.batch]


def reduce_runs(
    chunks: Sequence[ChunkRef], reducer: Callable[[Any, Any], Any], sort_by: SortBy, merging: Merging
) -> Iterator[Any]:
    """Yield the results of the reducer for each key of the runs; the reducer may leave values unread."""
    for _, key, parts in merge_groups(open_runs(chunks, sort_by, merging)):
        result = reducer(key, values_of(parts, sort_by))
        if isinstance(result, GeneratorType):
            yield from result
        else:
            yield result


def open_runs(chunks: Sequence[ChunkRef], sort_by: SortBy, merging: Merging, side: int = 0) -> list[Run]:
    """Return the runs to merge, no more than the memory allows."""
    while len(chunks) > merging.fan_in:
        groups = [chunks[at : at + merging.fan_in] for at in range(0, len(chunks), merging.fan_in)]
        chunks = [_merge(group, sort_by, merging.create_writer()) for group in groups]
    return [Run(chunk.iter_batches(), side) for chunk in chunks]


def _merge(chunks: Sequence[ChunkRef], sort_by: SortBy, writer: ChunkWriter) -> ChunkRef:
    try:
        for order, key, parts in merge_groups(Run(chunk.iter_batches()) for chunk in chunks):
            values = values_of(parts, sort_by)
            for first in values:
                most = values_per_entry(heap_bytes(first))
                writer.write((order, key, [first, *itertools.islice(values, most - 1)]))
        return writer.finish()
    finally:
        writer.abort()
