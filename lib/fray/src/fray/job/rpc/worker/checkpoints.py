"""An actor's saved states on storage.

One file for each, named by the incarnation and a count, so that the latest is the last by name whatever storage it is. A file
is written aside and appears as a whole; it begins with a digest keyed by the cluster's token. An incarnation that restores a
state saves it again under its own number at once: what an earlier one that is not quite dead still writes comes before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec

from fray.errors import DecodeError
from fray.payloads import local_path
from fray.serialization import decode, encode

SUFFIX = ".checkpoint"
DIGEST_BYTES = 32
KEPT = 2
"""Files that an incarnation leaves: the latest, and the one before."""


class CheckpointStore:
    """The states of one actor, as one incarnation sees them. Every method blocks on storage."""

    def __init__(self, url: str, key: bytes, incarnation: int) -> None:
        self._url, self._key, self._incarnation = url.rstrip("/"), key, incarnation
        self._count = 0
        self._written: list[str] = []

    def load(self) -> tuple[Any] | None:
        """Return the latest state as a tuple of one, or None if there is none.

        Raises:
            DecodeError: if it is damaged: an older one is not taken in its place without a word.
            OSError: if storage cannot be read.
        """
        fs, path = fsspec.url_to_fs(self._url)
        fs.invalidate_cache()
        names = _names(fs.ls(path, detail=False)) if fs.exists(path) else []
        if not names:
            return None
        url = f"{self._url}/{names[-1]}"
        blob = memoryview(bytearray(fs.cat_file(f"{path}/{names[-1]}")))  # arrays are views of it, and may be changed
        digest, body = blob[:DIGEST_BYTES], blob[DIGEST_BYTES:]
        if not hmac.compare_digest(bytes(digest), self._digest(body)):
            raise DecodeError(f"the checkpoint {url} is damaged or was not written by this cluster: its digest does not match")
        return (decode(body),)

    def save(self, state: Any) -> None:
        """Write a state; when this returns, it is the latest.

        Raises:
            EncodeError: if it cannot be pickled.
            OSError: if storage refuses; the state before stays the latest.
        """
        body = encode(state)
        name = f"{self._incarnation:010d}-{self._count + 1:012d}{SUFFIX}"
        try:
            _write(f"{self._url}/{name}", self._digest(body) + body)
        except OSError as error:
            error.add_note(f"while saving a checkpoint to {self._url}/{name}")
            raise
        self._count += 1
        self._written.append(name)
        self._prune()

    def drop_earlier(self) -> None:
        """Remove what earlier incarnations left, once this one has saved. What cannot be removed goes with the actor."""
        fs, path = fsspec.url_to_fs(self._url)
        with contextlib.suppress(OSError):
            fs.invalidate_cache()
            for name in _names(fs.ls(path, detail=False)):
                if name < f"{self._incarnation:010d}":
                    fs.rm_file(f"{path}/{name}")

    def _digest(self, body: bytes | memoryview) -> bytes:
        return hashlib.blake2b(body, key=self._key[:64], digest_size=DIGEST_BYTES).digest()

    def _prune(self) -> None:
        fs, path = fsspec.url_to_fs(self._url)
        while len(self._written) > KEPT:
            try:
                fs.rm_file(f"{path}/{self._written.pop(0)}")
            except OSError:  # it goes with the actor
                return


def _names(paths: Iterable[str]) -> list[str]:
    names = (path.rstrip("/").rpartition("/")[2] for path in paths)
    return sorted(name for name in names if name.endswith(SUFFIX))


def _write(url: str, blob: bytes) -> None:
    local = local_path(url)
    if local is None:
        fs, path = fsspec.url_to_fs(url)
        fs.pipe_file(path, blob)
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


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
