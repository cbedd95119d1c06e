"""The life of workers: registered, attached, reporting, draining, gone. Every report is fenced by its incarnation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fray.job.rpc.controller.core import actors, orphans, placement, tasks
from fray.job.rpc.controller.core.announce import announce
from fray.job.rpc.controller.core.effects import DisconnectWorker, Effect, StopTasks
from fray.job.rpc.controller.core.events import (
    WorkerAttached,
    WorkerDetached,
    WorkerLeft,
    WorkerRegistered,
    WorkerReported,
)
from fray.job.rpc.controller.core.model import Outcome, OutcomeKind, State, Task, TaskState, Worker
from fray.job.rpc.controller.core.retries import judge_loss
from fray.types import Incarnation, TaskId

_GOES_BACK = frozenset({OutcomeKind.RETURNED, OutcomeKind.CRASHED, OutcomeKind.CANCELLED})
"""Ends of attempts after which a task may be the first of its queue."""


def register(state: State, event: WorkerRegistered, out: list[Effect]) -> None:
    """Begin a worker's life; the one before it under the same id is over."""
    if event.incarnation in state.workers:
        return
    if event.incarnation in state.ended_workers:
        state.stats["stale registrations refused"] += 1
        return
    for other in [worker for worker in state.workers.values() if worker.id == event.worker]:
        lose(state, other, "its worker restarted", event.now, out)
    state.workers[event.incarnation] = Worker(
        incarnation=event.incarnation,
        id=event.worker,
        capacity=dict(event.capacity),
        address=event.address,
        lane_address=event.lane_address,
        tags=dict(event.tags),
        registered_at=event.now,
        last_seen=event.now,
        detached_at=event.now,
    )
    state.changes.change_worker(state.workers[event.incarnation])
    state.stats["workers registered"] += 1
    tasks.set_timer(state, event.now + state.limits.silence_s, "silence", event.incarnation)


def attach(state: State, event: WorkerAttached, out: list[Effect]) -> None:
    """Open a worker's stream and settle what each side thinks the worker has."""
    worker = state.workers.get(event.incarnation)
    if worker is None:
        state.stats["stale attachments refused"] += 1
        out.append(DisconnectWorker(event.incarnation))
        return
    worker.attached = True
    worker.last_seen = event.now
    state.awaited.discard(event.incarnation)
    _adopt(state, worker, event.held)
    held = set(event.held)
    for task in reversed(list(worker.assigned.values())):  # each goes to the front of its queue: the order stays
        if (task.spec.id, task.attempt) in held:
            held.discard((task.spec.id, task.attempt))
        else:
            undelivered = Outcome(task.spec.id, task.attempt, OutcomeKind.RETURNED)
            tasks.settle(state, task, undelivered, event.now, out)
    unknown = {attempt for attempt in held if attempt[0] not in state.tasks}
    orphans.keep(state, event.incarnation, unknown, event.now, out)
    stale = sorted(held - unknown)
    if stale:
        _note_stale(state, stale)
        orphans.stop_stale(state, event.incarnation, stale, out)
    stopping = [(task.spec.id, task.attempt) for task in worker.assigned.values() if task.cancelling is not None]
    if stopping:
        out.append(StopTasks(event.incarnation, stopping))
    for task in worker.assigned.values():
        task.reclaiming = False
        if task.actor is not None:  # calls and answers on their way through here may be lost: callers send again
            announce(state, task, task.actor, task.actor.state, out)
    placement.offer(state, worker)
    placement.refresh_feasibility(state, out)


def _adopt(state: State, worker: Worker, held: Sequence[tuple[TaskId, int]]) -> None:
    """Take note of attempts that the controller gave to the worker and does not know of any more: it was restarted."""
    for task_id, attempt in held:
        task = state.tasks.get(task_id)
        if task is None or task.attempt >= attempt or task.actor is not None:
            continue
        if task.state is TaskState.ASSIGNED:
            placement.release(state, task)
        elif task.state is TaskState.QUEUED:
            state.queues[task.spec.shape].length -= 1
        elif task.state is not TaskState.DELAYED:
            continue
        if task.state is not TaskState.QUEUED:
            task.move(TaskState.QUEUED)
        task.attempt = attempt
        placement.take_over(state, worker, task)
        state.stats["attempts found again"] += 1


def _note_stale(state: State, dropped: Iterable[tuple[TaskId, int]]) -> None:
    """Give numbers of attempts that are dropped to no other attempt: what their worker still says of them must not count."""
    for task_id, attempt in dropped:
        task = state.tasks[task_id]
        if task.worker is None and task.actor is None:
            task.attempt = max(task.attempt, attempt)


def detach(state: State, event: WorkerDetached, out: list[Effect]) -> None:
    """Note a broken stream; the worker has a short while to come back."""
    worker = state.workers.get(event.incarnation)
    if worker is not None and worker.attached:
        worker.attached = False
        worker.detached_at = event.now
        tasks.set_timer(state, event.now + state.limits.reattach_grace_s, "reattach", event.incarnation)


def report(state: State, event: WorkerReported, out: list[Effect]) -> None:
    """Take what a worker says; reports of a past life, or of attempts that are not current, change nothing."""
    worker = state.workers.get(event.incarnation)
    if worker is None:
        state.stats["stale reports refused"] += max(1, len(event.outcomes))
        return
    worker.last_seen = event.now
    if event.incarnation in state.awaited:
        return  # what it has is not known yet; it has not been answered, and reports again when it has come back
    for task_id, attempt in event.created:
        created = _current(worker, task_id, attempt)
        if created is not None:
            actors.note_constructed(state, created, event.now, out)
    for outcome in _in_order(event.outcomes):
        task = _current(worker, outcome.task, outcome.attempt)
        if task is None:
            if not orphans.take_outcome(state, event.incarnation, outcome):
                state.stats["stale reports refused"] += 1
        else:
            tasks.settle(state, task, outcome, event.now, out)
    _note_waiting(state, worker, event.blocked, event.unblocked)
    if event.draining and not worker.draining:
        worker.draining = True
        state.changes.change_worker(worker)
        placement.refresh_feasibility(state, out)


def _in_order(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Return those that end tasks, then from the last those that may go back to the front of a queue: their order stays."""
    back = [outcome for outcome in outcomes if outcome.kind in _GOES_BACK]
    return [*(outcome for outcome in outcomes if outcome.kind not in _GOES_BACK), *reversed(back)] if back else outcomes


def leave(state: State, event: WorkerLeft, out: list[Effect]) -> None:
    """End a worker's life on its own word."""
    worker = state.workers.get(event.incarnation)
    if worker is not None:
        lose(state, worker, f"its worker {worker.id} left", event.now, out, is_over=True)


def lose(state: State, worker: Worker, why: str, now: float, out: list[Effect], is_over: bool = False) -> None:
    """End a worker's life; its attempts go elsewhere in the same step, its actors when it surely takes no calls any more.

    A worker takes calls for its actors while it has heard from the controller within ``silence_s``. ``is_over`` says that
    its own word proves its end.
    """
    lease_left_s = 0.0 if is_over else worker.last_seen + state.limits.silence_s - now
    del state.workers[worker.incarnation]
    state.ended_workers.append(worker.incarnation)
    state.awaited.discard(worker.incarnation)
    orphans.drop(state, out, worker.incarnation)
    state.changes.drop_worker(worker.incarnation)
    state.stats["workers lost"] += 1
    for task in reversed(list(worker.assigned.values())):  # each goes to the front of its queue: the order stays
        tasks.carry_out(state, task, judge_loss(task, state.limits, why, now, lease_left_s), None, now, out)
    out.append(DisconnectWorker(worker.incarnation))
    placement.refresh_feasibility(state, out)


def check_silence(state: State, incarnation: Incarnation, now: float, out: list[Effect]) -> None:
    """Give up on a worker that has said nothing for too long; else look again later."""
    worker = state.workers.get(incarnation)
    if worker is None:
        return
    silent_until = worker.last_seen + state.limits.silence_s
    if silent_until <= now:
        lose(state, worker, f"its worker {worker.id} was silent for {now - worker.last_seen:.1f} s", now, out)
    else:
        tasks.set_timer(state, silent_until, "silence", incarnation)


def check_reattached(state: State, incarnation: Incarnation, now: float, out: list[Effect]) -> None:
    """Give up on a worker whose stream broke and did not come back."""
    worker = state.workers.get(incarnation)
    if worker is not None and not worker.attached and worker.detached_at + state.limits.reattach_grace_s <= now:
        lose(state, worker, f"the connection to its worker {worker.id} broke", now, out)


def _current(worker: Worker, task_id: TaskId, attempt: int) -> Task | None:
    task = worker.assigned.get(task_id)
    return task if task is not None and task.attempt == attempt else None


def _note_waiting(
    state: State, worker: Worker, blocked: Sequence[tuple[TaskId, int]], unblocked: Sequence[tuple[TaskId, int]]
) -> None:
    """Lend the place of tasks that wait for other tasks; take it back, if need be beyond capacity, when they go on."""
    for task_id, attempt in blocked:
        task = _current(worker, task_id, attempt)
        if task is not None and not task.blocked:
            task.blocked = True
            if task_id in worker.prefetched:
                placement.drop_prefetched(state, worker, task)
            else:
                placement.vacate(state, worker, task)
            placement.offer(state, worker)
    for task_id, attempt in unblocked:
        task = _current(worker, task_id, attempt)
        if task is not None and task.blocked:
            task.blocked = False
            placement.occupy(worker, task)
