"""Payloads on storage: arguments and results above ``INLINE_LIMIT_BYTES`` travel as a reference, not through RPCs.

A store is a directory on any fsspec storage. Files are written once, under a fresh name, by the process that made the value.
On this machine's disk they are read through mmap without copying, and trusted because the directory is private to the
user. On other storage every file carries a keyed BLAKE2b digest made with the cluster's token, checked before a byte of
it is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import mmap
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from fray.errors import DecodeError
from fray.serialization import decode, encode_parts, stored_location
from fray.serialization.envelope import Part, encode_stored

INLINE_LIMIT_BYTES = 256 * 1024
"""Payloads up to this size travel inside messages."""

_DIGEST_BYTES = 32

fsspec.register_implementation("faulty", "fray.testing.faulty_storage.FaultyFileSystem")  # found in every process of Fray


@dataclass(frozen=True, slots=True)
class PayloadStore:
    """A place for the large payloads of one session. Thread-safe; every method blocks on I/O."""

    root: str
    """fsspec URL or local path of the session's own directory."""
    key: bytes = b""
    """The secret that payloads off this machine are signed with."""

    def pack(self, obj: Any, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> bytes:
        """Return ``obj`` as a payload: whole when small, else written to storage and named.

        Raises:
            EncodeError: if it cannot be pickled.
            OSError: if storage refuses; the note says where.
        """
        return self.place(encode_parts(obj), inline_limit_bytes)

    def place(self, parts: list[Part], inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> bytes:
        """Return encoded parts as one payload, on storage when they are large. Raises as ``pack`` does."""
        size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
        if size <= inline_limit_bytes:
            return b"".join(parts)
        return encode_stored(self._write(parts), size)

    def unpack(self, payload: Part) -> Any:
        """Return the object of a payload, read from storage if it is there.

        Raises:
            DecodeError: if the payload is damaged, was signed with another key, or its file is gone.
            OSError: if storage cannot be read; the note says where.
        """
        where = stored_location(payload)
        return decode(payload if where is None else self._read(*where))

    def delete(self) -> None:
        """Remove the whole directory. Does nothing if there is none. Raises what storage raises."""
        fs, path = fsspec.url_to_fs(self.root)
        with contextlib.suppress(FileNotFoundError):  # ``exists`` says no as well when it cannot tell
            fs.rm(path, recursive=True)

    def list_parts(self) -> list[str]:
        """Return the names of the directories and files directly in it; none if there is no such directory."""
        fs, path = fsspec.url_to_fs(self.root)
        try:
            return [name.rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def _write(self, parts: list[Part]) -> str:
        url = f"{self.root.rstrip('/')}/{secrets.token_hex(12)}.payload"
        try:
            local = local_path(url)
            if local is not None:
                _write_local(local, parts)
            else:
                digest = hashlib.blake2b(key=self.key[:64], digest_size=_DIGEST_BYTES)
                for part in parts:
                    digest.update(part)
                fs, path = fsspec.url_to_fs(url)
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(path, b"".join([digest.digest(), *parts]))
        except OSError as error:
            error.add_note(f"while writing a payload of Fray to {url}; set FRAY_STORAGE or --storage to another place")
            raise
        return url

    def _read(self, url: str, size: int) -> Part:
        local = local_path(url)
        try:
            if local is not None:
                return _map_local(local, size)
            fs, path = fsspec.url_to_fs(url)
            data: bytes = fs.cat_file(path)
        except FileNotFoundError as error:
            raise DecodeError(
                f"the payload {url} is gone: its session has ended, or this machine does not see that storage "
                "(machines that work together need a shared --storage)"
            ) from error
        except OSError as error:
            error.add_note(f"while reading a payload of Fray from {url}; run the task again, or check that storage")
            raise
        body = memoryview(data)[_DIGEST_BYTES:]
        digest = hashlib.blake2b(body, key=self.key[:64], digest_size=_DIGEST_BYTES).digest()
        if len(body) != size or not hmac.compare_digest(digest, data[:_DIGEST_BYTES]):
            raise DecodeError(
                f"the payload {url} is damaged or was not written by this cluster: its digest does not match. "
                "Run the task again; if it repeats, check that storage"
            )
        return body


def derive_key(token: str) -> bytes:
    """Return the key that a cluster's payloads are signed with."""
    return hashlib.blake2b(token.encode(), person=b"fray-payloads", digest_size=32).digest()


def local_path(url: str) -> Path | None:
    """Return the path of a URL on this machine's disk, else None."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Path(url)
    return Path(rest) if scheme in ("file", "local") else None


def _write_local(path: Path, parts: list[Part]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".draft")
    try:
        with draft.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.writelines(parts)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _map_local(path: Path, size: int) -> memoryview:
    with path.open("rb") as file:
        info = os.fstat(file.fileno())
        if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise DecodeError(f"the payload {path} is not this user's own file (mode 0600); it is not read")
        if info.st_size != size:
            raise DecodeError(f"the payload {path} is damaged: {info.st_size} bytes instead of {size}")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
