"""Files of JSON lines: a JSON value per line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, ClassVar

import msgspec

from zephyr.expr import Expr, extract_columns
from zephyr.io.binary import write_encoded
from zephyr.io.compression import check_writable, compression_of
from zephyr.io.formats import FileSplit, OnBadRecord, StreamWriter, Written, raise_bad_record
from zephyr.io.text import iter_lines, numbered, place

BLANK = b" \t\r"
DROPPED: Any = object()
"""Stands for a record for which the predicate is not true."""

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class JsonlReader:
    """Reads a JSON value per line, decompressed by suffix; plain files also in parts. Blank lines are skipped.

    A line is bad when it is no JSON, and when predicate or columns cannot be applied to it. Of columns that are not needed,
    a line in ASCII is checked for its syntax only: a number beyond the range of floats does no harm there.
    """

    columns: tuple[str, ...] | None = None
    """See ``Reader``."""
    predicate: Expr | None = None
    """See ``Reader``."""

    has_columns: ClassVar[bool] = True

    def can_split(self, path: str) -> bool:
        return not compression_of(path)

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> Iterator[Any]:
        return chain.from_iterable(self._blocks(source, on_bad))

    def _blocks(self, source: str | FileSplit, on_bad: OnBadRecord) -> Iterator[Iterable[Any]]:
        decode = _line_decoder(self.columns, self.predicate)
        for number, lines in iter_lines(source):
            try:
                records = list(map(decode, filter(None, lines)))
            except Exception:
                yield _decode_each(decode, source, number, lines, on_bad)
            else:
                yield records if self.predicate is None else [record for record in records if record is not DROPPED]


def _decode_each(
    decode: Callable[[bytes], Any], source: str | FileSplit, first: int | None, lines: list[bytes], on_bad: OnBadRecord
) -> Iterator[Any]:
    for number, line in numbered(first, lines):
        if not line.strip(BLANK):
            continue
        try:
            record = decode(line)
        except Exception as error:
            error.add_note(f"while reading {place(source, number)}")
            on_bad(number, line, error)
        else:
            if record is not DROPPED:
                yield record


def _line_decoder(columns: tuple[str, ...] | None, predicate: Expr | None) -> Callable[[bytes], Any]:
    """Return what makes of a line the record, reduced to ``columns``, or ``DROPPED``."""
    if columns is None and predicate is None:
        return _decode
    needed = () if predicate is None else sorted(extract_columns(predicate))
    decode_columns = None if columns is None else _decoder_of((*columns, *needed))

    def decode(line: bytes) -> Any:
        # What is skipped is not checked to be UTF-8, so lines that are more than ASCII are decoded in full.
        if decode_columns is not None and line.isascii():
            try:
                record = msgspec.to_builtins(decode_columns(line))
            except Exception:
                pass  # bad, or no object: the full decoding tells
            else:
                return record if predicate is None else narrow(record, columns, predicate)
        return narrow(_decode(line), columns, predicate)

    return decode


def _decoder_of(columns: Iterable[str]) -> Callable[[bytes], Any] | None:
    """Return what decodes an object into a struct of nothing but the columns; None for names that a struct cannot have."""
    names = {f"column{number}": name for number, name in enumerate(dict.fromkeys(columns))}
    try:
        struct = msgspec.defstruct("Columns", [(field, Any, msgspec.UNSET) for field in names], rename=names, gc=False)
    except ValueError:
        return None
    return msgspec.json.Decoder(struct).decode


def narrow(record: Any, columns: Iterable[str] | None, predicate: Expr | None) -> Any:
    """Return the record reduced to ``columns``, or ``DROPPED`` if the predicate is not true."""
    if predicate is not None and not predicate.evaluate(record):
        return DROPPED
    return record if columns is None else {column: record[column] for column in columns if column in record}


@dataclass(frozen=True, slots=True)
class JsonlWriter(StreamWriter):
    """Writes a JSON value per line, compressed by suffix (.gz, .zst, .zstd).

    Dataclasses, datetimes, decimals, sets, bytes and the like are written as msgspec does, numpy values like the lists, numbers
    and ISO dates they stand for. NaN and infinities, which JSON lacks, become null. Keys may be strings or numbers and become
    strings. A record that holds anything else is bad.
    """

    level: int | None = None
    """Of the compression: 0 to 9 for gzip (by isal up to 3, by zlib above), 1 to 22 for zstd; None for 2 and 3."""

    def check_path(self, path: str) -> None:
        check_writable(path, self.level)

    def write(self, file: IO[bytes], path: str, items: Iterable[Any], on_bad: OnBadRecord = raise_bad_record) -> Written:
        encode = msgspec.json.Encoder(enc_hook=_plain).encode_lines
        return write_encoded(file, path, items, encode, on_bad, self.level)


def _plain(value: Any) -> Any:
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is None or not hasattr(value, "tolist"):
        raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON; convert it first")
    return value.astype(str).tolist() if kind == "M" else value.tolist()  # the latter makes dates in ns plain integers
