"""Futures and refs, and how to wait for them: what all contexts share.

A ``JobFuture`` is a ``concurrent.futures.Future`` that can be awaited too. While a task of Fray waits for a future - by
``result()``, ``get``, ``wait``, ``concurrent.futures.wait``, ``as_completed`` or ``await`` - its slot is lent to other tasks,
so that tasks that wait for tasks of their own cannot block each other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from fray.errors import TaskCancelled

log = logging.getLogger("fray.client")

T = TypeVar("T")

_completions = itertools.count(1)


class Slot(Protocol):
    """The place on which the current task runs."""

    def lend(self) -> None:
        """Let others use the place; calls nest. Never blocks."""

    def reclaim(self) -> None:
        """Take the place back; at most one more task than places runs until another one ends. Never blocks."""

    def resume(self) -> None:
        """Block until nothing runs that came in between and must not be met. No lock is held."""


current_slot: ContextVar[Slot | None] = ContextVar("fray_current_slot", default=None)
"""The slot of the task that runs here; None outside of tasks."""


@contextmanager
def lent_slot() -> Iterator[None]:
    """Lend the current task's slot, if there is one, while the body waits for something."""
    slot = current_slot.get()
    if slot is None:
        yield
        return
    slot.lend()
    try:
        yield
    finally:
        slot.reclaim()
        slot.resume()


class _Condition:
    """What ``concurrent.futures`` needs of a ``threading.Condition``, in two objects instead of nine.

    A hundred thousand futures are common, and most of their cost was the garbage collector's look at their conditions
    (measured: 50 against 32 microseconds a task at the client).
    """

    __slots__ = ("_lock", "_sleepers")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sleepers: list[threading.Lock] | None = None

    def acquire(self) -> bool:
        return self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, which is held once, until ``notify_all`` or ``timeout`` seconds; tell which it was."""
        sleeper = threading.Lock()
        sleeper.acquire()
        if self._sleepers is None:
            self._sleepers = []
        self._sleepers.append(sleeper)
        self._lock.release()
        try:
            return sleeper.acquire(True, -1 if timeout is None else max(0.0, timeout))
        finally:
            self._lock.acquire()
            if self._sleepers is not None and sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def notify_all(self) -> None:
        """Wake all that wait; the lock is held."""
        sleepers, self._sleepers = self._sleepers, None
        for sleeper in sleepers or ():
            sleeper.release()


class _Waiters(list[Any]):
    """The waiters of one future, as ``concurrent.futures`` keeps them.

    ``cf.wait`` and ``cf.as_completed`` append a waiter, block, and remove it: in between the waiting task's slot is lent.
    """

    __slots__ = ()

    def append(self, waiter: Any) -> None:
        super().append(waiter)
        slot = current_slot.get()
        if slot is not None:
            slot.lend()

    def remove(self, waiter: Any) -> None:
        super().remove(waiter)
        slot = current_slot.get()
        if slot is not None:
            slot.reclaim()


class JobFuture(concurrent.futures.Future[T]):
    """The result of a task to come. Thread-safe.

    ``result(timeout)`` and ``exception(timeout)`` block, ``await future`` does not; both raise the task's exception.
    ``cancel()`` works on running tasks too, as far as the context can stop them: the future is cancelled at once.
    """

    def __init__(self, name: str = "", on_cancel: Callable[[JobFuture[Any]], None] | None = None) -> None:
        # The fields of concurrent.futures.Future, without its constructor: it would make the condition that is replaced.
        self._condition: Any = _Condition()
        self._state = "PENDING"
        self._result: Any = None
        self._exception: Any = None
        self._waiters: list[Any] = _Waiters()
        self._done_callbacks: list[Any] = []
        self.name = name
        """The task's name, for messages."""
        self.completed_at: int | None = None
        """Position in the order in which this process's futures completed; None while pending."""
        self._on_cancel = on_cancel
        self._cancel_told = False

    def result(self, timeout: float | None = None) -> T:
        if self.completed_at is not None:
            return super().result()  # done, or a few instructions away from it
        with lent_slot():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self.completed_at is not None:
            return super().exception()
        with lent_slot():
            return super().exception(timeout)

    def cancel(self) -> bool:
        self._number_completion()
        if not super().cancel():
            return False
        with self._condition:
            told, self._cancel_told = self._cancel_told, True
        if not told:
            self.set_running_or_notify_cancel()  # tells concurrent.futures.wait and as_completed
            if self._on_cancel is not None:
                self._on_cancel(self)
        return True

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except (Exception, SystemExit):  # others wait for this thread: a callback cannot end it
                log.exception("a callback of the future of %s failed", self.name)

    def resolve(self, value: T) -> bool:
        """Set the result and return True, or return False if the future is done already. For contexts."""
        self._number_completion()
        try:
            self.set_result(value)
        except concurrent.futures.InvalidStateError:
            return False
        return True

    def reject(self, error: BaseException) -> bool:
        """Set the exception and return True, or return False if the future is done already. For contexts."""
        self._number_completion()
        try:
            self.set_exception(error)
        except concurrent.futures.InvalidStateError:
            return False
        return True

    def _number_completion(self) -> None:
        # Numbered just before it is done: whoever sees the future done can see its number.
        if self.completed_at is None:
            self.completed_at = next(_completions)

    def discard_callback(self, callback: Callable[[Any], None]) -> None:
        """Forget a callback that was added and is not wanted any more, so that waiting in a loop leaves nothing behind."""
        with self._condition:
            if callback in self._done_callbacks:
                self._done_callbacks.remove(callback)

    def __await__(self) -> Generator[Any, None, T]:
        with lent_slot():
            return (yield from asyncio.wrap_future(self).__await__())

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the future of {self.name or 'a task'} cannot be pickled: pass futures as top-level arguments of run(), "
            "or get() them first"
        )


def find_failure(future: JobFuture[Any]) -> BaseException | None:
    """Return what a done future's dependents fail with: its exception, ``TaskCancelled``, or None when it has a value."""
    if future.cancelled():
        return TaskCancelled(f"{future.name or 'a task'}, on which this one depended, was cancelled")
    return future.exception()


def find_failed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> BaseException | None:
    """Return what a call fails with because a future among its arguments has failed already, or None."""
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, JobFuture) and arg.done():
            error = find_failure(arg)
            if error is not None:
                return error
    return None


def find_unfinished(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[JobFuture[Any]]:
    """Return the futures among the arguments that are not done."""
    return [arg for arg in (*args, *kwargs.values()) if isinstance(arg, JobFuture) and not arg.done()]


def when_done(futures: Sequence[JobFuture[Any]], then: Callable[[], None]) -> None:
    """Call ``then`` once, when all of the futures are done: on the thread that ends the last, or on this one."""
    left = iter(range(len(futures) - 1, -1, -1))

    def one_done(_: object) -> None:
        if next(left) == 0:
            then()

    for future in futures:
        future.add_done_callback(one_done)


class Ref(Generic[T]):
    """A value kept by a context, from ``put``; pass it to tasks as a top-level argument to receive the value there.

    The value must not be changed after ``put``: contexts may or may not have copied it.
    """

    __slots__ = ()


class LocalRef(Ref[T]):
    """A ref whose value is held by this process."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Ref({type(self.value).__name__})"


def get_values(refs: Any, timeout: float | None, read_ref: Callable[[Any], Any]) -> Any:
    """Carry out ``get`` for a future, a ref, or a list or tuple of them; the time-out is for all together.

    Raises:
        TypeError: for anything else.
        TimeoutError: when time ran out.
    """
    end = None if timeout is None else time.monotonic() + timeout
    if isinstance(refs, (list, tuple)):
        for ref in refs:
            if not isinstance(ref, (JobFuture, Ref)):
                _refuse("get", ref)
        return [_get_one(ref, end, read_ref) for ref in refs]
    return _get_one(refs, end, read_ref)


def _get_one(ref: Any, end: float | None, read_ref: Callable[[Any], Any]) -> Any:
    if isinstance(ref, JobFuture):
        left = None if end is None else max(0.0, end - time.monotonic())
        try:
            return ref.result(left)
        except TimeoutError as error:
            if ref.done():
                raise
            raise TimeoutError(f"get(): {ref.name or 'the task'} was not done in time") from error
    if isinstance(ref, Ref):
        return read_ref(ref)
    return _refuse("get", ref)


def wait_futures(
    futures: Iterable[JobFuture[Any]], num_returns: int = 1, timeout: float | None = None
) -> tuple[list[JobFuture[Any]], list[JobFuture[Any]]]:
    """Block until ``num_returns`` futures are done or time is up; return (ready, pending).

    ``ready`` has at most ``num_returns`` futures, in the order in which they completed; ``pending`` has all others, in the
    order given, also those that are done but were not asked for.

    Raises:
        TypeError: for anything that is not a future of a context.
        ValueError: if ``num_returns`` is negative or larger than the number of futures, or a future is given twice.
    """
    given = list(futures) if isinstance(futures, Iterable) else [futures]
    for future in given:
        if not isinstance(future, JobFuture):
            _refuse("wait", future)
    if not 0 <= num_returns <= len(given):
        raise ValueError(f"wait(): num_returns={num_returns} of {len(given)} futures")
    if len(set(map(id, given))) != len(given):
        raise ValueError("wait(): a future was given twice")
    done = [future for future in given if future.completed_at is not None and future.done()]
    if len(done) < num_returns and (timeout is None or timeout > 0):
        _block_until(given, num_returns, timeout)
        done = [future for future in given if future.completed_at is not None and future.done()]
    ready = sorted(done, key=_completion)[:num_returns]
    chosen = set(map(id, ready))
    return ready, [future for future in given if id(future) not in chosen]


def _block_until(given: Sequence[JobFuture[Any]], num_returns: int, timeout: float | None) -> None:
    enough = threading.Event()
    counter = itertools.count(1)
    gone = False

    def count(_: object) -> None:
        if not gone and next(counter) >= num_returns:
            enough.set()

    for future in given:
        future.add_done_callback(count)
        if enough.is_set():
            break
    with lent_slot():
        enough.wait(timeout)
    gone = True
    for future in given:
        future.discard_callback(count)


def _completion(future: JobFuture[Any]) -> int:
    return future.completed_at or 0


def _refuse(verb: str, value: object) -> NoReturn:
    raise TypeError(f"{verb}() takes futures from run() and refs from put(); got {type(value).__name__}: {value!r:.80}")
