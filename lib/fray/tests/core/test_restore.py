"""A state that was saved and made again: nothing that was accepted is missing, and what runs is not run again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core import invariants
from fray.job.rpc.controller.core.changes import Changes
from fray.job.rpc.controller.core.machine import ANONYMOUS_SESSION
from fray.job.rpc.controller.core.model import (
    STABLE,
    Actor,
    ActorSpec,
    ActorState,
    ErrorKind,
    Outcome,
    OutcomeKind,
    Session,
    Task,
    TaskSpec,
    Worker,
)
from fray.job.rpc.controller.core.records import (
    session_of,
    session_row,
    take,
    task_of,
    task_row,
    worker_of,
    worker_row,
)
from fray.job.rpc.controller.core.restore import VERSIONS_PER_GENERATION, restore
from fray.job.rpc.controller.core.story import explain_pending, tell_story
from fray.job.rpc.worker import core as wc
from fray.testing.simulation.disk import Disk

pytestmark = pytest.mark.unit

FAILED, FINISHED, CRASHED = OutcomeKind.FAILED, OutcomeKind.FINISHED, OutcomeKind.CRASHED
CPU = (("cpu", 1.0),)


NOT_AT_ONCE = ("state", "attempt", "worker", "story")
"""Of a task's row: what need not be written when an attempt is given to a worker, as the worker tells it again."""


class Lives:
    """A cluster whose controller ends and is started again, as often as wanted. Every event is saved at once."""

    def __init__(self, make: Callable[..., Any], **limits: Any) -> None:
        self._make, self._limits = make, limits
        self.disk = Disk()
        self.offset_s = 1e9  # the calendar's time less the state's own
        self.generation = 5
        self.is_saving = True
        self.now = self._begin()
        self.now.state.changes = Changes()

    def _begin(self) -> Any:
        cluster = self._make(**self._limits)
        post = cluster.post

        def post_and_save(*args: Any, **fields: Any) -> list[fx.Effect]:
            effects = post(*args, **fields)
            if self.is_saving:
                self.disk.write(take(cluster.state.changes, self.offset_s))
            return effects

        cluster.post = post_and_save
        return cluster

    def hold(self) -> None:
        """Let nothing reach the disk any more in this life."""
        self.is_saving = False

    def check_saved(self) -> None:
        """The disk must have what the state has."""
        state, disk = self.now.state, {row.seq: row for row in self.disk.read().tasks}
        kept = {task.seq: task for task in (*state.tasks.values(), *state.dead_actors.values())}
        assert disk.keys() == kept.keys()
        for seq, task in kept.items():
            has, needs = disk[seq], task_row(task, self.offset_s)
            if not (task.state.is_final or task.actor is not None):
                has, needs = (row._replace(**dict.fromkeys(NOT_AT_ONCE, "")) for row in (has, needs))
            assert has == needs
        rows = self.disk.read()
        assert sorted(rows.sessions) == sorted(map(session_row, state.sessions.values()))
        assert sorted(rows.workers) == sorted(map(worker_row, state.workers.values()))

    def restart(self, away_s: float = 1.0, clock_set_s: float = 0.0) -> Any:
        """End the controller and start it again after ``away_s``; its own clock begins anew, the calendar may have been set."""
        if self.is_saving:
            self.check_saved()
        self.is_saving = True
        calendar_s = self.now.now + self.offset_s + away_s + clock_set_s
        cluster = self._begin()
        cluster.now = 7.0
        self.offset_s = calendar_s - cluster.now
        self.generation += 1
        cluster.state = restore(self.disk.read(), cluster.state.limits, cluster.now, self.offset_s, self.generation)
        invariants.check(cluster.state)
        self.now = cluster
        return cluster


@pytest.fixture
def make_lives(make_cluster: Callable[..., Any]) -> Callable[..., Lives]:
    return lambda **limits: Lives(make_cluster, **limits)


@pytest.fixture
def lives(make_lives: Callable[..., Lives]) -> Lives:
    """A session, and a worker with one CPU."""
    made = make_lives()
    made.now.session()
    made.now.worker("w")
    return made


def come_back(cluster: Any, worker: str = "w.1", *held: tuple[str, int]) -> list[fx.Effect]:
    return cluster.post(ev.WorkerAttached, worker, list(held))


def results(cluster: Any, session: str = "s") -> list[tuple[int, str]]:
    """Return what waits to be told to a session."""
    return [(seq, task.spec.id) for seq, task in cluster.state.sessions[session].outbox.items()]


# --- rows


SET_BY_OTHERS = {"worker", "holding", "blocked", "reclaiming", "missing", "dependents", "readers", "assigned_at", "state"}
"""Of a task: what those tell who come back, and what is counted anew."""


def _full_task() -> Task:
    """Return a task with nothing as it is by default."""
    spec = TaskSpec(
        "s-1",
        "s",
        "f",
        "work",
        b"arguments\x00",
        ("s-0", "s-00"),
        (("cpu", 0.5), ("gpu", 2.0)),
        -3,
        7,
        0.25,
        ("ValueError", "KeyError"),
        1.5,
        60.0,
        ("a-1", "a-2"),
        ActorSpec("name", -1, True, True, 2, 3, 4, 5.0),
    )
    actor = Actor(spec.actor, ActorState.ALIVE, 9, 2, 1, "doom", 13.0, "last", True, 12.0, {"s"})
    task = Task(spec, 10.0, 42, actor, attempt=4, failures=3, losses=2, kills=1, worker="w.1", delayed_until=20.0)
    task.cancelling, task.ended_at, task.result = ErrorKind.TIMEOUT, 30.0, b"value"
    task.error_kind, task.message, task.acknowledged = ErrorKind.USER, "no", True
    task.story = [(10.5, "assigned"), (11.0, "finished")]
    return task


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def test_every_field_of_a_task_comes_back_or_is_told_by_others() -> None:
    task = _full_task()
    default = Task(TaskSpec("", "", "", ""), 0.0, 0)
    same = [name for name, value in _fields(task).items() if value == getattr(default, name) and name not in SET_BY_OTHERS]
    assert not same, "the example must differ in each"
    again = task_of(task_row(task, 1000.0), 1000.0)
    for name, value in _fields(task).items():
        if name not in SET_BY_OTHERS | {"actor"}:
            assert getattr(again, name) == value, name
    assert again.actor is not None
    for name, value in _fields(task.actor).items():
        if name not in ("version", "watchers"):
            assert getattr(again.actor, name) == value, name


def test_the_defaults_of_a_task_come_back() -> None:
    task = Task(TaskSpec("s-1", "s", "f", "work"), 10.0, 42)
    again = task_of(task_row(task, 1000.0), 1000.0)
    assert _fields(again) == _fields(task)


def test_times_of_a_task_are_saved_as_the_calendar_s_and_come_back_as_one_s_own() -> None:
    task = _full_task()
    row = task_row(task, 1000.0)
    assert (row.submitted_at, row.until, row.ended_at) == (1010.0, 1020.0, 1030.0)
    again = task_of(row, 990.0)
    assert (again.submitted_at, again.delayed_until, again.ended_at) == (20.0, 30.0, 40.0)
    assert again.story == [(20.5, "assigned"), (21.0, "finished")]
    assert again.actor is not None
    assert again.actor.alive_since == 22.0


def test_arguments_of_an_ended_task_are_not_saved(lives: Lives) -> None:
    lives.now.submit("t", payload=b"arguments")
    assert [row.payload for row in lives.disk.read().tasks] == [b"arguments"]
    lives.now.end("t")
    assert [row.payload for row in lives.disk.read().tasks] == [b""]


def test_every_field_of_a_session_comes_back_or_is_counted_anew() -> None:
    session = Session("s", "name", "parent", True, last_batch=9, closed=True, anonymous=True, detached=True)
    again = session_of(session_row(session), 5.0)
    assert _fields(again) == _fields(session) | {"unwatched_since": 5.0}


def test_every_field_of_a_worker_comes_back_or_is_told_by_it() -> None:
    worker = Worker("w.1", "w", {"cpu": 2.0, STABLE: 1e9}, "http://a", "http://b", tags={"zone": "x"}, draining=True)
    again = worker_of(worker_row(worker), 5.0)
    assert _fields(again) == _fields(worker) | {"registered_at": 5.0, "last_seen": 5.0, "detached_at": 5.0}


def test_a_task_that_came_and_went_between_two_saves_leaves_no_row(lives: Lives) -> None:
    lives.hold()
    lives.now.submit("t")
    lives.now.end("t")
    lives.now.post(ev.ResultsAcknowledged, "s", 1)
    cut = take(lives.now.state.changes, 0.0)
    assert (cut.new_tasks, cut.tasks, cut.gone_tasks) == ([], [], [])


def test_what_is_forgotten_is_removed(lives: Lives) -> None:
    lives.now.submit("t")
    lives.now.end("t")
    lives.now.post(ev.ResultsAcknowledged, "s", 1)
    lives.now.post(ev.SessionClosed, "s")
    lives.now.post(ev.WorkerLeft, "w.1")
    rows = lives.disk.read()
    assert (rows.tasks, rows.sessions, rows.workers) == ([], [], [])


def test_nothing_changed_is_nothing_to_save(lives: Lives) -> None:
    lives.now.submit("t")
    lives.hold()
    lives.now.post(ev.WorkerReported, "w.1")
    lives.now.post(ev.SessionUnwatched, "s")
    assert not lives.now.state.changes


# --- nothing is placed before the workers are back


def test_nothing_is_placed_before_the_workers_of_before_are_back(lives: Lives, started: Any) -> None:
    lives.now.worker("v")
    lives.now.submit("running-1", "running-2", "t")
    cluster = lives.restart()
    assert cluster.states("t") == ["queued"]
    assert "v, w" in explain_pending(cluster.state, cluster.task("t"), cluster.now)
    assert started(come_back(cluster, "w.1")) == []
    assert started(come_back(cluster, "v.1", ("running-2", 1))) == ["running-1"]
    assert "restart" not in explain_pending(cluster.state, cluster.task("t"), cluster.now)


def test_a_new_worker_gets_nothing_before_those_of_before_are_back(lives: Lives, started: Any) -> None:
    lives.now.submit("t")
    cluster = lives.restart()
    assert started(cluster.worker("new")) == []
    assert started(come_back(cluster, "w.1", ("t", 1))) == []
    assert cluster.where("t") == ["w.1"]


def test_work_begins_at_once_when_there_were_no_workers(make_lives: Any, started: Any) -> None:
    lives = make_lives()
    lives.now.session()
    lives.now.submit("t")
    assert started(lives.restart().worker("w")) == ["t"]


def test_a_worker_that_never_comes_back_is_given_up_after_the_silence(make_lives: Any, started: Any) -> None:
    lives = make_lives(silence_s=4.0)
    lives.now.session()
    lives.now.worker("w")
    lives.now.worker("v")
    lives.now.submit("a", "b")
    cluster = lives.restart()
    cluster.post(ev.SessionWatched, "s")
    come_back(cluster, "w.1", ("a", 1))
    assert started(cluster.after(3.9)) == []
    cluster.post(ev.WorkerReported, "w.1")
    cluster.end("a")
    assert started(cluster.after(0.2)) == ["b"]
    assert (cluster.where("b"), cluster.state.awaited) == (["w.1"], set())


def test_a_worker_that_comes_back_as_new_is_not_waited_for(lives: Lives, started: Any) -> None:
    lives.now.submit("t")
    lives.now.end("t", CRASHED)
    cluster = lives.restart()
    assert cluster.where("t") == ["w.1"]
    assert started(cluster.worker("w", "w.2")) == ["t"]
    assert (cluster.task("t").attempt, cluster.task("t").losses) == (3, 1)


def test_a_report_of_a_worker_that_is_not_back_yet_tells_only_that_it_lives(make_lives: Any) -> None:
    lives = make_lives(silence_s=4.0)
    lives.now.session()
    lives.now.worker("w")
    lives.now.submit("t")
    cluster = lives.restart()
    cluster.after(3.0)
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED)], [], [], True)
    cluster.after(3.0)
    assert "w.1" in cluster.state.awaited
    assert cluster.states("t") == ["assigned"]
    assert not cluster.state.workers["w.1"].draining
    come_back(cluster, "w.1", ("t", 1))
    cluster.end("t")
    assert cluster.states("t") == ["finished"]


def test_a_worker_that_drained_still_does(lives: Lives, started: Any) -> None:
    lives.now.post(ev.WorkerReported, "w.1", draining=True)
    cluster = lives.restart()
    come_back(cluster)
    assert started(cluster.submit("t")) == []


def test_a_worker_that_left_is_not_waited_for(lives: Lives, started: Any) -> None:
    lives.now.post(ev.WorkerLeft, "w.1")
    cluster = lives.restart()
    assert not cluster.state.awaited
    assert started([*cluster.submit("t"), *cluster.worker("v")]) == ["t"]


# --- what workers have


def test_what_runs_goes_on_under_its_attempt_and_is_not_started_again(lives: Lives, started: Any) -> None:
    lives.now.submit("t")
    cluster = lives.restart()
    effects = come_back(cluster, "w.1", ("t", 1))
    assert started(effects) == []
    assert (cluster.where("t"), cluster.task("t").attempt) == (["w.1"], 1)
    assert cluster.state.workers["w.1"].used == {"cpu": 1.0}
    cluster.end("t", payload=b"value")
    assert (cluster.task("t").result, results(cluster)) == (b"value", [(1, "t")])


def test_a_restart_costs_a_task_none_of_its_budgets(make_lives: Any) -> None:
    lives = make_lives(max_losses=1, max_kills=1)
    lives.now.session()
    lives.now.worker("w")
    lives.now.submit("held", "lost")
    for _ in range(3):
        cluster = lives.restart()
        come_back(cluster, "w.1", ("held", 1))
    task = cluster.task("held")
    assert (task.failures, task.losses, task.kills, task.state.value) == (0, 0, 0, "assigned")


def test_an_attempt_that_never_reached_its_worker_goes_to_the_next_one(lives: Lives, started: Any) -> None:
    lives.now.submit("t")
    cluster = lives.restart()
    assert cluster.states("t") == ["assigned"]
    assert started(come_back(cluster)) == ["t"]
    assert cluster.task("t").losses == 0


def test_an_attempt_of_which_only_the_worker_knows_is_taken_over(lives: Lives, started: Any) -> None:
    lives.now.submit("first")
    lives.now.submit("t")
    lives.hold()
    lives.now.end("first")  # which gives its place to the next
    assert lives.now.where("t") == ["w.1"]
    cluster = lives.restart()
    assert cluster.states("first", "t") == ["assigned", "queued"]
    effects = come_back(cluster, "w.1", ("t", 1), ("first", 1))
    assert started(effects) == []
    assert cluster.where("first", "t") == ["w.1", "w.1"]
    assert cluster.state.stats["attempts found again"] == 1
    for name in ("t", "first"):
        cluster.end(name)
    assert results(cluster) == [(1, "t"), (2, "first")]
    assert cluster.state.workers["w.1"].used == {"cpu": 0.0}


def test_a_later_attempt_than_the_saved_one_counts(lives: Lives) -> None:
    lives.now.submit("t", max_retries=5, retry_delay_s=0.0)
    lives.now.end("t", FAILED, retryable=True)
    assert lives.now.states("t") == ["delayed"]
    lives.hold()
    lives.now.after(1.0)
    assert lives.now.task("t").attempt == 2
    cluster = lives.restart()
    come_back(cluster, "w.1", ("t", 2))
    assert (cluster.where("t"), cluster.task("t").attempt, cluster.task("t").failures) == (["w.1"], 2, 1)
    cluster.after(1.0)  # the back-off that was saved ends, and finds it running
    assert (cluster.states("t"), cluster.task("t").attempt) == (["assigned"], 2)


def test_of_two_workers_that_claim_a_task_the_later_attempt_counts(lives: Lives) -> None:
    lives.now.worker("v")
    lives.now.submit("t")
    cluster = lives.restart()
    come_back(cluster, "w.1", ("t", 1))
    come_back(cluster, "v.1", ("t", 2))
    assert (cluster.where("t"), cluster.task("t").attempt) == (["v.1"], 2)
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"old")])
    assert cluster.states("t") == ["assigned"]
    cluster.end("t", payload=b"new")
    assert cluster.task("t").result == b"new"


def test_an_attempt_older_than_the_saved_one_is_dropped(lives: Lives, only: Any, started: Any) -> None:
    lives.now.worker("v")
    lives.now.submit("t")
    lives.now.end("t", CRASHED)
    assert lives.now.task("t").attempt == 2
    cluster = lives.restart()
    stale, owner = [name for name in ("v.1", "w.1") if name != lives.disk.read().tasks[0].worker], cluster.where("t")
    stops = only(come_back(cluster, stale[0], ("t", 1)), fx.StopTasks)
    assert [stop.tasks for stop in stops] == [[("t", 1)]]
    assert cluster.where("t") == owner


def test_attempts_of_tasks_that_ended_or_never_were_are_dropped(lives: Lives, only: Any) -> None:
    lives.now.submit("t")
    lives.now.end("t")
    cluster = lives.restart()
    stops = only(come_back(cluster, "w.1", ("t", 1), ("unknown", 3)), fx.StopTasks)
    assert [stop.tasks for stop in stops] == [[("t", 1)]]
    assert cluster.states("t") == ["finished"]
    assert stops_within(cluster, 9.9) == []
    assert stops_within(cluster, 0.2) == [("unknown", 3)]


# --- tasks that were accepted and not saved: their workers have them, their clients send them again


def stops_within(cluster: Any, seconds: float, worker: str = "w.1") -> list[tuple[str, int]]:
    """Let time pass while a worker reports; return what it is ordered to stop."""
    until, effects = cluster.now + seconds, []
    while cluster.now < until - 1e-9:
        effects += cluster.after(min(2.0, until - cluster.now))
        effects += cluster.post(ev.WorkerReported, worker)
    return [attempt for effect in effects if isinstance(effect, fx.StopTasks) for attempt in effect.tasks]


@pytest.fixture
def forgetful(lives: Lives) -> Lives:
    """A worker that runs a task which was not saved."""
    lives.hold()
    lives.now.submit("t", "next")
    return lives


def test_a_task_that_runs_and_comes_again_goes_on(forgetful: Lives, started: Any) -> None:
    cluster = forgetful.restart()
    assert only_stops(come_back(cluster, "w.1", ("t", 1))) == []
    assert started(cluster.submit("t", "next")) == []
    assert cluster.where("t", "next") == ["w.1", None]
    assert started(cluster.end("t", payload=b"value")) == ["next"]
    assert (cluster.task("t").result, cluster.task("t").attempt) == (b"value", 1)
    assert stops_within(cluster, 20.0) == []


def only_stops(effects: list[fx.Effect]) -> list[fx.Effect]:
    return [effect for effect in effects if isinstance(effect, fx.StopTasks)]


def test_a_task_that_had_finished_and_comes_again_is_not_run_again(forgetful: Lives, started: Any) -> None:
    cluster = forgetful.restart()
    come_back(cluster, "w.1", ("t", 1))
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"value")])
    assert started(cluster.submit("t", "next")) == ["next"]
    assert (cluster.states("t"), cluster.task("t").result, results(cluster)) == (["finished"], b"value", [(1, "t")])
    forgetful.restart()
    assert forgetful.now.task("t").result == b"value"


def test_what_depends_on_a_task_that_had_finished_goes_on_or_is_not_run_again(lives: Lives, started: Any) -> None:
    lives.hold()
    lives.now.submit("first")
    lives.now.submit("second", "third", dependencies=("first",))
    cluster = lives.restart()
    come_back(cluster, "w.1", ("first", 1), ("second", 1), ("third", 1))
    ended = [Outcome("first", 1, FINISHED, b"1"), Outcome("second", 1, FINISHED, b"2")]
    cluster.post(ev.WorkerReported, "w.1", ended)
    assert started(cluster.submit("first")) == []
    assert started(cluster.submit("second", "third", dependencies=("first",))) == []
    assert cluster.states("first", "second", "third") == ["finished", "finished", "assigned"]


def test_a_task_that_had_failed_and_comes_again_is_tried_again_under_the_next_number(forgetful: Lives, started: Any) -> None:
    cluster = forgetful.restart()
    come_back(cluster, "w.1", ("t", 1))
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FAILED, b"failure")])
    assert started(cluster.submit("t")) == ["t"]
    assert cluster.task("t").attempt == 2


def test_a_task_whose_worker_is_lost_before_it_comes_again_is_tried_again(forgetful: Lives, started: Any) -> None:
    cluster = forgetful.restart()
    come_back(cluster, "w.1", ("t", 1))
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"value")])
    cluster.post(ev.WorkerLeft, "w.1")
    cluster.worker("other")
    assert started(cluster.submit("t")) == ["t"]
    assert (cluster.where("t"), cluster.task("t").attempt) == (["other.1"], 2)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_two_attempts_of_a_task_that_comes_again_the_later_goes_on(lives: Lives, order: tuple[int, int]) -> None:
    lives.now.worker("x")
    cluster = lives.restart()
    effects = []
    for attempt in order:
        effects += come_back(cluster, ["w.1", "x.1"][attempt - 1], ("t", attempt))
    assert only_stops(effects) == [fx.StopTasks("w.1", [("t", 1)])]
    cluster.submit("t")
    assert (cluster.where("t"), cluster.task("t").attempt) == (["x.1"], 2)


def test_a_task_that_comes_again_and_cannot_run_any_more_is_stopped(lives: Lives) -> None:
    cluster = lives.restart()
    come_back(cluster, "w.1", ("t", 1))
    effects = cluster.submit("t", dependencies=("lost",))
    assert only_stops(effects) == [fx.StopTasks("w.1", [("t", 1)])]
    assert cluster.states("t") == ["failed"]


def test_a_worker_that_comes_back_twice_has_its_task_once(forgetful: Lives) -> None:
    cluster = forgetful.restart()
    come_back(cluster, "w.1", ("t", 1))
    cluster.post(ev.WorkerDetached, "w.1")
    assert only_stops(come_back(cluster, "w.1", ("t", 1))) == []
    cluster.submit("t")
    assert cluster.where("t") == ["w.1"]


def test_an_outcome_that_was_told_and_not_saved_is_told_again_and_counts_once(lives: Lives) -> None:
    lives.now.submit("t")
    lives.hold()
    lives.now.end("t", payload=b"value")
    cluster = lives.restart()
    come_back(cluster, "w.1", ("t", 1))
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"value")])
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FAILED, b"other")])
    assert (cluster.task("t").result, results(cluster)) == (b"value", [(1, "t")])


def test_a_task_that_waits_for_others_lends_its_place_again_when_its_worker_says_so(lives: Lives, started: Any) -> None:
    lives.now.submit("parent")
    lives.now.post(ev.WorkerReported, "w.1", blocked=[("parent", 1)])
    lives.now.submit("child")
    cluster = lives.restart()
    come_back(cluster, "w.1", ("parent", 1))
    assert cluster.states("child") == ["queued"]
    assert started(cluster.post(ev.WorkerReported, "w.1", blocked=[("parent", 1)])) == ["child"]


def test_attempts_queued_ahead_go_on_in_their_order(lives: Lives, started: Any) -> None:
    lives.now.measure("f", 0.001)
    names = [f"t{i}" for i in range(5)]
    lives.now.submit(*names)
    cluster = lives.restart()
    come_back(cluster, "w.1", *[(name, 1) for name in names])
    assert cluster.where(*names) == ["w.1"] * 5
    assert cluster.state.workers["w.1"].used == {"cpu": 1.0}
    for name in names:
        cluster.end(name)
    assert cluster.states(*names) == ["finished"] * 5


def test_a_task_stopped_as_unknown_and_then_accepted_again_is_not_taken_as_cancelled(lives: Lives, only: Any) -> None:
    """The client sends again what was not saved; its worker still ends the attempt of before, under the same number."""
    worker = wc.WorkerCore({"cpu": 1.0}, 1)
    worker.start()
    worker.executor_ready(0.0, 1)

    def receive() -> None:
        task = lives.now.task("t")
        order = wc.Item(task.spec.id, task.attempt, "f", CPU, None, None)
        worker.receive(0.0, [order])

    lives.hold()
    lives.now.submit("t")
    receive()
    cluster = lives.restart()
    come_back(cluster, "w.1", *worker.held())
    stops = stops_within(cluster, 10.1)
    assert stops == [("t", 1)]
    worker.stop(0.0, *stops[0])
    cluster.submit("t")
    receive()  # before the interrupted attempt has ended
    worker.outcomes(0.5, 1, [Outcome("t", 0, OutcomeKind.CANCELLED)])
    while worker.has_news():
        report = worker.report(10)
        cluster.post(ev.WorkerReported, "w.1", [outcome for outcome, _ in report.outcomes])
        worker.acknowledge(report)
    assert cluster.states("t") == ["assigned"]


# --- tasks in every state


def test_queued_tasks_keep_their_order_and_their_priorities(lives: Lives, started: Any) -> None:
    lives.now.submit("first")
    lives.now.submit("b", "c")
    lives.now.submit("urgent", priority=5)
    cluster = lives.restart()
    come_back(cluster, "w.1", ("first", 1))
    order = ["first"]
    for _ in range(3):
        order += started(cluster.end(order[-1]))
    assert order == ["first", "urgent", "b", "c"]


def test_tasks_accepted_later_come_behind_those_that_were_saved(lives: Lives, started: Any) -> None:
    lives.now.submit("first", "b", "c")
    cluster = lives.restart()
    come_back(cluster, "w.1", ("first", 1))
    cluster.submit("d")
    assert [cluster.task(name).seq for name in "bcd"] == sorted(cluster.task(name).seq for name in "bcd")
    order = ["first"]
    for _ in range(3):
        order += started(cluster.end(order[-1]))
    assert order == ["first", "b", "c", "d"]


def test_numbers_of_saved_tasks_are_not_given_again(lives: Lives) -> None:
    lives.now.submit("a", "b", deadline_s=500.0)
    for life in range(3):
        cluster = lives.restart()
        cluster.submit(f"new-{life}", deadline_s=500.0)
    rows = lives.disk.read().tasks
    assert [row.id for row in rows] == ["a", "b", "new-0", "new-1", "new-2"]
    assert len({task.seq for task in cluster.state.tasks.values()}) == 5


def test_a_repeated_submission_changes_nothing_after_a_restart(lives: Lives) -> None:
    lives.now.submit("t", batch=3)
    cluster = lives.restart()
    cluster.submit("t", batch=3)
    cluster.submit("other", batch=2)
    assert list(cluster.state.tasks) == ["t"]
    assert cluster.state.stats["batches repeated"] == 2


def test_a_submission_that_was_not_saved_is_taken_when_it_comes_again(lives: Lives) -> None:
    lives.hold()
    lives.now.submit("t", batch=1)
    cluster = lives.restart()
    assert not cluster.state.tasks
    cluster.submit("t", batch=1)
    assert cluster.states("t") == ["queued"]


def test_dependencies_are_waited_for_and_their_values_kept(lives: Lives, started: Any) -> None:
    lives.now.submit("a")
    lives.now.submit("b")
    lives.now.submit("c", dependencies=("a", "b"))
    lives.now.end("a", payload=b"value of a")
    lives.now.post(ev.ResultsAcknowledged, "s", 1)
    cluster = lives.restart()
    assert cluster.states("a", "b", "c") == ["finished", "queued", "waiting"]
    assert results(cluster) == []
    come_back(cluster, "w.1", ("b", 1))
    assert started(cluster.end("b")) == ["c"]
    assert cluster.task("a").result == b"value of a"
    cluster.end("c")
    assert "a" not in cluster.state.tasks  # read and acknowledged


def test_a_failed_dependency_fails_what_waits_for_it_after_a_restart(lives: Lives) -> None:
    lives.now.submit("a")
    lives.now.submit("b", dependencies=("a",))
    lives.now.submit("c", dependencies=("b",))
    cluster = lives.restart()
    come_back(cluster, "w.1", ("a", 1))
    cluster.end("a", FAILED, payload=b"why", message="ValueError: no")
    assert cluster.states("b", "c") == ["failed", "failed"]
    assert cluster.task("c").result == b"why"


def test_a_task_all_of_whose_dependencies_ended_before_is_queued(lives: Lives, started: Any) -> None:
    lives.now.submit("a", "busy")
    lives.now.submit("b", dependencies=("a",), priority=1)
    lives.now.end("a")
    cluster = lives.restart()
    assert started(come_back(cluster, "w.1", ("b", 1))) == []
    assert cluster.where("b") == ["w.1"]


def test_a_submission_may_depend_on_a_result_of_before(lives: Lives, started: Any) -> None:
    lives.now.submit("a")
    lives.now.end("a", payload=b"value")
    cluster = lives.restart()
    come_back(cluster)
    assert started(cluster.submit("b", dependencies=("a",))) == ["b"]


def test_budgets_that_were_used_stay_used(make_lives: Any) -> None:
    lives = make_lives(max_kills=2, max_losses=2)
    lives.now.session()
    lives.now.worker("w")
    lives.now.submit("t", max_retries=1, retry_delay_s=0.0)
    lives.now.end("t", FAILED, retryable=True)
    lives.now.after(0.0)
    lives.now.end("t", CRASHED)
    cluster = lives.restart()
    task = cluster.task("t")
    assert (task.failures, task.kills, task.losses, task.attempt) == (1, 1, 0, 3)
    come_back(cluster, "w.1", ("t", 3))
    cluster.end("t", FAILED, retryable=True)
    assert cluster.states("t") == ["failed"]


def test_the_rest_of_a_back_off_is_waited_for(lives: Lives, started: Any) -> None:
    lives.now.submit("t", max_retries=1, retry_delay_s=8.0)
    lives.now.end("t", FAILED, retryable=True)
    left_s = lives.now.task("t").delayed_until - lives.now.now
    cluster = lives.restart(away_s=1.0)
    come_back(cluster)
    assert started(cluster.after(left_s - 1.1)) == []
    assert started(cluster.after(0.2)) == ["t"]


@pytest.mark.parametrize("set_s", [-86400.0, 86400.0], ids=["back", "forward"])
def test_a_back_off_ends_soon_also_when_the_calendar_was_set(lives: Lives, started: Any, set_s: float) -> None:
    lives.now.submit("t", max_retries=1, retry_delay_s=8.0)
    lives.now.end("t", FAILED, retryable=True)
    cluster = lives.restart(clock_set_s=set_s)
    cluster.post(ev.SessionWatched, "s")
    begun = started(come_back(cluster))
    for _ in range(7):
        begun += started(cluster.after(9.0))
        cluster.post(ev.WorkerReported, "w.1")
    assert begun == ["t"]


def test_a_deadline_goes_on_while_the_controller_is_away(lives: Lives) -> None:
    lives.now.submit("first")
    lives.now.submit("t", deadline_s=8.0)
    lives.now.after(2.0)
    cluster = lives.restart(away_s=3.0)
    come_back(cluster, "w.1", ("first", 1))
    cluster.after(2.9)
    assert cluster.states("t") == ["queued"]
    cluster.after(0.2)
    assert (cluster.states("t"), cluster.task("t").error_kind) == (["failed"], ErrorKind.TIMEOUT)


def test_a_deadline_that_passed_meanwhile_ends_its_task_at_once(lives: Lives) -> None:
    lives.now.submit("first")
    lives.now.submit("t", deadline_s=8.0)
    cluster = lives.restart(away_s=60.0)
    cluster.after(0.0)
    assert cluster.states("t") == ["failed"]
    assert "deadline of 8 s" in cluster.task("t").message


def test_a_calendar_that_was_set_back_makes_no_deadline_longer_than_it_was(lives: Lives) -> None:
    lives.now.submit("first")
    lives.now.submit("t", deadline_s=8.0)
    cluster = lives.restart(clock_set_s=-86400.0)
    assert cluster.task("t").submitted_at == cluster.now
    come_back(cluster, "w.1", ("first", 1))
    cluster.post(ev.SessionWatched, "s")
    cluster.after(8.1)
    assert cluster.states("t") == ["failed"]


def test_a_cancellation_under_way_is_told_to_the_worker_again(lives: Lives, only: Any) -> None:
    lives.now.submit("t")
    lives.now.post(ev.CancelRequested, ["t"], "enough")
    cluster = lives.restart()
    stops = only(come_back(cluster, "w.1", ("t", 1)), fx.StopTasks)
    assert [stop.tasks for stop in stops] == [[("t", 1)]]
    cluster.end("t", OutcomeKind.CANCELLED)
    task = cluster.task("t")
    assert (task.state.value, task.message) == ("cancelled", "enough")


@pytest.mark.parametrize("comes", ["without it", "as new", "never"])
def test_a_task_that_was_being_cancelled_is_not_run_again(lives: Lives, comes: str, started: Any) -> None:
    lives.now.submit("t")
    lives.now.post(ev.CancelRequested, ["t"], "enough")
    cluster = lives.restart()
    if comes == "without it":
        come_back(cluster)
    elif comes == "as new":
        cluster.worker("w", "w.2")
    else:
        cluster.after(20.0)
    assert cluster.states("t") == ["cancelled"]
    assert not started(cluster.effects)


def test_a_task_cancelled_while_it_waited_stays_cancelled(lives: Lives) -> None:
    lives.now.submit("first", "t")
    lives.now.post(ev.CancelRequested, ["t"])
    cluster = lives.restart()
    assert cluster.states("t") == ["cancelled"]
    assert results(cluster) == [(1, "t")]


def test_a_story_tells_of_the_restart(lives: Lives) -> None:
    lives.now.submit("t", max_retries=1)
    lives.now.end("t", FAILED, message="ValueError: no", retryable=True)
    cluster = lives.restart()
    story = "\n".join(tell_story(cluster.task("t")))
    assert story.index("submitted") < story.index("ValueError: no") < story.index("the controller was restarted")


# --- results and sessions


def test_results_that_were_not_acknowledged_are_told_again_in_the_order_in_which_they_came(lives: Lives) -> None:
    lives.now.worker("v", cpu=4.0)
    lives.now.submit("a", "b", "c", "d")
    for name in ("c", "d", "a"):
        lives.now.after(0.5)
        lives.now.end(name, payload=name.encode())
    lives.now.post(ev.ResultsAcknowledged, "s", 1)
    cluster = lives.restart()
    assert results(cluster) == [(1, "d"), (2, "a")]
    assert [task.result for task in cluster.state.sessions["s"].outbox.values()] == [b"d", b"a"]
    assert "c" not in cluster.state.tasks


def test_results_of_one_moment_keep_the_order_of_their_tasks(lives: Lives) -> None:
    lives.now.worker("v", cpu=4.0)
    lives.now.submit("a", "b", "c")
    for name in ("b", "c", "a"):
        lives.now.end(name)
    assert results(lives.restart()) == [(1, "a"), (2, "b"), (3, "c")]


def test_an_acknowledgement_is_remembered_for_a_result_that_others_still_read(lives: Lives) -> None:
    lives.now.submit("a", "busy")
    lives.now.submit("b", dependencies=("a",))
    lives.now.end("a")
    lives.now.post(ev.ResultsAcknowledged, "s", 1)
    cluster = lives.restart()
    assert results(cluster) == []
    assert cluster.states("a") == ["finished"]


def test_bytes_that_a_session_holds_are_counted_again(lives: Lives) -> None:
    lives.now.submit("first", payload=b"12345")
    lives.now.submit("t", payload=b"123")
    lives.now.end("first", payload=b"1234567")
    cluster = lives.restart()
    session = cluster.state.sessions["s"]
    assert (session.held_bytes, session.unread_bytes) == (3, 7)


def test_a_client_has_the_grace_period_to_come_back_and_is_gone_after_it(make_lives: Any) -> None:
    lives = make_lives(session_grace_s=5.0)
    for name in ("stays", "goes"):
        lives.now.session(name)
        lives.now.submit(f"of-{name}", session=name)
    cluster = lives.restart(away_s=1000.0)
    cluster.after(4.0)
    cluster.post(ev.SessionWatched, "stays")
    assert "goes" in cluster.state.sessions
    cluster.after(2.0)
    assert list(cluster.state.sessions) == ["stays"]
    assert cluster.states("of-stays") == ["queued"]
    assert "of-goes" not in cluster.state.tasks


def test_results_of_callers_without_a_session_expire_after_a_restart_too(make_lives: Any) -> None:
    lives = make_lives(result_ttl_s=50.0)
    lives.now.post(ev.SessionOpened, ANONYMOUS_SESSION, anonymous=True)
    lives.now.worker("w", cpu=2.0)
    lives.now.submit("t", "busy", session=ANONYMOUS_SESSION)
    lives.now.end("t")
    cluster = lives.restart(away_s=1000.0)
    cluster.post(ev.SessionOpened, ANONYMOUS_SESSION, anonymous=True)
    assert results(cluster, ANONYMOUS_SESSION) == [(1, "t")]
    cluster.after(49.0)
    assert results(cluster, ANONYMOUS_SESSION) == [(1, "t")]
    cluster.after(2.0)
    assert results(cluster, ANONYMOUS_SESSION) == []
    assert list(cluster.state.sessions) == [ANONYMOUS_SESSION]


def test_sessions_of_tasks_end_with_those_that_began_them(lives: Lives) -> None:
    lives.now.post(ev.SessionOpened, "child", parent="s")
    lives.now.post(ev.SessionOpened, "grandchild", parent="child")
    lives.now.submit("t", session="grandchild")
    cluster = lives.restart()
    come_back(cluster)
    cluster.post(ev.SessionClosed, "s")
    assert [name for name, session in cluster.state.sessions.items() if not session.closed] == []


def test_a_closed_session_still_waits_for_its_worker_to_stop(lives: Lives, only: Any) -> None:
    lives.now.submit("t")
    lives.now.post(ev.SessionClosed, "s")
    cluster = lives.restart()
    assert cluster.state.sessions["s"].closed
    assert len(only(come_back(cluster, "w.1", ("t", 1)), fx.StopTasks)) == 1
    ended = cluster.end("t", OutcomeKind.CANCELLED)
    assert [effect.session for effect in only(ended, fx.EndSession)] == ["s"]
    assert not cluster.state.sessions
    assert not cluster.state.tasks
    rows = lives.disk.read()
    assert (rows.tasks, rows.sessions) == ([], [])


# --- actors


def request(cluster: Any, name: str = "", session: str = "s", actor_id: str = "act", **options: Any) -> list[fx.Effect]:
    spec_options = {key: options.pop(key) for key in list(options) if key in ("deadline_s", "shape", "payload")}
    actor = ActorSpec(name, **options)
    owner = actor_id if actor.detached else session
    spec = TaskSpec(actor_id, owner, "C", "C", actor=actor, **spec_options)
    return cluster.post(ev.ActorRequested, session, spec)


def construct(cluster: Any, actor_id: str = "act") -> list[fx.Effect]:
    task = cluster.task(actor_id)
    return cluster.post(ev.WorkerReported, task.worker, created=[(task.spec.id, task.attempt)])


def actor_of(cluster: Any, actor_id: str = "act") -> Actor:
    task = cluster.state.tasks.get(actor_id) or cluster.state.dead_actors[actor_id]
    return task.actor


def test_an_actor_keeps_its_incarnation_its_place_and_its_name(lives: Lives, started: Any) -> None:
    request(lives.now, "one")
    construct(lives.now)
    cluster = lives.restart()
    assert started(come_back(cluster, "w.1", ("act", 1))) == []
    assert (cluster.task("act").attempt, cluster.where("act")) == (1, ["w.1"])
    assert actor_of(cluster).state is ActorState.ALIVE
    assert cluster.state.actor_names == {"one": "act"}
    assert cluster.state.workers["w.1"].actors == 1
    request(cluster, "one", actor_id="other")
    assert "other" not in cluster.state.tasks


def test_a_life_of_an_actor_is_known_also_when_it_began_long_after_it_was_asked_for(lives: Lives, started: Any) -> None:
    lives.now.submit("busy")
    request(lives.now, shape=CPU)
    assert lives.now.states("act") == ["queued"]
    lives.now.end("busy")
    cluster = lives.restart()
    assert (cluster.where("act"), cluster.task("act").attempt) == (["w.1"], 1)
    assert started(come_back(cluster, "w.1", ("act", 1))) == []


def test_versions_of_actors_grow_over_restarts(lives: Lives) -> None:
    request(lives.now, "one")
    construct(lives.now)
    before = actor_of(lives.now).version
    cluster = lives.restart()
    after = actor_of(cluster).version
    come_back(cluster, "w.1", ("act", 1))
    assert before < lives.generation * VERSIONS_PER_GENERATION <= after < actor_of(cluster).version


def test_an_actor_whose_worker_comes_back_is_announced_to_those_who_ask_again(lives: Lives, only: Any) -> None:
    request(lives.now)
    construct(lives.now)
    cluster = lives.restart()
    cluster.post(ev.ActorWatched, "s", "act")
    told = only(come_back(cluster, "w.1", ("act", 1)), fx.TellActor)
    assert [(effect.session, effect.actor.spec.id) for effect in told] == [("s", "act")]


def test_an_actor_whose_worker_never_comes_back_lives_again_elsewhere(make_lives: Any, started: Any) -> None:
    lives = make_lives(silence_s=4.0)
    lives.now.session()
    lives.now.worker("w")
    request(lives.now, max_restarts=1)
    construct(lives.now)
    cluster = lives.restart()
    cluster.worker("v")
    cluster.post(ev.SessionWatched, "s")
    begun: list[str] = []
    for _ in range(4):
        begun += started(cluster.after(1.5))
        cluster.post(ev.WorkerReported, "v.1")
    assert begun == ["act"]
    assert (cluster.where("act"), cluster.task("act").attempt, actor_of(cluster).restarts) == (["v.1"], 2, 1)


def test_an_actor_that_its_worker_has_not_any_more_is_placed_again(lives: Lives, started: Any) -> None:
    request(lives.now)
    cluster = lives.restart()
    assert started(come_back(cluster)) == ["act"]
    assert cluster.task("act").attempt == 2  # never the number of a life that may have begun


def test_restarts_of_an_actor_that_were_used_stay_used(lives: Lives) -> None:
    request(lives.now, max_restarts=1)
    construct(lives.now)
    lives.now.end("act", CRASHED, message="killed")
    lives.now.after(1.0)
    construct(lives.now)
    cluster = lives.restart()
    come_back(cluster, "w.1", ("act", 2))
    assert (actor_of(cluster).restarts, actor_of(cluster).last_death) == (1, actor_of(lives.now).last_death)
    cluster.end("act", CRASHED, message="killed again")
    assert actor_of(cluster).state is ActorState.DEAD


def test_an_actor_that_backs_off_waits_until_its_last_worker_cannot_take_calls_any_more(make_lives: Any, started: Any) -> None:
    lives = make_lives(silence_s=4.0)
    lives.now.session()
    lives.now.worker("w")
    request(lives.now, max_restarts=1)
    construct(lives.now)
    lives.now.end("act", CRASHED)
    cluster = lives.restart()
    assert cluster.states("act") == ["delayed"]
    come_back(cluster)
    assert started(cluster.after(3.9)) == []
    cluster.post(ev.WorkerReported, "w.1")
    assert started(cluster.after(0.2)) == ["act"]


def test_a_name_whose_actor_is_doomed_stays_taken_until_its_worker_has_surely_noticed(make_lives: Any) -> None:
    lives = make_lives(silence_s=4.0, reattach_grace_s=1.0)
    lives.now.session()
    lives.now.worker("w")
    request(lives.now, "one")
    construct(lives.now)
    lives.now.post(ev.WorkerDetached, "w.1")
    lives.now.after(1.1)
    assert actor_of(lives.now).doom
    cluster = lives.restart(away_s=0.1)
    cluster.post(ev.SessionWatched, "s")
    request(cluster, "one", actor_id="other")
    assert "other" not in cluster.state.tasks
    cluster.after(4.1)
    assert actor_of(cluster).state is ActorState.DEAD
    assert actor_of(lives.now).doom in cluster.state.dead_actors["act"].message
    request(cluster, "one", actor_id="other")
    assert cluster.state.actor_names == {"one": "other"}


def test_a_killed_actor_stays_dead_and_its_name_is_free(lives: Lives) -> None:
    request(lives.now, "one", payload=b"arguments")
    construct(lives.now)
    lives.now.post(ev.CancelRequested, ["act"], "it was killed")
    lives.now.end("act", OutcomeKind.CANCELLED)
    cluster = lives.restart()
    come_back(cluster)
    assert actor_of(cluster).state is ActorState.DEAD
    assert cluster.state.dead_actors["act"].message == "it was killed"
    assert not cluster.state.actor_names
    request(cluster, "one", actor_id="other")
    assert cluster.state.actor_names == {"one": "other"}


def test_an_actor_that_ended_and_was_acknowledged_is_still_told_of(lives: Lives) -> None:
    request(lives.now)
    construct(lives.now)
    lives.now.end("act", CRASHED, message="killed")
    lives.now.post(ev.ResultsAcknowledged, "s", 1)
    for _ in range(2):
        cluster = lives.restart()
        assert "act" not in cluster.state.tasks
        assert "killed" in cluster.state.dead_actors["act"].message


def test_an_actor_being_killed_is_killed_when_its_worker_comes_back(lives: Lives, only: Any) -> None:
    request(lives.now, max_restarts=-1)
    construct(lives.now)
    lives.now.post(ev.CancelRequested, ["act"], "it was killed")
    cluster = lives.restart()
    assert len(only(come_back(cluster, "w.1", ("act", 1)), fx.StopTasks)) == 1
    cluster.end("act", OutcomeKind.CANCELLED)
    assert actor_of(cluster).state is ActorState.DEAD


def test_a_detached_actor_outlives_its_client_over_a_restart_and_takes_its_session_with_it(lives: Lives, only: Any) -> None:
    request(lives.now, "one", detached=True)
    construct(lives.now)
    lives.now.post(ev.SessionClosed, "s")
    cluster = lives.restart()
    come_back(cluster, "w.1", ("act", 1))
    for _ in range(5):
        cluster.after(8.0)
        cluster.post(ev.WorkerReported, "w.1")
    assert (list(cluster.state.sessions), cluster.state.actor_names) == (["act"], {"one": "act"})
    cluster.post(ev.CancelRequested, ["act"], "it was killed")
    ended = cluster.end("act", OutcomeKind.CANCELLED)
    assert [effect.session for effect in only(ended, fx.EndSession)] == ["act"]
    assert not cluster.state.sessions


def test_what_a_detached_actor_made_ends_with_it_also_when_a_restart_comes_between(lives: Lives, only: Any) -> None:
    request(lives.now, detached=True, shape=())
    request(lives.now, session="act", actor_id="inner", shape=())
    construct(lives.now)
    lives.now.post(ev.CancelRequested, ["act"], "it was killed")
    lives.now.end("act", OutcomeKind.CANCELLED)
    cluster = lives.restart()
    assert cluster.state.sessions["act"].closed
    stops = only(come_back(cluster, "w.1", ("inner", 1)), fx.StopTasks)
    assert [stop.tasks for stop in stops] == [[("inner", 1)]]
    cluster.end("inner", OutcomeKind.CANCELLED)
    assert "act" not in cluster.state.sessions


def test_the_deadline_of_a_constructor_counts_over_a_restart_and_not_after_it_returned(lives: Lives) -> None:
    request(lives.now, actor_id="slow", deadline_s=8.0, shape=())
    request(lives.now, actor_id="quick", deadline_s=8.0, shape=())
    construct(lives.now, "quick")
    cluster = lives.restart(away_s=60.0)
    come_back(cluster, "w.1", ("slow", 1), ("quick", 1))
    cluster.after(0.0)
    assert cluster.task("slow").cancelling is ErrorKind.TIMEOUT
    assert actor_of(cluster, "quick").state is ActorState.ALIVE
    assert cluster.task("quick").cancelling is None


def test_a_state_that_was_never_saved_starts_empty(make_lives: Any, started: Any) -> None:
    cluster = make_lives().restart()
    assert not (cluster.state.tasks or cluster.state.sessions or cluster.state.workers)
    cluster.session()
    cluster.worker("w")
    assert started(cluster.submit("t")) == ["t"]


def test_a_second_restart_finds_what_the_first_did(lives: Lives) -> None:
    lives.now.submit("a", "b", "c", deadline_s=100.0)
    lives.now.end("a")
    lives.now.submit("d", dependencies=("b",))
    lives.now.submit("e", max_retries=1)
    first = [dataclasses.replace(task, story=[]) for task in lives.restart(away_s=0.0).state.tasks.values()]
    second = [dataclasses.replace(task, story=[]) for task in lives.restart(away_s=0.0).state.tasks.values()]
    assert [task_row(task, 0.0) for task in first] == [task_row(task, 0.0) for task in second]
