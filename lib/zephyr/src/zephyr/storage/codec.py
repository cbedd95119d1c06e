"""The chunk format: a sequence of frames, each a batch of items that can be checked and decoded alone.

    magic "ZEP1", u64 length of the body, u32 number of items, u64 xxh3 of the body (seeded with the number of items), body

The body is a list of items as pickle protocol 5, compressed by zstd. Values, unlike those of JSON or msgpack, come back with
the type they had. Decoding runs code of whoever wrote the bytes: read chunks of your own jobs only.
"""

from __future__ import annotations

import pickle
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
import xxhash
import zstandard

from zephyr.errors import ChunkCorrupted, StageError

MAGIC = b"ZEP1"
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
    body = _compressor().compress(raw)
    return HEADER.pack(MAGIC, len(body), len(items), xxhash.xxh3_64_intdigest(body, len(items))) + body, len(raw)


def encode_items(items: Sequence[Any]) -> bytes:
    """Return items as frames of bounded size; nothing for no items. Raises as ``encode_frame`` does."""
    frames = []
    size = FrameSize()
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

    def __init__(self) -> None:
        self.items = 16

    def observe(self, items: int, raw_bytes: int) -> None:
        """Take note of a frame: the next one grows or shrinks towards the target, at most eightfold."""
        fitting = TARGET_FRAME_BYTES * items // max(1, raw_bytes)
        self.items = max(1, min(fitting, 8 * self.items, MAX_FRAME_ITEMS))


def frame_length(header: bytes | memoryview, where: str) -> int:
    """Return the bytes of a whole frame from its header.

    Raises:
        ChunkCorrupted: naming ``where`` if these are no header's bytes.
    """
    if len(header) < HEADER.size:
        raise ChunkCorrupted(where, f"it ends within a frame's header, after {len(header)} of {HEADER.size} bytes")
    magic, length, _, _ = HEADER.unpack_from(header)
    if magic != MAGIC:
        raise ChunkCorrupted(where, f"a frame begins with {magic!r} instead of {MAGIC!r}")
    return HEADER.size + int(length)


def decode_frame(frame: bytes | memoryview, where: str) -> list[Any]:
    """Return the items of one frame.

    Raises:
        ChunkCorrupted: naming ``where`` if the bytes are not those that were written.
    """
    if frame_length(frame, where) != len(frame):
        raise ChunkCorrupted(where, f"a frame has {len(frame)} of {frame_length(frame, where)} bytes")
    _, _, count, checksum = HEADER.unpack_from(frame)
    body = memoryview(frame)[HEADER.size :]
    if xxhash.xxh3_64_intdigest(body, count) != checksum:
        raise ChunkCorrupted(where, "the checksum of a frame does not match")
    items: list[Any] = pickle.loads(_decompressor().decompress(body))
    return items


def decode_frames(data: bytes | memoryview, where: str) -> Iterator[list[Any]]:
    """Yield the batches of a sequence of frames; raises as ``decode_frame`` does."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        length = frame_length(view[at : at + HEADER.size], where)
        yield decode_frame(view[at : at + length], where)
        at += length


def pickled_bytes(item: Any) -> int:
    """Return the size of an item when pickled. Raises as ``encode_frame`` does."""
    return len(_pickle([item]))


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
