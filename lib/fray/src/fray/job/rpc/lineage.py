"""What links tasks: placeholders for dependencies, refs to stored values, and the session a nested context belongs to."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fray.job.futures import Ref
from fray.payloads import PayloadStore

if TYPE_CHECKING:
    from fray.job.rpc.context import FrayContext
    from fray.job.rpc.session import Session

MAX_CONTEXTS = 4
"""Nested contexts an executor keeps open for sessions it has lately worked for."""

_session = ""
_contexts: dict[str, FrayContext] = {}
_lock = threading.Lock()  # guards _contexts


@dataclass(frozen=True, slots=True)
class Dependency:
    """Stands for the value of a future among the arguments of a task."""

    index: int
    """Position among the task's dependencies."""


class StoredRef(Ref[Any]):
    """A value put by a Fray context: its payload, or where the payload is stored. Can be pickled."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def read(self, key: bytes) -> Any:
        """Return the value. Blocks on storage; raises DecodeError if it is gone or damaged."""
        return PayloadStore("", key).unpack(self.payload)

    def __reduce__(self) -> Any:
        return StoredRef, (self.payload,)

    def __repr__(self) -> str:
        return f"Ref({len(self.payload)} bytes)"


def enter(session: str) -> None:
    """Note whose task this process runs now."""
    global _session
    _session = session


def current_session() -> str:
    """Return the session whose task this process runs, or an empty string outside of tasks."""
    return _session


def default_session() -> Session:
    """Return the session of the default context."""
    return default_context().session


def resolve_arguments(store: PayloadStore, payload: bytes, dependency_values: list[bytes]) -> tuple[list[Any], dict[str, Any]]:
    """Return (args, kwargs) of a call, with refs and placeholders replaced by their values. Blocks on storage."""
    args, kwargs = store.unpack(payload)
    if dependency_values or any(isinstance(arg, Ref) for arg in (*args, *kwargs.values())):
        values = [store.unpack(value) for value in dependency_values]

        def fill(arg: Any) -> Any:
            if isinstance(arg, Dependency):
                return values[arg.index]
            return arg.read(store.key) if isinstance(arg, StoredRef) else arg

        return [fill(arg) for arg in args], {key: fill(arg) for key, arg in kwargs.items()}
    return args, kwargs


def default_context() -> FrayContext:
    """Return the default context of the running task: one on the same cluster, tied to the task's session."""
    with _lock:
        ctx = _contexts.get(_session)
        if ctx is None or ctx.is_closed:
            from fray.job.rpc.context import connect

            while len(_contexts) >= MAX_CONTEXTS:
                _contexts.pop(next(iter(_contexts))).close()
            ctx = _contexts[_session] = connect()
        return ctx
