"""References to chunks: what travels between stages instead of the items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from zephyr.errors import ChunkCorrupted
from zephyr.storage.codec import decode_frames
from zephyr.storage.files import file_length, iter_stored_batches


@dataclass(frozen=True, slots=True)
class InlineRef:
    """A chunk that travels with its reference."""

    data: bytes = field(repr=False)
    """The items as frames (see ``zephyr.storage.codec``)."""
    count: int
    """Number of items."""

    def iter_batches(self) -> Iterator[list[Any]]:
        """Yield the items in the batches in which they were encoded."""
        return _counted(decode_frames(self.data, "inline"), self.count, "inline")

    def __iter__(self) -> Iterator[Any]:
        for batch in self.iter_batches():
            yield from batch


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A chunk that is a file, or a byte range of one."""

    path: str
    """fsspec URL or local path."""
    count: int
    """Number of items."""
    start: int = 0
    """First byte of the chunk in the file."""
    length: int | None = None
    """Bytes of the chunk; None up to the end of the file."""

    def iter_batches(self) -> Iterator[list[Any]]:
        """Yield the items in the batches in which they were encoded; reads while it is iterated.

        Raises:
            ChunkMissing, ChunkCorrupted: while iterating.
        """
        length = file_length(self.path) - self.start if self.length is None else self.length
        return _counted(iter_stored_batches(self.path, self.start, length), self.count, self.path)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.iter_batches():
            yield from batch


@dataclass(frozen=True, slots=True)
class SliceRef:
    """Some consecutive items of another chunk."""

    ref: InlineRef | StorageRef
    """The whole chunk."""
    skip: int
    """Items before the first."""
    count: int
    """Number of items."""

    def iter_batches(self) -> Iterator[list[Any]]:
        """Yield the items in the batches in which they were encoded, cut at both ends."""
        skip, left = self.skip, self.count
        for batch in self.ref.iter_batches():
            if skip < len(batch) and left:
                part = batch[skip : skip + left]
                left -= len(part)
                yield part
            skip = max(0, skip - len(batch))
            if not left:
                return

    def __iter__(self) -> Iterator[Any]:
        return islice((item for batch in self.iter_batches() for item in batch), self.count)


ChunkRef = InlineRef | StorageRef | SliceRef


def _counted(batches: Iterator[list[Any]], count: int, where: str) -> Iterator[list[Any]]:
    found = 0
    for batch in batches:
        found += len(batch)
        yield batch
    if found != count:
        raise ChunkCorrupted(where, f"it holds {found} items instead of {count}")
