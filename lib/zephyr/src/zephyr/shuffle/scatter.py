"""The mapper's side: collect items by key, combine them, and write them as runs in order of key.

Memory is bounded: when the collected items reach the limit they are combined, and written as a run if that is not enough.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import GeneratorType
from typing import Any

from zephyr.ops import Scatter
from zephyr.shuffle.keys import encode_key, is_plain, partition_of
from zephyr.shuffle.measure import Held, heap_bytes
from zephyr.shuffle.order import order_of, range_of
from zephyr.shuffle.runs import Entry, RunWriter
from zephyr.storage import ChunkRef

COMBINE_ITEMS = 16_384
"""Items collected before they are combined: few enough to be in the processor's cache still (measured: a quarter faster
than to wait until the memory is used up)."""

MEASURED_GROUPS = 64
"""Keys whose combined values are measured each time."""


class Scatterer:
    """One mapper's attempt. Not thread-safe."""

    def __init__(
        self,
        op: Scatter,
        memory_bytes: int,
        spill_path: str,
        spill_threshold_bytes: float,
        on_bad: OnBad,
    ) -> None:
        """Hold nothing yet.

        Args:
            op: how to find and split keys, and how to combine.
            memory_bytes: what may be held.
            spill_path: where runs go.
            spill_threshold_bytes: encoded size from which they go there.
            on_bad: told of an item that has no key that can be used, and why; raises, or returns to leave it out.
        """
        limit_bytes = memory_bytes // 2  # the other half is for what is being encoded
        self._held = Held(limit_bytes)
        self._runs = RunWriter(spill_path, spill_threshold_bytes)
        self._collected: _Groups | _Range = _Range(op, on_bad) if op.ranges else _Groups(op, on_bad, limit_bytes)

    def add(self, items: Iterable[Any]) -> None:
        """Take in the items of a shard; shards come in their order.

        Raises:
            StageError: if an item cannot be encoded. User exceptions pass.
        """
        iterator = iter(items)
        while block := list(itertools.islice(iterator, self._held.block_items)):
            self._held.observe(block[-1])
            self._collected.collect(block)
            limit = self._held.limit_items
            if self._collected.full or (self._collected.count >= limit and not self._collected.shrink(limit // 2)):
                self._write()

    def finish(self) -> list[tuple[int, ChunkRef]]:
        """Return (partition, run) in an order in which the values of each key keep theirs. Raises as ``add`` does."""
        self._collected.shrink(0)
        self._write()
        return self._runs.finish()

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._runs.close()

    def _write(self) -> None:
        item_bytes = max(self._held.item_bytes, self._collected.item_bytes)
        self._runs.write(self._collected.take(), item_bytes)


OnBad = Callable[[Any, Exception], None]
_PLAIN = frozenset((str, int, bytes, type(None)))
"""Types of keys that a dict may hold as they are, at a glance; see ``is_plain`` for the others."""


def find_keys(key: Callable[[Any], Any], block: list[Any], on_bad: OnBad) -> tuple[list[Any], list[Any]]:
    """Return the keys of a block's items, and the items that have one."""
    keys: list[Any] = []
    iterator = iter(block)
    while len(keys) < len(block):
        try:
            keys.extend(key(item) for item in iterator)  # not map(), which takes a StopIteration for the end
        except Exception as error:
            at = len(keys)  # what was found before is kept
            on_bad(block[at], error)
            block = block[:at] + block[at + 1 :]
    return keys, block


class _Groups:
    """Values by key, split by the key's hash.

    Keys stand in a dict as they are as long as all of them are plain. From the first other one on their bytes do, for all: the
    two ways must not meet, as one key could then have two places.
    """

    def __init__(self, op: Scatter, on_bad: OnBad, limit_bytes: int) -> None:
        self._op = op
        self._on_bad = on_bad
        self._limit_bytes = limit_bytes
        self._groups: dict[Any, list[Any]] = defaultdict(list)
        self._plain = True
        self._combine_at = COMBINE_ITEMS
        self.count = 0
        """Items held."""
        self.item_bytes = 1
        """What one takes after it was combined, on average."""
        self.full = False
        """Whether what was combined takes more than there is."""

    def collect(self, block: list[Any]) -> None:
        if self._op.combiner is not None and self.count >= self._combine_at:
            if not self.shrink(self.count) and self.count * self.item_bytes > self._limit_bytes:
                self.full = True
            self._combine_at = max(COMBINE_ITEMS, 2 * self.count)
        keys, block = self._find(block)
        groups = self._groups
        for found, item in zip(keys, block, strict=True):
            groups[found].append(item)
        self.count += len(block)

    def _find(self, block: list[Any]) -> tuple[list[Any], list[Any]]:
        if self._plain:
            keys, kept = find_keys(self._op.key, block, self._on_bad)
            if _PLAIN.issuperset(map(type, keys)) or all(map(is_plain, keys)):
                return keys, kept
            self._plain = False
            self._groups = defaultdict(list, {_Encoded(found): values for found, values in self._groups.items()})
            pairs = iter(keys)
            return find_keys(lambda _: _Encoded(next(pairs)), kept, self._on_bad)
        key = self._op.key
        return find_keys(lambda item: _Encoded(key(item)), block, self._on_bad)

    def shrink(self, wanted: int) -> bool:
        """Combine, and tell whether no more than ``wanted`` items are left, and no more bytes than there may be."""
        if self._op.combiner is not None:
            self._combine(self._op.combiner)
            self.count = sum(map(len, self._groups.values()))
            self._measure()
        return self.count <= wanted and self.count * self.item_bytes <= self._limit_bytes

    def _combine(self, combiner: Callable[[Any, Any], Any]) -> None:
        for found, values in self._groups.items():
            if len(values) > 1:
                result = combiner(_original(found), iter(values))
                self._groups[found] = list(result) if isinstance(result, GeneratorType) else [result]

    def _measure(self) -> None:
        """Look at some results: they may be larger than what they were made of."""
        step = max(1, len(self._groups) // MEASURED_GROUPS)
        sample = [values for values in itertools.islice(self._groups.values(), 0, None, step) if values]
        if sample:
            self.item_bytes = sum(heap_bytes(values[-1]) for values in sample) // len(sample)

    def take(self) -> dict[int, list[Entry]]:
        """Return what is held by partition, and hold nothing any more."""
        partitions: dict[int, list[Entry]] = defaultdict(list)
        groups, self._groups, self.count, self.full = self._groups, defaultdict(list), 0, False
        sort_by, num_shards = self._op.sort_by, self._op.num_shards
        while groups:
            found, values = groups.popitem()
            if sort_by is not None and len(values) > 1:
                values.sort(key=sort_by)
            if type(found) is _Encoded:
                encoded, key = found.data, found.key
            else:
                encoded, key = encode_key(found), found
            if values:  # a combiner may leave none
                partitions[partition_of(encoded, num_shards)].append((encoded, key, values))
        return partitions


class _Range:
    """Items in the order of a sort, split by ranges of the key."""

    item_bytes = 1
    full = False
    """Nothing is combined."""

    def __init__(self, op: Scatter, on_bad: OnBad) -> None:
        assert op.ranges is not None
        self._key = op.key
        self._on_bad = on_bad
        self._bounds = op.ranges.bounds
        self._order = order_of(op.ranges.reverse)
        self._entries: list[Entry] = []

    @property
    def count(self) -> int:
        """Items held."""
        return len(self._entries)

    def collect(self, block: list[Any]) -> None:
        keys, block = find_keys(self._key, block, self._on_bad)
        order = self._order
        self._entries += [(order(key), None, [item]) for key, item in zip(keys, block, strict=True)]

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
