"""Where time comes from, so that nothing else asks the operating system for it."""

from __future__ import annotations

import time
from typing import Protocol

_SINCE_BOOT: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Where there is such a clock, it goes on while the machine is suspended: a lease must end then too."""


class Clock(Protocol):
    """A source of monotonic and of calendar time, both in seconds. Not an event loop's time: compare nothing with that."""

    def now(self) -> float:
        """Return monotonic seconds; only differences mean something."""

    def wall(self) -> float:
        """Return seconds since the epoch, for people to read."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.clock_gettime(_SINCE_BOOT)

    def wall(self) -> float:
        return time.time()
