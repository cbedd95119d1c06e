"""The sync context: every task runs at once, in the calling thread. For tests, debuggers and small inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fray.errors import ActorDied, ActorNameTaken, ActorNotFound, ContextClosed
from fray.job.actors import ActorHandle, check_actor, with_saver
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
        return _run_now(fn, args, kwargs, self._options)

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
        check_actor(cls, self._actor_options)
        if name is not None and name in self._state.actors:
            if get_if_exists:
                return self._state.actors[name]
            raise ActorNameTaken(f"an actor named {name!r} exists; pass get_if_exists=True to use it")
        self._state.count += 1
        handle = SyncActorHandle(f"actor-{self._state.count}", name or "", cls.__name__, self._state)
        made = _run_now(cls, args, kwargs, TaskOptions(name=f"{cls.__name__}.__init__"))
        handle._instance = made.result()
        if name is not None:
            self._state.actors[name] = handle
        return handle

    def get_actor(self, name: str) -> Any:
        self._check_open()
        if name not in self._state.actors:
            raise ActorNotFound(f"no actor is named {name!r}")
        return self._state.actors[name]

    def kill(self, actor: Any) -> None:
        handle = _checked(actor)
        handle._is_dead = True
        if self._state.actors.get(handle._actor_name) is handle:
            del self._state.actors[handle._actor_name]

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

    def __init__(self, actor_id: str, name: str, class_name: str, state: _State) -> None:
        self._actor_id, self._actor_name, self._class_name = actor_id, name, class_name
        self._context_state = state
        self._instance: Any = None
        self._is_dead = False

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobFuture[Any]:
        options = TaskOptions(name=f"{self._actor_name or self._class_name}.{method}")
        return _run_now(self._invoke, (method, args, kwargs), {}, options)

    def _invoke(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_dead or self._context_state.closed:
            raise ActorDied(f"the actor {self._actor_name or self._actor_id} is gone: {self._status().reason}")
        values = [_value(arg) for arg in args], {key: _value(arg) for key, arg in kwargs.items()}
        return with_saver(getattr(self._instance, method), *values)

    def _status(self) -> ActorStatus:
        dead = self._is_dead or self._context_state.closed
        reason = "it was killed" if self._is_dead else "its context was closed" if dead else ""
        return ActorStatus(self._actor_id, self._actor_name, self._class_name, "DEAD" if dead else "ALIVE", 1, 0, "", reason)


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
