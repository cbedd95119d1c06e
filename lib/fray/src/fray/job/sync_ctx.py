"""The sync context: every task runs at once, in the calling thread. For tests, debuggers and small inputs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, Literal

from fray.errors import ActorDied, ActorNameTaken, ActorNotFound, ContextClosed
from fray.job.actors import ActorHandle, check_actor, choose_saver, current_chain, leave_actor, with_saver
from fray.job.base import ContextBase
from fray.job.calls import Call
from fray.job.futures import JobFuture, LocalRef, Ref
from fray.serialization.callables import callable_name
from fray.types import ActorStatus, TaskOptions


class _State:
    def __init__(self) -> None:
        self.closed = False
        self.actors: dict[str, SyncActorHandle] = {}
        self.count = 0
        self.lock = threading.Lock()  # guards actors and count


class SyncContext(ContextBase):
    """Runs tasks in the calling thread; futures are done when ``run`` returns. Priorities have nothing to order."""

    def __init__(self) -> None:
        super().__init__()
        self._state = _State()

    def put(self, obj: Any) -> Ref[Any]:
        self._check_open()
        return LocalRef(obj)

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        self._check_open()
        if not callable(fn):
            raise TypeError(f"run() takes a function first, then its arguments; {type(fn).__name__} is not callable")
        context = contextvars.copy_context()
        context.run(leave_actor)
        return context.run(_run_now, fn, args, kwargs, self._options)

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
        self._check_open()
        check_actor(cls, name, lifetime, self._actor_options)
        with self._state.lock:
            handle = self._state.actors.get(name) if name is not None else None
            if handle is not None and not get_if_exists:
                raise ActorNameTaken(f"an actor named {name!r} exists; pass get_if_exists=True to use it")
            is_new = handle is None
            if handle is None:
                self._state.count += 1
                actor_id = f"actor-{self._state.count}"
                handle = SyncActorHandle(actor_id, name or "", cls, self._actor_options.max_concurrency, self._state)
                handle._turn.acquire()
                if name is not None:
                    self._state.actors[name] = handle
        if is_new:
            self._construct(handle, args, kwargs)
        with handle._turn:  # whoever constructs it holds it
            if handle._failure is not None:
                raise handle._failure
        return handle

    def _construct(self, handle: SyncActorHandle, args: Any, kwargs: Any) -> None:
        options = TaskOptions(name=f"{handle._class.__name__}.__init__", deadline=self._options.deadline)
        try:
            made = _run_now(handle._class, args, kwargs, options)
            handle._failure = made.exception()
            if handle._failure is None:
                handle._instance = made.result()
            else:
                self._forget(handle)
        finally:
            handle._turn.release()

    def _forget(self, handle: SyncActorHandle) -> None:
        handle._is_dead = True
        with self._state.lock:
            if self._state.actors.get(handle._actor_name) is handle:
                del self._state.actors[handle._actor_name]

    def get_actor(self, name: str) -> Any:
        self._check_open()
        if name not in self._state.actors:
            raise ActorNotFound(f"no actor is named {name!r}")
        return self._state.actors[name]

    def kill(self, actor: Any) -> None:
        self._forget(_checked(actor))

    def actor_status(self, actor: Any) -> ActorStatus:
        return _checked(actor)._status()

    def close(self) -> None:
        self._state.closed = True
        self._state.actors.clear()

    def _read_ref(self, ref: Ref[Any]) -> Any:
        return _value(ref)

    def _check_open(self) -> None:
        if self._state.closed:
            raise ContextClosed("this sync context is closed; create a new one with create_job_ctx('sync')")


class SyncActorHandle(ActorHandle):
    """An actor that is called in the calling thread; ``async`` methods are run to their ends, one by one."""

    def __init__(self, actor_id: str, name: str, cls: type, max_concurrency: int | None, state: _State) -> None:
        self._actor_id, self._actor_name, self._class = actor_id, name, cls
        self._saver = choose_saver(cls, max_concurrency, lambda: None)
        self._context_state = state
        self._turn = threading.Lock()  # held by the call that runs, and by whoever constructs the actor
        self._instance: Any = None
        self._failure: BaseException | None = None
        self._is_dead = False

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobFuture[Any]:
        options = TaskOptions(name=f"{self._actor_name or self._class.__name__}.{method}")
        return _run_now(self._invoke, (method, args, kwargs), {}, options)

    def _invoke(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_dead or self._context_state.closed:
            raise ActorDied(f"the actor {self._actor_name or self._actor_id} is gone: {self._status().reason}")
        values = [_value(arg) for arg in args], {key: _value(arg) for key, arg in kwargs.items()}
        chain = current_chain.get()
        if self._actor_id in chain:  # it calls itself, maybe on the thread of a coroutine
            return with_saver(self._saver, getattr(self._instance, method), *values)
        with self._turn:
            token = current_chain.set((*chain, self._actor_id))
            try:
                return with_saver(self._saver, getattr(self._instance, method), *values)
            finally:
                current_chain.reset(token)

    def _status(self) -> ActorStatus:
        dead = self._is_dead or self._context_state.closed
        reason = "it was killed" if self._is_dead else "its context was closed" if dead else ""
        return ActorStatus(
            self._actor_id, self._actor_name, self._class.__name__, "DEAD" if dead else "ALIVE", 1, 0, "", reason
        )


def _checked(actor: Any) -> SyncActorHandle:
    if not isinstance(actor, SyncActorHandle):
        raise TypeError(f"{type(actor).__name__} is no actor of this context; pass the handle that create_actor returned")
    return actor


def _run_now(fn: Callable[..., Any], args: Any, kwargs: Any, options: TaskOptions) -> JobFuture[Any]:
    name = options.name or callable_name(fn)
    future: JobFuture[Any] = JobFuture(name)
    try:
        values = [_value(arg) for arg in args], {key: _value(arg) for key, arg in kwargs.items()}
        future.resolve(Call(fn, *values, options, name).run())
    except Exception as error:
        future.reject(error)
    return future


def _value(arg: Any) -> Any:
    if isinstance(arg, JobFuture):
        return arg.result()
    return arg.value if isinstance(arg, LocalRef) else arg
