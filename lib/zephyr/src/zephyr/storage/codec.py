"""The chunk format: a sequence of frames, each a batch of items that can be checked and decoded alone.

    magic, u64 length of the body, u32 number of items, u64 xxh3 of the body (seeded with the number of items), body

The body of a frame "ZEP1" is a list of items as pickle protocol 5, compressed by zstd. Values, unlike those of JSON or msgpack,
come back with the type they had. Decoding runs code of whoever wrote the bytes: read chunks of your own jobs only. The body of
a frame "ZEA1" is a record batch as an Arrow stream, compressed by zstd; its items are the rows.
"""

from __future__ import annotations

import pickle
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cloudpickle
import xxhash
import zstandard

from zephyr.errors import ChunkCorrupted, StageError
from zephyr.io.columnar import batch_records

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"ZEP1"
ARROW_MAGIC = b"ZEA1"
HEADER = struct.Struct("<4sQIQ")
ZSTD_LEVEL = 1
TARGET_FRAME_BYTES = 256 * 1024
"""Pickled size at which a frame is closed."""
MAX_FRAME_ITEMS = 16_384

_codecs = threading.local()  # compressors must not be shared between threads


def encode_frame(items: Sequence[Any]) -> tuple[bytes, int]:
    """Return (frame, bytes it has before compression).

    Raises:
        StageError: if an item cannot be pickled; names its type and the reason.
    """
    raw = _pickle(items)
    return _frame(MAGIC, _compressor().compress(raw), len(items)), len(raw)


def encode_batch(batch: pa.RecordBatch) -> bytes:
    """Return the frame of a record batch."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return _frame(ARROW_MAGIC, sink.getvalue().to_pybytes(), batch.num_rows)


def _frame(magic: bytes, body: bytes, count: int) -> bytes:
    return HEADER.pack(magic, len(body), count, xxhash.xxh3_64_intdigest(body, count)) + body


def encode_items(items: Sequence[Any], size: FrameSize | None = None) -> bytes:
    """Return items as frames of about the size that is given, or learnt; nothing for no items. Raises as ``encode_frame``."""
    frames = []
    size = FrameSize() if size is None else size
    start = 0
    while start < len(items):
        batch = items[start : start + size.items]
        frame, raw_bytes = encode_frame(batch)
        size.observe(len(batch), raw_bytes)
        frames.append(frame)
        start += len(batch)
    return b"".join(frames)


class FrameSize:
    """How many items to put into the next frame, learnt from the measured size of the last ones."""

    def __init__(self, target_bytes: int = TARGET_FRAME_BYTES) -> None:
        self.items = 1  # nothing is known of the first
        self._target_bytes = target_bytes

    def observe(self, items: int, raw_bytes: int) -> None:
        """Take note of a frame: the next one grows or shrinks towards the target, at most eightfold."""
        fitting = self._target_bytes * items // max(1, raw_bytes)
        self.items = max(1, min(fitting, 8 * self.items, MAX_FRAME_ITEMS))


def frame_length(header: bytes | memoryview, where: str) -> int:
    """Return the bytes of a whole frame from its header.

    Raises:
        ChunkCorrupted: naming ``where`` if these are no header's bytes.
    """
    if len(header) < HEADER.size:
        raise ChunkCorrupted(where, f"it ends within a frame's header, after {len(header)} of {HEADER.size} bytes")
    magic, length, _, _ = HEADER.unpack_from(header)
    if magic not in (MAGIC, ARROW_MAGIC):
        raise ChunkCorrupted(where, f"a frame begins with {magic!r} instead of {MAGIC!r}")
    return HEADER.size + int(length)


def decode_frame(frame: bytes | memoryview, where: str) -> list[Any]:
    """Return the items of one frame.

    Raises:
        ChunkCorrupted: naming ``where`` if the bytes are not those that were written.
    """
    decoded = decode_any(frame, where)
    return decoded if isinstance(decoded, list) else batch_records(decoded)


def decode_any(frame: bytes | memoryview, where: str) -> list[Any] | pa.RecordBatch:
    """Return the items of one frame as they were encoded; raises as ``decode_frame`` does."""
    if frame_length(frame, where) != len(frame):
        raise ChunkCorrupted(where, f"a frame has {len(frame)} of {frame_length(frame, where)} bytes")
    magic, _, count, checksum = HEADER.unpack_from(frame)
    body = memoryview(frame)[HEADER.size :]
    if xxhash.xxh3_64_intdigest(body, count) != checksum:
        raise ChunkCorrupted(where, "the checksum of a frame does not match")
    if magic == ARROW_MAGIC:
        import pyarrow as pa

        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            return reader.read_next_batch()
    items: list[Any] = pickle.loads(_decompressor().decompress(body))
    return items


def split_frames(data: bytes | memoryview, where: str) -> Iterator[memoryview]:
    """Yield the frames of a sequence of them; raises as ``decode_frame`` does."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        length = frame_length(view[at : at + HEADER.size], where)
        yield view[at : at + length]
        at += length


def _pickle(items: Sequence[Any]) -> bytes:
    """Pickle with the fast pickler; with cloudpickle where that refuses or where a name of ``__main__`` would be lost."""
    batch = items if isinstance(items, list) else list(items)
    try:
        body = pickle.dumps(batch, 5)
        if b"__main__" not in body:
            return body
    except Exception:  # whatever a reducer raises: cloudpickle gets its chance, and its error is the one to show
        pass
    try:
        return bytes(cloudpickle.dumps(batch, 5))
    except Exception as error:
        if len(batch) > 1:
            for item in batch:
                _pickle([item])  # raises for the item that is to blame
        raise StageError(
            f"an item of type {type(batch[0]).__name__} cannot be pickled: {error}. Open files, sockets, locks and the like "
            "cannot pass between stages: create them inside the function that needs them"
        ) from error


def _compressor() -> zstandard.ZstdCompressor:
    found: zstandard.ZstdCompressor | None = getattr(_codecs, "compressor", None)
    if found is None:
        found = _codecs.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_codecs, "decompressor", None)
    if found is None:
        found = _codecs.decompressor = zstandard.ZstdDecompressor()
    return found
