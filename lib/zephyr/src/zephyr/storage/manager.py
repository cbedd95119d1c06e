"""The place of one job's intermediate data, from its first chunk to its removal."""

from __future__ import annotations

import logging
import re
import uuid
from types import TracebackType
from typing import Self

from zephyr.config import resolve_base_path
from zephyr.errors import StorageError
from zephyr.storage.commit import read_commit
from zephyr.storage.files import list_names, make_directory, remove_empty, remove_tree
from zephyr.storage.writer import DEFAULT_SPILL_THRESHOLD_BYTES, ChunkWriter

logger = logging.getLogger(__name__)

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
RECORD = "plan"
"""Name of the object in a job's directory that says what is carried out there. It begins with the id of the run."""
COMMITS = "commits"
"""Name of the directory in a stage's that has the results of its tasks."""
MAX_INLINE_BYTES = 64 * 1024 * 1024
"""What all inline chunks of a stage may come to: they pass through the driver."""


def slug(name: str) -> str:
    """Return a name for a file or a directory, made from any text."""
    return _NOT_IN_NAMES.sub("-", name).strip(".-") or "unnamed"


def chunk_path(stage_path: str, shard: int, chunk: int, attempt: str = "") -> str:
    """Return where a chunk goes; attempts at the same shard have files of their own."""
    return f"{stage_path}/{shard:06d}{attempt and '-'}{attempt}-{chunk:06d}.zep"


class StorageManager:
    """Names, makes and removes the directory of one job. Use it in a ``with`` statement.

    The constructor only decides where; entering makes the directory, leaving removes it.
    """

    def __init__(
        self,
        base_path: str | None = None,
        spill_threshold_bytes: float | None = None,
        job_id: str | None = None,
    ) -> None:
        """Choose the place.

        Args:
            base_path: fsspec URL or local path; None for ``FRAY_STORAGE``, ``MARIN_PREFIX`` or the user's temporary directory.
            spill_threshold_bytes: encoded size from which a chunk is a file; None for 1 MiB, or less in stages of so many tasks
                that what is inline would come to more than 64 MiB in all.
            job_id: the name of a job that can be resumed: its directory stays when the body of the ``with`` statement fails.
                None for a name that no other job has, and a directory that is always removed.

        Raises:
            ValueError: if the threshold is negative.
            StorageError: if the temporary directory belongs to somebody else.
        """
        if spill_threshold_bytes is not None and not spill_threshold_bytes >= 0:
            raise ValueError(f"spill_threshold_bytes={spill_threshold_bytes!r} must not be negative")
        self._threshold_bytes = spill_threshold_bytes
        self._keep = job_id is not None
        self.job_id = uuid.uuid4().hex if job_id is None else job_id
        """The name of the job."""
        self.base_path = resolve_base_path(base_path)
        """Where the directories of jobs are."""
        self.job_path = f"{self.base_path}/{self.job_id}"
        """The directory of all intermediate data of the job."""
        self._stage = 0
        self._run_id: str | None = None

    @property
    def spill_threshold_bytes(self) -> float:
        """Encoded size from which a chunk is a file."""
        return self.threshold_bytes(1)

    def threshold_bytes(self, tasks: int) -> float:
        """Return the encoded size from which a chunk of a stage of so many tasks is a file."""
        if self._threshold_bytes is not None:
            return self._threshold_bytes
        return min(DEFAULT_SPILL_THRESHOLD_BYTES, MAX_INLINE_BYTES // max(1, tasks))

    @property
    def stage_path(self) -> str:
        """The directory of the current stage."""
        return f"{self.job_path}/stage-{self._stage:03d}{self._suffix}"

    def chunk_path(self, shard: int, chunk: int) -> str:
        """Return where a chunk of the current stage is spilled to."""
        return chunk_path(self.stage_path, shard, chunk)

    def create_writer(self, shard: int, chunk: int) -> ChunkWriter:
        """Return a writer for a chunk of the current stage."""
        return ChunkWriter(self.chunk_path(shard, chunk), self.spill_threshold_bytes)

    def next_stage(self) -> str:
        """Move on to the next stage and return its directory, made where directories are real."""
        self._stage += 1
        make_directory(self.stage_path)
        return self.stage_path

    def begin_run(self, run_id: str) -> None:
        """Keep the data of one run of a job that can be resumed apart from that of others; remove what those have left."""
        self._run_id = run_id
        for name in list_names(self.job_path):
            if name.startswith("stage-") and not name.endswith(self._suffix):
                remove_tree(f"{self.job_path}/{name}")

    def cleanup(self) -> None:
        """Remove all intermediate data of the job; log what cannot be removed. Idempotent.

        The record of a run goes first: without it nobody takes what is still there for part of a run, and while it is there all
        stays. What is not of this run stays too.
        """
        if self._run_id is None:
            remove_tree(self.job_path)
            return
        try:
            self._remove_run(self._run_id.encode())
        except StorageError as error:
            logger.warning("could not remove what is left in %s: %s", self.job_path, error)

    def _remove_run(self, run_id: bytes) -> None:
        path = f"{self.job_path}/{RECORD}"
        record = read_commit(path)
        if record is not None and record.startswith(run_id):
            remove_tree(path)
            if read_commit(path) is not None:
                logger.warning("the record %s of a run that has ended is still there; remove %s by hand", path, self.job_path)
                return
        for name in list_names(self.job_path):
            if name.endswith(self._suffix) or name.startswith("."):  # a driver that was killed while it tried the storage
                remove_tree(f"{self.job_path}/{name}")
        remove_empty(self.job_path)

    @property
    def _suffix(self) -> str:
        return "" if self._run_id is None else f"-{self._run_id[:8]}"

    def __enter__(self) -> Self:
        make_directory(self.job_path if self._keep else self.stage_path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None or not self._keep:
            self.cleanup()
