"""Push filters and selections into the reading of files, where that cannot change what comes out.

A reader's predicate is tried before its columns are reduced. So a filter may be pushed as long as the columns it looks at were
not dropped before it; what cannot be pushed stays where it is, and so does all that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zephyr.expr import combine, extract_columns
from zephyr.io.formats import Reader
from zephyr.ops import FilterOp, LoadOp, NarrowOp, SelectOp


def push_down(operations: Sequence[NarrowOp]) -> tuple[NarrowOp, ...]:
    """Return operations of the same meaning in which loads do as much of the filtering and selecting as they can."""
    done: list[NarrowOp] = []
    for op in operations:
        done = _append(done, op)
    return tuple(done)


def _append(done: list[NarrowOp], op: NarrowOp) -> list[NarrowOp]:
    last = done[-1] if done else None
    if isinstance(last, FilterOp) and isinstance(op, FilterOp) and last.expr is not None and op.expr is not None:
        return [*done[:-1], FilterOp(expr=combine([last.expr, op.expr]))]
    if isinstance(last, LoadOp) and last.reader.has_columns:
        pushed = _push(last.reader, op)
        if pushed is not None:
            return [*done[:-1], LoadOp(pushed)]
    return [*done, op]


def _push(reader: Any, op: NarrowOp) -> Reader | None:
    if isinstance(op, FilterOp) and op.expr is not None:
        if reader.columns is not None and not extract_columns(op.expr) <= set(reader.columns):
            return None
        both = op.expr if reader.predicate is None else combine([reader.predicate, op.expr])
        pushed: Reader = replace(reader, predicate=both)
        return pushed
    if isinstance(op, SelectOp):
        kept = op.columns if reader.columns is None else tuple(filter(set(reader.columns).__contains__, op.columns))
        selected: Reader = replace(reader, columns=kept)
        return selected
    return None
