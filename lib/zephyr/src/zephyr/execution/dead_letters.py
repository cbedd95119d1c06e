"""Put the records that a stage has left out into a file of JSON lines, for people to look at and to try again."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from zephyr.bad_records import shorten
from zephyr.io.formats import raise_bad_record
from zephyr.io.jsonl import JsonlWriter
from zephyr.io.publish import write_draft
from zephyr.storage.commit import publish
from zephyr.storage.files import locate


def write_dead_letters(path: str, letters: Iterator[dict[str, Any]]) -> None:
    """Write the letters to a file; without any, remove the one that an earlier run has left there."""
    first = next(letters, None)
    if first is None:
        fs, inner = locate(path)
        fs.invalidate_cache()
        if fs.exists(inner):
            fs.rm_file(inner)
        return
    lines = _plain(itertools.chain((first,), letters))
    output = write_draft(0, path, uuid.uuid4().hex, JsonlWriter(), lines, raise_bad_record)
    publish(output.draft, path)


def _plain(letters: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield letters that JSON can hold: bytes that are text become text, and other values that JSON lacks their ``repr``."""
    for letter in letters:
        record = letter["record"]
        if isinstance(record, (bytes, bytearray)):
            record = bytes(record).decode("utf-8", "backslashreplace")
        try:
            msgspec.json.encode(record)
        except Exception:  # whatever an encoder makes of a strange value
            record = shorten(record)
        yield {**letter, "record": record}
