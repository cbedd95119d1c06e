"""What a run that can be resumed leaves behind: the plan it carries out, and the result of each task that has ended.

A result counts once its commit exists. Commits are created exclusively, so of two drivers of one run both go on with the same
results; on storage that does not honour that, only one driver may carry out a run, and a warning says so.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from zephyr.errors import ChunkCorrupted, PlanChanged, StorageError
from zephyr.plan.fingerprint import plan_fingerprints
from zephyr.plan.values import PhysicalPlan
from zephyr.stage import TaskResult
from zephyr.storage.codec import decode_frame, encode_frame
from zephyr.storage.commit import create_exclusive, honours_exclusive_create, list_commits, read_commit
from zephyr.storage.manager import COMMITS, RECORD

logger = logging.getLogger(__name__)

MAX_SHOWN_CHANGES = 10
_ID_BYTES = 32


class RunRecord:
    """The plan of a run, recorded where its chunks are. While the record is there the run goes on.

    Of two drivers one may end the run, and remove all that it has left, while the other stands still. So whoever has created a
    commit looks for the record once more before the commit counts: it is the first that goes when a run ends.
    """

    def __init__(self, job_path: str) -> None:
        self._job_path = job_path
        self._path = f"{job_path}/{RECORD}"
        self._run_id = uuid.uuid4().hex

    def begin(self, plan: PhysicalPlan) -> str:
        """Record the plan, or make sure that it is the one recorded; return the id of the run.

        Raises:
            PlanChanged: telling what differs.
            StorageError: if the storage cannot be written to.
        """
        if not honours_exclusive_create(self._job_path):
            logger.warning(
                "%s does not create objects exclusively: make sure that only one driver carries out this run", self._job_path
            )
        pieces = plan_fingerprints(plan)
        mine = self._run_id.encode() + encode_frame([pieces, self._run_id])[0]
        while True:  # until it neither appears nor goes between two looks
            recorded = read_commit(self._path)
            if recorded is None:
                if create_exclusive(self._path, mine):
                    return self._run_id
                continue
            before, run_id = self._decode(recorded)
            if before != pieces:
                raise PlanChanged(self._job_path, _changes(before, pieces))
            self._run_id = run_id
            return run_id

    def goes_on(self) -> bool:
        """Tell whether the run has not been ended.

        Raises:
            StorageError: if the record cannot be read.
        """
        found = read_commit(self._path)
        return found is not None and self._decode(found)[1] == self._run_id

    def _decode(self, recorded: bytes) -> tuple[Any, str]:
        """Return the plan and the id of a run. The id is there twice: once where it can be seen without decoding."""
        try:
            before, run_id = decode_frame(memoryview(recorded)[_ID_BYTES:], self._path)
            if recorded[:_ID_BYTES] != run_id.encode():
                raise ChunkCorrupted(self._path, "the run's id does not match")
        except ChunkCorrupted as error:
            raise StorageError(
                f"the record {self._path} of a run is damaged: {error.reason}. Run the dataset again; if it repeats, remove "
                f"{self._job_path} to begin anew"
            ) from error
        return before, run_id

    def check(self) -> None:
        """Make sure that the run has not been ended by another driver.

        Raises:
            StorageError: saying so.
        """
        if not self.goes_on():
            raise StorageError(f"the run in {self._job_path} was ended by another driver. Look at its result, or run it again")


def _changes(before: list[tuple[str, ...]], now: list[tuple[str, str]]) -> tuple[str, ...]:
    changes = []
    for number in range(max(len(before), len(now))):
        old = before[number] if number < len(before) else None
        new = now[number] if number < len(now) else None
        if old is None or new is None:
            changes.append(f"- {old[0]}" if old is not None else f"+ {new[0] if new else ''}")
        elif old[0] != new[0]:
            changes += [f"- {old[0]}", f"+ {new[0]}"]
        elif old[1] != new[1]:
            changes.append(f"! {new[0]}: looks the same, but its code, options or files have changed")
    return tuple(changes[:MAX_SHOWN_CHANGES])


class Commits:
    """The results of one stage."""

    def __init__(self, stage_path: str, record: RunRecord) -> None:
        self._directory = f"{stage_path}/{COMMITS}"
        self._record = record

    def load(self) -> dict[str, TaskResult]:
        """Return the results that are there, by the name of their task.

        Raises:
            StorageError: naming a commit that cannot be read or is damaged.
        """
        return {name: self._decode(data, f"{self._directory}/{name}") for name, data in list_commits(self._directory).items()}

    def find(self, name: str) -> TaskResult | None:
        """Return the result of a task, if there is one."""
        path = f"{self._directory}/{name}"
        found = read_commit(path)
        return None if found is None else self._decode(found, path)

    def commit(self, name: str, result: TaskResult) -> TaskResult:
        """Make this the result of a task, and return the one that counts: this one, or that of another driver.

        Raises:
            StorageError: if another driver has ended the run meanwhile.
        """
        path = f"{self._directory}/{name}"
        created = create_exclusive(path, encode_frame([result])[0])
        self._record.check()
        if created:
            return result
        found = self.find(name)
        if found is None:
            self._record.check()
            raise StorageError(f"the commit {path} is gone, though its run goes on. Remove that run's directory to begin anew")
        return found

    def _decode(self, data: bytes, where: str) -> TaskResult:
        try:
            (result,) = decode_frame(data, where)
        except ChunkCorrupted as error:
            raise StorageError(
                f"the commit {where} is damaged: {error.reason}. Run the dataset again; if it repeats, remove that file, and "
                "its task is carried out anew"
            ) from error
        if not isinstance(result, TaskResult):
            raise ChunkCorrupted(where, f"it holds a {type(result).__name__} instead of a task's result")
        return result
