"""The ``JobContext`` protocol, the factory for the four contexts, and the default context.

Code written against ``JobContext`` does not change when the machine under it does. What the methods mean is checked by one
suite over all contexts; ``fray.testing.check_context`` runs it on yours.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self, runtime_checkable

from fray.config import load_config
from fray.errors import ConfigurationError
from fray.job.futures import JobFuture, Ref
from fray.types import ActorStatus

ContextType = Literal["auto", "sync", "threadpool", "ray", "fray"]
CONTEXT_TYPES: tuple[ContextType, ...] = ("auto", "sync", "threadpool", "ray", "fray")


@runtime_checkable
class JobContext(Protocol):
    """Runs functions and actors somewhere. Thread-safe."""

    def put(self, obj: Any) -> Ref[Any]:
        """Keep a value and return a ref to it. A task that gets the ref as a top-level argument receives the value.

        May block on storage. Raises EncodeError where values travel and this one cannot.
        """

    def get(self, refs: Any, timeout: float | None = None) -> Any:
        """Return the value of a future or ref, or the list of values of a list of them. Blocks.

        Raises the task's own exception; TimeoutError after ``timeout`` seconds; TypeError for anything else.
        """

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Start ``fn(*args, **kwargs)`` as a task and return its future; blocks only to hold back a flood of tasks.

        Futures and refs among the top-level arguments are dependencies: the task starts when they are done and receives
        their values; if one fails, the task fails with the same exception. A generator's items arrive as a list. What the
        task raises is raised by ``get`` and ``result()``, never here.

        Raises:
            EncodeError: if the function or its arguments cannot be pickled (contexts that pickle).
            TypeError: if ``fn`` is not callable.
            ContextClosed: after ``close()``.
        """

    def wait(
        self, futures: Iterable[JobFuture[Any]], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[JobFuture[Any]], list[JobFuture[Any]]]:
        """Block until ``num_returns`` futures are done or ``timeout`` seconds passed; return (ready, pending).

        ``ready`` holds at most ``num_returns`` futures in the order of their completion, ``pending`` all others in the
        order given. Raises TypeError for what is not a future, ValueError for ``num_returns`` above their number.
        """

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
        """Create ``cls(*args, **kwargs)`` as an actor and return its handle when it has been constructed. Blocks.

        ``handle.method.remote(*args, **kwargs)`` is a future. Calls of one handle are carried out in order, one call at a
        time (see ``ActorOptions.max_concurrency``); ``async`` methods run concurrently on an event loop of the actor's.
        Futures and refs among the arguments are replaced by their values, as with ``run``. Handles can be passed to tasks
        and actors. An actor may call itself and wait, also by way of others. Demands (``resources``) are those of
        ``options``, where given there; otherwise an actor occupies nothing. How it is restarted: see ``ActorOptions``.

        Args:
            name: makes it known to ``get_actor``; one actor at a time has a name.
            get_if_exists: return the actor of that name if there is one.
            lifetime: ``non_detached`` ends with this context, ``detached`` when it is killed.
            preemptible: whether it may live on workers that are marked preemptible.

        Raises:
            ActorNameTaken: another actor has the name.
            Exception: the constructor's own.
            ActorDied: it died while it was constructed, and may not be restarted.
            TaskTimeout: it was not constructed within the ``deadline`` of ``options``; says what it waited for.
        """

    def get_actor(self, name: str) -> Any:
        """Return a handle of the actor with that name; raises ActorNotFound if none that lives has it."""

    def kill(self, actor: Any) -> None:
        """End an actor for good, given its handle. Blocks until it has ended; does nothing if it had.

        What it runs is not finished; calls that are not answered fail with ``ActorDied``. On threads and in the sync context
        Python code cannot be ended by force: what runs there is interrupted.
        """

    def actor_status(self, actor: Any) -> ActorStatus:
        """Return what is known of an actor, given its handle. May block on a round trip."""

    def options(self, **changes: Any) -> Self:
        """Return a view of this context with other options for tasks and actors: ``TaskOptions``, ``ActorOptions``."""

    def close(self) -> None:
        """Cancel what is not done and release everything. Idempotent. Views share their context's life."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None: ...


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """The arguments of ``create_job_ctx`` as a value, to be kept in a configuration."""

    context_type: ContextType = "auto"
    """Which context: see ``create_job_ctx``."""
    max_workers: int | None = None
    """Threads, or CPUs of a local cluster; None for the number of CPUs."""
    controller_address: str | None = None
    """The controller's URL, ``local`` or ``local[N]``; for ``fray`` only."""
    log_to_driver: bool = True
    """Whether to show here what tasks print on other processes."""
    ray_options: dict[str, Any] = field(default_factory=dict)
    """Passed to ``ray.init``."""

    def __post_init__(self) -> None:
        if self.context_type not in CONTEXT_TYPES:
            raise ConfigurationError(f"context type {self.context_type!r} is not one of {', '.join(CONTEXT_TYPES)}")
        if self.max_workers is not None and (not isinstance(self.max_workers, int) or self.max_workers < 1):
            raise ConfigurationError(f"max_workers={self.max_workers!r} must be a whole number of at least 1, or None")

    def create(self) -> JobContext:
        """Return a new context; raises as ``create_job_ctx`` does."""
        return create_job_ctx(
            self.context_type, self.max_workers, self.controller_address, self.log_to_driver, **self.ray_options
        )


def create_job_ctx(
    context_type: ContextType = "auto",
    max_workers: int | None = None,
    controller_address: str | None = None,
    log_to_driver: bool = True,
    **ray_options: Any,
) -> JobContext:
    """Return a new context; close it, or use it in a ``with`` statement.

    Args:
        context_type: ``sync`` runs a task at once in the calling thread. ``threadpool`` runs tasks on threads. ``ray`` runs
            them on Ray. ``fray`` runs them on a Fray controller and its workers. ``auto`` is Ray if it is initialised in this
            process, else ``fray`` if ``FRAY_ADDRESS`` is set, else ``threadpool``.
        max_workers: threads of the threadpool, CPUs of Ray or of a local cluster; None is the number of CPUs.
        controller_address: a URL such as ``http://127.0.0.1:50051``; ``FRAY_ADDRESS`` and the configuration file fill it in.
            ``local`` or ``local[N]`` starts a private controller and worker with N slots as a child process, which ends with
            the context.
        log_to_driver: show here what tasks print on other processes (fray and ray).
        ray_options: passed to ``ray.init`` when Ray is not initialised yet.

    Raises:
        ConfigurationError: (a ValueError) for arguments that make no sense, or ``fray`` without any address.
        Unavailable, AuthError, VersionMismatch: when the controller cannot be used; the text says what to do.
    """
    config = ContextConfig(context_type, max_workers, controller_address, log_to_driver, ray_options)
    kind = _detect() if config.context_type == "auto" else config.context_type
    if controller_address is not None and kind != "fray":
        if context_type != "auto":
            raise ConfigurationError(f"controller_address is for the fray context, not for {context_type!r}")
        kind = "fray"
    if ray_options and kind != "ray":
        raise ConfigurationError(f"unknown argument {', '.join(sorted(ray_options))} for the {kind} context")
    if kind == "sync":
        from fray.job.sync_ctx import SyncContext

        return SyncContext()
    if kind == "threadpool":
        from fray.job.threadpool_ctx import ThreadContext

        return ThreadContext(max_workers or os.cpu_count() or 1)
    if kind == "ray":
        if importlib.util.find_spec("ray") is None:
            raise ConfigurationError("the ray context needs Ray: pip install 'fray[ray]'")
        from fray.job.ray_ctx import RayContext

        return RayContext(max_workers, log_to_driver=log_to_driver, **ray_options)
    from fray.job.rpc.context import connect

    return connect(controller_address, max_workers, log_to_driver)


def _detect() -> ContextType:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return "ray"
    return "fray" if load_config().address else "threadpool"


_current: ContextVar[JobContext | None] = ContextVar("fray_job_ctx", default=None)
_process_default: JobContext | None = None
_default_factory: Callable[[], JobContext] | None = None
_process_lock = threading.Lock()  # guards _process_default


def set_default_factory(factory: Callable[[], JobContext]) -> None:
    """Decide what the default context of this process is; for executors, where it depends on the running task."""
    global _default_factory
    _default_factory = factory


@contextmanager
def fray_default_job_ctx(ctx: JobContext) -> Iterator[JobContext]:
    """Make ``ctx`` the default context inside the ``with`` block, and inside the tasks of the block on local contexts."""
    token = _current.set(ctx)
    try:
        yield ctx
    finally:
        _current.reset(token)


def get_default_job_ctx() -> JobContext:
    """Return the default context: that of ``fray_default_job_ctx``, else one for the whole process, made by ``auto``."""
    global _process_default
    found = _current.get()
    if found is not None:
        return found
    if _default_factory is not None:
        return _default_factory()
    with _process_lock:
        if _process_default is None:
            _process_default = create_job_ctx("auto")
            atexit.register(_process_default.close)
        return _process_default


def get_actor(name: str) -> Any:
    """Return a handle of the actor with that name, on the default context; raises ActorNotFound if none has it."""
    return get_default_job_ctx().get_actor(name)


def kill(actor: Any) -> None:
    """End an actor for good, given its handle, by way of the default context; see ``JobContext.kill``."""
    get_default_job_ctx().kill(actor)
