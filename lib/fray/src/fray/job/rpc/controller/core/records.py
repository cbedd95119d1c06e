"""What is saved of a state, as rows of plain values; and a state made of such rows again.

Saved is what cannot be learned again: what was accepted, what became of it, who was there. Not saved is what the others tell
when they come back (which attempts run, what waits for what, who watches whom), and what is measured anew. An assignment is
saved when the row is written for another reason, and always for actors; a worker that comes back says what it has.

Times are saved as the calendar's: ``offset_s`` is what must be added to the state's own clock to get them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple

from fray.job.rpc.controller.core.changes import Changes
from fray.job.rpc.controller.core.model import (
    Actor,
    ActorSpec,
    ActorState,
    ErrorKind,
    Session,
    Task,
    TaskSpec,
    Worker,
)
from fray.types import Incarnation, SessionId, TaskId, WorkerId

_DEFAULT_SPEC = TaskSpec(TaskId(""), SessionId(""), "", "")
_OPTIONS = ("dependencies", "shape", "priority", "max_retries", "retry_delay_s", "retry_on", "timeout", "deadline_s", "chain")


class TaskRow(NamedTuple):
    """A task. The first eight never change; ``payload`` is empty once it has ended."""

    seq: int
    id: str
    session: str
    function_id: str
    name: str
    options: str
    submitted_at: float
    actor_spec: str
    payload: bytes
    state: str
    attempt: int
    failures: int
    losses: int
    kills: int
    worker: str
    until: float
    cancelling: str
    ended_at: float
    error_kind: str
    message: str
    result: bytes
    acknowledged: int
    actor: str
    story: str


class SessionRow(NamedTuple):
    """A session."""

    id: str
    name: str
    parent: str
    logs: int
    last_batch: int
    closed: int
    anonymous: int
    detached: int


class WorkerRow(NamedTuple):
    """A life of a worker."""

    incarnation: str
    id: str
    address: str
    lane_address: str
    capacity: str
    tags: str
    draining: int


@dataclass(slots=True)
class Cut:
    """All rows that changed between two moments: saved together, or not at all."""

    new_tasks: list[TaskRow] = field(default_factory=list)
    tasks: list[TaskRow] = field(default_factory=list)
    gone_tasks: list[int] = field(default_factory=list)
    sessions: list[SessionRow] = field(default_factory=list)
    gone_sessions: list[str] = field(default_factory=list)
    workers: list[WorkerRow] = field(default_factory=list)
    gone_workers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Rows:
    """All that was saved; tasks in the order in which they were accepted."""

    tasks: list[TaskRow] = field(default_factory=list)
    sessions: list[SessionRow] = field(default_factory=list)
    workers: list[WorkerRow] = field(default_factory=list)


def take(changes: Changes, offset_s: float) -> Cut:
    """Return the rows of all that has changed, and forget that it has."""
    cut = Cut(
        [task_row(task, offset_s) for task in changes.new_tasks.values()],
        [task_row(task, offset_s) for task in changes.tasks.values()],
        changes.gone_tasks,
        [session_row(session) for session in changes.sessions.values() if session is not None],
        [session_id for session_id, session in changes.sessions.items() if session is None],
        [worker_row(worker) for worker in changes.workers.values() if worker is not None],
        [incarnation for incarnation, worker in changes.workers.items() if worker is None],
    )
    changes.new_tasks, changes.tasks, changes.gone_tasks = {}, {}, []
    changes.sessions, changes.workers = {}, {}
    return cut


def task_row(task: Task, offset_s: float) -> TaskRow:
    """Return a task as it is saved."""
    spec, actor = task.spec, task.actor
    is_final = task.state.is_final
    options = (
        spec.dependencies,
        spec.shape,
        spec.priority,
        spec.max_retries,
        spec.retry_delay_s,
        spec.retry_on,
        spec.timeout,
        spec.deadline_s,
        spec.chain,
    )
    told = actor is not None or task.error_kind is not None or task.failures or task.losses or task.kills
    return TaskRow(
        task.seq,
        spec.id,
        spec.session,
        spec.function_id,
        spec.name,
        _pack_options(options),
        task.submitted_at + offset_s,
        json.dumps(asdict(spec.actor)) if spec.actor is not None else "",
        b"" if is_final else spec.payload,
        task.state.value,
        task.attempt,
        task.failures,
        task.losses,
        task.kills,
        task.worker or "",
        task.delayed_until + offset_s,
        task.cancelling.value if task.cancelling is not None else "",
        task.ended_at + offset_s,
        task.error_kind.value if task.error_kind is not None else "",
        task.message,
        task.result,
        int(task.acknowledged),
        _pack_actor(actor, offset_s) if actor is not None else "",
        json.dumps([(when + offset_s, text) for when, text in task.story or ()]) if told else "",
    )


def session_row(session: Session) -> SessionRow:
    """Return a session as it is saved."""
    return SessionRow(
        session.id,
        session.name,
        session.parent or "",
        int(session.logs),
        session.last_batch,
        int(session.closed),
        int(session.anonymous),
        int(session.detached),
    )


def worker_row(worker: Worker) -> WorkerRow:
    """Return a worker's life as it is saved."""
    return WorkerRow(
        worker.incarnation,
        worker.id,
        worker.address,
        worker.lane_address,
        json.dumps(worker.capacity),
        json.dumps(worker.tags),
        int(worker.draining),
    )


def task_of(row: TaskRow, offset_s: float) -> Task:
    """Return the task of a row, as far as it does not concern others: its owner and its dependents are not set."""
    spec = TaskSpec(
        TaskId(row.id),
        SessionId(intern(row.session)),  # one string for all tasks of a session, as before they were saved
        intern(row.function_id),
        intern(row.name),
        row.payload,
        actor=ActorSpec(**json.loads(row.actor_spec)) if row.actor_spec else None,
        **_unpack_options(row.options),
    )
    submitted_at = row.submitted_at - offset_s
    task = Task(
        spec,
        submitted_at,
        row.seq,
        attempt=row.attempt,
        failures=row.failures,
        losses=row.losses,
        kills=row.kills,
        delayed_until=row.until - offset_s,
        cancelling=ErrorKind(row.cancelling) if row.cancelling else None,
        ended_at=row.ended_at - offset_s,
        result=row.result,
        error_kind=ErrorKind(row.error_kind) if row.error_kind else None,
        message=row.message,
        acknowledged=bool(row.acknowledged),
    )
    if row.actor and spec.actor is not None:
        task.actor = _unpack_actor(spec.actor, row.actor, offset_s)
    if row.story:
        task.story = [(when - offset_s, text) for when, text in json.loads(row.story)]
    return task


def session_of(row: SessionRow, now: float) -> Session:
    """Return the session of a row, with nobody there and nothing in it."""
    return Session(
        SessionId(row.id),
        name=row.name,
        parent=SessionId(row.parent) if row.parent else None,
        logs=bool(row.logs),
        last_batch=row.last_batch,
        unwatched_since=now,
        closed=bool(row.closed),
        anonymous=bool(row.anonymous),
        detached=bool(row.detached),
    )


def worker_of(row: WorkerRow, now: float) -> Worker:
    """Return the worker of a row, not attached, with nothing assigned."""
    return Worker(
        Incarnation(row.incarnation),
        WorkerId(row.id),
        json.loads(row.capacity),
        address=row.address,
        lane_address=row.lane_address,
        tags=json.loads(row.tags),
        draining=bool(row.draining),
        registered_at=now,
        last_seen=now,
        detached_at=now,
    )


@lru_cache(maxsize=64)
def _pack_options(options: tuple[Any, ...]) -> str:
    """Return what a task asked for, as far as it is not the default."""
    given = {name: value for name, value in zip(_OPTIONS, options, strict=True) if value != getattr(_DEFAULT_SPEC, name)}
    return json.dumps(given) if given else ""


def _unpack_options(text: str) -> dict[str, Any]:
    if not text:
        return {}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}
    if "shape" in given:
        given["shape"] = tuple((name, amount) for name, amount in given["shape"])
    return given


def _pack_actor(actor: Actor, offset_s: float) -> str:
    return json.dumps(
        {
            "state": actor.state.value,
            "restarts": actor.restarts,
            "quick_deaths": actor.quick_deaths,
            "doom": actor.doom,
            "taken_until": actor.taken_until and actor.taken_until + offset_s,
            "last_death": actor.last_death,
            "was_constructed": actor.was_constructed,
            "alive_since": actor.alive_since + offset_s,
        }
    )


def _unpack_actor(spec: ActorSpec, text: str, offset_s: float) -> Actor:
    values = json.loads(text)
    values["state"] = ActorState(values["state"])
    values["alive_since"] -= offset_s
    if values.get("taken_until"):
        values["taken_until"] -= offset_s
    return Actor(spec, **values)
