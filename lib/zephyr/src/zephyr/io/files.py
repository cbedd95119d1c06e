"""Find and open files on any fsspec storage."""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from zephyr.io.compression import decompress
from zephyr.storage.files import is_local, locate

_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "updated", "created")
"""Names that file systems have for what tells a version of a file from the next; the first known counts."""
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def list_files(pattern: str) -> list[tuple[str, int, str]]:
    """Return (path, size in bytes, version) of the files that match, sorted by path.

    The version changes when the file does: its tag or its time of change. What writes leave beside their files does not match.
    """
    found: dict[str, tuple[int, str]] = {}
    for single in expand_braces(pattern):
        fs, inner = locate(single)
        found.update(_list_local(inner) if is_local(fs) else _list_remote(fs, inner))
    wanted = "_dead_letters" in pattern
    return sorted((path, *rest) for path, rest in found.items() if not _is_own(path, wanted))


def _is_own(path: str, dead_letters_wanted: bool) -> bool:
    directory, _, name = path.rpartition("/")
    if directory.endswith("/_dead_letters") and not dead_letters_wanted:
        return True
    return name in ("_manifest.json", "_SUCCESS") or (name.startswith(".") and name.endswith(".draft"))


def _list_local(pattern: str) -> Iterator[tuple[str, tuple[int, str]]]:
    # fsspec's glob walks the whole tree below the first star; this one enters only directories that match.
    for path in map(Path, glob.iglob(pattern, recursive=True, include_hidden=True)):  # noqa: PTH207
        with suppress(FileNotFoundError):  # a dangling link, or removed meanwhile
            info = path.stat()
            if stat.S_ISREG(info.st_mode):
                yield str(path), (info.st_size, str(info.st_mtime_ns))


def _list_remote(fs: Any, pattern: str) -> Iterator[tuple[str, tuple[int, str]]]:
    for path, info in fs.glob(pattern, detail=True).items():
        if info["type"] == "file":
            version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
            yield fs.unstrip_protocol(path), (info["size"] or 0, version)


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
    with Path(inner).open("rb") if is_local(fs) else fs.open(inner, "rb") as raw, decompress(raw, path) as file:
        yield file
