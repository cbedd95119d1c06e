"""What commands print: JSON for programs, words for people.

Names and errors come from users' code: they are shown as they are, never as orders to the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from zephyr.plan.explain import format_bytes

SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
"""Units of ages, largest first."""
LINES = ("first_items", "first_records", "damage")
"""Lists that are shown a line per entry; other lists of mappings are tables."""


@contextmanager
def reserved_stdout(reserved: bool) -> Iterator[TextIO]:
    """Yield standard output; while it is reserved, what others print goes to standard error."""
    out = sys.stdout
    with redirect_stdout(sys.stderr if reserved else out):
        yield out


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(value, indent=2))


def print_record(record: Mapping[str, Any]) -> None:
    """Print a mapping: plain values as fields, then lists as tables or lines, each under its name.

    The unit of a number is the end of its name: ``bytes`` or ``_s``. What is None is left out.
    """
    lists = {name: value for name, value in record.items() if isinstance(value, list)}
    fields = {name: value for name, value in record.items() if name not in lists and value is not None}
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{_title(name):<{width}}  {_cell(name, value)}")
    for name, values in lists.items():
        if values:
            print(f"\n{_title(name)}")
            _print_list(name, values)


def _print_list(name: str, values: Sequence[Any]) -> None:
    if name in LINES:
        for value in values:
            print(f"  {clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}")
    elif any(isinstance(cell, list) for value in values for cell in value.values()):
        for value in values:
            print_record(value)
    else:
        print_table(values)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same keys, under these as titles."""
    names = list(rows[0])
    cells = [list(map(_title, names)), *([_cell(name, row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _title(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return clean(", ".join(f"{key} {amount}" for key, amount in value.items())) or "-"
    if name.endswith("bytes"):
        return format_bytes(value)
    if name.endswith("_s"):
        return format_age(value)
    return f"{value:,}" if isinstance(value, int) else clean(str(value))


def format_age(seconds: float) -> str:
    """Return seconds in the largest unit of which there is one."""
    unit = next((unit for unit, size in SECONDS.items() if seconds >= size and unit != "w"), "s")
    return f"{max(0.0, seconds) / SECONDS[unit]:.3g} {unit}"


def clean(text: str) -> str:
    """Return text whose control characters are spelt out, so that it cannot steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
