"""What a file format offers: a reader and a writer, both frozen values that travel inside plans."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any, Protocol, Self, runtime_checkable

from zephyr.expr import Expr

OnBadRecord = Callable[[int | None, Any, Exception], None]
"""Told of a record that cannot be read or written: its number from 1 (None if unknown), what was there (raw bytes of a line, or
the record), the error. It raises to stop; when it returns, the record is left out."""


def raise_bad_record(number: int | None, record: Any, error: Exception) -> None:
    """Raise the error with a note that tells which record: what ``OnBadRecord`` is unless somebody asks for more."""
    where = "a record" if number is None else f"record {number}"
    error.add_note(f"at {where}: {record!r:.200}")
    raise error


@dataclass(frozen=True, slots=True)
class FileSplit:
    """Part of a file: what begins at a byte in ``[start, end)``, so that the parts of a file hold every record once."""

    path: str
    """The file."""
    start: int
    """First byte."""
    end: int
    """One behind the last byte."""


@runtime_checkable
class Reader(Protocol):
    """Turns a file into records: those for which ``predicate`` holds, reduced to ``columns``.

    The meaning is that of reading all records, dropping those for which the predicate is not true, and keeping of the others
    the columns in the given order, without those that a record lacks. How much of it happens while reading is the format's own.
    """

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns to keep; None for all."""

    @property
    def predicate(self) -> Expr | None:
        """What a record must fulfil; None if nothing. It may use columns that are not kept."""

    @property
    def has_columns(self) -> bool:
        """Whether records are mappings, so that columns and predicate can be pushed down."""

    def can_split(self, path: str) -> bool:
        """Tell from its name whether the file can be read in parts."""

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> Iterable[Any]:
        """Return the records, lazily; a ``ColumnBatches`` where the format is columnar.

        Raises:
            FileNotFoundError, OSError, EOFError, UnicodeDecodeError, ...: while iterating, with a note that names the file.
        """


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer has written."""

    rows: int
    """Records in the file."""
    schema: tuple[tuple[str, str], ...] | None = None
    """(column, type) pairs where the format has them."""


class StreamWriter:
    """What writers share that write records as they come."""

    __slots__ = ()

    def within(self, memory_bytes: int) -> Self:
        """Return itself: nothing is gathered."""
        return self


@runtime_checkable
class Writer(Protocol):
    """Turns records into a file."""

    def check_path(self, path: str) -> None:
        """Make sure, from its name alone, that such a file can be written. Called when the plan is computed.

        Raises:
            PlanError: naming the path and what is supported, for example for a compression that cannot be written.
        """

    def within(self, memory_bytes: int) -> Writer:
        """Return a writer that gathers no more than so many bytes before it writes them."""

    def write(self, file: IO[bytes], path: str, items: Iterable[Any], on_bad: OnBadRecord = raise_bad_record) -> Written:
        """Write all items to an open local file; ``path`` is the final name and decides about compression."""
