"""Run many calls on a context, some at a time, and stop at the first failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fray import JobContext, JobFuture


def run_all(
    context: JobContext,
    fn: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    max_parallelism: int,
    on_done: Callable[[int, Any], None],
    on_failure: Callable[[int, BaseException], None],
) -> None:
    """Run ``fn(*call)`` for every call as a task and report how each ends by the call's number. Blocks.

    At most ``max_parallelism`` tasks are under way. After the first failure, or when interrupted, no call is started any more
    and those under way are cancelled. ``on_failure`` sees the exception before it is raised.

    Raises:
        BaseException: the first failure's own exception.
    """
    running: dict[JobFuture[Any], int] = {}
    waiting = iter(range(len(calls)))
    more = True

    def take(done: list[JobFuture[Any]]) -> None:
        for future in sorted(done, key=lambda future: future.completed_at or 0):
            number = running.pop(future)
            try:
                result = future.result()
            except Exception as error:
                on_failure(number, error)
                raise
            on_done(number, result)

    try:
        while more or running:
            while more and len(running) < max_parallelism:
                number = next(waiting, None)
                if number is None:
                    more = False
                    break
                future = context.run(fn, *calls[number])
                running[future] = number
                if future.done():  # a context that runs tasks at once: see failures before starting the next
                    take([future])
            if running:
                context.wait(list(running))
                take([future for future in running if future.done()])
    finally:
        for future in running:
            future.cancel()
