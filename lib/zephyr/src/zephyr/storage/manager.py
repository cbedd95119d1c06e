"""The place of one job's intermediate data, from its first chunk to its removal."""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Self

from zephyr.config import resolve_base_path
from zephyr.storage.files import make_directory, remove_tree
from zephyr.storage.writer import DEFAULT_SPILL_THRESHOLD_BYTES, ChunkWriter


def chunk_path(stage_path: str, shard: int, chunk: int, attempt: str = "") -> str:
    """Return where a chunk goes; attempts at the same shard have files of their own."""
    return f"{stage_path}/{shard:06d}{attempt and '-'}{attempt}-{chunk:06d}.zep"


class StorageManager:
    """Names, makes and removes the directory of one job. Use it in a ``with`` statement.

    The constructor only decides where; entering makes the directory, leaving removes it.
    """

    def __init__(
        self, base_path: str | None = None, spill_threshold_bytes: float | None = DEFAULT_SPILL_THRESHOLD_BYTES
    ) -> None:
        """Choose the place.

        Args:
            base_path: fsspec URL or local path; None for ``FRAY_STORAGE``, ``MARIN_PREFIX`` or the user's temporary directory.
            spill_threshold_bytes: encoded size from which a chunk is a file; None for the default.

        Raises:
            ValueError: if the threshold is negative.
            StorageError: if the temporary directory belongs to somebody else.
        """
        threshold = DEFAULT_SPILL_THRESHOLD_BYTES if spill_threshold_bytes is None else spill_threshold_bytes
        if not threshold >= 0:
            raise ValueError(f"spill_threshold_bytes={threshold!r} must not be negative")
        self.spill_threshold_bytes = threshold
        self.job_id = uuid.uuid4().hex
        """A name that no other job has."""
        self.job_path = f"{resolve_base_path(base_path)}/{self.job_id}"
        """The directory of all intermediate data of the job."""
        self._stage = 0

    @property
    def stage_path(self) -> str:
        """The directory of the current stage."""
        return f"{self.job_path}/stage-{self._stage:03d}"

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

    def cleanup(self) -> None:
        """Remove all intermediate data of the job; log what cannot be removed. Idempotent."""
        remove_tree(self.job_path)

    def __enter__(self) -> Self:
        make_directory(self.stage_path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.cleanup()
