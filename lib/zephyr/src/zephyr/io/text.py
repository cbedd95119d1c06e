"""Files of lines: read in blocks of whole lines, in full or in part; text, one item a line.

A line ends with ``\\n`` or ``\\r\\n``, and with nothing else that Unicode or Python may take for a line end. The last one may
lack its end or half of it. A byte order mark at the start of a file is skipped.
"""

from __future__ import annotations

import io
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, ClassVar, cast

from zephyr.io.binary import write_encoded
from zephyr.io.compression import check_writable, compression_of
from zephyr.io.files import open_binary
from zephyr.io.formats import FileSplit, OnBadRecord, StreamWriter, Written, raise_bad_record

BLOCK_BYTES = 256 * 1024
"""Bytes of a file that one read asks for; what is made of them still fits into a core's cache."""
TAIL_BYTES = 64 * 1024
"""The same before and behind a part, in search of the line ends that bound it."""


@dataclass(frozen=True, slots=True)
class TextReader:
    """Reads the lines of UTF-8 files as ``str`` without their ends, decompressed by suffix; plain files also in parts."""

    errors: str = "strict"
    """What to do with bytes that are no UTF-8, as for ``bytes.decode``; ``strict`` makes the line a bad record."""

    columns: ClassVar[None] = None
    predicate: ClassVar[None] = None
    has_columns: ClassVar[bool] = False

    def can_split(self, path: str) -> bool:
        return not compression_of(path)

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> Iterator[str]:
        return chain.from_iterable(self._blocks(source, on_bad))

    def _blocks(self, source: str | FileSplit, on_bad: OnBadRecord) -> Iterator[Iterable[str]]:
        for number, lines in iter_lines(source):
            try:
                yield [self._decode(line) for line in lines]
            except UnicodeDecodeError:
                yield self._decode_each(source, number, lines, on_bad)

    def _decode_each(
        self, source: str | FileSplit, number: int | None, lines: list[bytes], on_bad: OnBadRecord
    ) -> Iterator[str]:
        for at, line in numbered(number, lines):
            try:
                text = self._decode(line)
            except UnicodeDecodeError as error:
                error.add_note(f"while reading {place(source, at)}")
                on_bad(at, line, error)
            else:
                yield text

    def _decode(self, line: bytes) -> str:
        return line.removesuffix(b"\r").decode("utf-8", self.errors)


@dataclass(frozen=True, slots=True)
class TextWriter(StreamWriter):
    """Writes a ``str`` per line as UTF-8, compressed by suffix (.gz, .zst, .zstd).

    An item that could not be read back is bad: one that is no ``str``, holds a line feed, or ends with a carriage return.
    """

    def check_path(self, path: str) -> None:
        check_writable(path)

    def write(self, file: IO[bytes], path: str, items: Iterable[Any], on_bad: OnBadRecord = raise_bad_record) -> Written:
        return write_encoded(file, path, items, _encode, on_bad)


def _encode(items: list[Any]) -> bytes:
    return b"".join(map(_encode_line, items))


def _encode_line(item: Any) -> bytes:
    if not isinstance(item, str):
        raise TypeError(f"an item of type {type(item).__name__} cannot be written as a line of text; use map(str) first")
    if "\n" in item or item.endswith("\r"):
        raise ValueError("an item holds a line end, it would be read back as something else; write it as JSON lines")
    return item.encode() + b"\n"


def load_text(path: str, errors: str = "strict") -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their line ends, decompressed by suffix.

    Args:
        path: local path or fsspec URL.
        errors: what to do with bytes that are no UTF-8, as for ``bytes.decode``; ``strict`` raises.

    Raises:
        OSError, EOFError, UnicodeDecodeError, ...: with a note that names the file and line.
    """
    return TextReader(errors).read(path)


def iter_lines(source: str | FileSplit) -> Iterator[tuple[int | None, list[bytes]]]:
    """Yield (number of the first line, lines without ``\\n``) for about a block at a time. A line may have any length.

    Lines are numbered from 1; None in a part that does not begin where the file does. A part has the lines of which the first
    byte lies in it.

    Raises:
        ValueError: for a part of a compressed file.
        OSError, EOFError, ...: with a note that names the file and the last line that was read.
    """
    part = source if isinstance(source, FileSplit) else FileSplit(source, 0, -1)
    number = 0 if part.start == 0 else None
    try:
        with open_binary(part.path) as file:
            for data in _whole_lines(_chunks(file) if part is not source else _chunks_of_part(file, part)):
                lines = data.split(b"\n")
                if not lines[-1]:
                    lines.pop()
                if number == 0:
                    lines[0] = lines[0].removeprefix(BOM_UTF8)
                yield None if number is None else number + 1, lines
                number = None if number is None else number + len(lines)
    except Exception as error:
        error.add_note(f"while reading {place(source, number, 'after line')}")
        raise


def place(source: str | FileSplit, number: int | None, what: str = "line") -> str:
    """Say which line of which file it is, or in which part of the file when the number is not known."""
    path, start = (source.path, source.start) if isinstance(source, FileSplit) else (source, 0)
    return f"{path}, {what} {number}" if number is not None else f"{path}, in the part from byte {start}"


def numbered(first: int | None, lines: Iterable[bytes]) -> Iterator[tuple[int | None, bytes]]:
    """Yield (number, line); numbers are None where the first one is."""
    for offset, line in enumerate(lines):
        yield None if first is None else first + offset, line


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []  # a line that is longer than a chunk is joined once
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield b"".join((*begun, chunk[:cut]))
            begun = []
        begun.append(chunk[cut:])
    if last := b"".join(begun):
        yield last


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(BLOCK_BYTES):
        yield chunk


def _chunks_of_part(file: IO[bytes], part: FileSplit) -> Iterator[bytes]:
    """Yield what is between the first newline from ``start - 1`` on and, inclusive, the first one from ``end - 1`` on."""
    if compression_of(part.path):
        raise ValueError(f"{part.path} is compressed and cannot be read in parts")
    # Also for file systems whose files cannot limit readline(). It closes the file with itself, which is done with then.
    with io.BufferedReader(cast("io.RawIOBase", file), TAIL_BYTES) as lines:
        at, chunk = part.start, b"\n"
        if part.start > 0:
            lines.seek(part.start - 1)
            before = lines.readline(max(part.end - part.start, 0))
            if not before.endswith(b"\n"):
                return
            at += len(before) - 1
        while at < part.end and (chunk := lines.read(min(BLOCK_BYTES, part.end - at))):
            at += len(chunk)
            yield chunk
        if chunk and not chunk.endswith(b"\n"):
            yield lines.readline()
