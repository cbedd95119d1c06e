"""The sync context: every task runs at once, in the calling thread. For tests, debuggers and small inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fray.errors import ActorNameTaken, ContextClosed
from fray.job.base import ContextBase
from fray.job.calls import Call
from fray.job.futures import JobFuture, LocalRef, Ref
from fray.serialization.callables import callable_name
from fray.types import TaskOptions


class _State:
    def __init__(self) -> None:
        self.closed = False
        self.actors: dict[str, _SyncActorHandle] = {}


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
        if name is not None and name in self._state.actors:
            if get_if_exists:
                return self._state.actors[name]
            raise ActorNameTaken(f"an actor named {name!r} exists; pass get_if_exists=True to use it")
        handle = _SyncActorHandle(cls(*args, **kwargs))
        if name is not None:
            self._state.actors[name] = handle
        return handle

    def close(self) -> None:
        self._state.closed = True
        self._state.actors.clear()

    def _read_ref(self, ref: Ref[Any]) -> Any:
        return _value(ref)

    def _check_open(self) -> None:
        if self._state.closed:
            raise ContextClosed("this sync context is closed; create a new one with create_job_ctx('sync')")


class _SyncActorHandle:
    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> _SyncActorMethod:
        if name.startswith("__"):
            raise AttributeError(name)
        return _SyncActorMethod(getattr(self._instance, name))


class _SyncActorMethod:
    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Call the method now; return its future."""
        return _run_now(self._method, args, kwargs, TaskOptions())


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
