"""``Dataset``: an immutable, lazy list of operations over a source. Nothing runs before ``Backend.execute``.

An item is any picklable value. Items are never changed in place by Zephyr, and functions should not change them either.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from zephyr.errors import PlanError
from zephyr.io.files import absolute_path, list_files
from zephyr.io.text import load_text
from zephyr.ops import (
    FilterOp,
    FlatMapOp,
    GroupByOp,
    LoadOp,
    LogicalOp,
    MapOp,
    MapShardOp,
    PathPattern,
    ReduceOp,
    ReshardOp,
    WriteOp,
)
from zephyr.plan import compute_plan

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Source:
    """What a dataset starts from; each item is a shard."""

    items: tuple[Any, ...]
    """The values, or the paths of files."""
    sizes_bytes: tuple[int, ...] | None = None
    """Sizes of the files; None when the items are no files."""


@dataclass(frozen=True, slots=True)
class Dataset(Generic[T]):
    """Items in shards, and what is to be done with them. Every method returns a new dataset.

    Example:
        >>> from fray import create_job_ctx
        >>> from zephyr import Backend, Dataset
        >>> Backend.execute(Dataset.from_list([1, 2, 3]).map(lambda x: x * x), create_job_ctx("sync"))
        [1, 4, 9]
    """

    source: Source
    """What it starts from."""
    operations: tuple[LogicalOp, ...] = ()
    """What is to be done, in order."""

    @staticmethod
    def from_list(items: Iterable[U]) -> Dataset[U]:
        """Return a dataset with a shard per item."""
        return Dataset(Source(tuple(items)))

    @staticmethod
    def from_iterable(items: Iterable[U]) -> Dataset[U]:
        """Return a dataset with a shard per item; ``items`` is read to its end now."""
        return Dataset(Source(tuple(items)))

    @staticmethod
    def from_files(pattern: str, empty_glob_ok: bool = False) -> Dataset[str]:
        """Return the sorted paths of the files that match, a shard each. Looks for them now.

        Args:
            pattern: path or fsspec URL with ``*``, ``**``, ``?``, ``[...]`` and ``{a,b}``.
            empty_glob_ok: return an empty dataset when nothing matches.

        Raises:
            FileNotFoundError: naming the pattern, when nothing matches.
        """
        found = list_files(pattern)
        if not found and not empty_glob_ok:
            raise FileNotFoundError(f"no file matches {pattern!r}; pass empty_glob_ok=True if that is fine")
        return Dataset(Source(tuple(path for path, _ in found), tuple(size for _, size in found)))

    def map(self, fn: Callable[[T], U]) -> Dataset[U]:
        """Replace every item by ``fn(item)``."""
        return self._with(MapOp(_function("map", fn)))

    def flat_map(self, fn: Callable[[T], Iterable[U]]) -> Dataset[U]:
        """Replace every item by the items of ``fn(item)``."""
        return self._with(FlatMapOp(_function("flat_map", fn)))

    def filter(self, fn: Callable[[T], Any]) -> Dataset[T]:
        """Keep the items for which ``fn(item)`` is true."""
        return self._with(FilterOp(_function("filter", fn)))

    def map_shard(self, fn: Callable[[Iterator[T]], Iterable[U]]) -> Dataset[U]:
        """Replace the items of each shard by those of ``fn(iterator over the shard)``; also for shards without items."""
        return self._with(MapShardOp(_function("map_shard", fn)))

    def load_text(self, errors: str = "strict") -> Dataset[str]:
        """Replace every path by the lines of its file, decompressed by suffix; see ``zephyr.load_text``."""
        return self._with(LoadOp(functools.partial(load_text, errors=errors)))

    def reshard(self, num_shards: int | None) -> Dataset[T]:
        """Spread the items evenly over ``num_shards`` shards, in order; None changes nothing.

        Raises:
            ValueError: if ``num_shards`` is not positive.
        """
        return self if num_shards is None else self._with(ReshardOp(_positive("num_shards", num_shards)))

    def group_by(
        self,
        key: Callable[[T], K],
        reducer: Callable[[K, Iterator[Any]], Any],
        num_output_shards: int | None = None,
        *,
        sort_by: Callable[[Any], Any] | None = None,
        combiner: Callable[[K, Iterator[Any]], Any] | None = None,
    ) -> Dataset[Any]:
        """Bring equal keys together: each key once, in one shard.

        Keys are equal when Python says so (1, 1.0 and True are; None is a key), and may be lists and dicts too; objects of
        other types are told apart by type and content. Keys come in an order that depends on nothing but the keys.

        Args:
            key: item to key; must return the same for the same item.
            reducer: ``reducer(key, values)`` returns one value of any type, or is a generator of any number of values.
                ``values`` is an iterator, in source order: by shard, then by position.
            num_output_shards: exactly this many shards; None for as many as there are, at most 64.
            sort_by: the values of each key come in this order instead, held in memory at once.
            combiner: ``combiner(key, values)`` is given some consecutive values, its own results among them, and returns
                or yields fewer that mean the same to the reducer. How often it is called depends on the data.

        Raises:
            ValueError: if ``num_output_shards`` is not positive.
        """
        shards = None if num_output_shards is None else _positive("num_output_shards", num_output_shards)
        for role, fn in (("key", key), ("reducer", reducer), ("sort_by", sort_by), ("combiner", combiner)):
            if fn is not None:
                _function(f"group_by {role}", fn)
        return self._with(GroupByOp(key, reducer, shards, sort_by, combiner))

    def reduce(self, local: Callable[[Iterator[T]], U], global_: Callable[[Iterator[U]], Any] | None = None) -> Dataset[Any]:
        """Reduce all items to one: ``local`` each shard's (also one without items), ``global_`` the results of ``local``.

        ``global_=None`` uses ``local`` for both. A dataset without shards stays empty.
        """
        _function("reduce", local)
        return self._with(ReduceOp(local, local if global_ is None else _function("reduce", global_)))

    def count(self) -> Dataset[int]:
        """Replace all items by their number."""
        return self._with(ReduceOp(_count, sum))

    def write_jsonl(self, pattern: PathPattern) -> Dataset[str]:
        """Write each shard to a file of JSON lines, gzip or zstd by suffix, and replace its items by the file's path.

        A file appears whole or not at all, and replaces one that is there already. A shard without items writes its file too.

        Args:
            pattern: path or fsspec URL with ``{shard}`` and ``{total}``, such as ``out/{shard:05d}-of-{total:05d}.jsonl.gz``;
                or a function of the two numbers. It must name another file for each shard.
        """
        return self._with(WriteOp(absolute_path(pattern) if isinstance(pattern, str) else _function("write_jsonl", pattern)))

    def explain(self) -> str:
        """Return the plan as text.

        Raises:
            PlanError: if the dataset cannot be carried out as written.
        """
        return str(compute_plan(self))

    def _with(self, operation: LogicalOp) -> Dataset[Any]:
        return cast("Dataset[Any]", replace(self, operations=(*self.operations, operation)))


def _function(verb: str, fn: Any) -> Any:
    if not callable(fn):
        raise TypeError(f"{verb} takes a function, not {type(fn).__name__}: {fn!r:.80}")
    return fn


def _positive(option: str, number: int) -> int:
    value = operator.index(number)
    if value <= 0:
        raise PlanError(f"{option}={value} must be at least 1")
    return value


def _count(items: Iterator[Any]) -> int:
    return sum(1 for _ in items)
