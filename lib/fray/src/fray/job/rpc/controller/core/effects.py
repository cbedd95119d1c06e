"""What is to be done: orders to the driver."""

from __future__ import annotations

from dataclasses import dataclass

from fray.job.rpc.controller.core.model import Task
from fray.types import Incarnation, SessionId, TaskId


@dataclass(frozen=True, slots=True)
class StartTasks:
    """Give these attempts to a worker, in this order."""

    worker: Incarnation
    tasks: list[Task]


@dataclass(frozen=True, slots=True)
class StopTasks:
    """Tell a worker to interrupt, or drop, these attempts."""

    worker: Incarnation
    tasks: list[tuple[TaskId, int]]


@dataclass(frozen=True, slots=True)
class ReclaimTasks:
    """Ask a worker to hand back those of these attempts that it has not started."""

    worker: Incarnation
    tasks: list[tuple[TaskId, int]]


@dataclass(frozen=True, slots=True)
class DisconnectWorker:
    """End a worker's command stream: this life of it is over."""

    worker: Incarnation


@dataclass(frozen=True, slots=True)
class WakeSession:
    """New results are in a session's outbox."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class NotifySession:
    """Tell a person something about the session's tasks."""

    session: SessionId
    text: str


@dataclass(frozen=True, slots=True)
class TellActor:
    """Tell a session how an actor is now."""

    session: SessionId
    actor: Task


@dataclass(frozen=True, slots=True)
class EndActor:
    """An actor has ended for good: delete what it kept."""

    actor: Task


@dataclass(frozen=True, slots=True)
class EndSession:
    """A session is over: end its streams, forget its code, delete its storage."""

    session: SessionId


Effect = (
    StartTasks | StopTasks | ReclaimTasks | DisconnectWorker | WakeSession | NotifySession | TellActor | EndActor | EndSession
)
