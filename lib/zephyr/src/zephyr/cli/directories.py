"""What ``zephyr inspect`` tells of the directory of an output or of a job."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from zephyr.errors import StorageError
from zephyr.execution.janitor import STAGE, Entry, latest_change, list_directory
from zephyr.execution.manifest import NAME, SUCCESS, FileEntry, WriteEntry, read_manifest
from zephyr.io.publish import measure_file

UNUSED = "stage-000"
"""A directory that each job has on local disks, and in which backends put nothing."""
_COMMIT = re.compile(r"(\d+)-(\d+)")


def describe_directory(path: str, limit: int, verify: bool) -> dict[str, Any]:
    """Return what a directory holds.

    Raises:
        StorageError: if it is neither that of an output nor that of a job.
    """
    entries = list_directory(path)
    names = {entry.name for entry in entries}
    if NAME in names:
        return describe_manifest(path, entries, limit, verify)
    if "plan" in names or any(map(STAGE.fullmatch, names)):
        return describe_job(path)
    raise StorageError(
        f"{path} is neither the directory of an output (it has no {NAME}) nor that of a job (it has no stage-...). "
        "'zephyr clean --dry-run --older-than 0s' lists the jobs below a storage path"
    )


def describe_manifest(directory: str, entries: Sequence[Entry], limit: int, verify: bool) -> dict[str, Any]:
    """Return what a manifest tells of its writes, and whether their files have the size (``verify``: the bytes) it names."""
    sizes = {entry.name: entry.size_bytes for entry in entries}
    manifest = read_manifest(directory)
    damage: list[str] = []
    writes = [
        _describe_write(directory, pattern, write, sizes, limit, verify, damage) for pattern, write in manifest.writes.items()
    ]
    return {
        "kind": "manifest",
        "path": f"{directory}/{NAME}",
        "version": manifest.version,
        "success": SUCCESS in sizes,
        "writes": writes,
        "damage": damage,
    }


def _describe_write(
    directory: str,
    pattern: str,
    write: WriteEntry,
    sizes: Mapping[str, int],
    limit: int,
    verify: bool,
    damage: list[str],
) -> dict[str, Any]:
    states = {file.name: _find_state(directory, file, sizes, verify) for file in write.files}
    damage += [f"{directory}/{name} {state}" for name, state in states.items() if state not in ("there", "verified")]
    schema = next((file.schema for file in write.files if file.schema is not None), ())
    return {
        "pattern": pattern,
        "fingerprint": write.fingerprint,
        "age_s": max(0.0, time.time() - write.finished_at),
        "files": len(write.files),
        "rows": write.rows,
        "bytes": write.bytes,
        "bad_records": write.bad_records,
        "counters": write.counters,
        "schema": [{"column": column, "type": kind} for column, kind in schema],
        "first_files": [
            {"name": file.name, "shard": file.shard, "rows": file.rows, "bytes": file.bytes, "state": states[file.name]}
            for file in write.files[:limit]
        ],
    }


def _find_state(directory: str, file: FileEntry, sizes: Mapping[str, int], verify: bool) -> str:
    size = sizes.get(file.name)
    if size is None:
        return "is missing"
    if size != file.bytes:
        return f"has {size} bytes instead of {file.bytes}"
    if not verify:
        return "there"
    return "verified" if measure_file(f"{directory}/{file.name}")[1] == file.checksum else "has another checksum"


def describe_job(path: str) -> dict[str, Any]:
    """Return what a job has left, by stage. No result is decoded, so what is complete is told by what is there."""
    below = list_directory(path, recursive=True)
    resumable = any(entry.name == "plan" for entry in below)
    names = sorted({stage[0] for entry in below if (stage := STAGE.match(entry.name)) and entry.name != UNUSED})
    changed_at = latest_change(None, below)
    return {
        "kind": "job",
        "path": path,
        "job": path.rpartition("/")[2],
        "resumable": resumable,
        "files": sum(entry.kind == "file" for entry in below),
        "bytes": sum(entry.size_bytes for entry in below if entry.kind == "file"),
        "age_s": None if changed_at is None else max(0.0, time.time() - changed_at),
        "stages": [_describe_stage(name, below, _is_complete(name == names[-1], resumable)) for name in names],
    }


def _is_complete(last: bool, resumable: bool) -> bool | None:
    """Stages run one after the other. Of the last it is not known how many tasks it has."""
    return None if last or not resumable else True


def _describe_stage(name: str, below: Sequence[Entry], complete: bool | None) -> dict[str, Any]:
    files = [entry for entry in below if entry.kind == "file" and entry.name.startswith(f"{name}/")]
    chunks = [entry for entry in files if entry.name.endswith(".zep")]
    ranges = [match for entry in files if (match := _COMMIT.fullmatch(entry.name.removeprefix(f"{name}/commits/")))]
    done = sum(int(last) - int(first) + 1 for first, last in (match.groups() for match in ranges))
    missing = max((int(match[2]) + 1 for match in ranges), default=0) - done
    return {
        "stage": name[: len("stage-000")],  # without the id of the run
        "chunks": len(chunks),
        "bytes": sum(entry.size_bytes for entry in chunks),
        "commits": len(ranges),
        "inputs_done": done,
        "inputs_missing": missing,
        "complete": False if missing else complete,
    }
