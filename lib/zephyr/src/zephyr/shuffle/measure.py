"""Estimate what items take in memory, from the measured size of some of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

OVERHEAD_BYTES = 300
"""What an item costs beside itself while it is held: its place in a dict, its list, its encoded key, its entry."""
MAX_VISITED = 10_000
"""Parts of one item that are looked at; what is larger is extrapolated."""
MAX_BLOCK_ITEMS = 1024


def heap_bytes(item: Any) -> int:
    """Return about how many bytes an item takes on the heap, its parts included."""
    seen: set[int] = set()
    total, waiting = 0, [item]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        if len(seen) >= MAX_VISITED:
            return total * (1 + len(waiting) // MAX_VISITED)
        seen.add(id(part))
        total += sys.getsizeof(part, 64)
        waiting.extend(_children(part))
    return total


def _children(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return [*part.values(), *(() if all(isinstance(name, str) for name in part) else part)]
    if isinstance(part, (list, tuple, set, frozenset)):
        return part
    if hasattr(part, "__dict__"):
        return vars(part).values() if not isinstance(part, type) else ()
    slots = getattr(type(part), "__slots__", ())
    names = (slots,) if isinstance(slots, str) else slots
    return [getattr(part, name) for name in names if hasattr(part, name)]


class Held:
    """Counts items against a number of bytes, from one measured item in each block."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._measured_bytes = 0
        self._samples = 0
        self.block_items = 1
        """Items to take before the next is measured."""
        self.limit_items = 1
        """Items that fit."""
        self.item_bytes = 1
        """What one takes, on average."""

    def observe(self, item: Any) -> None:
        """Measure an item of a block."""
        self._measured_bytes += heap_bytes(item) + OVERHEAD_BYTES
        self._samples += 1
        self.item_bytes = self._measured_bytes // self._samples
        self.limit_items = max(1, self._limit_bytes // self.item_bytes)
        self.block_items = max(1, min(2 * self.block_items, MAX_BLOCK_ITEMS, self.limit_items // 8))
