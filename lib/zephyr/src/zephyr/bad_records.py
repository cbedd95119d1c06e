"""What becomes of records that cannot be read, processed or written: the run fails, or they are left out, counted and kept."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from zephyr.errors import PlanError, StageError, TooManyBadRecords
from zephyr.storage import ChunkRef, ChunkWriter
from zephyr.storage.codec import encode_frame

OnError = Literal["fail", "skip", "dead_letter"]
"""``fail`` raises the first error, ``skip`` leaves the record out and counts it, ``dead_letter`` keeps it in a file as well."""


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What to do with bad records."""

    on_error: OnError = "fail"
    """What becomes of one."""
    max_errors: int = 0
    """How many there may be in a run before it fails; 0 for any number."""

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "skip", "dead_letter"):
            raise PlanError(f"on_error={self.on_error!r} must be 'fail', 'skip' or 'dead_letter'")
        if self.max_errors < 0:
            raise PlanError(f"max_errors={self.max_errors} must not be negative; 0 sets no limit")

    def check(self, count: int, last: str) -> None:
        """Raise if there are more bad records than allowed; ``last`` tells of one of them."""
        if self.max_errors and count > self.max_errors:
            raise TooManyBadRecords(count, self.max_errors, last)


FAIL = ErrorPolicy()


class Place:
    """Where a task is in its data, for messages."""

    __slots__ = ("file", "position", "shard", "stage", "total")

    def __init__(self, stage: str, shard: int, total: int, file: str | None) -> None:
        self.stage = stage
        self.shard = shard
        self.total = total
        self.file = file
        self.position: int | None = None
        """Number of the last record read from the file or the shard, from 1; None if that is unknown."""

    @property
    def stage_name(self) -> str:
        """The stage without its operations."""
        return self.stage.partition(" (")[0]

    def __str__(self) -> str:
        return self.within(self.stage)

    def within(self, stage: str) -> str:
        """Return where it is, with this text for the stage."""
        file = "" if self.file is None else f", file {self.file}"
        record = "" if self.position is None else f", record {self.position}"
        return f"in {stage}, shard {self.shard} of {self.total}{file}{record}"


class BadRecords:
    """The bad records of one task. Not thread-safe."""

    def __init__(self, policy: ErrorPolicy, create_writer: Callable[[], ChunkWriter]) -> None:
        self._policy = policy
        self._create_writer = create_writer
        self._writer: ChunkWriter | None = None
        self.count = 0
        """How many so far."""
        self.last = ""
        """What was wrong with the last, and where it is."""

    def add(self, place: Place, operation: str, record: Any, error: Exception) -> None:
        """Take note of a bad record, or raise its error with notes that say where it is.

        Raises:
            Exception: ``error``, if bad records are not wanted.
            TooManyBadRecords: if this is one too many; ``error`` is its cause.
        """
        begin = f"in {place.stage}, "
        if isinstance(error, TooManyBadRecords) or any(note.startswith(begin) for note in getattr(error, "__notes__", ())):
            raise error  # on its way up
        if self._policy.on_error == "fail":
            error.add_note(f"in {operation}, given {shorten(record)}")
            error.add_note(str(place))
            raise error
        self.count += 1
        self.last = f"{type(error).__name__}: {error}, {place.within(place.stage_name)}, in {operation}"
        self._policy.check(self.count, self.last)
        if self._policy.on_error == "dead_letter":
            self._keep(_dead_letter(place, operation, record, error), record)

    def finish(self) -> tuple[ChunkRef, ...]:
        """Return where the dead letters are."""
        return () if self._writer is None else (self._writer.finish(),)

    def abort(self) -> None:
        """Release what is open. Idempotent."""
        if self._writer is not None:
            self._writer.abort()

    def _keep(self, letter: dict[str, Any], record: Any) -> None:
        self._writer = self._writer or self._create_writer()
        try:
            encode_frame([record])
        except StageError:  # that it cannot be pickled may be what is bad about it
            letter["record"] = shorten(record)
        self._writer.write(letter)


def shorten(record: Any) -> str:
    """Return the beginning of a record's repr, whatever its own methods do."""
    try:
        return f"{record!r:.200}"
    except Exception as error:
        return f"<{type(record).__name__} whose repr raises {type(error).__name__}>"


def _dead_letter(place: Place, operation: str, record: Any, error: Exception) -> dict[str, Any]:
    return {
        "stage": place.stage_name,
        "shard": place.shard,
        "file": place.file,
        "position": place.position,
        "operation": operation,
        "error": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "record": record,
    }
