"""Write files of bytes, and what all writers of one encoded item after another share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from zephyr.io.compression import check_writable, create_compressor
from zephyr.io.formats import OnBadRecord, StreamWriter, Written, raise_bad_record
from zephyr.storage.codec import FrameSize


@dataclass(frozen=True, slots=True)
class BinaryWriter(StreamWriter):
    """Writes items of bytes one behind the other, compressed by suffix (.gz, .zst, .zstd). An item of another type is bad."""

    def check_path(self, path: str) -> None:
        check_writable(path)

    def write(self, file: IO[bytes], path: str, items: Iterable[Any], on_bad: OnBadRecord = raise_bad_record) -> Written:
        return write_encoded(file, path, items, _join, on_bad)


def _join(items: list[Any]) -> bytes:
    for item in items:
        if not isinstance(item, (bytes, bytearray, memoryview)):
            raise TypeError(f"an item of type {type(item).__name__} cannot be written as bytes; encode it first")
    return b"".join(items)


def write_encoded(
    file: IO[bytes],
    path: str,
    items: Iterable[Any],
    encode: Callable[[list[Any]], bytes],
    on_bad: OnBadRecord,
    level: int | None = None,
) -> Written:
    """Write ``encode(block)`` for blocks of items, compressed by the suffix of ``path``.

    ``encode`` must give for a block what it gives for its items one by one. An item it raises for is told to ``on_bad`` and
    left out. Raises as ``create_compressor`` does.
    """
    compressor = create_compressor(path, level)
    iterator, size = iter(items), FrameSize()
    seen = rows = 0
    while block := list(islice(iterator, size.items)):
        try:
            data, written = encode(block), len(block)
        except Exception:
            data, written = _encode_each(path, block, seen, encode, on_bad)
        file.write(compressor.compress(data))
        size.observe(len(block), len(data))
        seen, rows = seen + len(block), rows + written
    file.write(compressor.flush())
    return Written(rows)


def _encode_each(
    path: str, block: list[Any], seen: int, encode: Callable[[list[Any]], bytes], on_bad: OnBadRecord
) -> tuple[bytes, int]:
    encoded = []
    for number, item in enumerate(block, seen + 1):
        try:
            encoded.append(encode([item]))
        except Exception as error:
            error.add_note(f"while writing {path}")
            on_bad(number, item, error)
    return b"".join(encoded), len(encoded)
