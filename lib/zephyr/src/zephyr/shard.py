"""A shard between two stages: references to its chunks, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from zephyr.io.columnar import ColumnBatches
from zephyr.storage import ChunkRef, SliceRef


@dataclass(frozen=True, slots=True)
class Shard:
    """Part of a dataset that is processed as one."""

    chunks: tuple[ChunkRef, ...] = ()
    """Where its items are, in order."""
    label: str | None = None
    """The file it comes from, for messages; None when it is not one file."""

    @property
    def count(self) -> int:
        """Number of items."""
        return sum(chunk.count for chunk in self.chunks)

    def iter_chunks(self) -> Iterator[Iterator[Any]]:
        """Yield an iterator over the items of each chunk, wherever it is kept."""
        for chunk in self.chunks:
            yield iter(chunk)

    def stream(self) -> Iterable[Any]:
        """Return the items, to be read once: as record batches if all chunks hold them, else one by one."""
        if self.chunks and all(chunk.columnar for chunk in self.chunks):
            return ColumnBatches(batch for chunk in self.chunks for batch in chunk.iter_encoded())
        return iter(self)

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.iter_chunks():
            yield from chunk


def reshard(shards: Sequence[Shard], num_shards: int) -> list[Shard]:
    """Return the same items in the same order in ``num_shards`` shards whose sizes differ by at most one."""
    total = sum(shard.count for shard in shards)
    refs = [(ref, ref.count) for shard in shards for ref in shard.chunks]
    result = []
    at, used = 0, 0  # the ref to take from, and how many of its items are taken
    for number in range(num_shards):
        wanted = total * (number + 1) // num_shards - total * number // num_shards
        chunks: list[ChunkRef] = []
        while wanted:
            ref, count = refs[at]
            taken = min(wanted, count - used)
            if taken:
                chunks.append(_slice(ref, used, taken))
            wanted -= taken
            used += taken
            if used == count:
                at, used = at + 1, 0
        result.append(Shard(tuple(chunks)))
    return result


def _slice(ref: ChunkRef, skip: int, count: int) -> ChunkRef:
    if count == ref.count:
        return ref
    if isinstance(ref, SliceRef):
        return SliceRef(ref.ref, ref.skip + skip, count)
    return SliceRef(ref, skip, count)
