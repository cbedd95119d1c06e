"""The Ray context: tasks and actors run on Ray. This module is the whole border between Fray and Ray.

Only ``fray.serialization`` pickles values; Ray carries envelopes, a ``_Packed`` value or a ``Failure``. So all contexts pickle
and fail alike, and an exception of Ray's own always means trouble in Ray itself.

In a worker, a task runs on a thread of its own: see ``_Attendant``. It can therefore not install signal handlers, and should
wait with Fray's ``get`` and ``wait``: Ray does not release a task's CPUs for a ``ray.get`` on that thread.
"""

from __future__ import annotations

import inspect
import logging
import os
import queue
import signal
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from pickle import PickleBuffer
from typing import Any, Literal, TypeVar

import ray
from ray import exceptions
from ray._private import state as ray_state

from fray import errors
from fray.job.actors import ActorHandle, check_actor, is_async, with_saver
from fray.job.base import ContextBase
from fray.job.calls import Call
from fray.job.futures import JobFuture, Ref, current_slot, find_failure, lent_slot
from fray.serialization.callables import PackedCallable, decode_callable, encode_callable
from fray.serialization.envelope import decode, encode
from fray.serialization.failures import Failure, capture_failure, rebuild
from fray.types import ActorOptions, ActorStatus, TaskOptions

T = TypeVar("T")

SYSTEM_RETRIES = 2
"""How often Ray tries again a task whose process or node died."""
POLL_S = 0.1
"""How often a worker's main thread looks whether Ray has interrupted it."""
INTERRUPT_GRACE_S = 5.0
"""How long a task may go on after it was cancelled, before its process is ended."""
NAME_RELEASE_S = 5.0
"""How long to wait until Ray has forgotten the name of an actor that could not be constructed."""


class RayContext(ContextBase):
    """Runs tasks and actors on Ray; starts a Ray of its own, which ends with the context, unless Ray is initialised.

    Actors take no CPU unless their resources differ from the default. Priorities are ignored: Ray has none.
    """

    def __init__(self, max_workers: int | None = None, **ray_options: Any) -> None:
        super().__init__()
        owns_ray = not ray.is_initialized()
        if owns_ray:
            _start_ray(max_workers, ray_options)
        self._life = _Life(owns_ray)

    def put(self, obj: Any) -> Ref[Any]:
        self._life.check_open()
        return RayRef(ray.put(_pack(obj)))

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        self._life.check_open()
        shipment, dependencies = _pack_call(fn, args, kwargs, self._options)
        name = self._options.name or shipment.name
        remote = _with_options(_task, self._options.resources, name=name)
        future = self._life.submit(name, remote.remote, shipment, dependencies)
        if self._options.deadline is not None:
            future.expire_after(self._options.deadline)
        return future

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
        self._life.check_open()
        check_actor(cls, name, lifetime, self._actor_options)
        if self._actor_options.checkpoint_every is not None:
            raise errors.ConfigurationError("checkpoint_every: actors on Ray have no checkpoints; use the fray context")
        if name is not None and get_if_exists:
            with suppress(errors.ActorNotFound):
                return self.get_actor(name)
        shipment, dependencies = _pack_call(cls, args, kwargs, TaskOptions())
        resources = self._options.resources if self._names_resources else {}
        creator = uuid.uuid4().hex
        remote = _with_options(
            _async_actor if is_async(cls) else _actor,
            resources,
            name=name,
            lifetime=lifetime,
            get_if_exists=get_if_exists and name is not None,
            **_ray_actor_options(self._actor_options),
        )
        if name is not None:
            _free_name(name)
        try:
            host = remote.remote(creator, shipment, *(dependency.object_ref for dependency in dependencies))
        except exceptions.ActorAlreadyExistsError as error:
            text = f"an actor named {name!r} exists; pass get_if_exists=True to use it"
            raise errors.ActorNameTaken(text) from error
        label = name or cls.__name__
        try:
            made = self._life.submit(f"{label}.__init__", host.created.remote, shipment, dependencies)
            if self._options.deadline is not None:
                made.expire_after(self._options.deadline, f"it asks Ray for {dict(resources) or 'no resources'}")
            created_by = made.result()
        except BaseException:
            _kill(host, name)
            raise
        if created_by[0] == creator and lifetime != "detached":  # another creator may have been faster
            self._life.hosts.append(host)
        return RayActorHandle(host, name or "", created_by[1], self._life)

    def get_actor(self, name: str) -> Any:
        self._life.check_open()
        try:
            host = ray.get_actor(name)
            _, class_name = _unpack(ray.get(host.created.remote()))
        except (ValueError, exceptions.RayActorError) as error:
            raise errors.ActorNotFound(f"no actor is named {name!r}") from error
        return RayActorHandle(host, name, class_name, self._life)

    def kill(self, actor: Any) -> None:
        handle = _checked(actor)
        _kill(handle._host, handle._name or None)
        with suppress(exceptions.RayError):
            while True:
                ray.get(handle._host.created.remote())

    def actor_status(self, actor: Any) -> ActorStatus:
        return _checked(actor)._status()

    def close(self) -> None:
        self._life.close()

    def _read_ref(self, ref: Ref[Any]) -> Any:
        if not isinstance(ref, RayRef):
            raise TypeError(f"get(): {ref!r} belongs to another context")
        try:
            with lent_slot():
                envelope = ray.get(ref.object_ref)
            token = _receiver.set(self._life)
            try:
                return _unpack(envelope)
            finally:
                _receiver.reset(token)
        except exceptions.RayError as error:
            raise _translate(error, "the value of a ref") from error


class _Life:
    """What a context and its views share from their creation to ``close()``.

    Its thread unpacks results and runs the futures' callbacks, so that user code does not hold up Ray's own threads.
    """

    def __init__(self, owns_ray: bool) -> None:
        self.hosts: list[Any] = []
        self.closed = False
        self._owns_ray = owns_ray
        self._inbox: queue.SimpleQueue[tuple[RayFuture[Any], Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, name="fray-ray-results", daemon=True)
        self._thread.start()

    def check_open(self) -> None:
        if self.closed:
            raise errors.ContextClosed("this ray context is closed; create a new one with create_job_ctx('ray')")

    def submit(
        self, name: str, remote: Callable[..., Any], shipment: _Shipment, dependencies: Sequence[_Dependency]
    ) -> RayFuture[Any]:
        """Give a task to Ray; return its future, which fails as soon as a dependency does. Never blocks."""
        object_ref = remote(shipment, *(d.object_ref for d in dependencies))
        tasks = [d for d in dependencies if isinstance(d, RayFuture)]
        future: RayFuture[Any] = RayFuture(name, self, object_ref, tasks)
        _pending.add(future)
        future.add_done_callback(_forget)
        for task in tasks:
            task.add_done_callback(partial(_fail_dependent, weakref.ref(future)))
        future.object_ref.future().add_done_callback(lambda outcome: self._inbox.put((future, outcome)))
        if self.closed:
            future.cancel()
        return future

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for future in list(_pending):
            if future.life is self:
                future.cancel()
        if ray.is_initialized():
            for host in self.hosts:
                _kill(host)
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._owns_ray:
            ray.shutdown()

    def _deliver(self) -> None:
        _receiver.set(self)
        while (item := self._inbox.get()) is not None:
            future, outcome = item
            try:
                if not future.done():
                    future.resolve(_unpack(outcome.result()))
            except BaseException as error:  # the task's own, or of code that its value runs when it is unpickled
                future.reject(_translate(error, future.name))
            future.dependencies = ()
            del item, future, outcome


_receiver: ContextVar[_Life | None] = ContextVar("fray_ray_receiver", default=None)
"""Whose handles of actors are that come inside values here."""


# --- futures and refs -----------------------------------------------------------------------------------------------


class RayFuture(JobFuture[T]):
    """The future of a Ray task or actor call."""

    def __init__(self, name: str, life: _Life, object_ref: Any, dependencies: Sequence[RayFuture[Any]] = ()) -> None:
        super().__init__(name, _withdraw)
        self.life = life
        self.object_ref = object_ref
        self.dependencies = dependencies
        """Futures that the task waits for; empty once Ray is through with it."""

    def fail(self, error: BaseException) -> None:
        """Reject the future and stop the task, unless it is done."""
        if self.reject(error):
            _withdraw(self)

    def expire_after(self, deadline_s: float, note: str = "") -> None:
        """Fail the future ``deadline_s`` seconds from now, wherever the task is by then."""
        error = errors.TaskTimeout(f"{self.name} did not end within its deadline of {deadline_s} s" + (note and f"; {note}"))
        timer = threading.Timer(deadline_s, self.fail, [error])
        timer.name, timer.daemon = "fray-deadline", True
        timer.start()
        self.add_done_callback(lambda _: timer.cancel())


class RayRef(Ref[T]):
    """A ref whose value Ray keeps for as long as somebody holds the ref."""

    __slots__ = ("object_ref",)

    def __init__(self, object_ref: Any) -> None:
        self.object_ref = object_ref

    def __reduce__(self) -> Any:
        return RayRef, (_Contained(self.object_ref),)


_Dependency = RayFuture[Any] | RayRef[Any]

_pending: set[RayFuture[Any]] = set()
"""The futures of this process that are not done; one set operation at a time, each atomic."""


def _forget(future: Any) -> None:
    _pending.discard(future)


def _fail_dependent(dependent: weakref.ref[RayFuture[Any]], dependency: Any) -> None:
    future, error = dependent(), find_failure(dependency)
    if future is not None and error is not None:
        future.reject(error)  # Ray ends the task by itself


def _withdraw(future: Any, _: object = None) -> None:
    """Cancel a task in Ray once its dependencies are done.

    Ray ends the whole process ("Check failed: submitted_task_ref_count > 0", seen with 2.60) when a task is cancelled while
    it still waits for one that is cancelled too.
    """
    for dependency in future.dependencies:
        if not dependency.done():
            dependency.add_done_callback(partial(_withdraw, future))
            return
        if find_failure(dependency) is not None:
            return
    if ray.is_initialized():
        with suppress(exceptions.RayError):
            ray.cancel(future.object_ref)


# --- envelopes ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Packed:
    """A value as Ray carries it."""

    payload: PickleBuffer
    """Kept apart by Ray, so that large arrays in it are read from shared memory without a copy."""
    contained: list[Any]
    """Ray's own refs and handles inside the payload, shown to Ray so that it keeps what they stand for."""


@dataclass(slots=True)
class _Shipment:
    """A call as Ray carries it."""

    name: str
    fn: PackedCallable | str
    """A function or class, or the name of an actor's method."""
    arguments: PickleBuffer
    options: bytes
    contained: list[Any]
    """As in ``_Packed``."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Stands among the arguments for a dependency, which Ray passes beside them."""

    index: int


class _Contained:
    """Pickles one of Ray's own refs or handles: inside an envelope as a number, elsewhere as Ray does."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __reduce__(self) -> Any:
        contained = _contained.get()
        if contained is None:
            return ray.cloudpickle.loads, (ray.cloudpickle.dumps(self._thing),)
        contained.append(self._thing)
        return _find_contained, (len(contained) - 1,)


_contained: ContextVar[list[Any] | None] = ContextVar("fray_ray_contained", default=None)


@contextmanager
def _containing(things: list[Any]) -> Iterator[list[Any]]:
    token = _contained.set(things)
    try:
        yield things
    finally:
        _contained.reset(token)


def _find_contained(index: int) -> Any:
    return (_contained.get() or [])[index]


def _pack(obj: object) -> _Packed:
    with _containing([]) as contained:
        return _Packed(PickleBuffer(encode(obj)), contained)


def _unpack(envelope: _Packed | Failure) -> Any:
    """Return the value of an envelope, or raise the exception in it."""
    if isinstance(envelope, Failure):
        raise rebuild(envelope)
    with _containing(envelope.contained):
        return decode(memoryview(envelope.payload))


def _pack_call(
    fn: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
) -> tuple[_Shipment, list[_Dependency]]:
    """Pack the parts one by one, so that an error says which of them cannot travel; return the dependencies too."""
    dependencies: list[_Dependency] = []

    def replace(arg: Any) -> Any:
        if not isinstance(arg, (JobFuture, Ref)):
            return arg
        if not isinstance(arg, (RayFuture, RayRef)):
            raise TypeError(f"{arg!r} belongs to another context; get() its value there and pass that")
        dependencies.append(arg)
        return _Place(len(dependencies) - 1)

    with _containing([]) as contained:
        code = fn if isinstance(fn, str) else encode_callable(fn)
        arguments = encode((tuple(map(replace, args)), {key: replace(arg) for key, arg in kwargs.items()}))
        name = code if isinstance(code, str) else code.name
        return _Shipment(name, code, PickleBuffer(arguments), encode(options), contained), dependencies


def _unpack_call(shipment: _Shipment, envelopes: Sequence[_Packed | Failure], instance: Any = None) -> Call:
    """Return a call of the function, or of the instance's method; raise what a dependency failed with."""
    fn, args, kwargs = _unpack_method(shipment, envelopes, instance)
    return Call(fn, args, kwargs, decode(shipment.options), shipment.name)


def _unpack_method(
    shipment: _Shipment, envelopes: Sequence[_Packed | Failure], instance: Any
) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Return the same in parts."""
    code = shipment.fn
    with _containing(shipment.contained):  # the function first: it brings the import path that the values may need
        fn = getattr(instance, code) if isinstance(code, str) else decode_callable(code.function_id, code.code)
    values = [_unpack(envelope) for envelope in envelopes]

    def replace(arg: Any) -> Any:
        return values[arg.index] if isinstance(arg, _Place) else arg

    with _containing(shipment.contained):
        args, kwargs = decode(memoryview(shipment.arguments))
        return fn, [replace(arg) for arg in args], {key: replace(arg) for key, arg in kwargs.items()}


# --- in Ray's processes ---------------------------------------------------------------------------------------------


def _carry_out(shipment: _Shipment, *dependencies: _Packed | Failure) -> _Packed | Failure:
    """Run a task: the remote function of all of them."""
    try:
        call = _unpack_call(shipment, dependencies)
    except Exception as error:
        return capture_failure(error)
    return _Attendant(call).attend()


class _Attendant:
    """Runs a task on another thread, while Ray's main thread attends to Ray. It is the task's slot.

    Ray releases a task's CPUs only while the main thread of its process blocks in Ray, which it does not when the task waits
    in ``concurrent.futures.wait`` or an event loop: so it is this thread that blocks in Ray meanwhile. Here also arrives Ray's
    interrupt, which cannot be mistaken for an exception of the task's own.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._changed = threading.Condition()  # guards _lent and _outcome
        self._lent = 0
        self._outcome: _Packed | Failure | None = None
        self._interrupts = 0
        self._give_up_at: float | None = None

    def lend(self) -> None:
        self._change(lent=1)

    def reclaim(self) -> None:
        self._change(lent=-1)

    def resume(self) -> None:
        """Do nothing: the task has its process for itself."""

    def attend(self) -> _Packed | Failure:
        """Block until the task is done or stopped; return its outcome."""
        before = signal.signal(signal.SIGINT, self._note_interrupt)
        try:
            threading.Thread(target=self._work, name="fray-task", daemon=True).start()
            while self._outcome is None:
                self._wait()
                if self._interrupts:
                    self._stop()
            return self._outcome
        finally:
            signal.signal(signal.SIGINT, before)

    def _work(self) -> None:
        current_slot.set(self)
        try:
            self._change(outcome=_pack(self._call.run()))
        except BaseException as error:
            self._change(outcome=capture_failure(error))

    def _change(self, lent: int = 0, outcome: _Packed | Failure | None = None) -> None:
        with self._changed:
            self._lent += lent
            self._outcome = outcome
            self._changed.notify()

    def _note_interrupt(self, *_: object) -> None:
        self._interrupts += 1  # no more than that: the main thread may hold any lock here

    def _wait(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._outcome or self._lent, POLL_S) or self._outcome:
                return
        # Which ref does not matter: it decides only how soon this thread looks again.
        future = next(iter(list(_pending)), None)
        ref = ray.ObjectRef.from_random() if future is None else future.object_ref
        if ray.wait([ref], timeout=POLL_S, fetch_local=False)[0]:
            with self._changed:
                self._changed.wait_for(lambda: not self._lent, 0.001)  # its future is about to be done

    def _stop(self) -> None:
        if self._give_up_at is None:
            self._give_up_at = time.monotonic() + INTERRUPT_GRACE_S
            self._call.stop()
        if time.monotonic() > self._give_up_at:
            os._exit(1)  # it blocks in C, or swallows the interrupt; Ray starts a process for the next task
        for future in list(_pending):  # it may wait for them
            future.cancel()


class _ActorHost:
    """The Ray actor around the user's; its methods return envelopes."""

    def __init__(self, creator: str, shipment: _Shipment, *dependencies: _Packed | Failure) -> None:
        self._creator, self._class_name = creator, shipment.name
        self._failure: Failure | None = None
        try:
            self._instance = _unpack_call(shipment, dependencies).run()
        except BaseException as error:
            self._failure = capture_failure(error)

    def created(self, *_: object) -> _Packed | Failure:
        """Return who created the actor, and its class's name; or why that failed."""
        return self._failure or _pack((self._creator, self._class_name))

    def invoke(self, shipment: _Shipment, *dependencies: _Packed | Failure) -> _Packed | Failure:
        if self._failure is not None:
            return self._failure
        try:
            call = _unpack_call(shipment, dependencies, self._instance)
            return _pack(with_saver(_refuse_to_save, call.run, (), {}))
        except BaseException as error:
            return capture_failure(error)


class _AsyncActorHost(_ActorHost):
    """The same around a class with ``async`` methods: all its calls run on Ray's event loop."""

    async def created(self, *_: object) -> _Packed | Failure:  # type: ignore[override]
        return super().created()

    async def invoke(self, shipment: _Shipment, *dependencies: _Packed | Failure) -> _Packed | Failure:  # type: ignore[override]
        if self._failure is not None:
            return self._failure
        try:
            method, args, kwargs = _unpack_method(shipment, dependencies, self._instance)
            value = method(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            return _pack(list(value) if inspect.isgenerator(value) else value)
        except BaseException as error:
            return capture_failure(error)


def _refuse_to_save() -> None:
    raise errors.ConfigurationError("save_checkpoint(): actors on Ray have no checkpoints; use the fray context")


_task = ray.remote(max_retries=SYSTEM_RETRIES)(_carry_out)
_actor = ray.remote(_ActorHost)
_async_actor = ray.remote(_AsyncActorHost)


# --- actors from outside --------------------------------------------------------------------------------------------


class RayActorHandle(ActorHandle):
    """An actor on Ray. Can be passed to tasks and actors, inside values too."""

    def __init__(self, host: Any, name: str, class_name: str, life: _Life | None = None) -> None:
        self._host, self._name, self._class_name = host, name, class_name
        self._life = life or _receiver.get() or _process_life()

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobFuture[Any]:
        label = f"{self._name or self._class_name}.{method}"
        if self._life.closed:
            gone: JobFuture[Any] = JobFuture(label)
            gone.reject(errors.ActorDied(f"{label}: the context of this handle is closed"))
            return gone
        shipment, dependencies = _pack_call(method, args, kwargs, TaskOptions())
        return self._life.submit(label, self._host.invoke.remote, shipment, dependencies)

    def _status(self) -> ActorStatus:
        found = ray_state.actors(self._host._actor_id.hex())
        state = _STATES.get(found.get("State", "DEAD"), "PENDING")
        restarts = int(found.get("NumRestarts", 0))
        reason = "" if state == "ALIVE" else f"Ray says: {found.get('State', 'the actor is not known')}"
        node = str(found.get("Address", {}).get("NodeID", ""))
        return ActorStatus(
            self._host._actor_id.hex(), self._name, self._class_name, state, restarts + 1, restarts, node, reason
        )

    def __reduce__(self) -> Any:
        return RayActorHandle, (_Contained(self._host), self._name, self._class_name)


_STATES: dict[str, Literal["PENDING", "ALIVE", "RESTARTING", "DEAD"]] = {
    "ALIVE": "ALIVE",
    "RESTARTING": "RESTARTING",
    "DEAD": "DEAD",
}


def _checked(actor: Any) -> RayActorHandle:
    if not isinstance(actor, RayActorHandle):
        raise TypeError(f"{type(actor).__name__} is no actor of this context; pass the handle that create_actor returned")
    return actor


def _ray_actor_options(options: ActorOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"max_restarts": options.max_restarts, "max_task_retries": options.max_task_retries}
    if options.max_concurrency is not None:
        found["max_concurrency"] = options.max_concurrency
    return found


@lru_cache(maxsize=1)
def _process_life() -> _Life:
    """Return the life of handles that came to this process inside a value; it ends with the process."""
    return _Life(owns_ray=False)


def _free_name(name: str) -> None:
    """Free the name of an actor that has died: Ray keeps it until the actor is killed, or out of everybody's sight."""
    with suppress(ValueError):
        host = ray.get_actor(name)
        if ray_state.actors(host._actor_id.hex()).get("State") == "DEAD":
            _kill(host, name)


def _kill(host: Any, name: str | None = None) -> None:
    """Kill an actor; block until its name is free, if one is given."""
    ray.kill(host)
    end = time.monotonic() + NAME_RELEASE_S
    with suppress(ValueError):
        while name is not None and time.monotonic() < end:
            ray.get_actor(name)  # a round trip to Ray's control service


# --- Ray's words ----------------------------------------------------------------------------------------------------

_RESOURCES = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}

_TROUBLES: Sequence[tuple[type[Exception], type[errors.FrayError], str]] = (
    (exceptions.TaskCancelledError, errors.TaskCancelled, "was cancelled"),
    (exceptions.WorkerCrashedError, errors.TaskCrashed, f"ended the process it ran in, {SYSTEM_RETRIES + 1} times"),
    (exceptions.OutOfMemoryError, errors.TaskCrashed, "ran out of memory"),
    (exceptions.RayActorError, errors.ActorDied, "is not carried out: the actor is gone"),
    (exceptions.NodeDiedError, errors.TaskLost, "was lost with its node"),
    (exceptions.LocalRayletDiedError, errors.TaskLost, "was lost with its node"),
    (exceptions.ObjectLostError, errors.TaskLost, "was lost with its value"),
    (exceptions.RayError, errors.TaskFailed, "failed in Ray itself"),
)


def _translate(error: BaseException, name: str) -> BaseException:
    """Return what to raise for an error of Ray's; other errors are returned as they are."""
    cause = getattr(error, "cause", None)
    if isinstance(error, exceptions.RayTaskError) and isinstance(cause, exceptions.RayError):
        error = cause  # of a dependency
    for theirs, ours, text in _TROUBLES:
        if isinstance(error, theirs):
            return ours(f"{name} {text}. Ray says: {type(error).__name__}: {error}")
    return error


def _start_ray(max_workers: int | None, ray_options: dict[str, Any]) -> None:
    settings = {"include_dashboard": False, "logging_level": logging.ERROR, "namespace": "fray", **ray_options}
    if max_workers is not None and "address" not in ray_options:
        settings.setdefault("num_cpus", max_workers)
    try:
        ray.init(**settings)
    except ConnectionError as error:
        raise errors.Unavailable(f"cannot reach Ray: {error}") from error


def _with_options(remote: Any, resources: Any, **options: Any) -> Any:
    """Return the remote function or class with the resources in Ray's words."""
    known = {word: resources[name] for name, word in _RESOURCES.items() if resources.get(name)}
    own = {name: amount for name, amount in resources.items() if name not in _RESOURCES and amount > 0}
    try:
        return remote.options(**{"num_cpus": 0, **known, "resources": own, **options})
    except ValueError as error:
        raise errors.ConfigurationError(f"Ray refuses the resources: {''.join(map(str, error.args))}") from error
