"""The life of tasks: accepted, waiting, ended, cancelled, forgotten."""

from __future__ import annotations

import heapq

from fray.job.rpc.controller.core import orphans, placement
from fray.job.rpc.controller.core.announce import announce, bury
from fray.job.rpc.controller.core.effects import Effect, EndSession, StopTasks, WakeSession
from fray.job.rpc.controller.core.events import CancelRequested, ResultsAcknowledged, TasksSubmitted
from fray.job.rpc.controller.core.model import (
    Actor,
    ActorState,
    EndedTask,
    ErrorKind,
    Outcome,
    OutcomeKind,
    Session,
    State,
    Task,
    TaskSpec,
    TaskState,
)
from fray.job.rpc.controller.core.retries import Move, Verdict, judge
from fray.types import SessionId, TaskId


def submit(state: State, event: TasksSubmitted, out: list[Effect]) -> None:
    """Accept a batch of tasks; repeated batches and tasks change nothing."""
    session = state.sessions.get(event.session)
    if session is None or session.closed:
        state.stats["submissions refused: no session"] += 1
        return
    if event.batch:
        if event.batch <= session.last_batch:
            state.stats["batches repeated"] += 1
            return
        session.last_batch = event.batch
        state.changes.change_session(session)
    for spec in event.tasks:
        if spec.id in state.tasks:
            state.stats["tasks repeated"] += 1
            continue
        accept(state, session, spec, event.now, out)


def find_refusal(state: State, session: Session, count: int, size_bytes: int) -> str | None:
    """Return why a session may not submit so much more now, or None.

    A session without live tasks always may, unless it never acknowledges: what it sends may have to come before what it can
    acknowledge.
    """
    limits = state.limits
    if len(session.outbox) > limits.session_results:
        return (
            f"the session has {len(session.outbox)} results that it has not acknowledged; the limit is {limits.session_results}"
        )
    if session.live and len(session.live) + count > limits.session_tasks:
        return f"the session has {len(session.live)} unended tasks; the limit is {limits.session_tasks}"
    if session.live and session.held_bytes + size_bytes > limits.session_bytes:
        return f"the session holds {session.held_bytes} bytes of arguments; the limit is {limits.session_bytes}"
    return None


def acknowledge(state: State, event: ResultsAcknowledged, out: list[Effect]) -> None:
    """Forget results that their client has."""
    session = state.sessions.get(event.session)
    if session is None or session.closed:
        return
    for seq in range(session.acked_seq + 1, min(event.seq, session.last_seq) + 1):
        task = session.outbox.pop(seq)
        task.acknowledged = True
        session.unread_bytes -= len(task.result)
        forget_if_unneeded(state, task)
    session.acked_seq = max(session.acked_seq, min(event.seq, session.last_seq))
    if session.id in state.stalled and session.unread_bytes <= state.limits.session_bytes:
        resume(state, session.id)
        placement.dispatch(state, event.now, out)


def resume(state: State, session: SessionId) -> None:
    """Place a session's tasks again, if that had stopped."""
    if session in state.stalled:
        state.stalled.remove(session)
        for queue in state.queues.values():
            queue.resume(session)


def cancel(state: State, event: CancelRequested, out: list[Effect]) -> None:
    """Cancel tasks; what runs is asked to stop and ends when it has."""
    for task_id in event.tasks:
        task = state.tasks.get(task_id)
        if task is not None and not task.state.is_final:
            stop(state, task, ErrorKind.CANCELLED, event.reason, event.now, out)


def stop(state: State, task: Task, kind: ErrorKind, why: str, now: float, out: list[Effect]) -> None:
    """End a task before its time: at once if no worker has it, else by asking its worker."""
    actor = task.actor
    if task.state is TaskState.DELAYED and actor is not None and actor.spec.name and now < actor.taken_until:
        _doom(state, task, actor, kind, why)
    elif task.state is not TaskState.ASSIGNED:
        if task.state is TaskState.QUEUED:
            state.queues[task.spec.shape].length -= 1
        final = TaskState.CANCELLED if kind is ErrorKind.CANCELLED else TaskState.FAILED
        end(state, task, final, now, out, error=kind, message=why)
    elif task.cancelling is None and task.worker is not None:
        task.cancelling, task.message = kind, why
        state.changes.change_task(task)
        task.tell(now, f"asked its worker to stop it: {why}")
        out.append(StopTasks(task.worker, [(task.spec.id, task.attempt)]))


def _doom(state: State, task: Task, actor: Actor, kind: ErrorKind, why: str) -> None:
    """End an actor when the worker that was lost under it surely takes no calls any more: its name is not free before."""
    if task.cancelling is None:
        task.cancelling, task.message, actor.doom = kind, why, why
        task.delayed_until = actor.taken_until
        set_timer(state, task.delayed_until, "retry", task.spec.id)
        state.changes.change_task(task)


def settle(state: State, task: Task, outcome: Outcome, now: float, out: list[Effect]) -> None:
    """Take an outcome of a task's current attempt. The caller has checked that it is the current one."""
    if outcome.run_s > 0 and outcome.kind in (OutcomeKind.FINISHED, OutcomeKind.FAILED):
        placement.measure(state, task.spec.function_id, outcome.run_s)
    carry_out(state, task, judge(task, outcome, state.limits, now), outcome, now, out)


def carry_out(state: State, task: Task, verdict: Verdict, outcome: Outcome | None, now: float, out: list[Effect]) -> None:
    """Do what was decided about a task whose attempt is over."""
    placement.release(state, task)
    move = verdict.move
    if outcome is None or outcome.kind is not OutcomeKind.RETURNED:  # one that was handed back costs nothing: no need to save
        state.changes.change_task(task)
    if task.actor is not None and move in (Move.REQUEUE, Move.RETRY):
        again = ActorState.RESTARTING if task.actor.was_constructed else ActorState.PENDING
        announce(state, task, task.actor, again, out)
    if move is Move.REQUEUE:
        task.tell(now, verdict.story)
        state.stats["attempts requeued"] += 1
        placement.enqueue(state, task, front=True)
    elif move is Move.RETRY:
        task.tell(now, verdict.story)
        state.stats["attempts retried"] += 1
        task.move(TaskState.DELAYED)
        task.delayed_until = now + verdict.delay_s
        set_timer(state, task.delayed_until, "retry", task.spec.id)
    elif move is Move.FINISH:
        end(state, task, TaskState.FINISHED, now, out, outcome.payload if outcome else b"")
    elif move is Move.CANCEL:
        end(state, task, TaskState.CANCELLED, now, out, error=ErrorKind.CANCELLED, message=task.message or verdict.story)
    else:
        payload = outcome.payload if outcome is not None and verdict.error is ErrorKind.USER else b""
        told = outcome.message if outcome is not None and task.actor is None else ""
        message = task.message or told or verdict.story
        task.tell(now, verdict.story)
        end(state, task, TaskState.FAILED, now, out, payload, verdict.error, message)


def end(
    state: State,
    task: Task,
    final: TaskState,
    now: float,
    out: list[Effect],
    payload: bytes = b"",
    error: ErrorKind | None = None,
    message: str = "",
) -> None:
    """Commit the one result of a task, publish it, and move those that waited for it."""
    task.move(final)
    task.ended_at, size = now, len(task.spec.payload)
    task.result, task.error_kind, task.message = payload, error, message
    state.changes.change_task(task)
    task.tell(now, final.value if final is TaskState.FINISHED else f"{final.value}: {message}")
    if task.actor is not None:
        bury(state, task, task.actor, out)
    else:
        state.stats[f"tasks {final.value}"] += 1
    for dependency in task.spec.dependencies:
        _stop_reading(state, dependency)
    session = state.sessions.get(task.spec.session)
    if session is not None:
        session.live.pop(task.spec.id, None)
        session.held_bytes -= size
        if session.detached and str(task.spec.id) == session.id:
            _end_detached(state, session, now, out)
        if session.closed:
            task.acknowledged = True
            if not session.live and session.id in state.sessions:
                del state.sessions[session.id]
                state.changes.drop_session(session.id)
                out.append(EndSession(session.id))
        else:
            session.unread_bytes += len(payload)
            if session.unread_bytes > state.limits.session_bytes:
                state.stalled.add(session.id)
            session.last_seq += 1
            session.outbox[session.last_seq] = task
            out.append(WakeSession(session.id))
            if session.anonymous:
                set_timer(state, now + state.limits.result_ttl_s, "expire", f"{session.last_seq}")
    dependents, task.dependents = task.dependents, None
    for dependent in dependents or ():
        _dependency_ended(state, dependent, task, now, out)
    forget_if_unneeded(state, task)


def _end_detached(state: State, session: Session, now: float, out: list[Effect]) -> None:
    """End all that a detached actor has created, with the actor."""
    session.closed = True
    state.changes.change_session(session)
    for unread in session.outbox.values():
        unread.acknowledged = True
        forget_if_unneeded(state, unread)
    session.outbox.clear()
    resume(state, session.id)
    why = "the detached actor that it belongs to has ended"
    for child in sorted(session.children):
        set_timer(state, now, "over", child)
    for other in list(session.live.values()):
        if not other.state.is_final:
            stop(state, other, ErrorKind.CANCELLED, why, now, out)


def forget_if_unneeded(state: State, task: Task) -> None:
    """Forget an ended task whose client has the result and whose value nobody will read."""
    if not (task.state.is_final and task.acknowledged):
        return
    if task.readers:
        state.changes.change_task(task)
    elif state.tasks.pop(task.spec.id, None) is not None:
        if not state.tasks:
            state.tasks.clear()  # a dict keeps its table otherwise: 80 bytes for each of the most that it ever held
        spec = task.spec
        if task.actor is not None:
            state.changes.change_task(task)  # its story is kept: see ``announce.bury``
            return
        state.changes.drop_task(task)
        state.history.append(
            EndedTask(
                spec.id,
                spec.name,
                spec.session,
                task.state,
                task.message,
                task.attempt,
                task.submitted_at,
                task.ended_at,
                task.story,
            )
        )


def set_timer(state: State, when: float, what: str, whom: str) -> None:
    """Remember to look at somebody later."""
    heapq.heappush(state.timers, (when, state.next_ticket(), what, whom))
    if len(state.timers) > state.timers_kept:
        _drop_timers(state)
        state.timers_kept = max(state.timers_kept, 2 * len(state.timers))


def _drop_timers(state: State) -> None:
    """Forget deadlines of tasks that have ended: they may be far away, and many."""

    def is_needed(what: str, whom: str) -> bool:
        task = state.tasks.get(TaskId(whom))
        return what != "deadline" or (task is not None and not task.state.is_final)

    state.timers = [timer for timer in state.timers if is_needed(timer[2], timer[3])]
    heapq.heapify(state.timers)


def accept(
    state: State, session: Session, spec: TaskSpec, now: float, out: list[Effect], watcher: SessionId | None = None
) -> None:
    """Take a task, or an actor with the session that watches it."""
    task = Task(spec, now, state.next_ticket())
    if spec.actor is not None:
        task.actor = Actor(spec.actor, watchers={watcher} if watcher else set())
    state.changes.add_task(task)
    state.tasks[spec.id] = task
    session.live[spec.id] = task
    session.held_bytes += len(spec.payload)
    if spec.actor is None:
        state.stats["tasks accepted"] += 1
    if spec.deadline_s is not None:
        set_timer(state, now + spec.deadline_s, "deadline", spec.id)
    failed: Task | None = None
    lost: TaskId | None = None
    for dependency_id in spec.dependencies:
        dependency = state.tasks.get(dependency_id)
        if dependency is None or dependency is task:
            lost = lost or dependency_id
            continue
        dependency.readers += 1
        if not dependency.state.is_final:
            task.missing += 1
            dependency.add_dependent(task)
        elif dependency.state is not TaskState.FINISHED:
            failed = failed or dependency
    if state.orphans or state.void_attempts:
        wanted = failed is None and lost is None
        finished = orphans.adopt(state, task, wanted, out)
        if finished is not None:
            settle(state, task, finished, now, out)
            return
    if failed is not None:
        _inherit(state, task, failed, now, out)
    elif lost is not None:
        message = f"it depends on {lost}, whose result is not kept any more"
        end(state, task, TaskState.FAILED, now, out, error=ErrorKind.EXPIRED, message=message)
    elif task.missing == 0 and task.state is TaskState.WAITING:
        placement.enqueue(state, task)
    elif task.missing:
        task.tell(now, f"waits for {task.missing} other task(s)")


def _dependency_ended(state: State, task: Task, dependency: Task, now: float, out: list[Effect]) -> None:
    if task.state is not TaskState.WAITING:
        return  # cancelled meanwhile
    if dependency.state is not TaskState.FINISHED:
        _inherit(state, task, dependency, now, out)
        return
    task.missing -= 1
    if task.missing == 0:
        placement.enqueue(state, task)


def _inherit(state: State, task: Task, dependency: Task, now: float, out: list[Effect]) -> None:
    final = dependency.state
    message = f"{dependency.spec.name} ({dependency.spec.id}), on which it depends, {final.value}: {dependency.message}"
    end(state, task, final, now, out, dependency.result, dependency.error_kind, message)


def _stop_reading(state: State, dependency_id: TaskId) -> None:
    dependency = state.tasks.get(dependency_id)
    if dependency is not None and dependency.readers > 0:
        dependency.readers -= 1
        forget_if_unneeded(state, dependency)
