"""``apply(state, event) -> effects`` and ``next_deadline(state)``: the whole interface of the core."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from fray.job.rpc.controller.core import actors, orphans, placement, sessions, tasks, workers
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.effects import Effect
from fray.job.rpc.controller.core.events import Event
from fray.job.rpc.controller.core.model import ErrorKind, State, TaskState
from fray.job.rpc.controller.core.story import explain_pending
from fray.types import Incarnation, SessionId, TaskId

ANONYMOUS_SESSION = SessionId("anonymous")
"""The session of callers that do not open one, such as curl."""

_HANDLERS: dict[type, Callable[[State, Any, list[Effect]], None]] = {
    ev.SessionOpened: sessions.open_session,
    ev.SessionWatched: sessions.watch,
    ev.SessionUnwatched: sessions.unwatch,
    ev.SessionClosed: sessions.close,
    ev.TasksSubmitted: tasks.submit,
    ev.ActorRequested: actors.request,
    ev.ActorWatched: actors.watch,
    ev.ResultsAcknowledged: tasks.acknowledge,
    ev.CancelRequested: tasks.cancel,
    ev.WorkerRegistered: workers.register,
    ev.WorkerAttached: workers.attach,
    ev.WorkerDetached: workers.detach,
    ev.WorkerReported: workers.report,
    ev.WorkerLeft: workers.leave,
}

_IDLE_EVENTS = (
    ev.SessionOpened,
    ev.SessionWatched,
    ev.SessionUnwatched,
    ev.ResultsAcknowledged,
    ev.ActorWatched,
)
"""Events after which nothing new can be placed."""


def apply(state: State, event: Event) -> list[Effect]:
    """Change the state by one event and return what is to be done, in order. Never raises for bad input from outside.

    Raises:
        InvalidTransition: if Fray itself broke a task's life cycle.
    """
    out: list[Effect] = []
    if isinstance(event, ev.TimePassed):
        _fire_timers(state, event.now, out)
    else:
        _HANDLERS[type(event)](state, event, out)
    if not isinstance(event, _IDLE_EVENTS):
        placement.dispatch(state, event.now, out)
    return out


def next_deadline(state: State) -> float | None:
    """Return when ``TimePassed`` should come next, or None if nothing waits for time."""
    return state.timers[0][0] if state.timers else None


def _fire_timers(state: State, now: float, out: list[Effect]) -> None:
    while state.timers and state.timers[0][0] <= now:
        _, _, what, whom = heapq.heappop(state.timers)
        if what == "retry":
            task = state.tasks.get(TaskId(whom))
            if task is not None and task.state is TaskState.DELAYED and task.delayed_until <= now:
                if task.actor is not None and task.actor.doom:
                    kind = task.cancelling or ErrorKind.LOST
                    tasks.stop(state, task, kind, task.message or task.actor.doom, now, out)
                else:
                    placement.enqueue(state, task)
        elif what == "deadline":
            task = state.tasks.get(TaskId(whom))
            if task is None or task.state.is_final or task.cancelling is not None:
                continue
            if task.actor is None or not task.actor.was_constructed:
                pending = explain_pending(state, task, now)
                text = f"{task.spec.name} did not end within its deadline of {task.spec.deadline_s:g} s"
                text += f": it {pending}" if pending else ""
                tasks.stop(state, task, ErrorKind.TIMEOUT, text, now, out)
        elif what == "session":
            sessions.check_watched(state, SessionId(whom), now, out)
        elif what == "over":
            sessions.end(state, SessionId(whom), "its actor has ended", now, out)
        elif what == "silence":
            workers.check_silence(state, Incarnation(whom), now, out)
        elif what == "reattach":
            workers.check_reattached(state, Incarnation(whom), now, out)
        elif what == "orphans":
            orphans.drop(state, out)
        elif what == "expire":
            tasks.acknowledge(state, ev.ResultsAcknowledged(now, ANONYMOUS_SESSION, int(whom)), out)
