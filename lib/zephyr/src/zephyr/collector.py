"""Let the garbage collector run less often while a task holds many objects."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 50_000
"""Allocations between two collections, instead of Python's 700: records are freed by counting, and looking through millions of
live ones again and again costs more than anything else that a task does."""

_lock = threading.Lock()
_tasks = 0
_before = gc.get_threshold()


@contextmanager
def relaxed_collector() -> Iterator[None]:
    """Raise the collector's threshold while any task of this process is within the body; cycles are still collected."""
    global _tasks, _before
    with _lock:
        if _tasks == 0:
            _before = gc.get_threshold()
            gc.set_threshold(max(_before[0], YOUNG_OBJECTS), _before[1], _before[2])
        _tasks += 1
    try:
        yield
    finally:
        with _lock:
            _tasks -= 1
            if _tasks == 0:
                gc.set_threshold(*_before)
