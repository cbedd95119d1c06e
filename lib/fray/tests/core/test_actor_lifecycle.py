"""What becomes of actors at the controller: names, creation, restarts, ends, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from fray.job.rpc.controller.core import actors, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import (
    HISTORY_LIMIT,
    STABLE,
    ActorSpec,
    ActorState,
    ErrorKind,
    Outcome,
    OutcomeKind,
    TaskSpec,
)
from fray.job.rpc.controller.core.retries import RESTART_DELAY_S, SHORT_LIFE_S
from fray.job.rpc.controller.core.story import explain_actor
from fray.types import TaskId

pytestmark = pytest.mark.unit

FAILED, CRASHED = OutcomeKind.FAILED, OutcomeKind.CRASHED
CANCELLED, RETURNED = OutcomeKind.CANCELLED, OutcomeKind.RETURNED
PLENTY = 1e9


class Stage:
    """A cluster, and short words for what happens to actors."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster

    def create(self, id: str, name: str = "", by: str = "s", **options: Any) -> list[fx.Effect]:
        own = {key: options.pop(key) for key in list(options) if key in ActorSpec.__slots__}
        spec = ActorSpec(name, **own)
        owner = id if spec.detached else by
        task = TaskSpec(TaskId(id), owner, "C", "C", actor=spec, **({"shape": ()} | options))
        effects: list[fx.Effect] = self.cluster.post(ev.ActorRequested, by, task)
        return effects

    def live(self, id: str, **options: Any) -> None:
        """Create an actor whose constructor returns."""
        self.create(id, **options)
        self.construct(id)

    def construct(self, id: str) -> list[fx.Effect]:
        """Let an actor's worker say that its constructor has returned."""
        task = self.cluster.task(id)
        effects: list[fx.Effect] = self.cluster.post(ev.WorkerReported, task.worker, created=[(task.spec.id, task.attempt)])
        return effects

    def die(self, id: str, kind: OutcomeKind = CRASHED, **fields: Any) -> list[fx.Effect]:
        effects: list[fx.Effect] = self.cluster.end(id, kind, **fields)
        return effects

    def kill(self, id: str) -> list[fx.Effect]:
        effects: list[fx.Effect] = self.cluster.post(ev.CancelRequested, [TaskId(id)], "it was killed")
        return effects

    def state(self, id: str) -> str:
        task = actors.find(self.cluster.state, TaskId(id))
        assert task is not None and task.actor is not None, f"{id} is not known"
        return task.actor.state.value

    def named(self, name: str) -> str | None:
        task = actors.find_named(self.cluster.state, name)
        return task.spec.id if task is not None else None

    def restart_delay(self, id: str) -> float:
        delay: float = self.cluster.task(id).delayed_until - self.cluster.now
        return delay


def told(effects: Sequence[fx.Effect]) -> list[tuple[str, str, str]]:
    """Return who is told of an actor, and how it is once all that happened has been taken in."""
    found = []
    for effect in effects:
        if isinstance(effect, fx.TellActor):
            assert effect.actor.actor is not None
            found.append((effect.session, effect.actor.spec.id, effect.actor.actor.state.value))
    return found


@pytest.fixture
def stage(cluster: Any) -> Stage:
    """A session, and a worker with one CPU."""
    cluster.session()
    cluster.worker("w")
    return Stage(cluster)


@pytest.fixture
def empty(cluster: Any) -> Stage:
    """A session, and no worker."""
    cluster.session()
    return Stage(cluster)


# --- names and creation


def test_actor_requested_is_started_on_a_worker_and_alive_once_constructed(stage: Stage, started: Any) -> None:
    assert started(stage.create("a")) == ["a"]
    assert stage.state("a") == "pending"
    assert told(stage.construct("a")) == [("s", "a", "alive")]


def test_name_of_two_creators_goes_to_the_first_and_the_second_changes_nothing(stage: Stage, started: Any) -> None:
    stage.cluster.session("other")
    stage.create("a", "n")
    assert started(stage.create("b", "n", by="other")) == []
    assert stage.named("n") == "a"
    assert actors.find(stage.cluster.state, TaskId("b")) is None


def test_request_repeated_creates_one_actor(stage: Stage) -> None:
    stage.create("a", "n")
    assert stage.create("a", "n") == []
    assert stage.cluster.state.stats["actors accepted"] == 1


def test_request_repeated_after_the_actor_has_ended_does_not_create_it_again(stage: Stage) -> None:
    stage.live("a", name="n")
    stage.kill("a")
    stage.die("a", CANCELLED)
    stage.cluster.post(ev.ResultsAcknowledged, "s", 1)
    assert stage.create("a", "n") == []
    assert stage.state("a") == "dead"


def test_request_of_a_session_that_has_ended_is_refused(stage: Stage) -> None:
    stage.cluster.post(ev.SessionClosed, "s")
    stage.create("a", "n")
    assert stage.named("n") is None
    assert stage.cluster.state.stats["submissions refused: no session"] == 1


def test_actors_without_names_do_not_exclude_each_other(stage: Stage) -> None:
    stage.live("a")
    stage.live("b")
    assert [stage.state("a"), stage.state("b")] == ["alive", "alive"]


def test_constructor_that_fails_frees_the_name_and_keeps_the_failure(stage: Stage) -> None:
    stage.create("a", "n", max_restarts=5)
    stage.die("a", FAILED, payload=b"failure", message="ValueError: no")
    task = stage.cluster.task("a")
    assert (stage.state("a"), task.error_kind, task.result) == ("dead", ErrorKind.USER, b"failure")
    assert stage.named("n") is None
    stage.create("b", "n")
    assert stage.named("n") == "b"


def test_name_of_an_actor_that_is_being_killed_is_free_only_when_it_has_ended(stage: Stage) -> None:
    stage.live("a", name="n")
    stage.kill("a")
    stage.create("b", "n")
    assert stage.named("n") == "a"
    stage.die("a", CANCELLED)
    assert stage.named("n") is None


def test_constructed_report_repeated_or_of_an_old_life_changes_nothing(stage: Stage) -> None:
    stage.live("a", max_restarts=1)
    assert stage.construct("a") == []
    stage.die("a")
    stage.cluster.after(1.0)
    stage.cluster.post(ev.WorkerReported, "w.1", created=[(TaskId("a"), 1)])
    assert stage.state("a") == "restarting"
    assert not actors.is_ready(stage.cluster.task("a"), 1)


# --- restarts


def test_crashed_actor_without_restarts_is_dead_with_the_cause(stage: Stage) -> None:
    stage.live("a", name="n")
    stage.die("a", message="killed by SIGSEGV")
    task = stage.cluster.task("a")
    assert (stage.state("a"), task.error_kind, stage.named("n")) == ("dead", ErrorKind.CRASHED, None)
    assert "SIGSEGV" in task.message and "max_restarts=0" in task.message


def test_crashed_actor_with_restarts_keeps_its_name_and_comes_back_with_another_number(stage: Stage) -> None:
    stage.live("a", name="n", max_restarts=1)
    assert told(stage.die("a")) == [("s", "a", "restarting")]
    assert stage.named("n") == "a"
    stage.cluster.after(1.0)
    stage.construct("a")
    assert (stage.state("a"), stage.cluster.task("a").attempt) == ("alive", 2)


def test_restarts_back_off_and_end_with_the_budget(stage: Stage) -> None:
    stage.live("a", max_restarts=3)
    delays = []
    for _ in range(3):
        stage.die("a")
        delays.append(stage.restart_delay("a"))
        stage.cluster.after(delays[-1])
        stage.construct("a")
    for step, delay in enumerate(delays):
        assert RESTART_DELAY_S * 2**step / 2 <= delay <= RESTART_DELAY_S * 2**step
    stage.die("a")
    assert stage.state("a") == "dead"
    assert "max_restarts=3" in stage.cluster.task("a").message


def test_restarts_without_a_limit_go_on(stage: Stage) -> None:
    stage.live("a", max_restarts=-1)
    for _ in range(50):
        stage.die("a")
        _pass_time(stage, stage.restart_delay("a"))
        stage.construct("a")
    assert stage.cluster.task("a").attempt == 51


def test_long_life_forgives_the_short_ones_before(stage: Stage) -> None:
    stage.live("a", max_restarts=-1)
    for _ in range(5):
        stage.die("a")
        _pass_time(stage, stage.restart_delay("a"))
        stage.construct("a")
    _pass_time(stage, SHORT_LIFE_S + 1)
    stage.die("a")
    assert stage.restart_delay("a") <= RESTART_DELAY_S


def test_constructor_that_crashes_again_and_again_after_a_long_life_backs_off(stage: Stage) -> None:
    stage.live("a", max_restarts=-1)
    _pass_time(stage, SHORT_LIFE_S + 1)
    delays = []
    for _ in range(5):
        stage.die("a")
        delays.append(stage.restart_delay("a"))
        _pass_time(stage, delays[-1])
    assert delays[-1] > 4 * RESTART_DELAY_S


def test_constructor_that_fails_at_a_restart_uses_up_the_budget(stage: Stage) -> None:
    stage.live("a", max_restarts=2)
    for state in ("restarting", "restarting", "dead"):
        stage.die("a", FAILED, message="OSError: no")
        assert stage.state("a") == state
        stage.cluster.after(1.0)
    assert stage.cluster.task("a").error_kind is ErrorKind.CRASHED
    assert "OSError" in stage.cluster.task("a").message


def test_handed_back_with_its_state_moves_at_once_and_costs_no_restart(stage: Stage, started: Any) -> None:
    stage.live("a")
    stage.cluster.worker("other")
    stage.cluster.post(ev.WorkerReported, "w.1", draining=True)
    assert started(stage.die("a", RETURNED, message="moves with its state")) == ["a"]
    assert (stage.state("a"), stage.cluster.where("a")) == ("restarting", ["other.1"])
    stage.construct("a")
    actor = stage.cluster.task("a").actor
    assert (stage.state("a"), actor.restarts) == ("alive", 0)


def test_handed_back_before_it_was_constructed_is_pending_elsewhere(stage: Stage) -> None:
    stage.create("a")
    stage.cluster.worker("other")
    stage.cluster.post(ev.WorkerReported, "w.1", draining=True)
    stage.die("a", RETURNED)
    assert (stage.state("a"), stage.cluster.where("a")) == ("pending", ["other.1"])


# --- workers that go away


def test_silent_worker_is_lost_and_its_actor_restarts_only_when_its_lease_has_surely_ended(stage: Stage, started: Any) -> None:
    stage.live("a", max_restarts=1)
    stage.cluster.worker("other")
    stage.cluster.after(1.0)
    stage.cluster.post(ev.WorkerReported, "w.1")
    silence_s = stage.cluster.state.limits.silence_s
    stage.cluster.post(ev.WorkerDetached, "w.1")
    for _ in range(5):
        assert started(stage.cluster.after(silence_s / 5 - 0.01)) == []
        stage.cluster.post(ev.WorkerReported, "other.1")
    assert stage.state("a") == "restarting"
    assert started(stage.cluster.after(0.1)) == ["a"]
    assert stage.cluster.where("a") == ["other.1"]


def test_worker_that_begins_another_life_its_actor_waits_for_the_lease_of_the_one_before(stage: Stage, started: Any) -> None:
    stage.live("a", max_restarts=1)
    stage.cluster.after(1.0)
    stage.cluster.post(ev.WorkerReported, "w.1")
    stage.cluster.after(2.0)
    effects = stage.cluster.worker("w", "w.2")
    assert (stage.state("a"), started(effects)) == ("restarting", [])
    assert stage.restart_delay("a") == pytest.approx(stage.cluster.state.limits.silence_s - 2.0)


def test_worker_that_left_by_its_own_word_its_actor_restarts_at_once(stage: Stage) -> None:
    stage.live("a", max_restarts=1)
    stage.cluster.worker("other")
    stage.cluster.post(ev.WorkerLeft, "w.1")
    assert stage.restart_delay("a") <= RESTART_DELAY_S
    stage.cluster.after(RESTART_DELAY_S)
    assert stage.cluster.where("a") == ["other.1"]


def test_lost_worker_without_restarts_left_ends_the_actor_as_lost(stage: Stage) -> None:
    stage.live("a")
    stage.cluster.post(ev.WorkerLeft, "w.1")
    assert (stage.state("a"), stage.cluster.task("a").error_kind) == ("dead", ErrorKind.LOST)


def test_reports_of_an_old_life_are_refused_and_counted(stage: Stage) -> None:
    stage.live("a", max_restarts=2)
    stage.die("a")
    stage.cluster.after(1.0)
    stage.construct("a")
    stage.cluster.post(ev.WorkerReported, "w.1", [Outcome(TaskId("a"), 1, CRASHED)])
    stage.cluster.worker("w", "w.2")
    stage.cluster.post(ev.WorkerReported, "w.1", [Outcome(TaskId("a"), 2, CRASHED)], created=[(TaskId("a"), 2)])
    assert stage.cluster.task("a").actor.restarts == 2
    assert stage.state("a") == "restarting"
    assert stage.cluster.state.stats["stale reports refused"] == 2


def test_worker_that_attaches_again_keeps_its_actors_and_all_watchers_are_told_again(stage: Stage) -> None:
    stage.live("a")
    stage.cluster.session("other")
    stage.cluster.post(ev.ActorWatched, "other", TaskId("a"))
    stage.cluster.post(ev.WorkerDetached, "w.1")
    version = stage.cluster.task("a").actor.version
    effects = stage.cluster.post(ev.WorkerAttached, "w.1", [(TaskId("a"), 1)])
    assert told(effects) == [("other", "a", "alive"), ("s", "a", "alive")]
    assert stage.cluster.task("a").actor.version > version


def test_actor_whose_start_never_arrived_is_started_again(stage: Stage, started: Any) -> None:
    stage.create("a")
    stage.cluster.post(ev.WorkerDetached, "w.1")
    assert started(stage.cluster.post(ev.WorkerAttached, "w.1", [])) == ["a"]
    actor = stage.cluster.task("a").actor
    assert (stage.state("a"), actor.restarts) == ("pending", 0)


# --- ends


def test_kill_of_a_pending_actor_ends_it_at_once(empty: Stage) -> None:
    empty.create("a", "n")
    assert told(empty.kill("a")) == [("s", "a", "dead")]
    assert (empty.named("n"), empty.cluster.task("a").message) == (None, "it was killed")


def test_kill_of_a_living_actor_ends_it_when_its_worker_has_stopped_it(stage: Stage, only: Any) -> None:
    stage.live("a", max_restarts=5)
    assert only(stage.kill("a"), fx.StopTasks) == [fx.StopTasks("w.1", [("a", 1)])]
    assert stage.state("a") == "alive"
    stage.die("a", CANCELLED)
    assert stage.state("a") == "dead"


def test_kill_of_a_living_actor_that_crashes_meanwhile_does_not_restart_it(stage: Stage) -> None:
    stage.live("a", max_restarts=5)
    stage.kill("a")
    stage.die("a", CRASHED)
    assert stage.state("a") == "dead"


def test_kill_of_a_living_actor_whose_worker_is_lost_does_not_restart_it(stage: Stage) -> None:
    stage.live("a", max_restarts=5)
    stage.kill("a")
    stage.cluster.post(ev.WorkerLeft, "w.1")
    assert stage.state("a") == "dead"


def test_kill_of_a_restarting_actor_ends_it_at_once_and_its_timer_starts_nothing(stage: Stage, started: Any) -> None:
    stage.live("a", name="n", max_restarts=5)
    stage.die("a")
    stage.kill("a")
    assert (stage.state("a"), stage.named("n")) == ("dead", None)
    assert started(stage.cluster.after(5.0)) == []


@pytest.mark.parametrize("restarts", [0, 5])
@pytest.mark.parametrize("by", ["kill", "session"])
def test_name_of_an_actor_that_waits_for_its_lost_workers_lease_is_its_own_until_then_though_it_is_stopped(
    stage: Stage, started: Any, restarts: int, by: str
) -> None:
    stage.live("a", name="n", max_restarts=restarts)
    stage.cluster.post(ev.WorkerReported, "w.1")
    stage.cluster.post(ev.WorkerDetached, "w.1")
    stage.cluster.after(2.1)
    assert stage.state("a") == "restarting"
    stage.cluster.session("later")
    if by == "kill":
        stage.kill("a")
        stage.kill("a")
    else:
        stage.cluster.post(ev.SessionClosed, "s")
    stage.create("b", "n", by="later")
    assert stage.named("n") == "a"
    assert started(stage.cluster.after(stage.cluster.state.limits.silence_s - 2.2)) == []
    assert stage.named("n") == "a"
    stage.cluster.after(0.2)
    assert (stage.state("a"), stage.named("n")) == ("dead", None)
    (dead,) = stage.cluster.state.dead_actors.values()
    assert (dead.state.value, dead.message) == ("cancelled", "it was killed" if by == "kill" else "its session was closed")


def test_actor_that_is_killed_while_it_backs_off_after_another_worker_ran_it_frees_its_name_at_once(stage: Stage) -> None:
    stage.live("a", name="n", max_restarts=5)
    stage.cluster.post(ev.WorkerDetached, "w.1")
    stage.cluster.after(30.0)
    stage.cluster.worker("other")
    stage.construct("a")
    stage.die("a")
    stage.kill("a")
    assert (stage.state("a"), stage.named("n")) == ("dead", None)


def test_session_that_ends_takes_its_actors_along_and_spares_detached_ones(stage: Stage, only: Any) -> None:
    stage.live("mine", name="m")
    stage.live("stays", name="n", detached=True)
    stops = only(stage.cluster.post(ev.SessionClosed, "s"), fx.StopTasks)
    assert stops == [fx.StopTasks("w.1", [("mine", 1)])]
    assert only(stage.die("mine", CANCELLED), fx.EndSession) == [fx.EndSession("s")]
    assert (stage.state("mine"), stage.state("stays")) == ("dead", "alive")
    assert (stage.named("m"), stage.named("n")) == (None, "stays")


def test_session_of_a_client_that_vanished_takes_its_actors_along(stage: Stage, only: Any) -> None:
    stage.live("a")
    stage.cluster.post(ev.SessionUnwatched, "s")
    effects: list[fx.Effect] = []
    for _ in range(4):
        effects += stage.cluster.after(9.0)
        stage.cluster.post(ev.WorkerReported, "w.1")
    assert only(effects, fx.StopTasks) == [fx.StopTasks("w.1", [("a", 1)])]


def test_detached_actor_is_a_session_that_needs_no_stream_and_ends_with_it(stage: Stage, only: Any) -> None:
    stage.live("a", detached=True)
    stage.cluster.post(ev.SessionClosed, "s")
    _pass_time(stage, 1000.0)
    assert stage.state("a") == "alive"
    stage.kill("a")
    effects = stage.die("a", CANCELLED)
    assert only(effects, fx.EndSession) == [fx.EndSession("a")]
    assert not stage.cluster.state.sessions and not stage.cluster.state.tasks


def test_detached_actor_whose_constructor_fails_ends_its_session_and_tells_its_creator(stage: Stage, only: Any) -> None:
    stage.create("a", "n", detached=True)
    effects = stage.die("a", FAILED, payload=b"failure")
    assert told(effects) == [("s", "a", "dead")]
    assert only(effects, fx.EndSession) == [fx.EndSession("a")]


def test_end_of_an_actor_orders_what_it_kept_to_be_deleted(stage: Stage, only: Any) -> None:
    stage.live("a", max_restarts=1)
    assert only(stage.die("a"), fx.EndActor) == []
    stage.cluster.after(1.0)
    assert [effect.actor.spec.id for effect in only(stage.die("a"), fx.EndActor)] == ["a"]


def test_dead_actors_are_remembered_up_to_a_limit_the_latest_longest(empty: Stage) -> None:
    for number in range(HISTORY_LIMIT + 1):
        empty.create(f"a{number}")
        empty.kill(f"a{number}")
        empty.cluster.post(ev.ResultsAcknowledged, "s", number + 1)
    assert actors.find(empty.cluster.state, TaskId("a0")) is None
    assert empty.state("a1") == empty.state(f"a{HISTORY_LIMIT}") == "dead"
    assert len(actors.list_all(empty.cluster.state)) == HISTORY_LIMIT


# --- who is told


def test_watchers_are_told_of_each_change_in_order_with_growing_versions(stage: Stage) -> None:
    stage.create("a", max_restarts=1)
    actor = stage.cluster.task("a").actor
    seen, versions = [], []
    steps = (stage.construct, stage.die, lambda _: stage.cluster.after(1.0), stage.construct, stage.die)
    for step in steps:
        seen += [state for _, _, state in told(step("a"))]
        versions.append(actor.version)
    assert seen == ["alive", "restarting", "alive", "dead"]
    assert versions == [1, 2, 2, 3, 4]


def test_watcher_that_comes_late_is_told_at_once_how_it_is(stage: Stage) -> None:
    stage.live("a")
    stage.cluster.session("late")
    assert told(stage.cluster.post(ev.ActorWatched, "late", TaskId("a"))) == [("late", "a", "alive")]
    assert told(stage.die("a")) == [("late", "a", "dead"), ("s", "a", "dead")]
    assert told(stage.cluster.post(ev.ActorWatched, "late", TaskId("a"))) == [("late", "a", "dead")]


def test_watchers_that_have_gone_are_not_told(stage: Stage) -> None:
    stage.live("a", detached=True)
    stage.cluster.session("gone")
    stage.cluster.post(ev.ActorWatched, "gone", TaskId("a"))
    stage.cluster.post(ev.SessionClosed, "gone")
    assert told(stage.die("a")) == [("s", "a", "dead")]


def test_watching_what_is_not_known_changes_nothing(stage: Stage) -> None:
    assert stage.cluster.post(ev.ActorWatched, "s", TaskId("unknown")) == []


def test_watchers_of_an_actor_that_no_worker_can_host_are_told_what_is_missing(stage: Stage, only: Any) -> None:
    stage.cluster.session("other")
    effects = stage.create("a", by="other", detached=True, shape=(("gpu", 1.0),))
    notices = only(effects, fx.NotifySession)
    assert [notice.session for notice in notices] == ["other"]
    assert "the most gpu on one worker is 0 of 1" in notices[0].text
    assert "needs gpu: 1" in explain_actor(stage.cluster.state, stage.cluster.task("a"), stage.cluster.now)


def test_actor_that_no_worker_can_host_starts_when_one_comes(stage: Stage, started: Any) -> None:
    stage.create("a", shape=(("gpu", 1.0),))
    assert started(stage.cluster.worker("g", cpu=1.0, gpu=1.0)) == ["a"]


# --- where


def test_actor_that_must_not_be_preempted_keeps_to_stable_workers(stage: Stage, started: Any, only: Any) -> None:
    effects = stage.create("a", not_preemptible=True, shape=((STABLE, 1.0),))
    assert started(effects) == []
    assert "all workers are preemptible" in only(effects, fx.NotifySession)[0].text
    assert started(stage.cluster.worker("s", **{"cpu": 1.0, STABLE: PLENTY})) == ["a"]
    assert stage.cluster.where("a") == ["s.1"]


def test_actors_that_ask_for_nothing_are_spread_over_equal_workers(stage: Stage) -> None:
    stage.cluster.worker("v")
    stage.cluster.worker("u")
    for number in range(9):
        stage.live(f"a{number}")
    assert sorted(worker.actors for worker in stage.cluster.state.workers.values()) == [3, 3, 3]


def test_actors_that_ask_for_nothing_prefer_the_worker_without_tasks(stage: Stage) -> None:
    stage.cluster.submit("t")
    stage.cluster.worker("idle")
    for number in range(5):
        stage.live(f"a{number}")
    assert set(stage.cluster.where(*(f"a{number}" for number in range(5)))) == {"idle.1"}


def test_actor_occupies_what_it_asks_for_until_it_ends(stage: Stage, started: Any) -> None:
    stage.live("a", shape=(("cpu", 1.0),))
    stage.cluster.submit("t")
    assert stage.cluster.states("t") == ["queued"]
    assert started(stage.die("a")) == ["t"]


def test_actor_that_waits_for_others_lends_its_place(stage: Stage, started: Any) -> None:
    stage.live("a", shape=(("cpu", 1.0),))
    stage.cluster.submit("t")
    assert started(stage.cluster.post(ev.WorkerReported, "w.1", blocked=[(TaskId("a"), 1)])) == ["t"]
    stage.cluster.post(ev.WorkerReported, "w.1", unblocked=[(TaskId("a"), 1)])
    stage.cluster.end("t")
    stage.cluster.submit("u")
    assert stage.cluster.states("u") == ["queued"]


def test_actor_is_never_queued_ahead_behind_short_tasks(stage: Stage) -> None:
    stage.cluster.measure("f", 0.001)
    stage.cluster.submit(*(f"t{number}" for number in range(5)))
    stage.create("a", shape=(("cpu", 1.0),))
    assert stage.cluster.states("a") == ["queued"]


# --- time


def test_deadline_of_an_actor_that_is_not_constructed_in_time_ends_it(empty: Stage) -> None:
    empty.create("a", "n", deadline_s=5.0)
    assert next_deadline(empty.cluster.state) == 5.0
    assert told(empty.cluster.after(5.0)) == [("s", "a", "dead")]
    assert empty.cluster.task("a").error_kind is ErrorKind.TIMEOUT


def test_deadline_while_the_constructor_runs_stops_it(stage: Stage, only: Any) -> None:
    stage.create("a", deadline_s=5.0)
    assert only(stage.cluster.after(5.0), fx.StopTasks) == [fx.StopTasks("w.1", [("a", 1)])]
    stage.die("a", CANCELLED)
    assert stage.cluster.task("a").error_kind is ErrorKind.TIMEOUT


def test_deadline_of_an_actor_that_was_constructed_means_nothing_also_while_it_restarts(stage: Stage) -> None:
    stage.live("a", deadline_s=5.0, max_restarts=1)
    stage.cluster.after(4.99)
    stage.die("a")
    stage.cluster.after(1.0)
    assert stage.state("a") == "restarting"
    stage.construct("a")
    assert stage.state("a") == "alive"


def test_actor_is_ready_for_calls_of_its_living_incarnation_only(stage: Stage) -> None:
    stage.create("a", max_restarts=1)
    task = stage.cluster.task("a")
    assert not actors.is_ready(task, 1)
    stage.construct("a")
    assert [actors.is_ready(task, number) for number in (0, 1, 2)] == [False, True, False]
    stage.die("a")
    assert not actors.is_ready(task, 1)
    assert not actors.is_ready(None, 1)


def test_list_of_actors_has_the_living_and_the_dead_in_the_order_of_creation(stage: Stage) -> None:
    for id in ("a", "b", "c"):
        stage.live(id)
        stage.cluster.after(0.1)
    stage.kill("b")
    stage.die("b", CANCELLED)
    stage.cluster.submit("t")
    listed = [(task.spec.id, task.actor.state) for task in actors.list_all(stage.cluster.state) if task.actor]
    assert listed == [("a", ActorState.ALIVE), ("b", ActorState.DEAD), ("c", ActorState.ALIVE)]


def _pass_time(stage: Stage, seconds: float) -> None:
    """Let time pass while all workers go on reporting."""
    while seconds > 0:
        for worker in list(stage.cluster.state.workers):
            stage.cluster.post(ev.WorkerReported, worker)
        stage.cluster.after(min(seconds, 2.0))
        seconds -= 2.0
