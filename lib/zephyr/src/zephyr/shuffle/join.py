"""Joins: of runs scattered by key, and of shards that are sorted already."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from zephyr.errors import StageError
from zephyr.ops import JoinOp
from zephyr.shuffle.measure import heap_bytes
from zephyr.shuffle.merge import Merging, merge_groups, open_runs, values_of
from zephyr.storage import ChunkRef

RIGHT, LEFT = 0, 1
"""The sides; the right one's values of a key come first, because they are held while the left ones pass."""
HELD_SHARE = 4
"""One in this many bytes of the memory is for the right values of one key; more are set aside on storage."""


def join_runs(left: Sequence[ChunkRef], right: Sequence[ChunkRef], op: JoinOp, merging: Merging) -> Iterator[Any]:
    """Yield the join of two sides that were scattered by key into the same shards."""
    half = Merging(merging.memory_bytes // 2, merging.create_writer)
    runs = [*open_runs(right, None, half, RIGHT), *open_runs(left, None, half, LEFT)]
    for _, _, parts in merge_groups(runs):
        rights = values_of([part for part in parts if part[0] == RIGHT], None)
        lefts = values_of([part for part in parts if part[0] == LEFT], None)
        yield from _join_key(lefts, rights, op, merging)


def join_sorted(left: Iterable[Any], right: Iterable[Any], op: JoinOp, merging: Merging) -> Iterator[Any]:
    """Yield the join of two sides that are sorted by key, reading both once.

    Raises:
        StageError: if a side is not sorted; names the two keys.
    """
    rights = _checked_groups(right, op.right_key, "right")
    current = next(rights, None)
    for key, lefts in _checked_groups(left, op.left_key, "left"):
        while current is not None and current[0] < key:
            current = next(rights, None)
        matching = current[1] if current is not None and current[0] == key else iter(())
        yield from _join_key(lefts, matching, op, merging)
    for _ in rights:  # see whether the rest is sorted
        pass


def _checked_groups(items: Iterable[Any], key: Callable[[Any], Any], side: str) -> Iterator[tuple[Any, Iterator[Any]]]:
    previous: tuple[Any] | None = None
    pairs = ((key(item), item) for item in items)  # groupby would take a StopIteration of the key's for the end
    for found, group in itertools.groupby(pairs, key=itemgetter(0)):
        if previous is not None and found < previous[0]:
            raise StageError(
                f"the {side} side of a sorted merge join is not sorted: the key {found!r:.200} comes after "
                f"{previous[0]!r:.200}. Sort it by its key, or use join()"
            )
        previous = (found,)
        yield found, (item for _, item in group)


def _join_key(lefts: Iterator[Any], rights: Iterator[Any], op: JoinOp, merging: Merging) -> Iterator[Any]:
    """Yield what becomes of one key. ``rights`` is read before ``lefts``."""
    if op.how in ("semi", "anti"):
        found = next(rights, _NOTHING) is not _NOTHING
        for _ in rights:
            pass
        if found == (op.how == "semi"):
            yield from lefts
        return
    held, lefts_seen = _hold(rights, merging), False
    for item in lefts:
        lefts_seen = True
        if held:
            for other in held:
                yield op.combiner(item, other)
        elif op.how in ("left", "outer"):
            yield op.combiner(item, None)
    if not lefts_seen and op.how in ("right", "outer"):
        for other in held:
            yield op.combiner(None, other)


_NOTHING = object()


class _Held:
    """Values that can be read again and again: in memory, and on storage beyond a number."""

    def __init__(self, values: list[Any], rest: ChunkRef | None) -> None:
        self._values = values
        self._rest = rest

    def __bool__(self) -> bool:
        return bool(self._values)

    def __iter__(self) -> Iterator[Any]:
        yield from self._values
        if self._rest is not None:
            yield from self._rest


def _hold(values: Iterator[Any], merging: Merging) -> _Held:
    held: list[Any] = []
    held_bytes = 0
    for value in values:
        held.append(value)
        held_bytes += 0 if len(held) == 1 else heap_bytes(value)  # most keys have one value: that is not worth a look
        if held_bytes > merging.memory_bytes // HELD_SHARE:
            break
    first = next(values, _NOTHING)
    if first is _NOTHING:
        return _Held(held, None)
    writer = merging.create_writer()
    try:
        for value in itertools.chain((first,), values):
            writer.write(value)
        return _Held(held, writer.finish())
    finally:
        writer.abort()
