"""Find what runs that were killed have left on storage, and remove it.

Only names and places that Zephyr itself gives count, down to every file of a directory: with a foreign file in it, a directory
is somebody else's. What has no known time of change counts as new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from zephyr.errors import StorageError
from zephyr.execution.manifest import NAME as MANIFEST
from zephyr.storage.files import locate

LeftoverKind = Literal["job", "run", "draft", "probe"]
"""A job's intermediate data; the same of a run that can be resumed; an output or commit that was not published; a trial of what
a storage can do."""
EntryKind = Literal["file", "directory", "other"]
"""Links are other, whatever they lead to."""

_HEX = "[0-9a-f]{32}"
STAGE = re.compile(r"stage-\d{3,}(-[0-9a-f]{8})?")
"""The names of the directories of a job's stages."""
_STAGE = STAGE.pattern
_JOB = re.compile(_HEX)
_RUN = re.compile(rf"run-(?:{_HEX}|[A-Za-z0-9._-]+-[0-9a-f]{{8}})")
_DRAFT = re.compile(rf"\..+\.{_HEX}\.draft")
_PROBE = re.compile(rf"\.zephyr-probe-{_HEX}")
_FILE_OF_JOB = re.compile(
    rf"plan|{_STAGE}/[^/]+\.zep|{_STAGE}/commits/\d+-\d+|(?:{_STAGE}/commits/)?(?:{_DRAFT.pattern}|{_PROBE.pattern})"
)
_DIRECTORY_OF_JOB = re.compile(rf"{_STAGE}(?:/commits)?")
_PLACES = (MANIFEST, "dead-letters")
"""What tells that a directory is Zephyr's although nothing is left behind in it."""
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""Names that file systems have for the time of the last change; the first known counts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing tells of a file or directory."""

    name: str
    """Its path below the directory that was listed."""
    kind: EntryKind
    """What it is."""
    size_bytes: int
    """Size of a file."""
    modified_at: float | None
    """Seconds since 1970; None if the storage does not tell."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a run has left behind, or is still using."""

    path: str
    """Where it is."""
    kind: LeftoverKind
    """What it is."""
    files: int
    """Number of files."""
    size_bytes: int
    """Size of them all."""
    modified_at: float | None
    """Time of the latest change in it, in seconds since 1970; None if that is not known for each file."""


def list_directory(path: str, recursive: bool = False) -> list[Entry]:
    """Return what is in a directory, as it is now, by name; nothing if there is no such directory.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        fs, inner = locate(path)
        fs.invalidate_cache()
        infos = fs.find(inner, withdirs=True, detail=True).values() if recursive else fs.ls(inner, detail=True)
    except FileNotFoundError:
        return []
    except Exception as error:  # whatever a client library raises
        raise StorageError(
            f"cannot list {path}: {type(error).__name__}: {error}. Check the path, and who may read there"
        ) from error
    entries = [_entry(info, inner.rstrip("/")) for info in infos]
    return sorted((entry for entry in entries if entry.name), key=lambda entry: entry.name)


def _entry(info: Mapping[str, Any], root: str) -> Entry:
    kind: EntryKind = info["type"] if info["type"] in ("file", "directory") else "other"
    return Entry(info["name"].removeprefix(root).strip("/"), kind, info["size"] or 0, _modified_at(info))


def _modified_at(info: Mapping[str, Any]) -> float | None:
    value = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else value


def find_leftovers(prefix: str) -> list[Leftover]:
    """Return what is left behind directly below a prefix, old and new, by path; what runs still use is among it.

    Raises:
        StorageError: if there is no such directory, if it holds nothing of Zephyr's but other things, or if it cannot be read.
    """
    entries = list_directory(prefix)
    if not entries and not _exists(prefix):
        raise StorageError(f"there is nothing at {prefix}; give the storage path of runs or the directory of an output")
    found = [leftover for entry in entries if (leftover := _find_leftover(f"{prefix.rstrip('/')}/{entry.name}", entry))]
    if entries and not found and not any(entry.name in _PLACES for entry in entries):
        raise StorageError(
            f"{prefix} holds nothing of Zephyr's: no directories of jobs, no drafts, no {MANIFEST}. Give the storage path of "
            "runs or the directory of an output"
        )
    return found


def remove_leftover(leftover: Leftover) -> None:
    """Remove it. Idempotent.

    Raises:
        StorageError: if the storage refuses.
    """
    fs, inner = locate(leftover.path)
    try:
        fs.rm(inner, recursive=leftover.kind in ("job", "run"))
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever a client library raises
        raise StorageError(f"cannot remove {leftover.path}: {type(error).__name__}: {error}. Remove it by hand") from error


def _exists(path: str) -> bool:
    fs, inner = locate(path)
    return bool(fs.exists(inner))


def _find_leftover(path: str, entry: Entry) -> Leftover | None:
    if entry.kind == "file":
        kind = _file_kind(entry.name)
        return None if kind is None else Leftover(path, kind, 1, entry.size_bytes, entry.modified_at)
    run = _RUN.fullmatch(entry.name) is not None
    if entry.kind != "directory" or not (run or _JOB.fullmatch(entry.name)):
        return None
    below = list_directory(path, recursive=True)
    files = [each for each in below if each.kind == "file"]
    if not all(map(_is_of_job, below)) or not any(run or each.name.startswith("stage-") for each in below):
        return None
    size_bytes = sum(each.size_bytes for each in files)
    return Leftover(path, "run" if run else "job", len(files), size_bytes, latest_change(entry, below))


def _file_kind(name: str) -> LeftoverKind | None:
    if _DRAFT.fullmatch(name):
        return "draft"
    return "probe" if _PROBE.fullmatch(name) else None


def _is_of_job(entry: Entry) -> bool:
    pattern = {"file": _FILE_OF_JOB, "directory": _DIRECTORY_OF_JOB}.get(entry.kind)
    return pattern is not None and pattern.fullmatch(entry.name) is not None


def latest_change(directory: Entry | None, below: Sequence[Entry]) -> float | None:
    """Return the time of the latest change in a directory, in seconds since 1970; None if that of a file is not known.

    Object stores have no directories, and thus no times of theirs.
    """
    files = [entry.modified_at for entry in below if entry.kind == "file"]
    if None in files:
        return None
    known = [entry.modified_at for entry in (*below, *((directory,) if directory else ())) if entry.modified_at is not None]
    return max(known, default=None)
