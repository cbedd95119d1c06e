"""Handles of actors on Fray: they can travel, and find their way to the actor wherever they arrive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from fray.errors import ContextClosed
from fray.job.actors import ActorHandle, current_chain
from fray.job.futures import JobFuture, find_failed, find_unfinished, when_done
from fray.job.rpc import lineage
from fray.job.rpc.actors.book import Call
from fray.job.rpc.actors.lane import ActorLane
from fray.job.rpc.futures import ActorFuture, FrayFuture
from fray.serialization import encode

if TYPE_CHECKING:
    from fray.job.rpc.session import Session

_binding: ContextVar[Session | None] = ContextVar("fray_handle_session", default=None)


@contextmanager
def binding(session: Session) -> Iterator[None]:
    """Bind handles that are unpickled in the body to a session."""
    token = _binding.set(session)
    try:
        yield
    finally:
        _binding.reset(token)


class FrayActorHandle(ActorHandle):
    """An actor on Fray's workers. Calls of one process to one actor begin in order."""

    def __init__(self, actor_id: str, name: str, class_name: str, max_task_retries: int, session: Session | None) -> None:
        self._actor_id, self._actor_name, self._class_name = actor_id, name, class_name
        self._max_task_retries = max_task_retries
        self._session = session
        self._follows = session is None
        """Whether it belongs to whatever session the process has now: it came in a value."""
        self._known_lane: ActorLane | None = None
        self._number = next(_numbers)

    def _lane(self) -> ActorLane:
        lane = self._known_lane
        if lane is None or (self._follows and self._session is not None and self._session.is_closed):
            if self._follows:
                self._session = lineage.default_session()
            if self._session is None:
                raise ContextClosed("this handle has no context")
            lane = self._known_lane = self._session.actors.find(self._actor_id, self._actor_name or self._class_name)
        return lane

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobFuture[Any]:
        lane = self._lane()
        session = self._session
        if session is None:
            raise ContextClosed("this handle has no context")
        name = f"{self._actor_name or self._class_name}.{method}"
        future = ActorFuture(name, session.unpack, lane.cancel)
        call = Call(future, method, b"", current_chain.get(), self._max_task_retries, handle=self._number)
        missing = find_unfinished(args, kwargs)
        if not missing:
            failed = find_failed(args, kwargs)
            if failed is not None:
                future.reject(failed)
                return future
            call.payload = _pack(session, args, kwargs)
            lane.submit(call)
            return future
        call.ready = False
        lane.submit(call)
        when_done(missing, partial(_complete, session, lane, call, args, kwargs))
        return future

    def __reduce__(self) -> Any:
        return _rebuild, (self._actor_id, self._actor_name, self._class_name, self._max_task_retries)

    def __repr__(self) -> str:
        return f"<actor {self._actor_name or self._class_name} {self._actor_id}>"


_NOTHING = encode(((), {}))
"""The arguments of a call without any."""

_numbers = itertools.count(1)


def _rebuild(actor_id: str, name: str, class_name: str, max_task_retries: int) -> FrayActorHandle:
    return FrayActorHandle(actor_id, name, class_name, max_task_retries, _binding.get())


def _complete(session: Session, lane: ActorLane, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give a call its arguments, now that what it depends on is there; or let it fail as that did."""
    failed = find_failed(args, kwargs)
    if failed is None:
        try:
            lane.make_ready(call, _pack(session, args, kwargs))
            return
        except Exception as error:  # EncodeError, or storage
            failed = error
    if call.future.reject(failed):
        lane.cancel(call.future)


def _pack(session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    if not args and not kwargs:
        return _NOTHING
    return session.store.pack((tuple(map(_travelling, args)), {key: _travelling(arg) for key, arg in kwargs.items()}))


def _travelling(arg: Any) -> Any:
    if isinstance(arg, FrayFuture) and arg.payload is not None:
        return lineage.StoredRef(arg.payload)
    return arg.result() if isinstance(arg, JobFuture) else arg
