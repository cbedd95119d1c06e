"""The state of the controller: sessions, tasks, workers and queues. Data and legal moves, no decisions."""

from __future__ import annotations

import enum
import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fray.errors import InvalidTransition
from fray.job.rpc.controller.core.changes import Changes, NoChanges
from fray.types import Incarnation, SessionId, TaskId, WorkerId

if TYPE_CHECKING:
    from fray.job.rpc.controller.core.queues import ShapeQueue

Shape = tuple[tuple[str, float], ...]
"""What a task occupies, as sorted (resource, amount) pairs: tasks of one shape share a queue."""

EPSILON = 1e-9
"""Amounts are sums of fractions: differences below this are rounding."""

STORY_LIMIT = 40
"""Entries kept of a task's story; the first and the latest stay."""

HISTORY_LIMIT = 1000
"""Ended and forgotten tasks, and ended actors, whose stories are kept for people."""

STABLE = "a worker that is not preemptible"
"""The resource that stands for it: such workers have plenty, actors that must not be preempted ask for one."""

ACTOR_LOAD = 0.001
"""What an actor adds to the load of a worker with one CPU: of equal workers, the one with fewer actors is next."""


class TaskState(enum.Enum):
    """Where a task is in its life."""

    WAITING = "waiting"
    """For the tasks it depends on."""
    DELAYED = "delayed"
    """Backing off before another attempt."""
    QUEUED = "queued"
    """Ready, for a place on a worker."""
    ASSIGNED = "assigned"
    """An attempt of it belongs to a worker."""
    FINISHED = "finished"
    """It has its one result."""
    FAILED = "failed"
    """It ended with an error."""
    CANCELLED = "cancelled"
    """Somebody cancelled it."""

    __hash__ = object.__hash__  # there is one object of each state; Enum's own is written in Python

    @property
    def is_final(self) -> bool:
        """Whether the task has ended."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED})

LEGAL_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.WAITING: frozenset({TaskState.QUEUED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.DELAYED: frozenset({TaskState.QUEUED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.QUEUED: frozenset({TaskState.ASSIGNED, TaskState.FAILED, TaskState.CANCELLED}),
    TaskState.ASSIGNED: FINAL_STATES | {TaskState.DELAYED, TaskState.QUEUED},
    TaskState.FINISHED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
}


class ErrorKind(enum.Enum):
    """Why a task has no value, in words that clients turn into exceptions."""

    USER = "user"
    """User code raised; the payload tells what."""
    TIMEOUT = "timeout"
    """Out of time: an attempt's ``timeout`` or the task's ``deadline``."""
    CRASHED = "crashed"
    """User code ended its process, as often as it may."""
    LOST = "lost"
    """Workers went away more often than the budget allows."""
    CANCELLED = "cancelled"
    """Cancelled by somebody."""
    EXPIRED = "expired"
    """It depended on a result that is not kept any more."""


class OutcomeKind(enum.Enum):
    """How a worker says that an attempt ended."""

    FINISHED = "finished"
    """It returned; the payload is the value."""
    FAILED = "failed"
    """It raised; the payload tells what."""
    TIMEOUT = "timeout"
    """It ran longer than its ``timeout`` and was stopped."""
    CRASHED = "crashed"
    """Its executor process ended."""
    CANCELLED = "cancelled"
    """It was stopped on request."""
    RETURNED = "returned"
    """It was never started and is handed back."""


class ActorState(enum.Enum):
    """Where an actor is in its life."""

    PENDING = "pending"
    """Not constructed yet."""
    ALIVE = "alive"
    """It takes calls."""
    RESTARTING = "restarting"
    """It died, and is to be constructed again."""
    DEAD = "dead"
    """It has ended for good."""


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """What a client asked for when it created an actor. An actor is a task that stays: its lives are the task's attempts."""

    name: str = ""
    """Unique among those that live; empty for none."""
    max_restarts: int = 0
    """Lives after the first; -1 for ever."""
    detached: bool = False
    """Whether it is a session of its own, and outlives the one that created it."""
    not_preemptible: bool = False
    """Whether it keeps away from workers marked preemptible."""
    max_task_retries: int = 0
    """Kept by callers."""
    max_concurrency: int = 0
    """Kept by the actor; 0 for the default."""
    checkpoint_every: int = 0
    """Kept by the actor; calls, 0 for never."""
    pending_timeout_s: float = 0.0
    """Kept by callers; 0 for none."""


@dataclass(slots=True, eq=False)
class Actor:
    """What an actor is beyond a task."""

    spec: ActorSpec
    """What was asked for."""
    state: ActorState = ActorState.PENDING
    """Where it is; changed by ``announce`` only."""
    version: int = 0
    """Grows with every change that is announced."""
    restarts: int = 0
    """Lives that ended and were followed by another."""
    quick_deaths: int = 0
    """Lives in a row that were short: the back-off grows with them."""
    doom: str = ""
    """Why it ends for good when its worker surely takes no calls any more: until then the name is its own."""
    taken_until: float = 0.0
    """Until then the worker that was lost under it may take calls for it; 0 when none may."""
    last_death: str = ""
    """Why its latest life ended, in words."""
    was_constructed: bool = False
    """Whether its constructor has ever returned."""
    alive_since: float = 0.0
    """When its constructor returned last."""
    watchers: set[SessionId] = field(default_factory=set)
    """Sessions that are told of its changes."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a client asked for. Payloads are opaque bytes."""

    id: TaskId
    """Chosen by the client, unique for ever."""
    session: SessionId
    """Whose task it is."""
    function_id: str
    """Names the code, by content or as an entrypoint."""
    name: str
    """For people."""
    payload: bytes = b""
    """The arguments."""
    dependencies: tuple[TaskId, ...] = ()
    """Tasks of the same session whose values are arguments."""
    shape: Shape = (("cpu", 1.0),)
    """What it occupies while it runs."""
    priority: int = 0
    """Higher first."""
    max_retries: int = 0
    """Further attempts after failures of user code; -1 for ever."""
    retry_delay_s: float = 0.1
    """Before the first retry; doubles."""
    retry_on: tuple[str, ...] = ()
    """Names of exception types that are worth another attempt; opaque here."""
    timeout: float | None = None
    """Seconds one attempt may run; kept by the worker."""
    deadline_s: float | None = None
    """Seconds from submission to the end, kept here; for an actor, to the end of its constructor."""
    chain: tuple[str, ...] = ()
    """The actor calls that wait for it; opaque here."""
    actor: ActorSpec | None = None
    """Set if the code is a class whose instance is to stay."""


@dataclass(slots=True)
class Outcome:
    """A worker's word on one attempt."""

    task: TaskId
    """Which task."""
    attempt: int
    """Which attempt of it."""
    kind: OutcomeKind
    """How it ended."""
    payload: bytes = b""
    """The value or the failure, opaque."""
    message: str = ""
    """The error in one line, for people."""
    retryable: bool = False
    """Whether the exception is one the task wants retried; for an actor, whether it said goodbye itself."""
    run_s: float = 0.0
    """How long it ran."""


@dataclass(slots=True, eq=False)
class Task:
    """A task and its latest attempt."""

    spec: TaskSpec
    """What was asked for."""
    submitted_at: float
    """When it was accepted."""
    seq: int
    """Order of acceptance."""
    actor: Actor | None = None
    """What it is beyond a task, if it is an actor."""
    state: TaskState = TaskState.WAITING
    """Where it is; changed by ``move`` only."""
    attempt: int = 0
    """Number of the latest attempt, from 1."""
    failures: int = 0
    """Attempts that ended with a failure of user code."""
    losses: int = 0
    """Attempts that ended with their worker."""
    kills: int = 0
    """Attempts that ended with their executor."""
    worker: Incarnation | None = None
    """Whose the attempt is, while ASSIGNED."""
    holding: bool = False
    """Whether it occupies its resources on the worker: not while prefetched, nor while it waits for other tasks."""
    blocked: bool = False
    """Whether it waits for other tasks and has lent its place."""
    reclaiming: bool = False
    """Whether the worker was asked to hand it back."""
    cancelling: ErrorKind | None = None
    """Set while the worker is asked to stop it: how it will end."""
    missing: int = 0
    """Dependencies that have not ended."""
    dependents: list[Task] | None = None
    """Tasks that wait for this one; made for the first of them."""
    readers: int = 0
    """Dependents that have not ended: the value is kept for them."""
    delayed_until: float = 0.0
    """End of the back-off, while DELAYED."""
    assigned_at: float = 0.0
    """When the latest attempt was given to a worker."""
    ended_at: float = 0.0
    """When it ended."""
    result: bytes = b""
    """The value or the failure, once ended."""
    error_kind: ErrorKind | None = None
    """Why it has no value, once it FAILED or was CANCELLED."""
    message: str = ""
    """The error in one line, for people."""
    acknowledged: bool = False
    """Whether its client has the result."""
    story: list[tuple[float, str]] | None = None
    """What happened after its submission, with times. Made when there is something to tell: millions may wait."""

    def move(self, to: TaskState) -> None:
        """Change the state along a legal move.

        Raises:
            InvalidTransition: if the life cycle has no such move: our bug.
        """
        if to not in LEGAL_MOVES[self.state]:
            lines = "\n".join(text for _, text in self.story or ())
            raise InvalidTransition(f"task {self.spec.id} cannot go from {self.state.value} to {to.value}; story:\n{lines}")
        self.state = to

    def add_dependent(self, task: Task) -> None:
        """Note a task that waits for this one."""
        if self.dependents is None:
            self.dependents = []
        self.dependents.append(task)

    def tell(self, now: float, text: str) -> None:
        """Add a line to the story."""
        if self.story is None:
            self.story = [(now, text)]
            return
        if len(self.story) >= STORY_LIMIT:
            del self.story[STORY_LIMIT // 2]
        self.story.append((now, text))


@dataclass(slots=True)
class EndedTask:
    """What is kept of a forgotten task, for people. Never changed; not frozen, as one is made for every task."""

    id: TaskId
    """Which task."""
    name: str
    """For people."""
    session: SessionId
    """Whose it was."""
    state: TaskState
    """How it ended."""
    message: str
    """The error in one line, if any."""
    attempt: int
    """Attempts it took."""
    submitted_at: float
    """When it was accepted."""
    ended_at: float
    """When it ended."""
    story: list[tuple[float, str]] | None
    """What happened after its submission, with times."""


def find_lacking(shape: Shape, capacity: Mapping[str, float], used: Mapping[str, float]) -> list[str]:
    """Return what a shape needs and is not free."""
    return [name for name, amount in shape if capacity.get(name, 0.0) - used.get(name, 0.0) < amount - EPSILON]


@dataclass(slots=True, eq=False)
class Worker:
    """One life of one worker."""

    incarnation: Incarnation
    """Names this life."""
    id: WorkerId
    """Names the worker over all its lives."""
    capacity: dict[str, float]
    """What it offers."""
    address: str = ""
    """Where it answers, if it does."""
    lane_address: str = ""
    """Where it takes calls of actors, if it does."""
    actors: int = 0
    """Actors among its attempts."""
    tags: dict[str, str] = field(default_factory=dict)
    """Labels, for people."""
    used: dict[str, float] = field(default_factory=dict)
    """What tasks occupy; above capacity for a while when waiting tasks wake up."""
    assigned: dict[TaskId, Task] = field(default_factory=dict)
    """All attempts that belong to it, in order of assignment."""
    prefetched: dict[TaskId, Task] = field(default_factory=dict)
    """Those given to it ahead of a free place, in order."""
    backlog_s: dict[int, float] = field(default_factory=dict)
    """Estimated run time of the prefetched ones, by priority."""
    ahead: Counter[Shape] = field(default_factory=Counter)
    """The prefetched ones, by shape."""
    running: Counter[Shape] = field(default_factory=Counter)
    """The tasks that occupy their resources, by shape."""
    attached: bool = False
    """Whether its command stream is open."""
    draining: bool = False
    """Whether it takes no more tasks."""
    registered_at: float = 0.0
    """When this life began."""
    last_seen: float = 0.0
    """When it was last heard of."""
    detached_at: float = 0.0
    """When the command stream broke, while not attached."""
    reserved_for: Shape | None = None
    """A shape that has waited too long for a place as large as this one: others stay away."""

    def fits(self, shape: Shape) -> bool:
        """Whether the shape can be placed now."""
        # Plain loops here and below: these run several times for every task.
        for name, amount in shape:  # noqa: SIM110
            if self.capacity.get(name, 0.0) - self.used.get(name, 0.0) < amount - EPSILON:
                return False
        return True

    def lacking(self, shape: Shape) -> list[str]:
        """Return what the shape needs and is not free."""
        return find_lacking(shape, self.capacity, self.used)

    def could_fit(self, shape: Shape) -> bool:
        """Whether the shape can be placed when nothing else runs."""
        return all(self.capacity.get(name, 0.0) >= amount - EPSILON for name, amount in shape)

    def slots(self, shape: Shape) -> int:
        """How many tasks of the shape run at a time."""
        least = math.inf
        for name, amount in shape:
            least = min(least, self.capacity.get(name, 0.0) / amount)
        return max(1, int(least)) if shape else 1

    def load(self) -> float:
        """The fullest resource's share, plus the work queued ahead in units of seconds."""
        share = 0.0
        for name, used in self.used.items():
            if used and self.capacity.get(name):
                share = max(share, used / self.capacity[name])
        if self.actors:
            share += ACTOR_LOAD * self.actors / max(1.0, self.capacity.get("cpu", 0.0))
        return share + sum(self.backlog_s.values()) if self.backlog_s else share


@dataclass(slots=True, eq=False)
class Orphan:
    """An attempt of a task that was accepted, but not saved, before the controller was restarted."""

    worker: Incarnation
    """Who has it."""
    attempt: int
    """Its number."""
    outcome: Outcome | None = None
    """How it has ended, if it has."""


@dataclass(slots=True, eq=False)
class Session:
    """One client's lease."""

    id: SessionId
    """Chosen by the client."""
    name: str = ""
    """For people."""
    parent: SessionId | None = None
    """The session of the task that opened this one: it ends with it."""
    logs: bool = False
    """Whether the client wants to see what its tasks print."""
    live: dict[TaskId, Task] = field(default_factory=dict)
    """Its tasks that have not ended."""
    outbox: dict[int, Task] = field(default_factory=dict)
    """Ended tasks by sequence number, until acknowledged."""
    last_seq: int = 0
    """Number of the latest result."""
    acked_seq: int = 0
    """Results up to here are acknowledged."""
    last_batch: int = 0
    """Number of the latest batch of submissions, to know a repeated one."""
    held_bytes: int = 0
    """Payload bytes of its live tasks."""
    unread_bytes: int = 0
    """Payload bytes of results that are not acknowledged."""
    watchers: int = 0
    """Open result streams."""
    unwatched_since: float = 0.0
    """Since when there is none."""
    children: set[SessionId] = field(default_factory=set)
    """Sessions opened by its tasks."""
    closed: bool = False
    """Whether it only waits for its running tasks to stop."""
    anonymous: bool = False
    """Whether it is the one for callers without a session: never expires, its results do."""
    detached: bool = False
    """Whether it is that of a detached actor: it ends with the actor."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers that decide when the controller gives up on somebody. Seconds and counts."""

    session_grace_s: float = 30.0
    """A client without a stream for so long is gone."""
    reattach_grace_s: float = 2.0
    """A worker whose stream broke may come back within this."""
    silence_s: float = 10.0
    """A worker that says nothing for so long is gone."""
    max_losses: int = 10
    """Attempts a task may lose with their workers."""
    max_kills: int = 3
    """Executors a task may take with it."""
    result_ttl_s: float = 600.0
    """How long results of callers without a session are kept."""
    session_bytes: int = 512 * 1024 * 1024
    """Payload bytes a session may have here in unended tasks, beyond which its client waits, and the same again in results
    that are not acknowledged, beyond which nothing of it is placed."""
    session_tasks: int = 2_000_000
    """Unended tasks a session may have; its client waits beyond."""
    session_results: int = 2_000_000
    """Results a session may leave unacknowledged; beyond, nothing more is taken from it. Not below ``session_tasks``: a client
    cannot acknowledge what a task that it has not sent yet may depend on."""


@dataclass(slots=True, eq=False)
class State:
    """Everything the controller knows."""

    limits: Limits = field(default_factory=Limits)
    """When to give up."""
    sessions: dict[SessionId, Session] = field(default_factory=dict)
    """By id."""
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    """Those that are live or whose result is kept."""
    workers: dict[Incarnation, Worker] = field(default_factory=dict)
    """Those that are alive as far as we know."""
    queues: dict[Shape, ShapeQueue] = field(default_factory=dict)
    """Tasks that wait for a place, by shape."""
    durations: dict[str, float] = field(default_factory=dict)
    """Measured run time of functions, a moving average in seconds."""
    reservations: dict[Shape, Incarnation] = field(default_factory=dict)
    """Workers that are being cleared for a shape that has waited too long."""
    timers: list[tuple[float, int, str, str]] = field(default_factory=list)
    """Heap of (when, tie-breaker, what, whom)."""
    stats: Counter[str] = field(default_factory=Counter)
    """How often things happened."""
    history: deque[EndedTask] = field(default_factory=lambda: deque(maxlen=HISTORY_LIMIT))
    """Ended tasks that are otherwise forgotten, the latest last."""
    actor_names: dict[str, TaskId] = field(default_factory=dict)
    """Actors that live, by name."""
    dead_actors: dict[TaskId, Task] = field(default_factory=dict)
    """Actors that have ended, the latest last, for those who ask."""
    ended_workers: deque[Incarnation] = field(default_factory=lambda: deque(maxlen=HISTORY_LIMIT))
    """Lives of workers that are over, the latest last: they do not begin again."""
    stalled: set[SessionId] = field(default_factory=set)
    """Sessions that leave too many bytes of results unacknowledged: nothing of theirs is placed meanwhile."""
    timers_kept: int = 1000
    """With more timers than this, those that are for nothing are dropped."""
    void_attempts: dict[TaskId, int] = field(default_factory=dict)
    """Attempts that workers had of tasks that are not known (yet): the latest of each."""
    orphans: dict[TaskId, Orphan] = field(default_factory=dict)
    """Attempts that workers have of tasks that are not known, for a while after a restart: their clients send them again."""
    orphans_until: float = 0.0
    """Until then."""
    awaited: set[Incarnation] = field(default_factory=set)
    """Workers that were there before a restart and may still have what looks as if it waits: until they have come back, or
    were given up, nothing is placed."""
    changes: Changes = field(default_factory=NoChanges)
    """What has changed since the state was saved last."""
    ticket: int = 0
    """Source of tie-breakers."""

    def next_ticket(self) -> int:
        """Return the next number."""
        self.ticket += 1
        return self.ticket
