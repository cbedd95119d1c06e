"""Files on any fsspec storage: append to one that nobody sees yet, read ranges, remove a directory; and how to tell a failure.

What a storage other than this machine's disk has acknowledged is looked at once more: some keep a part, or nothing.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import fsspec.core

from zephyr.errors import ChunkMissing, StorageError
from zephyr.storage.codec import HEADER, frame_length

logger = logging.getLogger(__name__)

BLOCK_BYTES = 256 * 1024
"""Bytes that one read of a local file asks for. Readers hold a block of each run that they merge."""
REMOTE_BLOCK_BYTES = 1024 * 1024
"""The same for other storage, where each read is a request."""
REMOVE_ATTEMPTS = 3
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def locate(path: str) -> tuple[Any, str]:
    """Return (fsspec file system, path on it)."""
    fs, inner = fsspec.core.url_to_fs(path)
    return fs, inner


def is_local(fs: Any) -> bool:
    """Tell whether a file system is this machine's disk."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols


def explained(doing: str, path: str, error: Exception) -> StorageError:
    """Return the error to raise from one of a storage: what could not be done, where, why, and what to do."""
    return StorageError(f"cannot {doing} {path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if is_bucket_missing(error):
        return "there is no such bucket. Create it, or correct the path"
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        return "the disk is full. Make room, or choose another place"
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return f"not permitted ({error}). Check the credentials, and who may write there"
    return f"{type(error).__name__}: {error}. Check the storage, and run again"


def answer_of(error: Exception) -> str:
    """Return the code that an S3 store gave with a refusal, which s3fs keeps only in the cause; else an empty text."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_bucket_missing(error: Exception) -> bool:
    """Tell whether a storage has refused because the bucket does not exist."""
    return answer_of(error) == "NoSuchBucket"


def find_length(doing: str, path: str) -> int | None:
    """Return the bytes of a file as they are now, or None if there is none; ``doing`` says what this is for.

    Raises:
        StorageError: if that cannot be told.
    """
    fs, inner = locate(path)
    fs.invalidate_cache(inner)
    try:
        return int(fs.size(inner))
    except FileNotFoundError:
        return None
    except Exception as error:
        raise explained(doing, path, error) from error


def not_kept(doing: str, path: str, size_bytes: int, found: int | None) -> StorageError:
    """Return the error to raise when a storage has less than it has acknowledged."""
    return StorageError(
        f"cannot {doing} {path}: the storage took {size_bytes} bytes and kept {found or 0}. Check the storage, and run again"
    )


def check_kept(doing: str, path: str, size_bytes: int) -> None:
    """Make sure that a file on a storage has the bytes that the storage has acknowledged.

    Raises:
        StorageError: naming it, if it has not or that cannot be told.
    """
    found = find_length(doing, path)
    if found != size_bytes:
        raise not_kept(doing, path, size_bytes, found)


class SpillFile:
    """A file that is appended to; opened at the first write. Its directory must exist already where that matters."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.length = 0
        """Bytes written."""
        self._file: IO[bytes] | None = None

    def append(self, data: bytes) -> int:
        """Write ``data`` and return where it starts.

        Raises:
            FileNotFoundError: if its directory is gone.
            StorageError: if the storage refuses.
        """
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(data)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise explained("write the chunk", self.path, error) from error
        start = self.length
        self.length += len(data)
        return start

    def close(self) -> None:
        """Flush and close. Idempotent.

        Raises:
            StorageError: if the storage refuses, or has not kept all.
        """
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            raise explained("write the chunk", self.path, error) from error
        if not is_local(locate(self.path)[0]):
            check_kept("write the chunk", self.path, self.length)

    def abort(self) -> None:
        """Close it, for nobody will read it. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _open(self) -> IO[bytes]:
        fs, inner = locate(self.path)
        # On local disks the job's owner made the directory: a late writer of a removed job must not revive it.
        file: IO[bytes] = Path(inner).open("wb") if is_local(fs) else fs.open(inner, "wb")  # noqa: SIM115
        return file


def iter_stored_frames(path: str, start: int, length: int) -> Iterator[tuple[memoryview, str]]:
    """Yield (frame, where it is) for the frames in a byte range of a file, holding about one block at a time.

    Raises:
        ChunkMissing: if the file is gone.
        ChunkCorrupted: naming path and offset.
        StorageError: if it cannot be read.
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
            except OSError as error:
                raise explained("read the chunk", path, error) from error
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
        StorageError: if it cannot be read.
    """
    fs, inner = locate(path)
    try:
        return bytes(fs.cat_file(inner, start=0, end=size))
    except FileNotFoundError as error:
        raise ChunkMissing(path) from error
    except OSError as error:
        raise explained("read", path, error) from error


def file_length(path: str) -> int:
    """Return the bytes of a file.

    Raises:
        ChunkMissing: if it is gone.
        StorageError: if it cannot be read.
    """
    fs, inner = locate(path)
    try:
        return int(fs.size(inner))
    except FileNotFoundError as error:
        raise ChunkMissing(path) from error
    except OSError as error:
        raise explained("read the size of", path, error) from error


def make_directory(path: str) -> None:
    """Make a directory where directories are real; object stores have none. Idempotent."""
    fs, inner = locate(path)
    if is_local(fs):
        Path(inner).mkdir(parents=True, exist_ok=True, mode=0o700)


def list_names(path: str) -> list[str]:
    """Return the names in a directory, sorted; none if there is no such directory.

    Raises:
        StorageError: if it cannot be listed.
    """
    fs, inner = locate(path)
    fs.invalidate_cache()  # others write here
    try:
        found = fs.ls(inner, detail=False)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explained("list", path, error) from error
    return sorted({name.rstrip("/").rpartition("/")[2] for name in found})


def remove_empty(path: str) -> None:
    """Remove a directory if nothing is in it; object stores have none."""
    fs, inner = locate(path)
    if is_local(fs):
        with suppress(OSError):
            Path(inner).rmdir()


def remove_tree(path: str) -> None:
    """Remove a directory, or one file, and what is in it; log, and do not raise, when that cannot be done. Idempotent."""
    fs, inner = locate(path)
    failure: OSError | None = None
    fs.invalidate_cache()  # others have written here
    for _ in range(REMOVE_ATTEMPTS):  # a task that is being cancelled may add a file meanwhile
        try:
            fs.rm(inner, recursive=True)  # ``exists`` would say no as well when it cannot tell
            return
        except FileNotFoundError:
            return
        except OSError as error:
            failure = error
    logger.warning("could not remove %s: %s; remove it by hand", path, failure)
