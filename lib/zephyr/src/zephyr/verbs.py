"""The functions that some of ``Dataset``'s verbs give to more general operations: module-level, so that they pickle."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

JOINS = ("inner", "left", "right", "outer", "semi", "anti")


def itself(item: Any) -> Any:
    """Return the item: the key of a sort that has none."""
    return item


def keep_first(_: Any, values: Iterator[Any]) -> Any:
    """Return the first value of a key: combiner and reducer of ``deduplicate``."""
    return next(values)


def merge_records(left: Any, right: Any) -> Any:
    """Return ``{**left, **right}``, where a missing side counts as empty: the default combiner of joins."""
    return {**({} if left is None else left), **({} if right is None else right)}


def key_of(on: str | Sequence[str] | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function from record to key that ``on`` stands for: one column, several, or a function already.

    Raises:
        TypeError: if it is none of these.
    """
    if isinstance(on, str):
        return operator.itemgetter(on)
    if callable(on):
        return on
    if on and not isinstance(on, dict) and all(isinstance(column, str) for column in on):
        return Columns(tuple(on))
    raise TypeError(f"on must be a column, a list of columns or a function, not {on!r:.80}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Record to the tuple of some of its columns."""

    names: tuple[str, ...]
    """The columns."""

    def __call__(self, record: Any) -> tuple[Any, ...]:
        return tuple(record[name] for name in self.names)


def _digest(seed: int, shard: int, position: int) -> bytes:
    return bytes(xxhash.xxh3_128_digest(f"{seed},{shard},{position}".encode()))


@dataclass(frozen=True, slots=True)
class Tagged:
    """(Number of a shard, items) to (random bytes, item) pairs: the order of a shuffle."""

    seed: int
    """What the bytes depend on, beside the position."""

    def __call__(self, shard: int, items: Iterable[Any]) -> Iterator[tuple[bytes, Any]]:
        for position, item in enumerate(items):
            yield _digest(self.seed, shard, position), item


def untagged(_: bytes, pairs: Iterator[tuple[bytes, Any]]) -> Iterator[Any]:
    """Yield the items of the pairs: the reducer of a shuffle."""
    for _, item in pairs:
        yield item


@dataclass(frozen=True, slots=True)
class Sampled:
    """(Number of a shard, items) to some of the items."""

    fraction: float
    """Probability of each."""
    seed: int
    """What the choice depends on, beside the position."""

    def __call__(self, shard: int, items: Iterable[Any]) -> Iterator[Any]:
        bound = int(self.fraction * 2**64)
        for position, item in enumerate(items):
            if int.from_bytes(_digest(self.seed, shard, position)[:8], "big") < bound:
                yield item
