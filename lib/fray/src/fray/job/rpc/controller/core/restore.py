"""A state made of what was saved: the controller goes on where it was when that was saved.

Workers that were there are expected back: until each has come, or was given up, nothing is placed, as what looks as if it
waits may run with one of them. Clients find their results again under new numbers.
"""

from __future__ import annotations

from fray.job.rpc.controller.core import placement, tasks
from fray.job.rpc.controller.core.changes import Changes
from fray.job.rpc.controller.core.machine import ANONYMOUS_SESSION
from fray.job.rpc.controller.core.model import Limits, State, Task, TaskState, Worker
from fray.job.rpc.controller.core.records import Rows, TaskRow, session_of, task_of, worker_of
from fray.types import Incarnation

VERSIONS_PER_GENERATION = 2**32
"""Versions of actors begin anew in each life of the controller, above all that were told before."""
LONGEST_DELAY_S = 60.0
"""No back-off is longer; a calendar that was set back must not make one so."""


def restore(rows: Rows, limits: Limits, now: float, offset_s: float, generation: int) -> State:
    """Return the state that was saved.

    Args:
        rows: all that was saved, as of one moment.
        limits: as configured now.
        now: the state's own time.
        offset_s: what must be added to it to get the calendar's.
        generation: number of this life of the controller, above all earlier ones.
    """
    state = State(limits, changes=Changes())
    _restore_sessions(state, rows, now)
    for worker_row in rows.workers:
        worker = worker_of(worker_row, now)
        state.workers[worker.incarnation] = worker
        state.awaited.add(worker.incarnation)
        tasks.set_timer(state, now + limits.silence_s, "silence", worker.incarnation)
    state.orphans_until = now + limits.silence_s
    tasks.set_timer(state, state.orphans_until, "orphans", "")
    restored = [(row, task_of(row, offset_s)) for row in rows.tasks]
    for row, task in restored:
        _add(state, row, task, now, generation)
    state.ticket = max((row.seq for row in rows.tasks), default=0) + len(state.timers)
    for row, task in restored:
        if not task.state.is_final:
            _resume(state, row, task, now)
    _publish(state, [task for _, task in restored], now)
    return state


def _restore_sessions(state: State, rows: Rows, now: float) -> None:
    for row in rows.sessions:
        session = session_of(row, now)
        state.sessions[session.id] = session
        if not (session.anonymous or session.detached or session.closed):
            tasks.set_timer(state, now + state.limits.session_grace_s, "session", session.id)
    for session in state.sessions.values():
        if session.parent in state.sessions:
            state.sessions[session.parent].children.add(session.id)


def _add(state: State, row: TaskRow, task: Task, now: float, generation: int) -> None:
    """Put a task where it is found by its id, its session and its name."""
    spec = task.spec
    task.submitted_at = min(task.submitted_at, now)
    was = TaskState(row.state)
    if task.actor is not None:
        task.actor.version = generation * VERSIONS_PER_GENERATION
    if was.is_final:
        task.state = was  # not by a move: it has been there
        if task.actor is not None:
            state.dead_actors[spec.id] = task
        if not (task.actor is not None and task.acknowledged):
            state.tasks[spec.id] = task
        return
    session = state.sessions[spec.session]
    state.tasks[spec.id] = session.live[spec.id] = task
    session.held_bytes += len(spec.payload)
    state.stats["actors restored" if task.actor is not None else "tasks restored"] += 1
    if task.actor is not None and spec.actor is not None and spec.actor.name:
        state.actor_names[spec.actor.name] = spec.id
    if spec.deadline_s is not None:
        tasks.set_timer(state, max(now, task.submitted_at + spec.deadline_s), "deadline", spec.id)
    for name in spec.dependencies:
        dependency = state.tasks.get(name)  # it was accepted before
        if dependency is not None:
            dependency.readers += 1
            if not dependency.state.is_final:
                task.missing += 1
                dependency.add_dependent(task)


def _resume(state: State, row: TaskRow, task: Task, now: float) -> None:
    """Let a task that has not ended go on where it was."""
    was = TaskState(row.state)
    worker = state.workers.get(Incarnation(row.worker))
    task.tell(now, "the controller was restarted")
    if was is TaskState.ASSIGNED and worker is not None:
        _reassign(state, worker, task)
        return
    if task.missing:
        return
    if was is TaskState.DELAYED:
        longest_s = LONGEST_DELAY_S if task.actor is None else state.limits.silence_s
        least_s = 0.0 if task.actor is None else longest_s  # a worker that was lost may still count on its lease
        task.state = was
        task.delayed_until = now + min(longest_s, max(least_s, task.delayed_until - now))
        tasks.set_timer(state, task.delayed_until, "retry", task.spec.id)
        if task.actor is not None and task.actor.taken_until:
            task.actor.taken_until = task.delayed_until
        return
    placement.enqueue(state, task)


def _reassign(state: State, worker: Worker, task: Task) -> None:
    """Give a task back to the worker that had it; the worker tells, when it comes back, whether it still has."""
    task.state = TaskState.QUEUED
    placement.take_over(state, worker, task)


def _publish(state: State, restored: list[Task], now: float) -> None:
    """Number the results anew that their clients have not acknowledged."""
    ended = [task for task in restored if task.state.is_final and not task.acknowledged]
    for task in sorted(ended, key=lambda task: (task.ended_at, task.seq)):
        session = state.sessions.get(task.spec.session)
        if session is None or session.closed:
            task.acknowledged = True
            tasks.forget_if_unneeded(state, task)
            continue
        session.last_seq += 1
        session.outbox[session.last_seq] = task
        session.unread_bytes += len(task.result)
        if session.unread_bytes > state.limits.session_bytes:
            state.stalled.add(session.id)
        if session.id == ANONYMOUS_SESSION:
            tasks.set_timer(state, now + state.limits.result_ttl_s, "expire", str(session.last_seq))
