"""The threadpool context: tasks run on threads of this process. For I/O, for development, and inside one machine."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal

from fray.errors import ActorDied, ActorNameTaken, ActorNotFound, ContextClosed, TaskTimeout
from fray.job.actors import ActorCall, ActorHandle, ActorRunner, check_actor, current_chain, leave_actor
from fray.job.base import ContextBase
from fray.job.calls import Call, presentable
from fray.job.futures import JobFuture, LocalRef, Ref, current_slot, find_failure, find_unfinished, when_done
from fray.serialization.callables import callable_name
from fray.types import ActorOptions, ActorStatus, TaskOptions

_current_task: ContextVar[object] = ContextVar("fray_thread_task", default=None)
"""The task that runs here."""

_Caller = tuple[object, tuple[str, ...]]
"""A task, or none, and the actor calls that led to it: whose calls of an actor keep their order."""

JOIN_TIMEOUT_S = 5.0
"""How long ``close`` waits for threads whose tasks do not react to being stopped."""


class ThreadContext(ContextBase):
    """Runs up to ``max_workers`` tasks at a time on threads; tasks that wait for others do not count."""

    def __init__(self, max_workers: int) -> None:
        super().__init__()
        self._pool = _Pool(max_workers)
        self._names: dict[str, ThreadActorHandle] = {}
        self._actors: list[ThreadActorHandle] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards _names and _actors

    def put(self, obj: Any) -> Ref[Any]:
        self._pool.check_open()
        return LocalRef(obj)

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        if not callable(fn):
            raise TypeError(f"run() takes a function first, then its arguments; {type(fn).__name__} is not callable")
        self._pool.check_open()
        return _ThreadTask(self._pool, fn, args, kwargs, self._options).start()

    def create_actor(
        self,
        cls: type,
        /,
        *args: Any,
        name: str | None = None,
        get_if_exists: bool = False,
        lifetime: Literal["non_detached", "detached"] = "non_detached",
        preemptible: bool = True,
        **kwargs: Any,
    ) -> Any:
        self._pool.check_open()
        check_actor(cls, name, lifetime, self._actor_options)
        with self._lock:
            handle = self._names.get(name) if name is not None else None
            if handle is not None and not get_if_exists:
                raise ActorNameTaken(f"an actor named {name!r} exists; pass get_if_exists=True to use it")
            if handle is None:
                handle = ThreadActorHandle(f"actor-{next(self._numbers)}", name or "", cls, self._actor_options)
                handle._deadline = self._options.deadline
                self._actors.append(handle)
                if name is not None:
                    self._names[name] = handle
                handle._start(args, kwargs)
        try:
            handle._created.result()
        except BaseException:
            self._forget(handle)
            raise
        return handle

    def get_actor(self, name: str) -> Any:
        self._pool.check_open()
        with self._lock:
            handle = self._names.get(name)
        if handle is None:
            raise ActorNotFound(f"no actor is named {name!r}")
        return handle

    def kill(self, actor: Any) -> None:
        handle = _checked(actor)
        self._forget(handle)
        handle._stop("it was killed")

    def actor_status(self, actor: Any) -> ActorStatus:
        return _checked(actor)._status()

    def _forget(self, handle: ThreadActorHandle) -> None:
        with self._lock:
            if handle in self._actors:
                self._actors.remove(handle)
            if self._names.get(handle._actor_name) is handle:
                del self._names[handle._actor_name]

    def close(self) -> None:
        self._pool.close()
        with self._lock:
            handles, self._actors[:] = list(self._actors), []
            self._names.clear()
        for handle in handles:
            handle._stop("its context was closed")

    def _read_ref(self, ref: Ref[Any]) -> Any:
        return _value(ref)


class _ThreadTask:
    """A task from ``run`` to its end: waits for its dependencies, then for a thread."""

    def __init__(self, pool: _Pool, fn: Callable[..., Any], args: Any, kwargs: Any, options: TaskOptions) -> None:
        name = options.name or callable_name(fn)
        self.pool = pool
        self.future: JobFuture[Any] = JobFuture(name, self._cancel)
        self.priority = options.priority
        self._args, self._kwargs, self._options = args, kwargs, options
        self._call = Call(fn, args, kwargs, options, name)
        self._context = contextvars.copy_context()
        self._timer: threading.Timer | None = None

    def start(self) -> JobFuture[Any]:
        if self._options.deadline is not None:
            error = TaskTimeout(f"{self.future.name} did not end within its deadline of {self._options.deadline} s")
            self._timer = threading.Timer(self._options.deadline, self._expire, [error])
            self._timer.name, self._timer.daemon = "fray-deadline", True
            self._timer.start()
        self.pool.live.add(self)
        self.future.add_done_callback(self._settle)
        dependencies = [a for a in (*self._args, *self._kwargs.values()) if isinstance(a, JobFuture)]
        if not dependencies:
            self.pool.submit(self)
        missing = itertools.count(1)

        def one_done(dependency: Any) -> None:
            error = find_failure(dependency)
            if error is not None:
                self.future.reject(error)
            elif next(missing) == len(dependencies):
                self.pool.submit(self)

        for dependency in dependencies:
            dependency.add_done_callback(one_done)
        return self.future

    def run(self) -> None:
        """Carry out the task on this thread, with the submitter's context variables."""
        if self.future.done():
            return
        self._context.run(current_slot.set, self.pool)
        self._context.run(_current_task.set, self)
        try:
            self._context.run(leave_actor)
            self._call._args = [_value(arg) for arg in self._args]
            self._call._kwargs = {key: _value(arg) for key, arg in self._kwargs.items()}
            self.future.resolve(self._context.run(self._call.run))
        except BaseException as error:
            self.future.reject(error)

    def abandon(self) -> None:
        self.future.cancel()

    def _cancel(self, _: object) -> None:
        self._call.stop()

    def _expire(self, error: TaskTimeout) -> None:
        if self.future.reject(error):
            self._call.stop(error)

    def _settle(self, _: object) -> None:
        self.pool.live.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class _Pool:
    """Threads that take tasks by priority, then in order. A thread that waits for other tasks is replaced meanwhile."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = threading.Condition()  # guards all fields below
        self._queue: list[tuple[int, int, _ThreadTask]] = []
        self._order = itertools.count()
        self._active = 0
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self.live: set[_ThreadTask] = set()
        """Tasks that are not done; one set operation at a time, each atomic."""

    def submit(self, task: _ThreadTask) -> None:
        with self._changed:
            if not self._closed:
                heapq.heappush(self._queue, (-task.priority, next(self._order), task))
                self._offer()
                return
        task.abandon()

    def lend(self) -> None:
        with self._changed:
            self._active -= 1
            self._offer()

    def reclaim(self) -> None:
        with self._changed:
            self._active += 1

    def resume(self) -> None:
        """Do nothing: tasks on threads may meet."""

    def check_open(self) -> None:
        if self._closed:
            raise ContextClosed("this threadpool context is closed; create a new one with create_job_ctx('threadpool')")

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._queue.clear()
            threads = list(self._threads)
            self._changed.notify_all()
        for task in list(self.live):
            task.abandon()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(JOIN_TIMEOUT_S)

    def _offer(self) -> None:
        """Find a thread for the queue's head. Called with the lock held."""
        if not self._queue or self._active >= self._size:
            return
        if self._idle:
            self._changed.notify()
        else:
            thread = threading.Thread(target=self._work, name="fray-thread", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        try:
            while (task := self._take()) is not None:
                task.run()
                del task
                with self._changed:
                    self._active -= 1
                    self._offer()
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())

    def _take(self) -> _ThreadTask | None:
        with self._changed:
            while not self._closed:
                if self._queue and self._active < self._size:
                    self._active += 1
                    return heapq.heappop(self._queue)[2]
                if self._idle >= self._size:
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None


class ThreadActorHandle(ActorHandle):
    """An actor with a thread of its own."""

    def __init__(self, actor_id: str, name: str, cls: type, options: ActorOptions) -> None:
        self._actor_id, self._actor_name, self._cls, self._actor_options = actor_id, name, cls, options
        self._label = name or cls.__name__
        self._deadline: float | None = None
        self._created: JobFuture[Any] = JobFuture(f"{self._label}.__init__")
        self._lock = threading.Lock()  # guards _early, _lines, _pending and _runner
        self._early: list[ActorCall] = []
        self._lines: dict[_Caller, deque[_ThreadActorCall]] = {}
        self._pending: set[_ThreadActorCall] = set()
        self._runner: ActorRunner | None = None
        self._end = ""
        self._thread: threading.Thread | None = None

    def _start(self, args: Any, kwargs: Any) -> None:
        context = contextvars.copy_context()
        context.run(current_slot.set, None)
        self._thread = threading.Thread(
            target=context.run, args=(self._serve, args, kwargs), name=f"fray-actor-{self._label}", daemon=True
        )
        self._thread.start()

    def _serve(self, args: Any, kwargs: Any) -> None:
        try:
            values = [_value(arg) for arg in args], {key: _value(arg) for key, arg in kwargs.items()}
            instance = Call(self._cls, *values, TaskOptions(deadline=self._deadline), self._created.name).run()
        except BaseException as error:
            self._end = "its constructor failed"
            self._created.reject(error)
            self._reject_pending()
            return
        runner = ActorRunner(f"fray-actor-{self._label}", instance, self._actor_options.max_concurrency, saver=lambda: None)
        with self._lock:
            self._runner = runner
            for early in self._early:
                runner.submit(early)
            self._early.clear()
        self._created.resolve(None)
        if self._end:
            return
        runner.serve()

    def _stop(self, why: str) -> None:
        """End the actor: interrupt what runs, as far as that goes, and wait for the end a while."""
        self._end = self._end or why
        with self._lock:
            runner = self._runner
        if runner is not None:
            runner.stop()
        self._reject_pending()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT_S)

    def _reject_pending(self) -> None:
        with self._lock:
            pending, self._pending = list(self._pending), set()
        for call in pending:
            call.future.reject(ActorDied(f"the actor {self._label} is gone: {self._end}"))
            call.stop()

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobFuture[Any]:
        call = _ThreadActorCall(f"{self._actor_id}/{next(_call_numbers)}", f"{self._label}.{method}", method, args, kwargs)
        caller = _current_task.get(), current_chain.get()
        with self._lock:
            self._pending.add(call)
            self._lines.setdefault(caller, deque()).append(call)
        call.future.add_done_callback(lambda _: self._pending.discard(call))
        self._advance(caller)
        if self._end:
            self._reject_pending()
        return call.future

    def _advance(self, caller: _Caller) -> None:
        """Hand over what a caller's calls are ready up to: who waits for arguments holds up himself, nobody else."""
        with self._lock:
            line = self._lines.get(caller, deque())
            awaited: list[JobFuture[Any]] = []
            while line and not (awaited := find_unfinished(line[0].args, line[0].kwargs)):
                self._hand_over(line.popleft())
            if not line:
                self._lines.pop(caller, None)
        if awaited:
            when_done(awaited[:1], lambda: self._advance(caller))

    def _hand_over(self, call: ActorCall) -> None:
        if self._runner is None:
            self._early.append(call)
        else:
            self._runner.submit(call)

    def _status(self) -> ActorStatus:
        alive = self._created.done() and not self._end
        state: Literal["DEAD", "ALIVE", "PENDING"] = "DEAD" if self._end else "ALIVE" if alive else "PENDING"
        reason = self._end or ("" if alive else "its constructor runs")
        return ActorStatus(self._actor_id, self._actor_name, self._cls.__name__, state, 1, 0, "", reason)


class _ThreadActorCall(ActorCall):
    def __init__(self, id: str, name: str, method: str, args: Any, kwargs: Any) -> None:
        super().__init__(id, method, current_chain.get())
        self.future: JobFuture[Any] = JobFuture(name)
        self.args, self.kwargs = args, kwargs
        self._running: Call | None = None

    def is_wanted(self) -> bool:
        return not self.future.done()

    def is_ready(self) -> bool:
        return not find_unfinished(self.args, self.kwargs)

    def arguments(self) -> tuple[Any, Any]:
        return [_value(arg) for arg in self.args], {key: _value(arg) for key, arg in self.kwargs.items()}

    def invoke(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._running = Call(method, args, kwargs, TaskOptions(), self.future.name)
        return self._running.run()

    def finish(self, value: Any) -> None:
        self.future.resolve(value)

    def fail(self, error: BaseException) -> None:
        self.future.reject(presentable(error))

    def stop(self) -> None:
        """Interrupt the call if it runs."""
        if self._running is not None:
            self._running.stop()


_call_numbers = itertools.count(1)


def _checked(actor: Any) -> ThreadActorHandle:
    if not isinstance(actor, ThreadActorHandle):
        raise TypeError(f"{type(actor).__name__} is no actor of this context; pass the handle that create_actor returned")
    return actor


def _value(arg: Any) -> Any:
    if isinstance(arg, JobFuture):
        return arg.result()
    return arg.value if isinstance(arg, LocalRef) else arg
