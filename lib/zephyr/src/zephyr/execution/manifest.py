"""``_manifest.json``: what a write has left in a directory, and by which operations from which input.

A directory has one manifest; writes with other patterns keep their own part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import xxhash

from zephyr.errors import StorageError
from zephyr.io.publish import Output, draft_path
from zephyr.storage.commit import publish, read_commit
from zephyr.storage.files import explained, find_length, is_local, locate

NAME = "_manifest.json"
SUCCESS = "_SUCCESS"
VERSION = 1


class FileEntry(msgspec.Struct, frozen=True):
    """One file."""

    name: str
    """Its name in the directory."""
    shard: int
    """The shard it holds."""
    rows: int
    """Records in it."""
    bytes: int
    """Its size."""
    checksum: str
    """xxh3 of its bytes, 128 bits in hexadecimal digits."""
    fingerprint: str
    """Stands for the operations that made it and the input they read."""
    schema: tuple[tuple[str, str], ...] | None = None
    """(column, type) pairs where the format has them."""


class WriteEntry(msgspec.Struct, frozen=True):
    """The files of one write."""

    fingerprint: str
    """Stands for the whole plan up to the write, and its source."""
    rows: int
    """Records in all files here."""
    bytes: int
    """Size of all files here."""
    finished_at: float
    """Seconds since 1970."""
    counters: dict[str, int]
    """What user functions counted up to the write, in all shards."""
    bad_records: int
    """Records that were left out up to the write, in all shards."""
    files: tuple[FileEntry, ...]
    """The files, by shard."""


class Manifest(msgspec.Struct, frozen=True):
    """What is in a directory."""

    version: int = VERSION
    """Of this format."""
    writes: dict[str, WriteEntry] = {}
    """By pattern."""
    checksum: str = ""
    """xxh3 of the writes as JSON, 128 bits in hexadecimal digits; empty where nobody has noted it."""


def read_manifest(directory: str) -> Manifest:
    """Return the manifest of a directory; an empty one if there is none.

    Raises:
        StorageError: if what is there cannot be read, or is no undamaged manifest of this version.
    """
    data = read_commit(f"{directory}/{NAME}")
    if data is None:
        return Manifest()
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"{directory}/{NAME} is no manifest: {error}. Remove it, and what it describes is written anew"
        ) from error
    if manifest.version != VERSION:
        raise StorageError(f"{directory}/{NAME} has version {manifest.version}; this Zephyr knows {VERSION}")
    if manifest.checksum not in ("", _checksum(manifest.writes)):
        raise StorageError(
            f"{directory}/{NAME} is damaged: its checksum does not match. Run the dataset again; if it repeats, remove that "
            "file, and what it describes is written anew"
        )
    return manifest


def _checksum(writes: Mapping[str, WriteEntry]) -> str:
    return str(xxhash.xxh3_128_hexdigest(msgspec.json.encode(writes)))


def write_manifest(directory: str, pattern: str, entry: WriteEntry, marker: str) -> None:
    """Put the entry of a write into the manifest of a directory, and ``_SUCCESS`` beside it.

    ``marker`` is what the names of their drafts contain.
    """
    replaced = {file.name for file in entry.files}
    others = {
        name: other
        for name, other in read_manifest(directory).writes.items()
        if name != pattern and not replaced & {file.name for file in other.files}
    }
    put(f"{directory}/{NAME}", _encode({**others, pattern: entry}), marker)
    # Another driver of the same run may have put its own there, which tells the same but for the time.
    _check_manifest(directory, lambda writes: pattern in writes and writes[pattern].files == entry.files)
    put(f"{directory}/{SUCCESS}", b"", marker)


def forget_files(fingerprints: Mapping[str, str], marker: str) -> None:
    """Take files that are about to be replaced by other work out of the manifests of their directories, and ``_SUCCESS`` away.

    A run that ends half-way must not leave a manifest that describes other files than those that are there.

    Args:
        fingerprints: path to what stands for the work that is about to write it.
        marker: what the name of the draft contains.
    """
    for directory, names in _by_directory(fingerprints).items():
        _forget(directory, {name: fingerprints[f"{directory}/{name}"] for name in names}, marker)


def _forget(directory: str, work: Mapping[str, str], marker: str) -> None:
    writes = read_manifest(directory).writes
    kept = {pattern: _without(entry, work) for pattern, entry in writes.items()}
    if kept != writes:
        _remove(f"{directory}/{SUCCESS}")
        put(f"{directory}/{NAME}", _encode({pattern: entry for pattern, entry in kept.items() if entry.files}), marker)
        _check_manifest(directory, lambda writes: all(_without(entry, work) is entry for entry in writes.values()))


def ensure_success(paths: Sequence[str], marker: str) -> None:
    """Put ``_SUCCESS`` into the directories of files that are all there, where it is missing."""
    for directory in _by_directory(paths):
        fs, inner = locate(f"{directory}/{SUCCESS}")
        fs.invalidate_cache()
        if not fs.exists(inner):
            put(f"{directory}/{SUCCESS}", b"", marker)


def _by_directory(paths: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        found.setdefault(directory, set()).add(name)
    return found


def _without(entry: WriteEntry, work: Mapping[str, str]) -> WriteEntry:
    files = tuple(file for file in entry.files if work.get(file.name, file.fingerprint) == file.fingerprint)
    if len(files) == len(entry.files):
        return entry
    return msgspec.structs.replace(
        entry, files=files, rows=sum(file.rows for file in files), bytes=sum(file.bytes for file in files)
    )


def _encode(writes: Mapping[str, WriteEntry]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(Manifest(VERSION, dict(writes), _checksum(writes))), indent=2)


def _remove(path: str) -> None:
    fs, inner = locate(path)
    try:
        fs.rm_file(inner)
    except FileNotFoundError:
        return
    except OSError as error:
        raise explained("remove", path, error) from error


def put(path: str, data: bytes, marker: str) -> None:
    """Make a small file appear with this content, whatever was there; ``marker`` is what the name of its draft contains.

    Raises:
        StorageError: if the storage refuses, or does not have it afterwards.
    """
    fs = locate(path)[0]
    draft = draft_path(path, marker) if is_local(fs) else path
    try:
        fs.pipe_file(locate(draft)[1], data)
    except OSError as error:
        raise explained("write", draft, error) from error
    if draft != path:
        publish(draft, path)
    elif find_length("write", path) is None:
        raise _not_there(path)


def _check_manifest(directory: str, is_told: Callable[[Mapping[str, WriteEntry]], bool]) -> None:
    if not is_local(locate(directory)[0]) and not is_told(read_manifest(directory).writes):
        raise _not_there(f"{directory}/{NAME}")


def _not_there(path: str) -> StorageError:
    return StorageError(f"cannot write {path}: the storage took it and does not have it. Check the storage, and run again")


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known of a run when a write ends."""

    fingerprint: str
    """Stands for the plan up to the write, and its source."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Sums over all stages so far."""
    bad_records: int = 0
    """The same for records left out."""


def file_entry(output: Output, fingerprint: str) -> FileEntry:
    """Return the entry of a file that was written."""
    name = output.path.rpartition("/")[2]
    return FileEntry(name, output.shard, output.rows, output.size_bytes, output.checksum, fingerprint, output.schema)


def entries_of(files: Mapping[str, FileEntry], totals: Totals) -> dict[str, WriteEntry]:
    """Return the entry of a write for each directory that its files, given by path, are in."""
    by_directory: dict[str, list[FileEntry]] = {}
    for path, entry in files.items():
        by_directory.setdefault(path.rpartition("/")[0], []).append(entry)
    return {directory: _entry(found, totals) for directory, found in by_directory.items()}


def _entry(files: Iterable[FileEntry], totals: Totals) -> WriteEntry:
    files = tuple(sorted(files, key=lambda file: file.shard))
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return WriteEntry(totals.fingerprint, rows, size, time.time(), dict(totals.counters), totals.bad_records, files)


def find_files(paths: Sequence[str]) -> dict[str, FileEntry]:
    """Return what manifests know of those of the paths that exist with the size they had when they were written.

    Raises:
        StorageError: if that cannot be told.
    """
    found: dict[str, FileEntry] = {}
    for directory in _by_directory(paths):
        known = {f"{directory}/{file.name}": file for entry in read_manifest(directory).writes.values() for file in entry.files}
        if known:
            sizes = _list_sizes(directory)
            found.update((path, file) for path, file in known.items() if sizes.get(file.name) == file.bytes)
    return {path: found[path] for path in paths if path in found}


def _list_sizes(directory: str) -> dict[str, int]:
    fs, inner = locate(directory)
    fs.invalidate_cache(inner)
    try:
        listing: list[dict[str, Any]] = fs.ls(inner, detail=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise explained("list", directory, error) from error
    return {info["name"].rstrip("/").rpartition("/")[2]: info["size"] for info in listing}
