"""Files of separated values, with or without a row of column names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Literal

from zephyr.expr import Expr
from zephyr.io.formats import FileSplit, OnBadRecord, raise_bad_record
from zephyr.io.jsonl import DROPPED, narrow
from zephyr.io.text import iter_lines, place

MAX_FIELD_CHARS = 256 * 1024 * 1024
"""Where a quote that is never closed stops taking in lines."""


@dataclass(frozen=True, slots=True)
class CsvReader:
    """Reads rows as dicts of ``str``, decompressed by suffix. Empty lines are skipped; fields in quotes may hold line ends.

    A row is bad when its quotes or its UTF-8 are wrong, when it has more or fewer fields than there are columns, and when the
    predicate cannot be applied to it; its number is that of its first line. The row of names is never left out: its errors are
    raised.
    """

    columns: tuple[str, ...] | None = None
    """See ``Reader``."""
    predicate: Expr | None = None
    """See ``Reader``."""
    delimiter: str = ","
    """One character."""
    header: Literal[True] | Sequence[str] = True
    """The columns; True takes them from the first row."""

    has_columns: ClassVar[bool] = True

    def can_split(self, path: str) -> bool:
        return False

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> Iterator[dict[str, str]]:
        """See ``Reader``.

        Raises:
            ValueError: if two columns have one name, or for a part of a file.
        """
        if isinstance(source, FileSplit):
            raise ValueError(f"{source.path} cannot be read in parts: a line end may be within quotes")
        rows = _Rows(source, self.delimiter)
        names = self._names(rows)
        for row in rows.read(on_bad):
            try:
                if len(row) != len(names):
                    raise ValueError(f"the row has {len(row)} fields, but there are {len(names)} columns")
                record = narrow(dict(zip(names, row, strict=True)), self.columns, self.predicate)
            except Exception as error:
                rows.tell(row, error, on_bad)
            else:
                if record is not DROPPED:
                    yield record

    def _names(self, rows: _Rows) -> Sequence[str]:
        names = next(rows.read(raise_bad_record), []) if self.header is True else self.header
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            raise ValueError(
                f"{rows.path} has more than one column named {', '.join(map(repr, twice))}; give other names as header"
            )
        return names


class _Rows:
    """The rows of a file, and where they are."""

    def __init__(self, path: str, delimiter: str) -> None:
        self.path = path
        self._lines = chain.from_iterable(lines for _, lines in iter_lines(path))
        self._line = b""  # the last one that was read
        self._number = 0  # of that line
        self._first = 0  # number of the first line of the row
        self._reader = csv.reader(map(self._decode, self._lines), delimiter=delimiter, strict=True)

    def read(self, on_bad: OnBadRecord) -> Iterator[list[str]]:
        """Yield rows that are not empty, from where the last call stopped."""
        while True:
            self._first = self._number + 1
            try:
                csv.field_size_limit(MAX_FIELD_CHARS)  # of the process; other users of the module may have lowered it
                row = next(self._reader, None)
            except (csv.Error, UnicodeDecodeError) as error:
                self.tell(self._line, error, on_bad)
                continue
            if row is None:
                return
            if row:
                yield row

    def tell(self, record: Any, error: Exception, on_bad: OnBadRecord) -> None:
        """Tell of a bad row."""
        error.add_note(f"while reading {place(self.path, self._first)}")
        on_bad(self._first, record, error)

    def _decode(self, line: bytes) -> str:
        self._line = line
        self._number += 1
        return line.decode() + "\n"
