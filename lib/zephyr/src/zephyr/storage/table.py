"""The chunks that a task made, packed: a driver holds a table per mapper, not an object per mapper and reducer."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zephyr.storage.refs import ChunkRef, InlineRef, SliceRef, StorageRef

_ROW = struct.Struct("<IiQqQ?")
"""Shard, number of the path (or, from -1 down, of the inline chunk), first byte, length (-1 for the rest), items, columnar."""


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """Chunks by the shard they belong to, those of a shard in order."""

    rows: bytes
    """Packed rows, sorted by shard."""
    paths: tuple[str, ...]
    """The files that rows name."""
    inline: tuple[InlineRef | SliceRef, ...]
    """The chunks that are in no file of their own."""

    @staticmethod
    def pack(chunks: Sequence[tuple[int, ChunkRef]]) -> ChunkTable:
        """Return a table of (shard, chunk) pairs."""
        rows = bytearray()
        paths: dict[str, int] = {}
        inline: list[InlineRef | SliceRef] = []
        for shard, ref in sorted(chunks, key=lambda pair: pair[0]):
            if isinstance(ref, StorageRef):
                number = paths.setdefault(ref.path, len(paths))
                length = -1 if ref.length is None else ref.length
                rows += _ROW.pack(shard, number, ref.start, length, ref.count, ref.columnar)
            else:
                inline.append(ref)
                rows += _ROW.pack(shard, -len(inline), 0, 0, ref.count, ref.columnar)
        return ChunkTable(bytes(rows), tuple(paths), tuple(inline))

    def of_shard(self, shard: int) -> Iterator[ChunkRef]:
        """Yield the chunks of a shard, in order."""
        count = len(self.rows) // _ROW.size
        for row in range(bisect_left(range(count), shard, key=self._shard), count):
            if self._shard(row) != shard:
                return
            yield self._chunk(row)

    @property
    def span(self) -> range:
        """From the first shard that has chunks here to the last."""
        count = len(self.rows) // _ROW.size
        return range(self._shard(0), self._shard(count - 1) + 1) if count else range(0)

    @property
    def count(self) -> int:
        """Number of items in all chunks."""
        return sum(items for _, _, _, _, items, _ in _ROW.iter_unpack(self.rows))

    @property
    def stored_bytes(self) -> int:
        """Bytes of all chunks."""
        stored: int = sum(max(0, length) for _, _, _, length, _, _ in _ROW.iter_unpack(self.rows))
        return stored + sum(len(ref.data) for ref in self.inline if isinstance(ref, InlineRef))

    def __iter__(self) -> Iterator[tuple[int, ChunkRef]]:
        for row in range(len(self.rows) // _ROW.size):
            yield self._shard(row), self._chunk(row)

    def _shard(self, row: int) -> int:
        return int(_ROW.unpack_from(self.rows, row * _ROW.size)[0])

    def _chunk(self, row: int) -> ChunkRef:
        _, number, start, length, items, columnar = _ROW.unpack_from(self.rows, row * _ROW.size)
        if number >= 0:
            return StorageRef(self.paths[number], items, start, None if length < 0 else length, columnar)
        found: ChunkRef = self.inline[-number - 1]
        return found
