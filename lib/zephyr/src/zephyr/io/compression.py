"""Compression by the suffix of a file's name.

Read: .gz, .zst, .zstd, .bz2, .xz, also of several members or frames. Written: .gz, .zst, .zstd; the bytes depend on nothing but
what is written (no time, no name). A compressed file of 0 bytes is one that was cut short, not an empty one.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import PurePath
from typing import IO, Any, Protocol, cast

import zstandard

from zephyr.errors import PlanError
from zephyr.io.zst import ZstdReader

try:
    from isal import igzip, isal_zlib
except ImportError:  # no wheel for this machine
    igzip = isal_zlib = None  # type: ignore[assignment]

GZIP_LEVEL = 2
ISAL_LEVELS = range(4)
"""Levels of isal's; it is several times as fast as zlib, which takes the higher ones."""
ZSTD_LEVEL = 3
LEVELS = {".gz": range(10), ".zst": range(1, 23), ".zstd": range(1, 23)}
"""Suffixes that can be written, and their levels."""
READABLE = frozenset({*LEVELS, ".bz2", ".xz"})
FOREIGN = frozenset({".7z", ".br", ".lz4", ".lzma", ".snappy", ".sz", ".z", ".zip"})
"""Suffixes that are known to mean something else than plain bytes."""


def compression_of(path: str) -> str:
    """Return the suffix that tells the compression, in lower case; an empty string for plain files."""
    suffix = PurePath(path).suffix.lower()
    return suffix if suffix in READABLE or suffix in FOREIGN else ""


def check_writable(path: str, level: int | None = None) -> None:
    """Make sure that a file of this name can be written with this level.

    Raises:
        PlanError: if not; names the path and what is possible.
    """
    suffix = compression_of(path)
    if suffix and suffix not in LEVELS:
        raise PlanError(
            f"cannot write {path}: {suffix} is not supported for writing. End the name with .gz or .zst, or plainly"
        )
    if level is None:
        return
    if not suffix:
        raise PlanError(
            f"cannot write {path} with level={level}: it is not compressed. End the name with .gz or .zst, or omit level"
        )
    if level not in LEVELS[suffix]:
        levels = LEVELS[suffix]
        raise PlanError(f"cannot write {path} with level={level}: levels of {suffix} are {levels.start} to {levels.stop - 1}")


def decompress(raw: IO[bytes], path: str) -> IO[bytes]:
    """Return a file of the bytes that ``path``, opened as ``raw``, stands for. ``raw`` stays its owner's to close.

    Raises:
        ValueError: for a compression that cannot be read; names it.
        EOFError: for a compressed file of 0 bytes; others, if it is damaged, while it is read.
    """
    suffix = compression_of(path)
    if not suffix:
        return raw
    if suffix in FOREIGN:
        raise ValueError(f"cannot read {path}: {suffix} is not supported. Use one of {', '.join(sorted(READABLE))}")
    if not raw.read(1):
        raise EOFError("a compressed file of 0 bytes: it was cut short")
    raw.seek(0)
    return cast("IO[bytes]", _decompress(raw, suffix))


def _decompress(raw: IO[bytes], suffix: str) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=raw) if igzip is None else igzip.IGzipFile(fileobj=raw)
    if suffix == ".bz2":
        return bz2.BZ2File(raw)
    if suffix == ".xz":
        return lzma.LZMAFile(raw)
    return io.BufferedReader(ZstdReader(raw))


class Compressor(Protocol):
    """Turns bytes into compressed bytes. What was not flushed is lost, so that a failure leaves no valid-looking file."""

    def compress(self, data: bytes, /) -> bytes:
        """Take bytes, and return those that are ready."""

    def flush(self) -> bytes:
        """Return the rest. Nothing may follow."""


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def create_compressor(path: str, level: int | None = None) -> Compressor:
    """Return what makes the bytes of a file with this name. Raises as ``check_writable`` does."""
    check_writable(path, level)
    suffix = compression_of(path)
    if suffix == ".gz":
        return _gzip_compressor(GZIP_LEVEL if level is None else level)
    if suffix:
        zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL if level is None else level, write_checksum=True)
        return cast("Compressor", zstd.compressobj())
    return _Plain()


def _gzip_compressor(level: int) -> Compressor:
    if isal_zlib is None or level not in ISAL_LEVELS:
        return cast("Compressor", zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS))
    return cast("Compressor", isal_zlib.compressobj(level, isal_zlib.DEFLATED, 16 + isal_zlib.MAX_WBITS))
