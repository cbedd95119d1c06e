"""What becomes of a task when an attempt of it has ended. Three separate budgets:

- failures of user code: ``max_retries``, with back-off, for the exceptions the task names;
- executors it took with it: ``Limits.max_kills``;
- workers that went away under it: ``Limits.max_losses``.

An attempt that was never started counts against none of them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fray.job.rpc.controller.core.model import ErrorKind, Limits, Outcome, OutcomeKind, Task
from fray.types import compute_retry_delay_s


class Move(enum.Enum):
    """Where the task goes."""

    FINISH = "finish"
    """It has its value."""
    FAIL = "fail"
    """It ends with an error."""
    CANCEL = "cancel"
    """It ends as cancelled."""
    RETRY = "retry"
    """It is tried again after a delay."""
    REQUEUE = "requeue"
    """It goes back to the front of its queue."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one outcome."""

    move: Move
    """Where to."""
    story: str
    """Why, for people."""
    delay_s: float = 0.0
    """Before the next attempt, when retried."""
    error: ErrorKind = ErrorKind.USER
    """How it failed, when it did."""


def judge(task: Task, outcome: Outcome, limits: Limits) -> Verdict:
    """Decide on an attempt's outcome; counts it against its budget."""
    if outcome.kind is OutcomeKind.RETURNED and task.cancelling is None:
        return Verdict(Move.REQUEUE, "handed back unstarted")
    if task.cancelling is not None:
        if task.cancelling is ErrorKind.CANCELLED:
            return Verdict(Move.CANCEL, "stopped")
        return Verdict(Move.FAIL, "stopped", error=task.cancelling)
    if outcome.kind is OutcomeKind.FINISHED:
        return Verdict(Move.FINISH, "finished")
    if outcome.kind is OutcomeKind.CANCELLED:
        return Verdict(Move.CANCEL, "stopped on its worker")
    if outcome.kind is OutcomeKind.CRASHED:
        task.kills += 1
        text = f"its executor died ({task.kills} of {limits.max_kills}): {outcome.message}"
        if task.kills >= limits.max_kills:
            return Verdict(Move.FAIL, text, error=ErrorKind.CRASHED)
        return Verdict(Move.REQUEUE, text)
    return _judge_failure(task, outcome)


def judge_loss(task: Task, limits: Limits, why: str) -> Verdict:
    """Decide on an attempt whose worker went away."""
    task.losses += 1
    text = f"{why} ({task.losses} of {limits.max_losses} losses)"
    if task.cancelling is not None:
        kind = Move.CANCEL if task.cancelling is ErrorKind.CANCELLED else Move.FAIL
        return Verdict(kind, text, error=task.cancelling)
    if task.losses >= limits.max_losses:
        return Verdict(Move.FAIL, text, error=ErrorKind.LOST)
    return Verdict(Move.REQUEUE, text)


def _judge_failure(task: Task, outcome: Outcome) -> Verdict:
    task.failures += 1
    timed_out = outcome.kind is OutcomeKind.TIMEOUT
    error = ErrorKind.TIMEOUT if timed_out else ErrorKind.USER
    wanted = timed_out or outcome.retryable
    spec = task.spec
    text = f"attempt {task.attempt} failed: {outcome.message}"
    if wanted and (spec.max_retries < 0 or task.failures <= spec.max_retries):
        delay_s = compute_retry_delay_s(spec.retry_delay_s, task.failures, spec.id)
        return Verdict(Move.RETRY, f"{text}; again in {delay_s:.2f} s", delay_s)
    return Verdict(Move.FAIL, text, error=error)
