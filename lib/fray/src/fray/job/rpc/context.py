"""The fray context: tasks on a controller and its workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from fray.config import load_config, normalize_address
from fray.errors import ConfigurationError, DecodeError, EncodeError
from fray.job.base import ContextBase
from fray.job.futures import JobFuture, Ref, find_failure
from fray.job.rpc.futures import FrayFuture
from fray.job.rpc.lineage import Dependency, StoredRef
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.session import Session
from fray.job.rpc.wire.settings import MAX_CODE_BYTES, MAX_DEPENDENCIES
from fray.serialization import encode_callable
from fray.serialization.failures import type_name
from fray.types import DEFAULT_TASK_RESOURCES, TaskOptions

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
        failed = _find_failed(args, kwargs)
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
            )
            _apply_options(spec, options)
            return spec, dependencies

        return self._session.submit(function, name, build)

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
        raise NotImplementedError(
            "actors on Fray's own workers are not there yet; use the ray, threadpool or sync context for actors"
        )

    def close(self) -> None:
        try:
            self._session.close()
        finally:
            if self._cluster is not None:
                self._cluster.stop()

    def _read_ref(self, ref: Ref[Any]) -> Any:
        if not isinstance(ref, StoredRef):
            raise DecodeError(f"{ref!r} belongs to another context")
        return self._session.store.unpack(ref.payload)


def _find_failed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> BaseException | None:
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, JobFuture) and arg.done():
            error = find_failure(arg)
            if error is not None:
                return error
    return None


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


def _apply_options(spec: pb.TaskSpec, options: TaskOptions) -> None:
    if options.resources != DEFAULT_TASK_RESOURCES:
        spec.resources = dict(options.resources) or {"cpu": 0.0}
    if options.max_retries:
        spec.max_retries = options.max_retries
        spec.retry_delay_s = options.retry_delay_s
        spec.retry_on = [type_name(kind) for kind in options.retry_exceptions]
    spec.timeout_s = options.timeout or 0.0
    spec.deadline_s = options.deadline or 0.0
    spec.priority = options.priority
