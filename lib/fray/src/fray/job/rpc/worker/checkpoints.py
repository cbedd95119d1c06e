"""An actor's saved states on storage.

Two files for each incarnation, written in turn: the latest state and the one before. Which is the latest is told by a count in
the file, and which files there are by their names: listings of storage may be late, and an empty one is no proof that nothing
was saved. A file begins with a digest keyed by the cluster's token. An incarnation that restores a state saves it again under
its own number at once: what an earlier one that is not quite dead still writes comes before it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec

from fray.errors import DecodeError
from fray.payloads import local_path
from fray.serialization import decode, encode

SUFFIX = ".checkpoint"
DIGEST_BYTES = 32
FILES = 2
"""Files of an incarnation: the latest state, and the one before."""
SURE_INCARNATIONS = 8
"""How many of the latest incarnations are looked for by name, whatever listings say. Those that began have saved at once."""
WAITS_S = (0.05, 0.2, 0.8)
"""Before a file that could not be read is read again; one that is damaged is at once: it may have been so on the way only."""
_COUNT = struct.Struct("<Q")


class CheckpointStore:
    """The states of one actor, as one incarnation sees them. Every method blocks on storage."""

    def __init__(self, url: str, key: bytes, incarnation: int) -> None:
        self._url, self._key, self._incarnation = url.rstrip("/"), key, incarnation
        self._count = 0

    def load(self) -> tuple[Any] | None:
        """Return the latest state as a tuple of one, or None if there is none.

        Raises:
            DecodeError: if it is damaged: an older one is not taken in its place without a word.
            OSError: if storage cannot be read; the text says where.
        """
        for incarnation in self._find_incarnations():
            found = [blob for number in range(1, FILES + 1) if (blob := self._read(_name(incarnation, number))) is not None]
            if found:
                latest = max(found, key=_count_of)
                return (decode(latest[DIGEST_BYTES + _COUNT.size :]),)
        return None

    def save(self, state: Any) -> None:
        """Write a state; when this returns, it is the latest.

        Raises:
            EncodeError: if it cannot be pickled.
            OSError: if storage refuses, or has not kept what it took; the state before stays the latest.
        """
        body = _COUNT.pack(self._count + 1) + encode(state)
        url = f"{self._url}/{_name(self._incarnation, self._count % FILES + 1)}"
        try:
            _write(url, self._digest(body) + body)
        except OSError as error:
            _remove(url)  # half of it may be there
            error.add_note(f"while saving a checkpoint to {url}; make room or check that storage: the next call saves again")
            raise
        self._count += 1

    def drop_earlier(self) -> None:
        """Remove what earlier incarnations left, once this one has saved. What cannot be removed goes with the actor."""
        with contextlib.suppress(OSError):
            for incarnation, name in self._list():
                if incarnation < self._incarnation:
                    _remove(f"{self._url}/{name}")

    def _find_incarnations(self) -> list[int]:
        """Return the numbers of incarnations that may have saved, the latest first."""
        try:
            listed = {incarnation for incarnation, _ in self._list()}
        except OSError as error:
            raise _unreadable(self._url, error) from error
        return sorted(listed | set(range(max(1, self._incarnation - SURE_INCARNATIONS), self._incarnation + 1)), reverse=True)

    def _list(self) -> list[tuple[int, str]]:
        """Return (incarnation, name) of the files that storage shows."""
        fs, path = fsspec.url_to_fs(self._url)
        fs.invalidate_cache()
        try:
            return _incarnations(fs.ls(path, detail=False))
        except FileNotFoundError:
            return []

    def _read(self, name: str) -> memoryview | None:
        """Return what is in a file, or None if there is none."""
        url = f"{self._url}/{name}"
        for wait_s in WAITS_S:
            try:
                return self._checked(url)
            except FileNotFoundError:
                return None
            except DecodeError:
                continue
            except OSError:
                time.sleep(wait_s)
        try:
            return self._checked(url)
        except OSError as error:
            raise _unreadable(url, error) from error

    def _checked(self, url: str) -> memoryview:
        fs, path = fsspec.url_to_fs(url)
        # A range, because some clients ask for the size first when they read a whole object, and believe an old one.
        blob = memoryview(bytearray(fs.cat_file(path, start=0)))  # arrays are views of it, and may be changed
        digest, body = blob[:DIGEST_BYTES], blob[DIGEST_BYTES:]
        if len(body) < _COUNT.size or not hmac.compare_digest(bytes(digest), self._digest(body)):
            raise DecodeError(
                f"the checkpoint {url} is damaged or was not written by this cluster: its digest does not match. "
                "Put the file back from a copy, or create the actor anew"
            )
        return blob

    def _digest(self, body: bytes | memoryview) -> bytes:
        return hashlib.blake2b(body, key=self._key[:64], digest_size=DIGEST_BYTES).digest()


def _name(incarnation: int, number: int) -> str:
    return f"{incarnation:010d}-{number}{SUFFIX}"


def _incarnations(paths: Iterable[str]) -> list[tuple[int, str]]:
    names = [path.rstrip("/").rpartition("/")[2] for path in paths]
    return [(int(name.partition("-")[0]), name) for name in names if name.endswith(SUFFIX)]


def _count_of(blob: memoryview) -> int:
    return int(_COUNT.unpack_from(blob, DIGEST_BYTES)[0])


def _unreadable(url: str, error: OSError) -> OSError:
    return OSError(error.errno or errno.EIO, f"cannot read the checkpoint {url}: {error}. Check that storage")


def _remove(url: str) -> None:
    fs, path = fsspec.url_to_fs(url)
    with contextlib.suppress(OSError):
        fs.rm_file(path)


def _write(url: str, blob: bytes) -> None:
    local = local_path(url)
    if local is None:
        fs, path = fsspec.url_to_fs(url)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, blob)
        _check_kept(fs, path, blob)
        return
    local.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = local.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(local)
        _sync_directory(local.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _check_kept(fs: Any, path: str, blob: bytes) -> None:
    """Make sure that storage holds what it has acknowledged: its beginning, which no other state has, and its end.

    Raises:
        OSError: if it does not.
    """
    fs.invalidate_cache()
    starts, ends = [0, len(blob) - DIGEST_BYTES], [DIGEST_BYTES, len(blob)]
    try:
        kept = fs.cat_ranges([path, path], starts, ends, on_error="raise")
    except FileNotFoundError:
        kept = []
    if kept != [blob[:DIGEST_BYTES], blob[-DIGEST_BYTES:]]:
        raise OSError(errno.EIO, "storage took the checkpoint and does not hold it")


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
