"""Operations as frozen values: what a ``Dataset`` lists (``...Op``), and what a plan makes of it (``Map``, ``Scatter``...)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from zephyr.expr import Expr
from zephyr.io.formats import Reader, Writer

if TYPE_CHECKING:
    from zephyr.dataset import Dataset
    from zephyr.plan import PhysicalPlan

PathPattern = str | Callable[[int, int], str]
"""Where shards are written: a pattern with ``{shard}``, ``{total}`` and ``{basename}``, or a function of the first two."""
JoinHow = Literal["inner", "left", "right", "outer", "semi", "anti"]
"""Which pairs and which items without a partner a join keeps."""


def name_of(value: Any) -> str:
    """Return a short name: functions by their own, partials by that of their function, others by their repr."""
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, (Reader, Writer)) and is_dataclass(value):
        return f"{type(value).__name__}({', '.join(brief_fields(value))})"
    if callable(value):
        found = getattr(value, "__qualname__", None) or repr(value)
        return type(value).__name__ if " at 0x" in found else found.removeprefix("operator.")
    return repr(value)


def brief_fields(value: Any) -> list[str]:
    """Return the fields of a frozen value as ``name=value``, without those that are None, False or as by default."""
    found = [(field, getattr(value, field.name)) for field in fields(value)]
    return [
        f"{field.name}={name_of(each)}"
        for field, each in found
        if each is not None and each is not False and each is not field.default
    ]


class _Named:
    """Gives operations a repr that names functions and leaves out what is None."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(brief_fields(self))})"


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

    reader: Reader
    """How, with the columns and the predicate that were pushed into it."""


@dataclass(frozen=True, slots=True, repr=False)
class FilterOp(_Named):
    """Keep some items; exactly one of ``fn`` and ``expr`` is set."""

    fn: Callable[[Any], Any] | None = None
    """Tells whether to keep an item."""
    expr: Expr | None = None
    """The same as an expression, which can be looked into."""


@dataclass(frozen=True, slots=True, repr=False)
class SelectOp(_Named):
    """Reduce records to some columns, in this order, without those they lack."""

    columns: tuple[str, ...]
    """The columns to keep."""


@dataclass(frozen=True, slots=True, repr=False)
class MapShardOp(_Named):
    """Replace the items of a shard as a whole."""

    fn: Callable[..., Any]
    """Iterator of items to an iterable of items; with ``numbered``, of (number of the shard, iterator)."""
    numbered: bool | None = None
    """Whether ``fn`` is told the number of the shard; None and False are the same."""


@dataclass(frozen=True, slots=True, repr=False)
class TakeOp(_Named):
    """Keep the first items of each shard and read no more."""

    count: int
    """How many."""


@dataclass(frozen=True, slots=True, repr=False)
class WindowOp(_Named):
    """Replace consecutive items by lists of them."""

    size: int
    """Items in a list; the last of a shard may be shorter."""


@dataclass(frozen=True, slots=True, repr=False)
class WindowByOp(_Named):
    """Replace consecutive items by lists whose ends a function decides."""

    folder: Callable[[Any, Any], tuple[Any, Any]]
    """State and item to (whether the item joins the window, new state)."""
    initial_state: Any
    """State of an empty window."""


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
class SortOp(_Named):
    """Put all items in order."""

    key: Callable[[Any], Any]
    """Item to a value that can be compared."""
    num_output_shards: int | None = None
    """Number of shards of the result; None lets the plan decide."""
    reverse: bool = False
    """Largest first; equal ones keep their order."""


@dataclass(frozen=True, slots=True, repr=False)
class JoinOp(_Named):
    """Bring items of two datasets together by key."""

    right: Dataset[Any]
    """The other dataset."""
    left_key: Callable[[Any], Any]
    """Item of this dataset to key."""
    right_key: Callable[[Any], Any]
    """Item of the other dataset to key."""
    how: JoinHow
    """Which pairs and which items without a partner are kept."""
    combiner: Callable[[Any, Any], Any]
    """Left item and right item, None where there is none, to an item."""
    num_output_shards: int | None = None
    """Number of shards of the result; None lets the plan decide."""
    sorted: bool = False
    """Whether both sides are sorted by key, shard by shard, so that nothing has to be shuffled."""


@dataclass(frozen=True, slots=True, repr=False)
class UnionOp(_Named):
    """Append the shards of other datasets."""

    others: tuple[Dataset[Any], ...]
    """In order."""


@dataclass(frozen=True, slots=True, repr=False)
class WriteOp(_Named):
    """Write each shard to a file; the shard's only item is then the file's path."""

    pattern: PathPattern
    """Where to."""
    writer: Writer
    """How."""
    skip_existing: bool = False
    """Whether shards stay as they are whose file a manifest knows to be what would be written."""


NarrowOp = MapOp | FlatMapOp | LoadOp | FilterOp | SelectOp | MapShardOp | TakeOp | WindowOp | WindowByOp
"""Operations that look at one shard at a time and keep the number of shards."""
ItemOp = MapOp | FlatMapOp | LoadOp | FilterOp | SelectOp
"""Those that look at one item at a time, so that a shard may be processed in parts."""
LogicalOp = NarrowOp | GroupByOp | ReduceOp | ReshardOp | SortOp | JoinOp | UnionOp | WriteOp


@dataclass(frozen=True, slots=True)
class Map:
    """Narrow operations, fused: every item passes through all of them before the next is read."""

    operations: tuple[NarrowOp, ...]
    """In the order of application."""

    def __repr__(self) -> str:
        return f"Map({', '.join(map(repr, self.operations))})"


@dataclass(frozen=True, slots=True, repr=False)
class Sample(_Named):
    """Pass the items on, and tell the driver the keys of some of them, from which it computes the ranges of a sort."""

    key: Callable[[Any], Any]
    """Item to key."""


@dataclass(frozen=True, slots=True, repr=False)
class Scatter(_Named):
    """Split the items by key into the shards of the next stage, in order of key within each."""

    key: Callable[[Any], Any]
    """Item to key."""
    num_shards: int
    """Number of shards of the next stage."""
    combiner: Callable[[Any, Any], Any] | None = None
    """See ``GroupByOp``."""
    sort_by: Callable[[Any], Any] | None = None
    """See ``GroupByOp``."""
    ranges: Ranges | None = None
    """Split by ranges of the key, as a sort does; None splits by its hash."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of a sort's key."""

    reverse: bool = False
    """Whether the first range has the largest keys."""
    bounds: tuple[Any, ...] = ()
    """The keys at which the next range begins, one less than there are ranges; the driver fills them in."""

    def __repr__(self) -> str:
        return "descending" if self.reverse else "ascending"


@dataclass(frozen=True, slots=True, repr=False)
class Reduce(_Named):
    """Merge what was scattered to a shard and reduce each key."""

    reducer: Callable[[Any, Any], Any]
    """See ``GroupByOp``."""
    sort_by: Callable[[Any], Any] | None = None
    """See ``GroupByOp``."""


@dataclass(frozen=True, slots=True)
class Join:
    """Join a shard with that of another dataset: both scattered by key, or both sorted by key (``sorted``)."""

    right: PhysicalPlan
    """How the other dataset is made."""
    op: JoinOp
    """What is asked for."""

    def __repr__(self) -> str:
        kind = "sorted merge, " if self.op.sorted else ""
        return f"Join({kind}{self.op.how}, left_key={name_of(self.op.left_key)}, right_key={name_of(self.op.right_key)})"


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


@dataclass(frozen=True, slots=True)
class Union:
    """Append the shards of other plans; done where the plan is driven, without touching data."""

    others: tuple[PhysicalPlan, ...]
    """In order."""

    def __repr__(self) -> str:
        return f"Union({len(self.others)} more)"


@dataclass(frozen=True, slots=True, repr=False)
class Write(_Named):
    """Write the shard to one file and pass on its path; always the last of its stage."""

    pattern: PathPattern
    """Where to."""
    writer: Writer
    """How."""
    skip_existing: bool = False
    """See ``WriteOp``."""


PhysicalOp = Map | Sample | Scatter | Reduce | Join | Fold | Reshard | Union | Write
