"""What becomes of records that cannot be read, processed or written: the run fails, or they are left out, counted and kept."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    __slots__ = ("file", "line", "operations", "position", "shard", "stage", "total")

    def __init__(self, stage: str, operations: str, shard: int, total: int, file: str | None) -> None:
        self.stage = stage
        self.operations = operations
        self.shard = shard
        self.total = total
        self.file = file
        self.position: int | None = None
        """How many records of the file or the shard have been read, so the number of the last from 1; None if unknown."""
        self.line: int | None = None
        """The line of a text file that is no record, from 1; None if it is another one that is bad."""

    def __str__(self) -> str:
        return self._in(f"{self.stage} ({self.operations})")

    @property
    def brief(self) -> str:
        """The same without the stage's operations."""
        return self._in(self.stage)

    def _in(self, stage: str) -> str:
        file = "" if self.file is None else f", file {self.file}"
        number = f", line {self.line}" if self.line is not None else ""
        if self.line is None and self.position is not None:
            number = f", record {self.position}"
        return f"in {stage}, shard {self.shard} of {self.total}{file}{number}"

    @contextmanager
    def at(self, position: int | None = None, line: int | None = None) -> Iterator[None]:
        """Be somewhere else in the file within the body."""
        before = self.position, self.line
        self.position, self.line = position, line
        try:
            yield
        finally:
            self.position, self.line = before


class BadRecords:
    """The bad records of one task. Not thread-safe."""

    def __init__(self, policy: ErrorPolicy, create_writer: Callable[[], ChunkWriter]) -> None:
        self._policy = policy
        self._create_writer = create_writer
        self._writer: ChunkWriter | None = None
        self.count = 0
        """How many so far."""
        self._raised: Exception | None = None
        self.last = ""
        """What was wrong with the last, and where it is."""

    def add(self, place: Place, operation: str, record: Any, error: Exception) -> None:
        """Take note of a bad record, or raise its error with notes that say where it is.

        Raises:
            Exception: ``error``, if bad records are not wanted.
            TooManyBadRecords: if this is one too many; ``error`` is its cause.
        """
        if isinstance(error, TooManyBadRecords) or error is self._raised:
            raise error  # on its way up
        if self._policy.on_error == "fail":
            error.add_note(f"in {operation}, given {shorten(record)}")
            error.add_note(str(place))
            self._raised = error
            raise error
        self.count += 1
        self.last = f"{type(error).__name__}: {text_of(error)}, {place.brief}, in {operation}"
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
        return printable(f"{record!r:.200}")
    except Exception as error:
        return f"<{type(record).__name__} whose repr raises {type(error).__name__}>"


def text_of(error: Exception) -> str:
    """Return an error's message, whatever its own methods do."""
    try:
        return printable(str(error))
    except Exception as second:
        return f"<no text: its __str__ raises {type(second).__name__}>"


def printable(text: str) -> str:
    """Return a text that can be encoded: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _dead_letter(place: Place, operation: str, record: Any, error: Exception) -> dict[str, Any]:
    return {
        "stage": place.stage,
        "shard": place.shard,
        "file": place.file,
        "position": None if place.line is not None else place.position,
        "line": place.line,
        "operation": operation,
        "error": type(error).__name__,
        "message": text_of(error),
        "traceback": printable("".join(traceback.format_exception(error))),
        "record": record,
    }
