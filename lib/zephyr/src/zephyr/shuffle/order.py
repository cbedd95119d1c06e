"""The order of a sort: keys that can be compared, ascending or descending, and the ranges they are split into."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import total_ordering
from typing import Any

MAX_SAMPLES = 32_768
"""Keys that all shards together tell the driver of; they place the bounds within a few percent."""
MIN_SAMPLES_PER_SHARD = 16
MAX_SAMPLES_PER_SHARD = 512


@total_ordering
class Descending:
    """A key that is small when the one it holds is large."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return bool(self.key == (other.key if isinstance(other, Descending) else _negated(other)))

    def __lt__(self, other: Any) -> bool:
        return bool((other.key if isinstance(other, Descending) else _negated(other)) < self.key)

    def __hash__(self) -> int:
        return hash(self.key)


def _negated(number: Any) -> Any:
    return -number


def order_of(reverse: bool) -> Callable[[Any], Any]:
    """Return the function from a user's key to one whose ascending order is the order asked for."""
    return _descending if reverse else _ascending


def _ascending(key: Any) -> Any:
    return key


def _descending(key: Any) -> Any:
    return -key if type(key) is int or type(key) is float else Descending(key)  # numbers compare faster as they are


def compute_bounds(keys: Sequence[Any], ranges: int, reverse: bool) -> tuple[Any, ...]:
    """Return the keys, in order, at which each range but the first begins: distinct ones, as far as there are enough.

    A key that is very frequent has a range of its own, and the others are spread over the rest.
    """
    order = order_of(reverse)
    ordered = sorted(order(key) for key in keys)
    bounds: list[Any] = []
    at = 0
    for number in range(1, ranges):
        at = max(at, at + (len(ordered) - at) // (ranges - number + 1))
        if bounds:
            at = max(at, bisect_right(ordered, bounds[-1]))
        if at >= len(ordered):
            break
        bounds.append(ordered[at])
    return tuple(bounds)


def range_of(key: Any, bounds: Sequence[Any]) -> int:
    """Return the number of the range of a key, given in the order asked for."""
    return bisect_right(bounds, key)


class Sampler:
    """Keeps evenly spaced keys of a stream of unknown length, the same ones for the same stream."""

    def __init__(self, shards: int) -> None:
        """Keep no key yet; ``shards`` is how many tell of theirs."""
        self._most = max(MIN_SAMPLES_PER_SHARD, min(MAX_SAMPLES_PER_SHARD, MAX_SAMPLES // shards))
        self.keys: list[Any] = []
        self._every = 1
        self._position = 0

    def add(self, key: Any) -> None:
        """Take note of the next key."""
        if self._position % self._every == 0:
            self.keys.append(key)
            if len(self.keys) > self._most:
                self.keys, self._every = self.keys[::2], 2 * self._every
        self._position += 1
