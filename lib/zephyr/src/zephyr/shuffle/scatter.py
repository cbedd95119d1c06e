"""The mapper's side: collect items by key, combine them, and write them as runs in order of key.

Memory is bounded: when the collected items reach the limit they are combined, and written as a run if that is not enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from types import GeneratorType
from typing import Any

from zephyr.ops import Scatter
from zephyr.shuffle.keys import encode_key, is_plain, partition_of
from zephyr.shuffle.measure import Held
from zephyr.shuffle.order import order_of, range_of
from zephyr.shuffle.runs import Entry, RunWriter
from zephyr.storage import ChunkRef


class Scatterer:
    """One mapper's attempt. Not thread-safe."""

    def __init__(self, op: Scatter, memory_bytes: int, spill_path: str, spill_threshold_bytes: float) -> None:
        self._held = Held(memory_bytes // 2)  # the other half is for what is being encoded
        self._runs = RunWriter(spill_path, spill_threshold_bytes)
        self._collected: _Groups | _Range = _Groups(op) if op.ranges is None else _Range(op)

    def add(self, items: Iterable[Any]) -> None:
        """Take in the items of a shard; shards come in their order.

        Raises:
            StageError: if a key or an item cannot be encoded. User exceptions pass.
        """
        iterator = iter(items)
        while block := list(itertools.islice(iterator, self._held.block_items)):
            self._held.observe(block[-1])
            self._collected.collect(block)
            if self._collected.count >= self._held.limit_items and not self._collected.shrink(self._held.limit_items // 2):
                self._runs.write(self._collected.take())

    def finish(self) -> list[tuple[int, ChunkRef]]:
        """Return (partition, run) in an order in which the values of each key keep theirs. Raises as ``add`` does."""
        self._collected.shrink(0)
        self._runs.write(self._collected.take())
        return self._runs.finish()

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._runs.close()


class _Groups:
    """Values by key, split by the key's hash."""

    def __init__(self, op: Scatter) -> None:
        self._op = op
        self._groups: dict[Any, list[Any]] = {}
        self.count = 0
        """Items held."""

    def collect(self, block: list[Any]) -> None:
        groups, key = self._groups, self._op.key
        for item in block:
            found = key(item)
            if type(found) is not str:  # strings need no thought, and are most keys
                found = found if is_plain(found) else _Encoded(found)
            try:
                groups[found].append(item)
            except KeyError:
                groups[found] = [item]
        self.count += len(block)

    def shrink(self, wanted: int) -> bool:
        """Combine, and tell whether no more than ``wanted`` items are left."""
        if self._op.combiner is not None:
            self._combine(self._op.combiner)
            self.count = sum(map(len, self._groups.values()))
        return self.count <= wanted

    def _combine(self, combiner: Callable[[Any, Any], Any]) -> None:
        for found, values in self._groups.items():
            if len(values) > 1:
                result = combiner(_original(found), iter(values))
                self._groups[found] = list(result) if isinstance(result, GeneratorType) else [result]

    def take(self) -> dict[int, list[Entry]]:
        """Return what is held by partition, and hold nothing any more."""
        partitions: dict[int, list[Entry]] = {}
        groups, self._groups, self.count = self._groups, {}, 0
        while groups:
            found, values = groups.popitem()
            if not values:
                continue
            if self._op.sort_by is not None and len(values) > 1:
                values.sort(key=self._op.sort_by)
            encoded = _encoded(found)
            entry = (encoded, _original(found), values)
            partitions.setdefault(partition_of(encoded, self._op.num_shards), []).append(entry)
        return partitions


class _Range:
    """Items in the order of a sort, split by ranges of the key."""

    def __init__(self, op: Scatter) -> None:
        assert op.ranges is not None
        self._key = op.key
        self._bounds = op.ranges.bounds
        self._order = order_of(op.ranges.reverse)
        self._entries: list[Entry] = []

    @property
    def count(self) -> int:
        """Items held."""
        return len(self._entries)

    def collect(self, block: list[Any]) -> None:
        key, order = self._key, self._order
        self._entries += [(order(key(item)), None, [item]) for item in block]

    def shrink(self, wanted: int) -> bool:
        """Tell whether no more than ``wanted`` items are held."""
        return self.count <= wanted

    def take(self) -> dict[int, list[Entry]]:
        """Return what is held by partition, and hold nothing any more."""
        entries, self._entries = self._entries, []
        if not self._bounds:
            return {0: entries} if entries else {}
        partitions: dict[int, list[Entry]] = {}
        for entry in entries:
            partitions.setdefault(range_of(entry[0], self._bounds), []).append(entry)
        return partitions


class _Encoded:
    """Stands in a dict for a key that cannot be there itself, or that is equal to others in ways its bytes are not."""

    __slots__ = ("data", "key")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.data = encode_key(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Encoded) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)


def _original(found: Any) -> Any:
    return found.key if type(found) is _Encoded else found


def _encoded(found: Any) -> bytes:
    return found.data if type(found) is _Encoded else encode_key(found)
