"""How long an actor's name is its own."""

from __future__ import annotations

import pytest
from fray.job.rpc.controller.core import actors, apply, next_deadline
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.invariants import check
from fray.job.rpc.controller.core.model import ActorSpec, ActorState, Outcome, OutcomeKind, State, TaskSpec
from fray.types import Incarnation, SessionId, TaskId, WorkerId

pytestmark = pytest.mark.unit

CLIENT, ACTOR, WORKER = SessionId("client"), TaskId("actor"), Incarnation("worker.1")


def living(name: str) -> State:
    """Return a state with an actor that lives on a worker, last heard of at 10 s."""
    state = State()
    spec = TaskSpec(ACTOR, CLIENT, "class", "Class", shape=(), actor=ActorSpec(name))
    for event in (
        ev.SessionOpened(0.0, CLIENT),
        ev.SessionWatched(0.0, CLIENT),
        ev.WorkerRegistered(0.0, WORKER, WorkerId("worker"), {"cpu": 1.0}),
        ev.WorkerAttached(0.0, WORKER),
        ev.ActorRequested(1.0, CLIENT, spec),
        ev.WorkerReported(10.0, WORKER, created=[(ACTOR, 1)]),
        ev.WorkerDetached(11.0, WORKER),
    ):
        apply(state, event)
    return state


def state_of(state: State) -> ActorState | None:
    task = actors.find(state, ACTOR)
    return task.actor.state if task is not None and task.actor is not None else None


def pass_time(state: State, until: float) -> None:
    while (when := next_deadline(state)) is not None and when <= until:
        apply(state, ev.TimePassed(when))
        check(state)


@pytest.mark.parametrize("is_killed", [False, True])
def test_named_actor_of_a_lost_worker_keeps_its_name_until_the_worker_surely_takes_no_calls(is_killed: bool) -> None:
    state = living("name")
    if is_killed:
        apply(state, ev.CancelRequested(11.5, [ACTOR]))
    pass_time(state, 19.0)  # lost at 13 s, its lease ends at 20 s at the latest
    assert not state.workers
    assert (state.actor_names, state_of(state)) == ({"name": ACTOR}, ActorState.RESTARTING)
    pass_time(state, 20.5)
    assert (state.actor_names, state_of(state)) == ({}, ActorState.DEAD)


def test_actor_without_a_name_ends_with_its_worker() -> None:
    state = living("")
    pass_time(state, 14.0)
    assert state_of(state) is ActorState.DEAD


def test_what_a_detached_actor_has_created_ends_with_it() -> None:
    state = State()
    boss, helper, task, nested = TaskId("boss"), TaskId("helper"), TaskId("task"), SessionId("nested")
    own = SessionId("boss")
    for event in (
        ev.SessionOpened(0.0, CLIENT),
        ev.WorkerRegistered(0.0, WORKER, WorkerId("worker"), {"cpu": 4.0}),
        ev.WorkerAttached(0.0, WORKER),
        ev.ActorRequested(1.0, CLIENT, TaskSpec(boss, own, "class", "Boss", shape=(), actor=ActorSpec("b", detached=True))),
        ev.SessionOpened(2.0, nested, parent=own),
        ev.SessionWatched(2.0, nested),
        ev.ActorRequested(2.0, nested, TaskSpec(helper, own, "class", "Helper", shape=(), actor=ActorSpec("h"))),
        ev.TasksSubmitted(2.0, nested, [TaskSpec(task, nested, "fn", "task")]),
        ev.WorkerReported(3.0, WORKER, created=[(boss, 1), (helper, 1)]),
        ev.CancelRequested(4.0, [boss]),
        ev.WorkerReported(4.0, WORKER, [Outcome(boss, 1, OutcomeKind.CANCELLED)]),
    ):
        apply(state, event)
    apply(state, ev.TimePassed(4.0))
    ends = [Outcome(one, 1, OutcomeKind.CANCELLED) for one in (helper, task)]
    apply(state, ev.WorkerReported(5.0, WORKER, ends))
    check(state)
    assert set(state.sessions) == {CLIENT}
    assert not state.actor_names
