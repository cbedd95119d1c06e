"""Put the records that a stage has left out into a file of JSON lines, for people to look at and to try again."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec

from zephyr.bad_records import shorten
from zephyr.io.formats import raise_bad_record
from zephyr.io.jsonl import JsonlWriter
from zephyr.io.load import load_jsonl
from zephyr.io.publish import write_draft
from zephyr.storage.commit import publish
from zephyr.storage.files import locate


def write_dead_letters(path: str, letters: Iterator[dict[str, Any]], kept_shards: Collection[int]) -> None:
    """Write the letters to a file, after those that are there of shards that are kept; remove a file that has none any more."""
    before = _read_letters(path) if kept_shards else ()
    kept = (letter for letter in before if letter.get("shard") in kept_shards)
    lines = itertools.chain(kept, _plain(letters))
    first = next(lines, None)
    if first is None:
        fs, inner = locate(path)
        fs.invalidate_cache()
        if fs.exists(inner):
            fs.rm_file(inner)
        return
    output = write_draft(0, path, uuid.uuid4().hex, JsonlWriter(), itertools.chain((first,), lines), raise_bad_record)
    publish(output.draft, path)


def _read_letters(path: str) -> Iterable[dict[str, Any]]:
    try:
        yield from load_jsonl(path)
    except FileNotFoundError:
        return


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
