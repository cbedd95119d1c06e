"""Which reader a file is for, and readers as plain functions, as ``flat_map`` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, ClassVar

from zephyr.expr import Expr
from zephyr.io.compression import READABLE, compression_of
from zephyr.io.csv import CsvReader
from zephyr.io.formats import FileSplit, OnBadRecord, Reader, raise_bad_record
from zephyr.io.jsonl import DROPPED, JsonlReader, narrow
from zephyr.io.text import TextReader, load_text

_READERS: dict[str, Reader] = {
    ".jsonl": JsonlReader(),
    ".ndjson": JsonlReader(),
    ".csv": CsvReader(),
    ".tsv": CsvReader(delimiter="\t"),
    ".txt": TextReader(),
    ".text": TextReader(),
}
_COLUMNAR = (".parquet", ".vortex")


def reader_for(path: str) -> Reader:
    """Return the reader for a file, chosen by its suffix below that of a compression.

    Raises:
        ValueError: for a suffix that is not known; names those that are.
    """
    name = PurePath(path)
    suffix = (name.with_suffix("") if compression_of(path) in READABLE else name).suffix.lower()
    if suffix == ".parquet":
        from zephyr.io.parquet import ParquetReader

        return ParquetReader()
    if suffix == ".vortex":
        from zephyr.io.vortex import VortexReader

        return VortexReader()
    if suffix not in _READERS:
        raise ValueError(_unknown(path, suffix))
    return _READERS[suffix]


def _unknown(path: str, suffix: str) -> str:
    if suffix == ".json":
        hint = "it may be one document or a document per line. If it is the latter, use load_jsonl"
    else:
        hint = f"known are {', '.join((*_READERS, *_COLUMNAR))}. Use the load function of its format"
    return f"cannot tell how to read {path} from its suffix {suffix!r}: {hint}"


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads each file by its suffix, see ``reader_for``."""

    columns: tuple[str, ...] | None = None
    """See ``Reader``."""
    predicate: Expr | None = None
    """See ``Reader``."""

    has_columns: ClassVar[bool] = True

    def can_split(self, path: str) -> bool:
        return reader_for(path).can_split(path)

    def read(self, source: str | FileSplit, on_bad: OnBadRecord = raise_bad_record) -> Iterable[Any]:
        reader: Any = reader_for(source.path if isinstance(source, FileSplit) else source)
        if reader.has_columns:
            return replace(reader, columns=self.columns, predicate=self.predicate).read(source, on_bad)  # type: ignore[no-any-return]
        records = reader.read(source, on_bad)
        return records if self.columns is None and self.predicate is None else self._narrowed(records, on_bad)

    def _narrowed(self, records: Iterable[Any], on_bad: OnBadRecord) -> Iterator[Any]:
        for record in records:
            try:
                narrowed = narrow(record, self.columns, self.predicate)
            except Exception as error:
                on_bad(None, record, error)
            else:
                if narrowed is not DROPPED:
                    yield narrowed


def load_file(path: str, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the records of a file whose format its suffix tells, see ``reader_for``; of mappings ``columns`` only."""
    return iter(FileReader(_tuple(columns)).read(path))


def load_jsonl(path: str, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the values of a file of JSON lines; of objects ``columns`` only. See ``JsonlReader``."""
    return JsonlReader(_tuple(columns)).read(path)


def load_csv(path: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, str]]:
    """Yield the rows of a file of comma-separated values whose first row has the names. See ``CsvReader``."""
    return CsvReader(_tuple(columns)).read(path)


def load_parquet(path: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file. See ``ParquetReader``."""
    from zephyr.io.parquet import ParquetReader

    return iter(ParquetReader(_tuple(columns)).read(path))


def load_vortex(path: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Vortex file. See ``VortexReader``."""
    from zephyr.io.vortex import VortexReader

    return iter(VortexReader(_tuple(columns)).read(path))


def _tuple(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(columns)


__all__ = [
    "FileReader",
    "load_csv",
    "load_file",
    "load_jsonl",
    "load_parquet",
    "load_text",
    "load_vortex",
    "reader_for",
]
