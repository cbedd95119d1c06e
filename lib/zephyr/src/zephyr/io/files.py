"""Find and open files on any fsspec storage."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from zephyr.io.zst import ZstdReader
from zephyr.storage.files import is_local, locate

try:
    from isal import igzip as igzip
except ImportError:  # no wheel for this machine
    igzip = None

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def list_files(pattern: str) -> list[tuple[str, int]]:
    """Return (path, size in bytes) of the files that match, sorted by path."""
    found: dict[str, int] = {}
    for single in expand_braces(pattern):
        fs, inner = locate(single)
        found.update(_list_local(inner) if is_local(fs) else _list_remote(fs, inner))
    return sorted(found.items())


def _list_local(pattern: str) -> Iterator[tuple[str, int]]:
    # fsspec's glob walks the whole tree below the first star; this one enters only directories that match.
    for path in map(Path, glob.iglob(pattern, recursive=True, include_hidden=True)):  # noqa: PTH207
        with suppress(FileNotFoundError):  # a dangling link, or removed meanwhile
            info = path.stat()
            if stat.S_ISREG(info.st_mode):
                yield str(path), info.st_size


def _list_remote(fs: Any, pattern: str) -> Iterator[tuple[str, int]]:
    for path, info in fs.glob(pattern, detail=True).items():
        if info["type"] == "file":
            yield fs.unstrip_protocol(path), info["size"] or 0


def expand_braces(pattern: str) -> list[str]:
    """Return the patterns that ``{a,b}`` stands for; braces without a comma are left alone."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [single for choice in match[1].split(",") for single in expand_braces(before + choice + after)]


def absolute_path(path: str) -> str:
    """Return a local path such that it means the same in other processes; URLs as they are."""
    return path if "://" in path or "::" in path else str(Path(path).expanduser().absolute())


@contextmanager
def open_binary(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed by suffix (.gz, .zst, .zstd, .bz2, .xz)."""
    fs, inner = locate(path)
    with Path(inner).open("rb") if is_local(fs) else fs.open(inner, "rb") as raw, _decompress(raw, Path(path).suffix) as file:
        yield file


def _decompress(raw: Any, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if igzip is None else igzip.IGzipFile(fileobj=raw))
    if suffix in (".zst", ".zstd"):
        return io.BufferedReader(ZstdReader(raw))
    if suffix == ".bz2":
        return cast("IO[bytes]", bz2.BZ2File(raw))
    if suffix == ".xz":
        return cast("IO[bytes]", lzma.LZMAFile(raw))
    return cast("IO[bytes]", raw)
