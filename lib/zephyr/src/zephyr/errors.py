"""Every error that Zephyr raises on purpose, as one tree.

    ZephyrError
    ├── PlanError (also ValueError)    the dataset cannot be carried out as written; nothing has run
    │   └── PlanChanged                a run to be resumed had another plan
    ├── StageError                     an item cannot be passed on between stages
    ├── TooManyBadRecords              more records were bad than allowed
    └── StorageError
        ├── ChunkMissing               a chunk that was written is not there any more
        ├── ChunkCorrupted             a chunk's bytes are not those that were written
        └── OutputConflict             something else is where an output should go

A user's own exception is raised as itself, with notes that say in which stage, shard and file it happened.
"""

from __future__ import annotations


class ZephyrError(Exception):
    """Base of all errors raised by Zephyr."""

    retryable = False
    """Whether doing the same again later may succeed."""

    @property
    def code(self) -> str:
        """A stable name for logs and programs, such as ``chunk_missing``."""
        name = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class PlanError(ZephyrError, ValueError):
    """The dataset cannot be carried out as written; the text says what to change."""


class PlanChanged(PlanError):
    """A run to be resumed had another plan: mixing the two would give neither's result."""

    def __init__(self, job_path: str, changes: tuple[str, ...]) -> None:
        super().__init__(job_path, changes)
        self.job_path = job_path
        self.changes = changes

    def __str__(self) -> str:
        changes = "\n  ".join(self.changes)
        return (
            f"the run in {self.job_path} was begun with another plan:\n  {changes}\n"
            "Put the plan back to resume it, give this run another name, or remove that directory to begin anew"
        )


class TooManyBadRecords(ZephyrError):
    """More records were bad than ``max_errors`` allows."""

    def __init__(self, count: int, max_errors: int, last: str) -> None:
        super().__init__(count, max_errors, last)
        self.count = count
        self.max_errors = max_errors
        self.last = last

    def __str__(self) -> str:
        return f"{self.count} bad records are more than the {self.max_errors} that max_errors allows; the last: {self.last}"


class StageError(ZephyrError):
    """A stage produced something that cannot be passed on."""


class StorageError(ZephyrError):
    """Something is wrong with intermediate data or outputs on storage."""


class ChunkMissing(StorageError):
    """A chunk that was written is gone: its job has ended, or somebody removed the job's directory."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"the chunk {self.path} is missing: its job has ended, or its directory was removed. Run the dataset again; if it "
            "repeats with resume=True, remove the run's directory to begin anew"
        )


class ChunkCorrupted(StorageError):
    """A chunk's bytes are not those that were written."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the chunk {self.where} is damaged: {self.reason}. Run the dataset again; if it repeats, check the storage, and "
            "with resume=True remove the run's directory to begin anew"
        )


class OutputConflict(StorageError):
    """Something that is no file is where an output should go."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"cannot publish {self.path}: a directory is in its place. Remove it, or write to another path"
