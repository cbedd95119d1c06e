"""The one place in Fray's tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 20.0, interval: float = 0.01, what: str = "") -> T:
    """Call ``condition`` until it returns something true, and return that. Blocks.

    Raises:
        AssertionError: after ``timeout`` seconds; shows ``what`` and the last value.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition!r}; last value {value!r}")
        time.sleep(interval)
