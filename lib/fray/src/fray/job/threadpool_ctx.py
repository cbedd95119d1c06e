"""The threadpool context: tasks run on threads of this process. For I/O, for development, and inside one machine."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import queue
import threading
from collections.abc import Callable
from typing import Any, Literal

from fray.errors import ActorDied, ActorNameTaken, ContextClosed, TaskTimeout
from fray.job.base import ContextBase
from fray.job.calls import Call
from fray.job.futures import JobFuture, LocalRef, Ref, current_slot, find_failure
from fray.serialization.callables import callable_name
from fray.types import TaskOptions

JOIN_TIMEOUT_S = 5.0
"""How long ``close`` waits for threads whose tasks do not react to being stopped."""


class ThreadContext(ContextBase):
    """Runs up to ``max_workers`` tasks at a time on threads; tasks that wait for others do not count."""

    def __init__(self, max_workers: int) -> None:
        super().__init__()
        self._pool = _Pool(max_workers)
        self._actors: dict[str, _ThreadActorHandle] = {}
        self._actor_threads: list[_ThreadActorHandle] = []
        self._lock = threading.Lock()  # guards _actors and _actor_threads

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
        with self._lock:
            handle = self._actors.get(name) if name is not None else None
            if handle is not None and not get_if_exists:
                raise ActorNameTaken(f"an actor named {name!r} exists; pass get_if_exists=True to use it")
            if handle is None:
                handle = _ThreadActorHandle(name or cls.__name__)
                self._actor_threads.append(handle)
                if name is not None:
                    self._actors[name] = handle
                handle._start(cls, args, kwargs)
        try:
            handle._created.result()
        except BaseException:
            with self._lock:
                if name is not None and self._actors.get(name) is handle:
                    del self._actors[name]
            raise
        return handle

    def close(self) -> None:
        self._pool.close()
        with self._lock:
            handles, self._actor_threads[:] = list(self._actor_threads), []
            self._actors.clear()
        for handle in handles:
            handle._stop()

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
        try:
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


class _ThreadActorHandle:
    """An actor with a thread of its own that carries out its calls one after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._created: JobFuture[Any] = JobFuture(f"{name}.__init__")
        self._mailbox: queue.SimpleQueue[Callable[[Any], None] | None] = queue.SimpleQueue()
        self._dead = False
        self._pending: set[JobFuture[Any]] = set()
        self._thread: threading.Thread | None = None

    def _start(self, cls: type, args: Any, kwargs: Any) -> None:
        context = contextvars.copy_context()
        context.run(current_slot.set, None)
        self._thread = threading.Thread(
            target=context.run, args=(self._serve, cls, args, kwargs), name=f"fray-actor-{self._name}", daemon=True
        )
        self._thread.start()

    def _serve(self, cls: type, args: Any, kwargs: Any) -> None:
        try:
            instance = cls(*[_value(arg) for arg in args], **{key: _value(arg) for key, arg in kwargs.items()})
        except BaseException as error:
            self._dead = True
            self._created.reject(error)
            return
        self._created.resolve(None)
        while (message := self._mailbox.get()) is not None:
            message(instance)
            del message

    def _stop(self) -> None:
        self._dead = True
        self._mailbox.put(None)
        for future in list(self._pending):
            future.reject(ActorDied(f"the actor {self._name} ended with its context"))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT_S)

    def _send(self, method: str, args: Any, kwargs: Any) -> JobFuture[Any]:
        future: JobFuture[Any] = JobFuture(f"{self._name}.{method}")
        if self._dead:
            future.reject(ActorDied(f"the actor {self._name} is gone"))
            return future
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

        def carry_out(instance: Any) -> None:
            if future.done():
                return
            try:
                values = [_value(arg) for arg in args], {key: _value(arg) for key, arg in kwargs.items()}
                future.resolve(Call(getattr(instance, method), *values, TaskOptions(), future.name).run())
            except BaseException as error:
                future.reject(error)

        self._mailbox.put(carry_out)
        return future

    def __getattr__(self, name: str) -> _ThreadActorMethod:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ThreadActorMethod(self, name)


class _ThreadActorMethod:
    def __init__(self, handle: _ThreadActorHandle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Queue a call of the method; return its future. Calls of one actor run in order."""
        return self._handle._send(self._name, args, kwargs)


def _value(arg: Any) -> Any:
    if isinstance(arg, JobFuture):
        return arg.result()
    return arg.value if isinstance(arg, LocalRef) else arg
