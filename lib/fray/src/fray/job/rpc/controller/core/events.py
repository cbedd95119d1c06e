"""What happened: facts in the past tense, with their time. All ids are chosen outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fray.job.rpc.controller.core.model import Outcome, TaskSpec
from fray.types import Incarnation, SessionId, TaskId, WorkerId


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A client appeared; again is no change."""

    now: float
    session: SessionId
    name: str = ""
    parent: SessionId | None = None
    logs: bool = False
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class SessionWatched:
    """A client opened its result stream."""

    now: float
    session: SessionId


@dataclass(frozen=True, slots=True)
class SessionUnwatched:
    """A result stream ended."""

    now: float
    session: SessionId


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A client said goodbye."""

    now: float
    session: SessionId


@dataclass(frozen=True, slots=True)
class TasksSubmitted:
    """A client sent tasks. A batch number that was seen before is a repetition and changes nothing."""

    now: float
    session: SessionId
    tasks: Sequence[TaskSpec]
    batch: int = 0


@dataclass(frozen=True, slots=True)
class ActorRequested:
    """A client wants an actor. A name that is taken, and an id that is known, change nothing."""

    now: float
    session: SessionId
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class ActorWatched:
    """A session wants to be told of an actor's changes."""

    now: float
    session: SessionId
    actor: TaskId


@dataclass(frozen=True, slots=True)
class ResultsAcknowledged:
    """A client has all results up to a number."""

    now: float
    session: SessionId
    seq: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants tasks cancelled; ids that are unknown or ended change nothing."""

    now: float
    tasks: Sequence[TaskId]
    reason: str = "cancelled"


@dataclass(frozen=True, slots=True)
class WorkerRegistered:
    """A worker began a life. A previous life under the same id is over."""

    now: float
    incarnation: Incarnation
    worker: WorkerId
    capacity: Mapping[str, float]
    address: str = ""
    lane_address: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerAttached:
    """A worker opened its command stream and says which attempts it has or has ended without an acknowledgement."""

    now: float
    incarnation: Incarnation
    held: Sequence[tuple[TaskId, int]] = ()


@dataclass(frozen=True, slots=True)
class WorkerDetached:
    """A command stream broke."""

    now: float
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class WorkerReported:
    """A worker is alive, and tells what ended and what waits."""

    now: float
    incarnation: Incarnation
    outcomes: Sequence[Outcome] = ()
    blocked: Sequence[tuple[TaskId, int]] = ()
    unblocked: Sequence[tuple[TaskId, int]] = ()
    draining: bool = False
    created: Sequence[tuple[TaskId, int]] = ()


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker said goodbye; what it still had goes to others."""

    now: float
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The timer fired."""

    now: float


Event = (
    SessionOpened
    | SessionWatched
    | SessionUnwatched
    | SessionClosed
    | TasksSubmitted
    | ActorRequested
    | ActorWatched
    | ResultsAcknowledged
    | CancelRequested
    | WorkerRegistered
    | WorkerAttached
    | WorkerDetached
    | WorkerReported
    | WorkerLeft
    | TimePassed
)
