"""Work that a restarted controller does not know of, as it was not saved: it goes on, and its client sends the task again."""

from __future__ import annotations

from collections.abc import Iterable

from fray.job.rpc.controller.core import placement
from fray.job.rpc.controller.core.effects import Effect, StopTasks
from fray.job.rpc.controller.core.model import Orphan, Outcome, OutcomeKind, State, Task, TaskState
from fray.types import Incarnation, TaskId

MAX_VOID = 10_000
"""Unknown attempts whose numbers are remembered."""


def keep(state: State, worker: Incarnation, held: Iterable[tuple[TaskId, int]], now: float, out: list[Effect]) -> None:
    """Take note of attempts of unknown tasks; of two of the same task the later one stays. Afterwards they are stopped."""
    losers: list[tuple[TaskId, Orphan]] = []
    for task_id, attempt in sorted(held):
        orphan, known = Orphan(worker, attempt), state.orphans.get(task_id)
        if known is not None and (known.worker, known.attempt) == (worker, attempt):
            continue
        if now >= state.orphans_until or (known is not None and known.attempt > attempt):
            losers.append((task_id, orphan))
            continue
        state.orphans[task_id] = orphan
        if known is not None:
            losers.append((task_id, known))
    _discard(state, losers, out)


def note_void(state: State, task_id: TaskId, attempt: int) -> None:
    """Give the number of a dropped attempt to no other one: what is still said of it must not count if its task comes again."""
    state.void_attempts[task_id] = max(attempt, state.void_attempts.pop(task_id, 0))
    if len(state.void_attempts) > MAX_VOID:
        del state.void_attempts[next(iter(state.void_attempts))]


def take_outcome(state: State, worker: Incarnation, outcome: Outcome) -> bool:
    """Keep how an orphan has finished until its task comes again; any other end lets it be tried again. False for strangers."""
    orphan = state.orphans.get(outcome.task)
    if orphan is None or (orphan.worker, orphan.attempt) != (worker, outcome.attempt):
        return False
    if outcome.kind is OutcomeKind.FINISHED:
        orphan.outcome = outcome
    else:
        del state.orphans[outcome.task]
        note_void(state, outcome.task, outcome.attempt)
    return True


def adopt(state: State, task: Task, is_wanted: bool, out: list[Effect]) -> Outcome | None:
    """Give a task that has come again the attempt that a worker has of it, if any; return how that has finished, if it has."""
    task.attempt = state.void_attempts.pop(task.spec.id, 0)
    orphan = state.orphans.pop(task.spec.id, None)
    if orphan is None:
        return None
    worker = state.workers[orphan.worker]
    task.attempt = max(task.attempt, orphan.attempt)
    if is_wanted and not task.missing and task.actor is None and task.attempt == orphan.attempt:
        task.move(TaskState.QUEUED)
        placement.take_over(state, worker, task)
        state.stats["attempts found again"] += 1
        return orphan.outcome
    stop_stale(state, orphan.worker, [(task.spec.id, orphan.attempt)], out)
    return None


def drop(state: State, out: list[Effect], worker: Incarnation | None = None) -> None:
    """Stop what nobody has asked for again, of one worker that is lost or of all."""
    found = [(task_id, orphan) for task_id, orphan in state.orphans.items() if worker in (None, orphan.worker)]
    for task_id, _ in found:
        del state.orphans[task_id]
    _discard(state, found, out)


def stop_stale(state: State, worker: Incarnation, attempts: list[tuple[TaskId, int]], out: list[Effect]) -> None:
    """Let a worker stop what is not wanted of it any more, and count it."""
    state.stats["stale attempts dropped"] += len(attempts)
    if worker in state.workers:
        out.append(StopTasks(worker, attempts))


def _discard(state: State, losers: Iterable[tuple[TaskId, Orphan]], out: list[Effect]) -> None:
    """Give up attempts of unknown tasks."""
    by_worker: dict[Incarnation, list[tuple[TaskId, int]]] = {}
    for task_id, orphan in losers:
        note_void(state, task_id, orphan.attempt)
        by_worker.setdefault(orphan.worker, []).append((task_id, orphan.attempt))
    for worker, attempts in by_worker.items():
        stop_stale(state, worker, attempts, out)
