"""What actors are on every context: handles, and the order in which one actor's calls are carried out.

An actor carries out one call at a time, in the order in which they came. While a call waits for something - a task, another
actor, the actor itself - only calls that were made on its behalf may come in between: those whose *chain* names it. So an
actor can call itself, also by way of others, and wait, and its state is never seen half changed by strangers. (Orleans calls
this call-chain reentrancy.) With ``max_concurrency`` above one, calls run on so many threads; the calls of a class with
``async`` methods run on one event loop, each up to its next ``await``.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from fray.errors import ConfigurationError
from fray.job.calls import call
from fray.job.futures import JobFuture, Slot, current_slot
from fray.types import ActorOptions

ASYNC_CONCURRENCY = 1000
"""Calls that an actor with ``async`` methods carries out at a time, unless told otherwise."""

MAX_NAME_CHARS = 256
"""Longest name of an actor."""

current_chain: ContextVar[tuple[str, ...]] = ContextVar("fray_call_chain", default=())
"""The actor calls that wait for what runs here, the outermost first."""

_saver: ContextVar[Callable[[], None] | None] = ContextVar("fray_checkpoint", default=None)


class ActorHandle:
    """An actor as its callers see it: ``handle.method.remote(*args, **kwargs)`` returns a ``JobFuture``. Thread-safe."""

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("__"):
            raise AttributeError(name)
        return ActorMethod(self, name)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobFuture[Any]:
        raise NotImplementedError


class ActorMethod:
    """A method of an actor."""

    __slots__ = ("_handle", "_name")

    def __init__(self, handle: ActorHandle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Call the method; return the future of its value. Does not wait for the actor, whatever it does meanwhile.

        What the method raises is raised by the future. Raises EncodeError if the arguments cannot travel.
        """
        return self._handle._call(self._name, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"methods of an actor are called as handle.{self._name}.remote(...)")


def save_checkpoint() -> None:
    """Save the state of the actor whose method runs here, to be restored if it has to be restarted. Blocks on storage.

    The state is what ``__getstate__`` returns now. Where an actor cannot outlive its process (sync, threadpool), nothing is
    to be saved.

    Raises:
        ConfigurationError: outside of an actor, in one that carries out several calls at a time, and on Ray.
        OSError: if storage refuses; the checkpoint before this one stays.
    """
    saver = _saver.get()
    if saver is None:
        raise ConfigurationError("save_checkpoint() saves the actor whose method calls it; no actor's method runs here")
    saver()


def with_saver(saver: Callable[[], None] | None, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call on this thread; ``saver`` is what ``save_checkpoint`` does meanwhile, None where no actor's method runs."""
    token = _saver.set(saver)
    try:
        return call(method, args, kwargs)
    finally:
        _saver.reset(token)


def leave_actor() -> None:
    """Note that what runs in this context is no actor's method any more, but a task that one has started."""
    _saver.set(None)


def choose_saver(cls: type, max_concurrency: int | None, saver: Callable[[], None]) -> Callable[[], None]:
    """Return what ``save_checkpoint`` does in an actor of a class: ``saver``, if there is one state at a time."""
    return _refuse_to_save if is_async(cls) or (max_concurrency or 1) > 1 else saver


def _refuse_to_save() -> None:
    raise ConfigurationError("save_checkpoint(): an actor that carries out several calls at a time has no single state to save")


def is_async(cls: type) -> bool:
    """Whether a class has ``async`` methods."""
    return any(inspect.iscoroutinefunction(inspect.getattr_static(cls, name, None)) for name in dir(cls))


def check_actor(cls: object, name: str | None, lifetime: str, options: ActorOptions) -> None:
    """Refuse what can be no actor.

    Raises:
        TypeError: if ``cls`` is no class.
        ConfigurationError: if its options make no sense or contradict each other.
    """
    if lifetime not in ("non_detached", "detached"):
        raise ConfigurationError(f"lifetime={lifetime!r} is neither 'non_detached' nor 'detached'")
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS and name.isprintable()):
        raise ConfigurationError(f"name={name!r} must be printable text of 1 to {MAX_NAME_CHARS} characters, or None")
    if not isinstance(cls, type):
        raise TypeError(f"create_actor() takes a class first, then its constructor's arguments; got {type(cls).__name__}")
    concurrent = is_async(cls) or (options.max_concurrency or 1) > 1
    if options.checkpoint_every is not None and concurrent:
        raise ConfigurationError(
            f"checkpoint_every is for actors that carry out one call at a time: {cls.__name__} has async methods or a "
            "max_concurrency above 1"
        )


class ActorCall:
    """One call on its way to an actor; contexts say how arguments and values travel."""

    def __init__(self, id: str, method: str, chain: tuple[str, ...]) -> None:
        self.id = id
        """Unique among all calls."""
        self.method = method
        self.chain = chain
        """The calls that wait for it, the outermost first."""
        self.lent = 0
        """How often the call waits for something right now; guarded by its runner's lock."""

    def is_wanted(self) -> bool:
        """Whether it is to be carried out still."""
        return True

    def is_ready(self) -> bool:
        """Whether ``arguments`` returns without waiting for other tasks."""
        return True

    def arguments(self) -> tuple[Any, Any]:
        """Return (args, kwargs); may block and raise."""
        raise NotImplementedError

    def invoke(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the method, on the thread of the call."""
        return call(method, args, kwargs)

    def finish(self, value: Any) -> None:
        """Take the value; what this raises becomes the call's failure."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Take the failure."""
        raise NotImplementedError


class ActorRunner:
    """Carries out the calls of one instance. ``submit`` and ``stop`` may be called from any thread and do not block."""

    def __init__(
        self,
        name: str,
        instance: Any,
        max_concurrency: int | None = None,
        slot: Slot | None = None,
        saver: Callable[[], None] | None = None,
    ) -> None:
        """Configure a runner.

        Args:
            name: for threads.
            instance: whose methods are called.
            max_concurrency: as in ``ActorOptions``.
            slot: the place of the actor, lent while its one call waits.
            saver: what ``save_checkpoint`` does in its methods.
        """
        self._name, self._instance, self._slot = name, instance, slot
        self._is_async = is_async(type(instance))
        self._limit = max_concurrency or (ASYNC_CONCURRENCY if self._is_async else 1)
        self._context = contextvars.copy_context()
        self._context.run(_saver.set, choose_saver(type(instance), max_concurrency, saver) if saver else None)
        self._context.run(current_slot.set, None)
        self._changed = threading.Condition()  # guards all fields below
        self._queue: deque[ActorCall] = deque()
        self._running: list[ActorCall] = []
        self._idle = 0
        self._stopped = self._cancels = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup = asyncio.Event()

    def submit(self, call: ActorCall) -> None:
        """Let a call be carried out after those before it; after ``stop``, only if one that still runs waits for it."""
        with self._changed:
            if self._stopped and (self._cancels or not any(running.id in call.chain for running in self._running)):
                return
            self._queue.append(call)
            self._offer()

    def is_behind(self) -> bool:
        """Whether calls wait for others to end."""
        return bool(self._queue)

    def stop(self, cancel: bool = True) -> None:
        """Begin no further call, and let ``serve`` return when the running ones have ended.

        ``cancel`` those that await something; otherwise calls that running ones wait for are still carried out.
        """
        with self._changed:
            self._stopped, self._cancels = True, cancel
            running = set() if cancel else {call.id for call in self._running}
            self._queue = deque(call for call in self._queue if not running.isdisjoint(call.chain))
            self._changed.notify_all()
            self._wake_loop()

    def serve(self) -> None:
        """Carry out calls, on this thread as long as they come one at a time, until ``stop``. Blocks."""
        if self._is_async:
            self._context.copy().run(asyncio.run, self._serve_loop())
        else:
            self._work(None)
            with self._changed:
                self._changed.wait_for(lambda: not self._running)

    # --- threads

    def _offer(self) -> None:
        """Find a thread for the next call, if it may begin. The lock is held."""
        if self._is_async:
            self._wake_loop()
            return
        if self._idle:
            self._changed.notify_all()
            return
        while self._running and (call := self._take()) is not None:  # the thread of serve is busy, or waits in a call
            thread = threading.Thread(target=self._work, args=(call,), name=f"{self._name}-{len(self._running)}", daemon=True)
            thread.start()

    def _take(self) -> ActorCall | None:
        """Take the next call that may begin. The lock is held."""
        if self._limit > 1:
            active = sum(1 for call in self._running if not call.lent)
            found = self._queue[0] if self._queue and active < self._limit else None
        elif not self._running:
            found = self._queue[0] if self._queue else None
        else:
            waiting = self._running[-1]
            found = next((call for call in self._queue if waiting.id in call.chain), None) if waiting.lent else None
        if found is not None:
            self._queue.remove(found)
            self._running.append(found)
        return found

    def _work(self, call: ActorCall | None) -> None:
        """Carry out calls: for ever when there is none to begin with, else as long as more are ready."""
        is_first = call is None
        while True:
            if call is None:
                call = self._next(waits=is_first)
                if call is None:
                    return
            self._settle(call, *self._context.copy().run(self._carry_out, call))
            with self._changed:
                self._running.remove(call)
                call = None
                self._changed.notify_all()

    def _next(self, waits: bool) -> ActorCall | None:
        with self._changed:
            while (found := self._take()) is None:
                if self._stopped or not waits:
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            if self._queue:
                self._offer()
            return found

    def _carry_out(self, call: ActorCall) -> tuple[Any, BaseException | None]:
        current_slot.set(_Turn(self, call))
        current_chain.set((*call.chain, call.id))
        try:
            if not call.is_wanted():
                return None, None
            args, kwargs = call.arguments()
            return call.invoke(getattr(self._instance, call.method), args, kwargs), None
        except BaseException as error:
            return None, error

    def _settle(self, call: ActorCall, value: Any, error: BaseException | None) -> None:
        """Tell the outcome, outside of the call: whoever waits for it may run code of his own here."""
        if not call.is_wanted():
            return
        try:
            if error is None:
                call.finish(value)
        except BaseException as refused:
            error = refused
        if error is not None:
            call.fail(error)

    def lend(self, call: ActorCall) -> None:
        """Note that a call waits: others may come in between, as far as they may."""
        with self._changed:
            call.lent += 1
            self._offer()
        if self._slot is not None and self._limit == 1:
            self._slot.lend()

    def reclaim(self, call: ActorCall) -> None:
        """Note that a call goes on."""
        if self._slot is not None and self._limit == 1:
            self._slot.reclaim()
        with self._changed:
            call.lent -= 1

    def resume(self, call: ActorCall) -> None:
        """Block while a call runs that came in between."""
        if self._limit == 1:
            with self._changed:
                self._changed.wait_for(lambda: call not in self._running or self._running[-1] is call)

    # --- one event loop

    def _wake_loop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wakeup.set)

    async def _serve_loop(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        with self._changed:
            self._loop = asyncio.get_running_loop()
        while not self._stopped:
            self._wakeup.clear()
            while (call := self._take_async()) is not None:
                task = asyncio.create_task(self._carry_out_async(call))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await self._wakeup.wait()
        if self._cancels:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_async(self) -> ActorCall | None:
        """Take the next call; when all that may run do, only one that a running one may wait for."""
        with self._changed:
            found = self._queue[0] if self._queue and len(self._running) < self._limit else None
            if found is None and self._queue:
                running = {call.id for call in self._running}
                found = next((call for call in self._queue if not running.isdisjoint(call.chain)), None)
            if found is not None:
                self._queue.remove(found)
                self._running.append(found)
            return found

    async def _carry_out_async(self, call: ActorCall) -> None:
        current_chain.set((*call.chain, call.id))
        try:
            if call.is_wanted():
                await self._await_call(call)
        finally:
            with self._changed:
                self._running.remove(call)
            self._wakeup.set()

    async def _await_call(self, call: ActorCall) -> None:
        try:
            args, kwargs = call.arguments() if call.is_ready() else await asyncio.to_thread(call.arguments)
            value = getattr(self._instance, call.method)(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            elif inspect.isgenerator(value):
                value = list(value)
            call.finish(value)
        except BaseException as error:
            call.fail(error)
            if isinstance(error, asyncio.CancelledError) and self._stopped:
                raise


class _Turn:
    """The slot of a call (``fray.job.futures.Slot``)."""

    __slots__ = ("_call", "_runner")

    def __init__(self, runner: ActorRunner, call: ActorCall) -> None:
        self._runner, self._call = runner, call

    def lend(self) -> None:
        self._runner.lend(self._call)

    def reclaim(self) -> None:
        self._runner.reclaim(self._call)

    def resume(self) -> None:
        self._runner.resume(self._call)
