"""Creating, finding and ending actors from a caller's process."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fray.errors import ActorNotFound, EncodeError
from fray.job.actors import current_chain
from fray.job.futures import JobFuture, Ref, lent_slot
from fray.job.rpc.actors.handle import FrayActorHandle
from fray.job.rpc.lineage import StoredRef
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.session import Session
from fray.job.rpc.wire.errors import NotKnown
from fray.job.rpc.wire.settings import MAX_CODE_BYTES
from fray.payloads import PayloadStore
from fray.serialization import PackedCallable, encode_callable
from fray.types import ActorStatus, TaskOptions


def create_actor(
    session: Session,
    cls: type,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: pb.ActorSettings,
    options: TaskOptions,
    resources: Mapping[str, float],
    get_if_exists: bool,
) -> FrayActorHandle:
    """Ask for an actor and wait until it is constructed; see ``JobContext.create_actor``."""
    code = encode_class(cls)
    actor_id = f"{session.id}-a{secrets.token_hex(4)}"
    with lent_slot():  # futures among the arguments are waited for
        values = (
            [_value(session, arg, settings.detached) for arg in args],
            {key: _value(session, arg, settings.detached) for key, arg in kwargs.items()},
        )
    where = f"{session.store.root.rpartition('/')[0]}/{actor_id}" if settings.detached else session.actors_url
    task = pb.TaskSpec(
        session_id=session.id,
        task_id=actor_id,
        function_id=code.function_id,
        name=cls.__name__[:200],
        serialized_data=PayloadStore(where, session.store.key).pack(values),
        resources=dict(resources) or {"cpu": 0.0},
        priority=options.priority,
        deadline_s=options.deadline or 0.0,
        chain=list(current_chain.get()),
    )
    function = pb.Function(function_id=code.function_id, code=code.code)
    request = pb.CreateActorRequest(task=task, settings=settings, function=function, get_if_exists=get_if_exists)
    period = session.actors.period
    with lent_slot():
        info: pb.ActorInfo = session.ask("create_actor", request)
    handle = _handle(session, info)
    lane = session.actors.open(info, settings.name or cls.__name__, period)
    try:
        lane.created.result()
    except Exception:
        raise
    except BaseException:  # the waiting was interrupted: nobody will have the handle
        if info.actor_id == actor_id:
            session.ask_actor("kill_actor", pb.ActorRef(actor_id=actor_id))
        raise
    return handle


def get_actor(session: Session, name: str) -> FrayActorHandle:
    """Return a handle of the actor with a name; blocks on a round trip. Raises ActorNotFound."""
    period = session.actors.period
    try:
        info = session.ask_actor("get_actor", pb.ActorRef(name=name, session_id=session.id))
    except NotKnown as error:
        raise ActorNotFound(str(error)) from error
    session.actors.open(info, name, period)
    return _handle(session, info)


def kill_actor(session: Session, actor: Any) -> None:
    """End an actor and wait until it has ended."""
    handle = _checked(actor)
    lane = session.actors.find(handle._actor_id, handle._actor_name or handle._class_name)
    try:
        session.ask_actor("kill_actor", pb.ActorRef(actor_id=handle._actor_id))
    except NotKnown:
        return
    lane.ended.result()


def actor_status(session: Session, actor: Any) -> ActorStatus:
    """Return what the controller knows of an actor; blocks on a round trip. Raises ActorNotFound when it has forgotten it."""
    handle = _checked(actor)
    try:
        info = session.ask_actor("get_actor", pb.ActorRef(actor_id=handle._actor_id))
    except NotKnown as error:
        raise ActorNotFound(str(error)) from error
    state = pb.ActorState(info.state).name
    name = info.settings.name if info.settings is not None else ""
    return ActorStatus(
        info.actor_id,
        name,
        info.class_name,
        state,  # type: ignore[arg-type]  # one of the four
        info.incarnation,
        info.restarts,
        info.worker_id,
        info.reason,
    )


def encode_class(cls: type) -> PackedCallable:
    """Return a class ready to travel.

    Raises:
        EncodeError: if it cannot, or is too large.
    """
    code = encode_callable(cls)
    if len(code.code) > MAX_CODE_BYTES:
        raise EncodeError(
            f"the class {code.name} is {len(code.code)} bytes long with what it captured; the limit is {MAX_CODE_BYTES}. "
            "Pass large values as arguments of its constructor, or put() them and pass the ref"
        )
    return code


def _handle(session: Session, info: pb.ActorInfo) -> FrayActorHandle:
    settings = info.settings or pb.ActorSettings()
    return FrayActorHandle(info.actor_id, settings.name, info.class_name, settings.max_task_retries, session)


def _checked(actor: Any) -> FrayActorHandle:
    if not isinstance(actor, FrayActorHandle):
        raise TypeError(f"{type(actor).__name__} is no actor of this context; pass the handle that create_actor returned")
    return actor


def _value(session: Session, arg: Any, is_detached: bool) -> Any:
    """Return an argument as it travels; for an actor that outlives the session, nothing of the session's may be referred to."""
    if isinstance(arg, JobFuture):
        return arg.result()
    if isinstance(arg, Ref) and is_detached and isinstance(arg, StoredRef):
        return session.unpack(arg.payload)
    return arg
