"""Operations as frozen values: what a ``Dataset`` lists (``...Op``), and what a plan makes of it (``Map``, ``Scatter``...)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

PathPattern = str | Callable[[int, int], str]
"""Where shards are written: a pattern with ``{shard}`` and ``{total}``, or a function of the two."""


def name_of(value: Any) -> str:
    """Return a short name: functions by their own, partials by that of their function, others by their repr."""
    while isinstance(value, functools.partial):
        value = value.func
    if callable(value):
        return getattr(value, "__qualname__", None) or type(value).__name__
    return repr(value)


class _Named:
    """Gives operations a repr that names functions and leaves out what is None."""

    __slots__ = ()

    def __repr__(self) -> str:
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={name_of(value)}' for name, value in values if value is not None)})"


@dataclass(frozen=True, slots=True, repr=False)
class MapOp(_Named):
    """Replace every item."""

    fn: Callable[[Any], Any]
    """Item to item."""


@dataclass(frozen=True, slots=True, repr=False)
class FlatMapOp(_Named):
    """Replace every item by any number of items."""

    fn: Callable[[Any], Any]
    """Item to an iterable of items."""


@dataclass(frozen=True, slots=True, repr=False)
class LoadOp(_Named):
    """Replace every path by the records of its file."""

    fn: Callable[[str], Any]
    """Path to an iterable of records."""


@dataclass(frozen=True, slots=True, repr=False)
class FilterOp(_Named):
    """Keep some items."""

    fn: Callable[[Any], Any]
    """Tells whether to keep an item."""


@dataclass(frozen=True, slots=True, repr=False)
class MapShardOp(_Named):
    """Replace the items of a shard as a whole."""

    fn: Callable[[Any], Any]
    """Iterator of items to an iterable of items."""


@dataclass(frozen=True, slots=True, repr=False)
class GroupByOp(_Named):
    """Bring the items of each key together and reduce them."""

    key: Callable[[Any], Any]
    """Item to key."""
    reducer: Callable[[Any, Any], Any]
    """Key and iterator of values to one value, or a generator of any number."""
    num_output_shards: int | None = None
    """Number of shards of the result; None lets the plan decide."""
    sort_by: Callable[[Any], Any] | None = None
    """Order of the values of a key; None for source order."""
    combiner: Callable[[Any, Any], Any] | None = None
    """Like the reducer, but from values to values, applied before they travel."""


@dataclass(frozen=True, slots=True, repr=False)
class ReduceOp(_Named):
    """Reduce all items to one."""

    local: Callable[[Any], Any]
    """Iterator over the items of a shard to a value."""
    global_: Callable[[Any], Any]
    """Iterator over the values of the shards to the result."""


@dataclass(frozen=True, slots=True, repr=False)
class ReshardOp(_Named):
    """Spread the items evenly over a number of shards, in order."""

    num_shards: int
    """Number of shards from here on."""


@dataclass(frozen=True, slots=True, repr=False)
class WriteOp(_Named):
    """Write each shard to a file of JSON lines; the shard's only item is then the file's path."""

    pattern: PathPattern
    """Where to."""


NarrowOp = MapOp | FlatMapOp | LoadOp | FilterOp | MapShardOp
"""Operations that look at one shard at a time and keep the number of shards."""
LogicalOp = NarrowOp | GroupByOp | ReduceOp | ReshardOp | WriteOp


@dataclass(frozen=True, slots=True)
class Map:
    """Narrow operations, fused: every item passes through all of them before the next is read."""

    operations: tuple[NarrowOp, ...]
    """In the order of application."""

    def __repr__(self) -> str:
        return f"Map({', '.join(map(repr, self.operations))})"


@dataclass(frozen=True, slots=True, repr=False)
class Scatter(_Named):
    """Split the items by key into the shards of the next stage, sorted by key."""

    key: Callable[[Any], Any]
    """Item to key."""
    num_shards: int
    """Number of shards of the next stage."""
    combiner: Callable[[Any, Any], Any] | None = None
    """See ``GroupByOp``."""


@dataclass(frozen=True, slots=True, repr=False)
class Reduce(_Named):
    """Merge what was scattered to a shard and reduce each key."""

    reducer: Callable[[Any, Any], Any]
    """See ``GroupByOp``."""
    sort_by: Callable[[Any], Any] | None = None
    """See ``GroupByOp``."""


@dataclass(frozen=True, slots=True, repr=False)
class Fold(_Named):
    """Reduce a shard to one item."""

    fn: Callable[[Any], Any]
    """Iterator of items to a value."""


@dataclass(frozen=True, slots=True, repr=False)
class Reshard(_Named):
    """Hand out the chunks to another number of shards; done where the plan is driven, without touching data."""

    num_shards: int
    """Number of shards from here on."""


@dataclass(frozen=True, slots=True, repr=False)
class Write(_Named):
    """Write the shard to one file of JSON lines and pass on its path."""

    pattern: PathPattern
    """Where to."""


PhysicalOp = Map | Scatter | Reduce | Fold | Reshard | Write
