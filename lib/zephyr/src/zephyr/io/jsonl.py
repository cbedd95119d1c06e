"""Write files of JSON lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from itertools import islice
from typing import IO, Any, cast

import msgspec
import zstandard

from zephyr.io.files import igzip
from zephyr.io.publish import published

LINES_PER_BLOCK = 1024
GZIP_LEVEL = 2
"""The middle of isal's levels 0 to 3."""
STDLIB_GZIP_LEVEL = 6
ZSTD_LEVEL = 3


def write_jsonl(path: str, records: Iterable[Any]) -> int:
    """Write a record per line to a file that appears when all are written; return their number.

    Compressed by suffix (.gz, .zst, .zstd). Dataclasses, datetimes, decimals, sets and numpy values are written as JSON can
    hold them.

    Raises:
        TypeError: for a record that JSON cannot hold, with a note that tells which.
        OutputConflict, OSError: if the file cannot be published.
    """
    encoder = msgspec.json.Encoder(enc_hook=_plain)
    iterator = iter(records)
    count = 0
    with published(path) as draft:
        file = _compress(draft, path)
        while block := list(islice(iterator, LINES_PER_BLOCK)):
            file.write(_encode(encoder, block, count))
            count += len(block)
        if file is not draft:
            file.close()
    return count


def _encode(encoder: msgspec.json.Encoder, block: list[Any], first: int) -> bytes:
    try:
        return encoder.encode_lines(block)
    except Exception:
        for number, record in enumerate(block, first):
            try:
                encoder.encode(record)
            except Exception as error:
                error.add_note(f"while encoding record {number}: {record!r:.200}")
                raise
        raise


def _plain(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _compress(draft: IO[bytes], path: str) -> IO[bytes]:
    if path.endswith(".gz"):
        if igzip is None:
            return cast("IO[bytes]", gzip.GzipFile("", "wb", STDLIB_GZIP_LEVEL, draft, mtime=0))
        return cast("IO[bytes]", igzip.IGzipFile("", "wb", GZIP_LEVEL, draft, mtime=0))
    if path.endswith((".zst", ".zstd")):
        writer = zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(cast("Any", draft), closefd=False)
        return cast("IO[bytes]", writer)
    return draft
