"""References to chunks: what travels between stages instead of the items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from zephyr.errors import ChunkCorrupted
from zephyr.io.columnar import ColumnBatches, batch_records
from zephyr.storage.codec import decode_any, split_frames
from zephyr.storage.files import file_length, iter_stored_frames, read_head

if TYPE_CHECKING:
    from typing import TypeAlias

    import pyarrow as pa

    Batch: TypeAlias = "list[Any] | pa.RecordBatch"

HEAD_BYTES = 8


class _Chunk:
    """What all references can do, given ``iter_encoded``."""

    __slots__ = ()

    def iter_encoded(self) -> Iterator[Batch]:
        """Yield the items in the batches in which they were encoded: lists, or record batches of a columnar chunk.

        Raises:
            ChunkMissing, ChunkCorrupted: while iterating.
        """
        raise NotImplementedError

    def iter_batches(self) -> Iterator[list[Any]]:
        """Yield the items in the batches in which they were encoded, as lists; raises as ``iter_encoded`` does."""
        for batch in self.iter_encoded():
            yield batch if isinstance(batch, list) else batch_records(batch)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.iter_batches():
            yield from batch


@dataclass(frozen=True, slots=True)
class InlineRef(_Chunk):
    """A chunk that travels with its reference."""

    data: bytes = field(repr=False)
    """The items as frames (see ``zephyr.storage.codec``)."""
    count: int
    """Number of items."""
    columnar: bool = False
    """Whether the items are record batches."""

    def iter_encoded(self) -> Iterator[Batch]:
        frames = split_frames(self.data, "inline")
        return _counted((decode_any(frame, "inline") for frame in frames), self.count, "inline")


@dataclass(frozen=True, slots=True)
class StorageRef(_Chunk):
    """A chunk that is a file, or a byte range of one. The file may also be a Parquet or Vortex file: its content tells."""

    path: str
    """fsspec URL or local path."""
    count: int
    """Number of items."""
    start: int = 0
    """First byte of the chunk in the file."""
    length: int | None = None
    """Bytes of the chunk; None up to the end of the file."""
    columnar: bool = False
    """Whether the items are record batches."""

    def iter_encoded(self) -> Iterator[Batch]:
        if self.length is None:
            batches = _iter_foreign(self.path)
            if batches is not None:
                return _counted(batches, self.count, self.path)
        length = file_length(self.path) - self.start if self.length is None else self.length
        frames = iter_stored_frames(self.path, self.start, length)
        return _counted((decode_any(frame, where) for frame, where in frames), self.count, self.path)


@dataclass(frozen=True, slots=True)
class SliceRef(_Chunk):
    """Some consecutive items of another chunk."""

    ref: InlineRef | StorageRef
    """The whole chunk."""
    skip: int
    """Items before the first."""
    count: int
    """Number of items."""

    @property
    def columnar(self) -> bool:
        """Whether the items are record batches."""
        return self.ref.columnar

    def iter_encoded(self) -> Iterator[Batch]:
        skip, left = self.skip, self.count
        for batch in self.ref.iter_encoded():
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


def _iter_foreign(path: str) -> Iterator[Batch] | None:
    from zephyr.io.arrow import sniff  # imports pyarrow, which chunks of Python items do without

    kind = sniff(read_head(path, HEAD_BYTES))
    if kind is None:
        return None
    from zephyr.io.load import reader_for

    found = reader_for(f"x.{kind}").read(path)
    assert isinstance(found, ColumnBatches)
    return found.iter_batches()


def _counted(batches: Iterator[Batch], count: int, where: str) -> Iterator[Batch]:
    found = 0
    for batch in batches:
        found += len(batch)
        yield batch
    if found != count:
        raise ChunkCorrupted(where, f"it holds {found} items instead of {count}")
