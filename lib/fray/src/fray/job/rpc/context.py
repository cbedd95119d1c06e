"""The fray context: tasks on a controller and its workers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Literal

from fray.config import load_config, normalize_address
from fray.errors import ConfigurationError, DecodeError, EncodeError
from fray.job.actors import check_actor, current_chain
from fray.job.base import ContextBase
from fray.job.futures import JobFuture, Ref, find_failed, find_failure, find_unfinished, when_done
from fray.job.rpc.actors.create import actor_status, create_actor, get_actor, kill_actor
from fray.job.rpc.actors.handle import FrayActorHandle
from fray.job.rpc.futures import ActorFuture, FrayFuture
from fray.job.rpc.lineage import Dependency, StoredRef
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.session import Session
from fray.job.rpc.wire.settings import MAX_CODE_BYTES, MAX_DEPENDENCIES
from fray.serialization import encode_callable
from fray.serialization.failures import type_name
from fray.types import DEFAULT_TASK_RESOURCES, ActorStatus, TaskOptions

_LOCAL = re.compile(r"local(?:\[(\d+)\])?")


def connect(controller_address: str | None = None, max_workers: int | None = None, log_to_driver: bool = True) -> FrayContext:
    """Return an open context on a controller; see ``create_job_ctx`` for the arguments and errors. Blocks."""
    cluster = None
    token = None
    local = _LOCAL.fullmatch(controller_address or "")
    if local is not None:
        if max_workers is not None and local[1] is not None and int(local[1]) != max_workers:
            raise ConfigurationError(f"{controller_address} and max_workers={max_workers} contradict each other")
        cluster = LocalCluster(num_cpus=int(local[1]) if local[1] else max_workers)
        address, token = cluster.start(), cluster.token
    else:
        found = normalize_address(controller_address) if controller_address else load_config().address
        if found is None:
            raise ConfigurationError(
                "the fray context needs a controller: pass controller_address (a URL, or 'local' for a private cluster) or set "
                "FRAY_ADDRESS. `fray local` starts a cluster on this machine"
            )
        if max_workers is not None:
            raise ConfigurationError("max_workers is for local clusters; the workers of a controller decide for themselves")
        address = found
    try:
        session = Session(address, token or load_config().require_token(), log_to_driver)
        session.open()
    except BaseException:
        if cluster is not None:
            cluster.stop()
        raise
    return FrayContext(session, cluster)


class FrayContext(ContextBase):
    """Runs tasks on the workers of a controller. Made by ``connect``."""

    def __init__(self, session: Session, cluster: LocalCluster | None = None) -> None:
        super().__init__()
        self._session = session
        self._cluster = cluster

    @property
    def address(self) -> str:
        """The controller's URL."""
        return self._session.address

    @property
    def session(self) -> Session:
        """The session, for handles."""
        return self._session

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._session.is_closed

    def put(self, obj: Any) -> Ref[Any]:
        self._session.check_open()
        return StoredRef(self._session.store.pack(obj))

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        self._session.check_open()
        function = encode_callable(fn)
        if len(function.code) > MAX_CODE_BYTES:
            raise EncodeError(
                f"the function {function.name} is {len(function.code)} bytes long with what it captured; the limit is "
                f"{MAX_CODE_BYTES}. Pass large values as arguments, or put() them and pass the ref"
            )
        options = self._options
        name = options.name or "".join(c if c.isprintable() else "?" for c in function.name)
        foreign = [f for f in find_unfinished(args, kwargs) if isinstance(f, ActorFuture) or not isinstance(f, FrayFuture)]
        if foreign:
            return self._run_when_done(foreign, name, fn, args, kwargs)
        failed = find_failed(args, kwargs)
        if failed is not None:
            future: JobFuture[Any] = JobFuture(name)
            future.reject(failed)
            return future

        def build() -> tuple[pb.TaskSpec, list[FrayFuture]]:
            dependencies: list[FrayFuture] = []
            call = _replace(args, kwargs, dependencies)
            if len(dependencies) > MAX_DEPENDENCIES:
                raise ConfigurationError(
                    f"{name} depends on {len(dependencies)} unfinished tasks; the limit is {MAX_DEPENDENCIES}: combine in steps"
                )
            spec = pb.TaskSpec(
                session_id=self._session.id,
                function_id=function.function_id,
                name=name[:200],
                serialized_data=self._session.store.pack(call),
                dependencies=[dependency.task_id for dependency in dependencies],
                chain=list(current_chain.get()),
            )
            apply_options(spec, options)
            return spec, dependencies

        return self._session.submit(function, name, build)

    def _run_when_done(
        self,
        futures: list[JobFuture[Any]],
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> JobFuture[Any]:
        """Submit a task when futures that the controller does not know are done: of actor calls, or of another context."""
        inner: list[JobFuture[Any]] = []

        def cancel(_: object) -> None:
            for future in inner:
                future.cancel()

        outer: JobFuture[Any] = JobFuture(name, cancel)

        def submit() -> None:
            try:
                future = self.run(fn, *args, **kwargs)
            except Exception as error:
                outer.reject(error)
                return
            inner.append(future)
            if outer.cancelled():
                future.cancel()
            future.add_done_callback(lambda _: _follow(outer, future))

        # On a thread of its own: the one that settles the last future must not wait for the controller.
        when_done(futures, lambda: threading.Thread(target=submit, name="fray-submit", daemon=True).start())
        return outer

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
        self._session.check_open()
        check_actor(cls, name, lifetime, self._actor_options)
        return create_actor(
            self._session,
            cls,
            args,
            kwargs,
            pb.ActorSettings(
                name=name or "",
                max_restarts=self._actor_options.max_restarts,
                max_task_retries=self._actor_options.max_task_retries,
                max_concurrency=self._actor_options.max_concurrency or 0,
                checkpoint_every=self._actor_options.checkpoint_every or 0,
                pending_timeout_s=self._actor_options.pending_timeout or 0.0,
                detached=lifetime == "detached",
                not_preemptible=not preemptible,
            ),
            self._options,
            self._options.resources if self._names_resources else {},
            get_if_exists,
        )

    def get_actor(self, name: str) -> FrayActorHandle:
        self._session.check_open()
        return get_actor(self._session, name)

    def kill(self, actor: Any) -> None:
        self._session.check_open()
        kill_actor(self._session, actor)

    def actor_status(self, actor: Any) -> ActorStatus:
        self._session.check_open()
        return actor_status(self._session, actor)

    def close(self) -> None:
        try:
            self._session.close()
        finally:
            if self._cluster is not None:
                self._cluster.stop()

    def _read_ref(self, ref: Ref[Any]) -> Any:
        if not isinstance(ref, StoredRef):
            raise DecodeError(f"{ref!r} belongs to another context")
        return self._session.unpack(ref.payload)


def _follow(outer: JobFuture[Any], inner: JobFuture[Any]) -> None:
    error = find_failure(inner)
    if error is not None:
        outer.reject(error)
        return
    try:
        outer.resolve(inner.result())
    except Exception as unreadable:
        outer.reject(unreadable)


def _replace(
    args: tuple[Any, ...], kwargs: dict[str, Any], dependencies: list[FrayFuture]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with futures replaced: by their payload if it is here, else by a placeholder."""

    def one(arg: Any) -> Any:
        if not isinstance(arg, JobFuture):
            return arg
        if not isinstance(arg, FrayFuture):
            return arg.result()  # a future of another context: only its value can travel
        if arg.payload is not None:
            return StoredRef(arg.payload)
        if arg not in dependencies:
            dependencies.append(arg)
        return Dependency(dependencies.index(arg))

    return tuple(one(arg) for arg in args), {key: one(arg) for key, arg in kwargs.items()}


def apply_options(spec: pb.TaskSpec, options: TaskOptions) -> None:
    if options.resources != DEFAULT_TASK_RESOURCES:
        spec.resources = dict(options.resources) or {"cpu": 0.0}
    if options.max_retries:
        spec.max_retries = options.max_retries
        spec.retry_delay_s = options.retry_delay_s
        spec.retry_on = [type_name(kind) for kind in options.retry_exceptions]
    spec.timeout_s = options.timeout or 0.0
    spec.deadline_s = options.deadline or 0.0
    spec.priority = options.priority
