"""Run many calls on a context, some at a time, give slow ones a second attempt, and stop at the first failure."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fray import JobContext, JobFuture

SLOW_FACTOR = 3
"""A call is slow when it has taken this many times as long as half of the others."""
CHECK_INTERVAL_S = 1.0
"""How often slow calls are looked for while none ends."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task that runs a call."""

    number: int
    """The call's number."""
    begun_at: float
    """When it was submitted, on the monotonic clock."""
    second: bool
    """Whether it duplicates another that is slow."""


class Calls:
    """The calls of one stage."""

    def __init__(
        self,
        context: JobContext,
        fn: Callable[..., Any],
        arguments: Callable[[int], tuple[Any, ...]],
        max_parallelism: int,
        speculate_after_s: float | None,
    ) -> None:
        """Keep what is given.

        Args:
            context: where tasks run.
            fn: what each runs.
            arguments: the number of a call to its arguments, asked for when it is submitted.
            max_parallelism: tasks under way at a time.
            speculate_after_s: a call that takes longer, and is slow beside the others, gets a second attempt when no call
                waits any more; None for never.
        """
        self._context = context
        self._fn = fn
        self._arguments = arguments
        self._max_parallelism = max_parallelism
        self._speculate_after_s = speculate_after_s
        self._running: dict[JobFuture[Any], Attempt] = {}
        self._done: set[int] = set()
        self._durations_s: list[float] = []
        self._most_seconds = 1  # second attempts at a time: more when some have shown that there is room for them

    def run(
        self,
        numbers: Iterable[int],
        on_done: Callable[[int, Any], None],
        on_failure: Callable[[int, BaseException], Any],
    ) -> None:
        """Run the calls of these numbers and report how each ends. Blocks.

        After the first failure, or when interrupted, no call is started any more and those under way are cancelled. Of two
        attempts at a call the first to end counts. ``on_failure`` sees the exception before it is raised, or returns a result
        that counts instead.

        Raises:
            BaseException: the first failure's own exception.
        """
        waiting = deque(numbers)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._max_parallelism:
                    future = self._submit(waiting.popleft(), second=False)
                    if future.done():  # a context that runs tasks at once: see failures before starting the next
                        self._take([future], on_done, on_failure)
                if self._running:
                    self._context.wait(list(self._running), timeout=self._timeout_s(bool(waiting)))
                    self._take([future for future in self._running if future.done()], on_done, on_failure)
                if not waiting:
                    self._speculate()
        finally:
            for future in self._running:
                future.cancel()

    def _submit(self, number: int, second: bool) -> JobFuture[Any]:
        future = self._context.run(self._fn, *self._arguments(number))
        self._running[future] = Attempt(number, time.monotonic(), second)
        return future

    def _timeout_s(self, more: bool) -> float | None:
        return None if more or self._speculate_after_s is None else min(CHECK_INTERVAL_S, self._speculate_after_s)

    def _take(
        self,
        ended: list[JobFuture[Any]],
        on_done: Callable[[int, Any], None],
        on_failure: Callable[[int, BaseException], Any],
    ) -> None:
        for future in sorted(ended, key=lambda future: future.completed_at or 0):
            attempt = self._running.pop(future, None)
            if attempt is None or attempt.number in self._done:
                continue
            try:
                result = future.result()
            except Exception as error:
                result = on_failure(attempt.number, error)
                if result is None:
                    raise
            self._done.add(attempt.number)
            self._durations_s.append(time.monotonic() - attempt.begun_at)
            if attempt.second:
                self._most_seconds *= 2
            on_done(attempt.number, result)
            self._drop_others(attempt.number)

    def _drop_others(self, number: int) -> None:
        for future in [future for future, attempt in self._running.items() if attempt.number == number]:
            del self._running[future]
            future.cancel()

    def _speculate(self) -> None:
        if self._speculate_after_s is None or not self._durations_s:
            return
        now = time.monotonic()
        slow_s = max(self._speculate_after_s, SLOW_FACTOR * statistics.median(self._durations_s))
        seconds = {attempt.number for attempt in self._running.values() if attempt.second}
        for attempt in list(self._running.values()):  # the oldest first: it runs, while others may wait for a slot
            if len(seconds) >= self._most_seconds or len(self._running) >= self._max_parallelism:
                return
            if now - attempt.begun_at > slow_s and attempt.number not in seconds:
                self._submit(attempt.number, second=True)
                seconds.add(attempt.number)
