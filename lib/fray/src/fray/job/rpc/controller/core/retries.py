"""What becomes of a task when an attempt of it has ended. Three separate budgets:

- failures of user code: ``max_retries``, with back-off, for the exceptions the task names;
- executors it took with it: ``Limits.max_kills``;
- workers that went away under it: ``Limits.max_losses``.

An attempt that was never started counts against none of them. An actor has one budget: its restarts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fray.job.rpc.controller.core.model import Actor, ActorState, ErrorKind, Limits, Outcome, OutcomeKind, Task
from fray.types import compute_retry_delay_s

RESTART_DELAY_S = 0.1
"""Before an actor is constructed again; doubles with every short life in a row."""
LOSS_DELAY_S = 0.3
"""Before a task that has lost a second worker is tried again; doubles with each further one."""
SHORT_LIFE_S = 60.0
"""An actor that lived for longer is restarted as if it had not died before."""


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


def judge(task: Task, outcome: Outcome, limits: Limits, now: float) -> Verdict:
    """Decide on an attempt's outcome; counts it against its budget."""
    if outcome.kind is OutcomeKind.RETURNED and task.cancelling is None:
        return Verdict(Move.REQUEUE, outcome.message or "handed back unstarted")
    if task.cancelling is not None:
        if task.cancelling is ErrorKind.CANCELLED:
            return Verdict(Move.CANCEL, "stopped")
        return Verdict(Move.FAIL, "stopped", error=task.cancelling)
    if outcome.kind is OutcomeKind.FINISHED:
        return Verdict(Move.FINISH, "finished")
    if outcome.kind is OutcomeKind.CANCELLED:  # nobody wants that now: it was stopped as unknown after a restart
        return Verdict(Move.REQUEUE, "its worker had stopped it")
    if task.actor is not None:
        return _judge_death_by(task, task.actor, outcome, now)
    if outcome.kind is OutcomeKind.CRASHED:
        task.kills += 1
        text = f"its executor died ({task.kills} of {limits.max_kills}): {outcome.message}"
        if task.kills >= limits.max_kills:
            return Verdict(Move.FAIL, text, error=ErrorKind.CRASHED)
        return Verdict(Move.REQUEUE, text)
    return _judge_failure(task, outcome)


def judge_loss(task: Task, limits: Limits, why: str, now: float, lease_left_s: float) -> Verdict:
    """Decide on an attempt whose worker went away; an actor is not constructed again while its worker may still run."""
    if task.actor is not None:
        return _judge_actor_loss(task, task.actor, why, now, lease_left_s)
    task.losses += 1
    text = f"{why} ({task.losses} of {limits.max_losses} losses)"
    if task.cancelling is not None:
        kind = Move.CANCEL if task.cancelling is ErrorKind.CANCELLED else Move.FAIL
        return Verdict(kind, text, error=task.cancelling)
    if task.losses >= limits.max_losses:
        return Verdict(Move.FAIL, text, error=ErrorKind.LOST)
    if task.losses > 1:  # workers that come and go at once must not use up the budget at once
        delay_s = compute_retry_delay_s(LOSS_DELAY_S, task.losses - 1, task.spec.id)
        return Verdict(Move.RETRY, f"{text}; again in {delay_s:.2f} s", delay_s)
    return Verdict(Move.REQUEUE, text)


def _judge_actor_loss(task: Task, actor: Actor, why: str, now: float, lease_left_s: float) -> Verdict:
    actor.taken_until = now + lease_left_s if lease_left_s > 0 else 0.0
    if task.cancelling is None:
        verdict = _judge_death(task, actor, why, ErrorKind.LOST, now, lease_left_s)
    else:
        move = Move.CANCEL if task.cancelling is ErrorKind.CANCELLED else Move.FAIL
        verdict = Verdict(move, why, error=task.cancelling)
    if verdict.move is Move.RETRY or not actor.spec.name or not actor.taken_until:
        return verdict
    actor.doom = actor.last_death = verdict.story
    return Verdict(Move.RETRY, f"{verdict.story}; its name is free in {lease_left_s:.2f} s", lease_left_s)


def _judge_death_by(task: Task, actor: Actor, outcome: Outcome, now: float) -> Verdict:
    if outcome.kind is not OutcomeKind.CRASHED:
        text = f"its constructor failed: {outcome.message}"
        if not actor.was_constructed:
            return Verdict(Move.FAIL, text, error=ErrorKind.USER)
        return _judge_death(task, actor, text, ErrorKind.CRASHED, now)
    text = outcome.message if outcome.retryable else f"its executor died: {outcome.message}"
    return _judge_death(task, actor, text, ErrorKind.CRASHED, now)


def _judge_death(task: Task, actor: Actor, why: str, error: ErrorKind, now: float, at_least_s: float = 0.0) -> Verdict:
    budget = actor.spec.max_restarts
    if budget >= 0 and actor.restarts >= budget:
        text = f"{why}; it is not restarted (max_restarts={budget})"
        return Verdict(Move.FAIL, text, error=error)
    lived_long = actor.state is ActorState.ALIVE and now - actor.alive_since > SHORT_LIFE_S
    actor.quick_deaths = 1 if lived_long else actor.quick_deaths + 1
    actor.restarts += 1
    actor.last_death = why
    delay_s = max(at_least_s, compute_retry_delay_s(RESTART_DELAY_S, actor.quick_deaths, task.spec.id))
    return Verdict(Move.RETRY, f"{why}; restart {actor.restarts} in {delay_s:.2f} s", delay_s)


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
