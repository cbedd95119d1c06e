"""Calling user code in this process: retries, time-outs and interrupts for the contexts without a controller.

The Ray context uses it on Ray's side, the sync and threadpool contexts here.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fray.errors import TaskCancelled, TaskFailed, TaskTimeout
from fray.job.futures import lent_slot
from fray.serialization.failures import capture_failure
from fray.types import TaskOptions, compute_retry_delay_s


def call(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call ``fn``; collect a generator to a list, run a coroutine to its end."""
    result = fn(*args, **kwargs)
    if inspect.isgenerator(result):
        return list(result)
    if inspect.iscoroutine(result):
        return _run_coroutine(result)
    return result


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on this thread, whose locks it may need; a loop that runs here stands still meanwhile."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return asyncio.run(coroutine)
    finally:
        asyncio._set_running_loop(outer)


class Interrupted(BaseException):
    """Raised inside user code to stop it; no ``Exception``, so that ``except Exception`` does not swallow it."""


class Call:
    """One task's calls in the current thread, which another thread may stop.

    The interrupt reaches Python code at its next bytecode; a blocking call into C is not interrupted.
    """

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any, options: TaskOptions, name: str) -> None:
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self._options = options
        self._name = options.name or name
        self._end = None if options.deadline is None else time.monotonic() + options.deadline
        self._lock = threading.Lock()  # guards _thread and _reason
        self._thread: int | None = None
        self._reason: BaseException | None = None
        self._stopped = threading.Event()

    def stop(self, reason: BaseException | None = None) -> None:
        """Make the call end with ``reason`` (cancelled, when None) as soon as it can. Thread-safe, does not block."""
        with self._lock:
            if self._reason is None:
                self._reason = reason or TaskCancelled(f"{self._name} was cancelled")
            self._stopped.set()
            if self._thread is not None:
                _set_async_exception(self._thread, Interrupted)

    def run(self) -> Any:
        """Call until it returns or may not be tried again; return the value.

        Raises:
            Exception: the user's own, of the last attempt.
            TaskFailed: for exceptions that would end this process, such as SystemExit.
            TaskTimeout, TaskCancelled: when stopped.
        """
        failures = 0
        while True:
            try:
                return self._attempt(failures)
            except BaseException as error:
                failures += 1
                wanted = isinstance(error, (*self._options.retry_exceptions, TaskTimeout))
                if self._reason is not None or not wanted or not self._options.allows_retry(failures):
                    shown = presentable(self._reason or error)
                    raise shown from shown.__cause__  # the user's own cause, not what happened on the way here
                last = error
            delay_s = compute_retry_delay_s(self._options.retry_delay_s, failures, self._name)
            with lent_slot():
                self._stopped.wait(delay_s if self._end is None else min(delay_s, self._end - time.monotonic()))
            if self._end is not None and time.monotonic() >= self._end:
                text = f"{self._name} did not end within its deadline of {self._options.deadline} s ({failures} failures)"
                raise TaskTimeout(text) from last

    def _attempt(self, failures: int) -> Any:
        limits = [(self._options.timeout, f"its timeout of {self._options.timeout} s (attempt {failures + 1})")]
        if self._end is not None:
            limits.append((self._end - time.monotonic(), f"its deadline of {self._options.deadline} s"))
        seconds, what = min(((s, text) for s, text in limits if s is not None), default=(None, ""))
        timer = None
        timed_out: list[TaskTimeout] = []
        if seconds is not None:
            if seconds <= 0:
                raise TaskTimeout(f"{self._name} did not end within {what}")

            def expire() -> None:
                with self._lock:
                    if self._thread is not None:
                        timed_out.append(TaskTimeout(f"{self._name} ran longer than {what}"))
                        _set_async_exception(self._thread, Interrupted)

            timer = threading.Timer(seconds, expire)
            timer.name, timer.daemon = "fray-timeout", True
        try:
            try:
                with self._lock:
                    if self._reason is not None:
                        raise Interrupted
                    self._thread = threading.get_ident()
                if timer is not None:
                    timer.start()
                return call(self._fn, self._args, self._kwargs)
            finally:
                with self._lock:
                    thread, self._thread = self._thread, None
                    if thread is not None and (timed_out or self._reason):
                        _set_async_exception(thread, None)  # an interrupt that was not delivered must not hit what follows
                if timer is not None:
                    timer.cancel()
        except BaseException:
            if timed_out and self._reason is None:
                raise timed_out[0] from None
            if self._reason is not None:
                raise Interrupted from None
            raise


def presentable(error: BaseException) -> BaseException:
    """Return what may be raised in another thread: SystemExit and its like become a ``TaskFailed``."""
    if isinstance(error, Exception):
        return error
    failure = capture_failure(error)
    return TaskFailed(f"{failure.type_name}: {failure.message}", failure.type_name, failure.traceback_text)


def _set_async_exception(thread: int, kind: type[BaseException] | None) -> None:
    target = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)
