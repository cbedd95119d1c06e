"""The mapper's side: collect items by key, combine them, and write them as runs sorted by key, one range per partition.

All runs of an attempt are in one object; their byte ranges are in the references that are returned, so no reader ever opens an
index. Memory is bounded: when the collected items reach a limit they are combined, and written as a run if that is not enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from types import GeneratorType
from typing import Any

from zephyr.shuffle.keys import encode_key, is_plain, partition_of
from zephyr.storage import ChunkRef, InlineRef, StorageRef
from zephyr.storage.codec import encode_items, pickled_bytes
from zephyr.storage.files import SpillFile

MAX_HELD_ITEMS = 200_000
"""Items that one mapper holds before it combines or writes them."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""The same in pickled bytes, estimated from a sample of the items."""
MAX_VALUES_PER_ENTRY = 1024
"""Values of one key that are encoded as one; longer lists are split, so that no frame grows without limit."""

Entry = tuple[bytes, Any, list[Any]]
"""Encoded key, key, values in source order; a run is a list of entries sorted by the first."""


class Scatterer:
    """One mapper's attempt. Not thread-safe."""

    def __init__(
        self,
        key: Callable[[Any], Any],
        num_shards: int,
        combiner: Callable[[Any, Any], Any] | None,
        spill_path: str,
        spill_threshold_bytes: float,
    ) -> None:
        self._key = key
        self._combiner = combiner
        self._groups: dict[Any, list[Any]] = {}
        self._held = 0  # items in _groups
        self._measure = _Measure()
        self._runs = _RunWriter(num_shards, spill_path, spill_threshold_bytes)

    def add(self, items: Iterable[Any]) -> None:
        """Take in the items of a shard; shards come in their order.

        Raises:
            StageError: if a key or an item cannot be encoded. User exceptions pass.
        """
        iterator = iter(items)
        while block := list(itertools.islice(iterator, self._measure.block_items)):
            self._measure.observe(block[-1])
            self._collect(block)
            self._held += len(block)
            if self._held >= self._measure.limit_items:
                self._shrink()

    def finish(self) -> list[tuple[int, ChunkRef]]:
        """Return (partition, run) in an order in which the values of each key keep theirs. Raises as ``add`` does."""
        if self._combiner is not None:
            self._combine()
        self._write_run()
        return self._runs.finish()

    def abort(self) -> None:
        """Release the file. Idempotent."""
        self._runs.close()

    def _collect(self, block: list[Any]) -> None:
        groups, key = self._groups, self._key
        for item in block:
            found = key(item)
            if type(found) is not str:  # strings need no thought, and are most keys
                found = found if is_plain(found) else _Encoded(found)
            try:
                groups[found].append(item)
            except KeyError:
                groups[found] = [item]

    def _shrink(self) -> None:
        if self._combiner is not None:
            self._combine()
            self._held = sum(map(len, self._groups.values()))
            if self._held <= self._measure.limit_items // 2:
                return
        self._write_run()

    def _combine(self) -> None:
        assert self._combiner is not None
        for found, values in self._groups.items():
            if len(values) > 1:
                result = self._combiner(_original(found), iter(values))
                self._groups[found] = list(result) if isinstance(result, GeneratorType) else [result]

    def _write_run(self) -> None:
        self._runs.write((_encoded(found), _original(found), values) for found, values in self._groups.items() if values)
        self._groups, self._held = {}, 0


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


class _Measure:
    """Estimates how many items fit in memory from the pickled size of some of them."""

    def __init__(self) -> None:
        self.block_items = 1
        self.limit_items = MAX_HELD_ITEMS
        self._bytes = 0
        self._samples = 0

    def observe(self, item: Any) -> None:
        """Take note of one item of a block."""
        self._bytes += pickled_bytes(item)
        self._samples += 1
        mean = max(1, self._bytes // self._samples)
        self.limit_items = max(1, min(MAX_HELD_ITEMS, MAX_HELD_BYTES // mean))
        self.block_items = max(1, min(2 * self.block_items, 1024, self.limit_items // 8))


class _RunWriter:
    """Holds encoded runs until they reach the threshold; from then on they go to one file."""

    def __init__(self, num_shards: int, spill_path: str, spill_threshold_bytes: float) -> None:
        self._num_shards = num_shards
        self._threshold_bytes = spill_threshold_bytes
        self._file = SpillFile(spill_path)
        self._held: list[tuple[int, InlineRef]] = []
        self._held_bytes = 0
        self._spilled: list[tuple[int, ChunkRef]] = []

    def write(self, entries: Iterable[Entry]) -> None:
        partitions: dict[int, list[Entry]] = {}
        for entry in entries:
            partitions.setdefault(partition_of(entry[0], self._num_shards), []).append(entry)
        for partition, run in sorted(partitions.items()):
            run.sort(key=itemgetter(0))
            split = list(itertools.chain.from_iterable(map(_split, run)))
            ref = InlineRef(encode_items(split), len(split))
            self._held.append((partition, ref))
            self._held_bytes += len(ref.data)
            if self._held_bytes >= self._threshold_bytes or self._spilled:
                self._spill()

    def finish(self) -> list[tuple[int, ChunkRef]]:
        self._file.close()
        return [*self._spilled, *self._held]

    def close(self) -> None:
        self._file.close()

    def _spill(self) -> None:
        for partition, ref in self._held:
            start = self._file.append(ref.data)
            self._spilled.append((partition, StorageRef(self._file.path, ref.count, start, len(ref.data))))
        self._held = []


def _split(entry: Entry) -> Iterator[Entry]:
    encoded, key, values = entry
    if len(values) <= MAX_VALUES_PER_ENTRY:
        yield entry
        return
    for start in range(0, len(values), MAX_VALUES_PER_ENTRY):
        yield encoded, key, values[start : start + MAX_VALUES_PER_ENTRY]
