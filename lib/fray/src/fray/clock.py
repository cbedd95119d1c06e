"""Where time comes from, so that nothing else asks the operating system for it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic and of calendar time, both in seconds."""

    def now(self) -> float:
        """Return monotonic seconds; only differences mean something."""

    def wall(self) -> float:
        """Return seconds since the epoch, for people to read."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
