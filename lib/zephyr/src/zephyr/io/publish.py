"""Outputs that appear whole or not at all.

A task writes a draft of its own: beside the output where that is local, else a temporary file that is uploaded beside it. An
output appears when its draft is published, which the driver does for one draft of each shard. A failure leaves what was there.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import xxhash

from zephyr.errors import StorageError
from zephyr.io.formats import OnBadRecord, Writer, Written
from zephyr.storage.commit import publish, upload
from zephyr.storage.files import FULL, explained, is_local, locate

DRAFT_SUFFIX = ".draft"
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a task has written, to be published or published."""

    shard: int
    """The shard it holds."""
    path: str
    """Where it belongs."""
    draft: str
    """Where it is until then."""
    rows: int
    """Records in it."""
    size_bytes: int
    """Its size."""
    checksum: str
    """xxh3 of its bytes, 128 bits in hexadecimal digits."""
    schema: tuple[tuple[str, str], ...] | None
    """(column, type) pairs where the format has them."""


def draft_path(path: str, marker: str) -> str:
    """Return a name for a draft in the directory of its output; drafts of one run share its marker."""
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}.{name}.{marker}.{uuid.uuid4().hex}{DRAFT_SUFFIX}"


def write_draft(shard: int, path: str, marker: str, writer: Writer, items: Iterable[Any], on_bad: OnBadRecord) -> Output:
    """Write items to a draft and return what it is; nothing stays behind on failure.

    Raises:
        OSError, StorageError: if the storage refuses. User exceptions pass.
    """
    draft = draft_path(path, marker)
    fs, inner = locate(draft)
    if is_local(fs):
        Path(inner).parent.mkdir(parents=True, exist_ok=True)
        return _write_local(Path(inner), lambda file: writer.write(file, path, items, on_bad), shard, path, draft)
    with tempfile.TemporaryDirectory(prefix="zephyr-") as folder:
        local = Path(folder) / "draft"
        output = _write_local(local, lambda file: writer.write(file, path, items, on_bad), shard, path, draft)
        upload(str(local), draft)
        return output


def _write_local(local: Path, write: Callable[[IO[bytes]], Written], shard: int, path: str, draft: str) -> Output:
    try:
        with local.open("x+b") as file:
            written = write(file)
        size, checksum = measure_file(str(local))
        return Output(shard, path, draft, written.rows, size, checksum, written.schema)
    except BaseException as error:
        local.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            error.add_note(f"while writing {local} for {path}: the disk is full. Make room, or choose another place")
        raise


def publish_output(output: Output) -> None:
    """Make an output appear where it belongs. Idempotent.

    Raises:
        StorageError: if its draft is gone and another file is in its place.
    """
    if not publish(output.draft, output.path) and measure_file(output.path) != (output.size_bytes, output.checksum):
        raise StorageError(
            f"cannot publish {output.path}: its draft {output.draft} is gone, and another file is in its place. "
            "Remove the directory of the run, and run the dataset again"
        )


def measure_file(path: str) -> tuple[int, str]:
    """Return (size in bytes, checksum) of a file.

    Raises:
        FileNotFoundError: if there is none.
        StorageError: if it cannot be read.
    """
    fs, inner = locate(path)
    digest, size = xxhash.xxh3_128(), 0
    try:
        with fs.open(inner, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise explained("read", path, error) from error
    return size, str(digest.hexdigest())
