"""Files on any fsspec storage: append to one that nobody sees yet, read ranges, remove a directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import fsspec.core

from zephyr.errors import ChunkMissing
from zephyr.storage.codec import HEADER, frame_length

logger = logging.getLogger(__name__)

BLOCK_BYTES = 256 * 1024
"""Bytes that one read of a local file asks for. Readers hold a block of each run that they merge."""
REMOTE_BLOCK_BYTES = 1024 * 1024
"""The same for other storage, where each read is a request."""
REMOVE_ATTEMPTS = 3


def locate(path: str) -> tuple[Any, str]:
    """Return (fsspec file system, path on it)."""
    fs, inner = fsspec.core.url_to_fs(path)
    return fs, inner


def is_local(fs: Any) -> bool:
    """Tell whether a file system is this machine's disk."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols


class SpillFile:
    """A file that is appended to; opened at the first write. Its directory must exist already where that matters."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.length = 0
        """Bytes written."""
        self._file: IO[bytes] | None = None

    def append(self, data: bytes) -> int:
        """Write ``data`` and return where it starts."""
        if self._file is None:
            fs, inner = locate(self.path)
            # On local disks the job's owner made the directory: a late writer of a removed job must not revive it.
            self._file = Path(inner).open("wb") if is_local(fs) else fs.open(inner, "wb")  # noqa: SIM115
        start = self.length
        self._file.write(data)
        self.length += len(data)
        return start

    def close(self) -> None:
        """Flush and close. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def iter_stored_frames(path: str, start: int, length: int) -> Iterator[tuple[memoryview, str]]:
    """Yield (frame, where it is) for the frames in a byte range of a file, holding about one block at a time.

    Raises:
        ChunkMissing: if the file is gone.
        ChunkCorrupted: naming path and offset.
    """
    fs, inner = locate(path)
    block_bytes = BLOCK_BYTES if is_local(fs) else REMOTE_BLOCK_BYTES
    end = start + length
    at, buffer, offset = start, b"", 0

    def fill(wanted: int) -> None:
        nonlocal at, buffer, offset
        while len(buffer) - offset < wanted and at < end:
            size = min(end - at, max(block_bytes, wanted - len(buffer) + offset))
            try:
                block = fs.cat_file(inner, start=at, end=at + size)
            except FileNotFoundError as error:
                raise ChunkMissing(path) from error
            if not block:
                break
            buffer, offset, at = buffer[offset:] + block, 0, at + len(block)

    while at < end or offset < len(buffer):
        where = f"{path} at byte {at - len(buffer) + offset}"
        fill(HEADER.size)
        size = frame_length(buffer[offset : offset + HEADER.size], where)
        fill(min(size, end - start))
        yield memoryview(buffer)[offset : offset + size], where
        offset += size


def read_head(path: str, size: int) -> bytes:
    """Return the first bytes of a file.

    Raises:
        ChunkMissing: if it is gone.
    """
    fs, inner = locate(path)
    try:
        return bytes(fs.cat_file(inner, start=0, end=size))
    except FileNotFoundError as error:
        raise ChunkMissing(path) from error


def file_length(path: str) -> int:
    """Return the bytes of a file.

    Raises:
        ChunkMissing: if it is gone.
    """
    fs, inner = locate(path)
    try:
        return int(fs.size(inner))
    except FileNotFoundError as error:
        raise ChunkMissing(path) from error


def make_directory(path: str) -> None:
    """Make a directory where directories are real; object stores have none. Idempotent."""
    fs, inner = locate(path)
    if is_local(fs):
        Path(inner).mkdir(parents=True, exist_ok=True, mode=0o700)


def list_names(path: str) -> list[str]:
    """Return the names in a directory, sorted; none if there is no such directory."""
    fs, inner = locate(path)
    fs.invalidate_cache()  # others write here
    try:
        found = fs.ls(inner, detail=False)
    except FileNotFoundError:
        return []
    return sorted({name.rstrip("/").rpartition("/")[2] for name in found})


def remove_empty(path: str) -> None:
    """Remove a directory if nothing is in it; object stores have none."""
    fs, inner = locate(path)
    if is_local(fs):
        with suppress(OSError):
            Path(inner).rmdir()


def remove_tree(path: str) -> None:
    """Remove a directory and what is in it; log, and do not raise, when that cannot be done. Idempotent."""
    fs, inner = locate(path)
    failure: OSError | None = None
    fs.invalidate_cache()  # others have written here
    for _ in range(REMOVE_ATTEMPTS):  # a task that is being cancelled may add a file meanwhile
        try:
            if fs.exists(inner):
                fs.rm(inner, recursive=True)
            return
        except OSError as error:
            failure = error
    logger.warning("could not remove %s: %s; remove it by hand", path, failure)
