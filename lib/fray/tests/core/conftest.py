"""A controller core driven by hand: each event is followed by a check of all invariants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fray.job.rpc.controller.core import apply, invariants, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import Limits, Outcome, OutcomeKind, State, Task, TaskSpec
from fray.types import TaskId

CPU = (("cpu", 1.0),)


class Cluster:
    """The state, the time, and short words for events."""

    def __init__(self, **limits: Any) -> None:
        self.state = State(Limits(**limits))
        self.now = 0.0
        self.effects: list[fx.Effect] = []

    def post(self, kind: type[Any], *args: Any, **fields: Any) -> list[fx.Effect]:
        effects = apply(self.state, kind(self.now, *args, **fields))
        invariants.check(self.state)
        self.effects += effects
        return effects

    def session(self, name: str = "s", **fields: Any) -> None:
        self.post(ev.SessionOpened, name, **fields)
        self.post(ev.SessionWatched, name)

    def worker(self, name: str, incarnation: str = "", attach: bool = True, **capacity: float) -> list[fx.Effect]:
        incarnation = incarnation or f"{name}.1"
        self.post(ev.WorkerRegistered, incarnation, name, capacity or {"cpu": 1.0})
        return self.post(ev.WorkerAttached, incarnation) if attach else []

    def submit(self, *names: str, session: str = "s", batch: int = 0, **options: Any) -> list[fx.Effect]:
        options = {"function_id": "f", "name": "f"} | options
        specs = [TaskSpec(TaskId(name), session, **options) for name in names]
        return self.post(ev.TasksSubmitted, session, specs, batch)

    def end(self, name: str, kind: OutcomeKind = OutcomeKind.FINISHED, **fields: Any) -> list[fx.Effect]:
        """Let the owner of a task's current attempt report its end."""
        task = self.state.tasks[TaskId(name)]
        assert task.worker is not None, f"{name} is {task.state.value}"
        return self.post(ev.WorkerReported, task.worker, [Outcome(task.spec.id, task.attempt, kind, **fields)])

    def measure(self, function_id: str, run_s: float) -> None:
        """Let the controller know how long a function takes."""
        self.state.durations[function_id] = run_s

    def after(self, seconds: float) -> list[fx.Effect]:
        """Let time pass, firing timers as the driver does."""
        until, effects = self.now + seconds, []
        while (when := next_deadline(self.state)) is not None and when <= until:
            self.now = max(self.now, when)
            effects += self.post(ev.TimePassed)
        self.now = until
        return effects + self.post(ev.TimePassed)

    def task(self, name: str) -> Task:
        return self.state.tasks[TaskId(name)]

    def where(self, *names: str) -> list[str | None]:
        """Return the incarnations that own the tasks' attempts."""
        return [self.task(name).worker for name in names]

    def states(self, *names: str) -> list[str]:
        return [self.task(name).state.value for name in names]


def started(effects: Sequence[fx.Effect]) -> list[str]:
    """Return the tasks that are started, in order."""
    return [task.spec.id for effect in effects if isinstance(effect, fx.StartTasks) for task in effect.tasks]


def only(effects: Sequence[fx.Effect], kind: type[Any]) -> list[Any]:
    """Return the effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    return Cluster


@pytest.fixture(name="started")
def started_fixture() -> Callable[..., list[str]]:
    return started


@pytest.fixture(name="only")
def only_fixture() -> Callable[..., list[Any]]:
    return only
