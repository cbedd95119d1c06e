"""Counters that user functions increment; totals come with the result of a run, in its manifest and on its progress line.

Only the attempts that count are counted: what a task counted that failed or was overtaken is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[Counter[str] | None] = ContextVar("zephyr_counters", default=None)


def increment(name: str, n: int = 1) -> None:
    """Add ``n`` to a counter of the current task; does nothing outside of one. Threads that a function starts do not count."""
    counters = _current.get()
    if counters is not None:
        counters[name] += n


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Give the counter that ``increment`` adds to within the body."""
    counters: Counter[str] = Counter()
    token = _current.set(counters)
    try:
        yield counters
    finally:
        _current.reset(token)
