"""What commands print: JSON for programs, tables and words for people.

Names and errors come from users' code: they are shown as they are, never as markup or as orders to the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PIPE_WIDTH = 200
"""Columns of a table that does not go to a terminal."""
KEPT_WIDTH = 40
"""Columns that the names in a table get however narrow the terminal is: people copy them."""
BYTES = "memory"
"""The resource that is counted in bytes."""


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(value, indent=2))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under titles; long cells are folded, never cut off, and names in the first column last of all."""
    from rich.table import Table
    from rich.text import Text

    shown = list(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        longest = max((len(row[number]) for row in shown), default=0)
        table.add_column(title, overflow="fold", min_width=min(longest, KEPT_WIDTH) if number == 0 else None)
    for row in shown:
        table.add_row(*(Text(clean(cell)) for cell in row))
    _print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; pairs without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value:
            table.add_row(name, Text(clean(value)))
    _print(table)


def clean(text: str) -> str:
    """Return text whose control characters are spelt out, so that it cannot steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else "    " if c == "\t" else c.encode("unicode_escape").decode() for c in text
    )


def describe_duration(seconds: float) -> str:
    """Return seconds in words, with the two units that matter."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit} {rest} {next_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def describe_use(capacity: Mapping[str, float], used: Mapping[str, float], name: str) -> str:
    """Return how much of a resource is in use."""
    return f"{describe_amount(name, used.get(name, 0.0))} of {describe_amount(name, capacity.get(name, 0.0))}"


def describe_amount(name: str, amount: float) -> str:
    """Return an amount of a resource; memory with a unit."""
    if name != BYTES:
        return f"{amount:g}"
    for size, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount:g} B" if amount else "0"


def _print(table: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    for line in _lines(Console(width=width, highlight=False, emoji=False, markup=False), table):
        print(line)


def _lines(console: Any, table: Any) -> list[str]:
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
