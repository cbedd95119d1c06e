"""Actors on a worker: which executor they get, how they end there, and what the controller is told."""

from __future__ import annotations

from typing import Any

import pytest
from fray.job.rpc.controller.core.model import Outcome, OutcomeKind
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker.core import WorkerCore

pytestmark = pytest.mark.unit

CPU = (("cpu", 1.0),)


def task(name: str, attempt: int = 1, **more: Any) -> wc.Item:
    return wc.Item(name, attempt, "f", more.pop("shape", CPU), None, order=None, **more)


def actor(name: str, attempt: int = 1, shape: Any = ()) -> wc.Item:
    return task(name, attempt, shape=shape, actor=True, alone=True)


def make(cpus: int = 1) -> WorkerCore:
    """Return a worker whose executors are ready: they have the numbers from 1."""
    core = WorkerCore({"cpu": float(cpus)}, cpus)
    core.start()
    for number in list(core.executors):
        core.executor_ready(0.0, number)
    return core


def host(core: WorkerCore, name: str = "a", attempt: int = 1, shape: Any = ()) -> int:
    """Give the worker an actor whose constructor returns; return its executor."""
    number = find_executor(core.receive(0.0, [actor(name, attempt, shape)]))
    assert core.constructed(number) is not None
    return number


def find_executor(effects: list[wc.Effect]) -> int:
    (give,) = [effect for effect in effects if isinstance(effect, wc.Give)]
    return give.executor


def given(effects: list[wc.Effect]) -> list[str]:
    return [item.task for effect in effects if isinstance(effect, wc.Give) for item in effect.items]


def spawned(effects: list[wc.Effect]) -> list[int]:
    return [effect.executor for effect in effects if isinstance(effect, wc.Spawn)]


def told(core: WorkerCore) -> list[tuple[str, int, str]]:
    """Return what the controller would be told of ended attempts."""
    return [(o.task, o.attempt, o.kind.value) for o, _ in core.report(1000).outcomes]


def take_ended(core: WorkerCore) -> list[str]:
    ended, core.ended_actors = core.ended_actors, []
    return list(ended)


def ended(name: str, kind: OutcomeKind, message: str = "") -> Outcome:
    return Outcome(name, 0, kind, message=message)


# --- its place


def test_actor_goes_before_tasks_that_wait() -> None:
    core = make()
    core.receive(0.0, [task("running")])
    core.receive(0.0, [task("waiting", priority=5), actor("a", shape=CPU)])
    assert given(core.outcomes(1.0, 1, [ended("running", OutcomeKind.FINISHED)])) == ["a"]


def test_actors_begin_in_the_order_in_which_they_came() -> None:
    core = make()
    core.receive(0.0, [task("running")])
    core.receive(0.0, [actor("a", shape=CPU), actor("b", shape=CPU)])
    assert given(core.outcomes(1.0, 1, [ended("running", OutcomeKind.FINISHED)])) == ["a"]


def test_actor_that_asks_for_nothing_begins_though_all_places_are_taken() -> None:
    core = make()
    core.receive(0.0, [task("running"), task("waiting")])
    (number,) = spawned(core.receive(0.0, [actor("a")]))
    assert given(core.executor_ready(0.0, number)) == ["a"]


def test_actor_has_its_executor_for_itself_and_the_pool_is_refilled() -> None:
    core = make()
    effects = core.receive(0.0, [actor("a")])
    assert find_executor(effects) == 1
    (number,) = spawned(effects)
    core.constructed(1)
    assert given(core.receive(1.0, [task("t")])) == []
    effects = core.executor_ready(2.0, number)
    assert (find_executor(effects), given(effects)) == (number, ["t"])


def test_short_tasks_are_never_given_to_the_executor_of_an_actor() -> None:
    core = make(cpus=2)
    core.receive(0.0, [task("measured")])
    core.outcomes(0.0, 1, [Outcome("measured", 0, OutcomeKind.FINISHED, run_s=0.0001)])
    number = host(core, shape=CPU)
    core.receive(0.0, [task(f"t{n}") for n in range(10)])
    assert list(core.executors[number].items) == ["a"]


def test_many_actors_get_as_many_executors_and_tasks_keep_theirs() -> None:
    core = make(cpus=2)
    effects = core.receive(0.0, [actor(f"a{n}") for n in range(20)])
    for _ in range(40):
        fresh = spawned(effects)
        effects = [effect for number in fresh for effect in core.executor_ready(0.0, number)]
    assert len(core.actors()) == 20
    pooled = [executor for executor in core.executors.values() if not executor.dedicated]
    assert len(pooled) == 2


def test_actor_occupies_what_it_asks_for_until_its_executor_is_gone() -> None:
    core = make()
    number = host(core, shape=CPU)
    assert core.used == {"cpu": 1.0}
    core.stop(1.0, "a", 1)
    assert core.used == {"cpu": 1.0}
    core.executor_died(1.1, number, "killed")
    assert core.used == {"cpu": 0.0}


def test_actor_that_waits_for_others_lends_its_place_and_takes_it_back() -> None:
    core = make()
    host(core, shape=CPU)
    (pooled,) = [number for number in core.executors if number != 1]
    core.executor_ready(0.0, pooled)
    core.receive(0.0, [task("t")])
    assert given(core.blocked(1.0, "a")) == ["t"]
    assert core.report(10).blocked == [("a", 1)]
    core.unblocked(2.0, "a")
    assert core.used == {"cpu": 2.0}


# --- construction


def test_constructed_actor_is_reported_until_that_is_acknowledged() -> None:
    core = make()
    host(core, attempt=3)
    report = core.report(10)
    assert (report.created, core.has_news()) == ([("a", 3)], True)
    assert core.report(10).created == [("a", 3)]
    core.acknowledge(report)
    assert (core.report(10).created, core.has_news()) == ([], False)


def test_actor_that_ends_before_its_construction_was_acknowledged_is_reported_as_ended_only() -> None:
    core = make()
    number = host(core)
    late = core.report(10)
    core.executor_died(1.0, number, "killed by SIGSEGV")
    assert (core.report(10).created, told(core)) == ([], [("a", 1, "crashed")])
    core.acknowledge(late)
    assert told(core) == [("a", 1, "crashed")]


def test_construction_told_of_an_actor_that_is_being_stopped_is_not_taken() -> None:
    core = make()
    number = find_executor(core.receive(0.0, [actor("a")]))
    core.stop(0.5, "a", 1)
    assert core.constructed(number) is None
    assert core.report(10).created == []


def test_construction_told_by_an_executor_without_an_actor_is_not_taken() -> None:
    core = make()
    core.receive(0.0, [task("t")])
    assert core.constructed(1) is None
    assert core.constructed(99) is None


def test_constructor_that_raised_ends_the_actor_and_its_executor() -> None:
    core = make()
    number = find_executor(core.receive(0.0, [actor("a")]))
    effects = core.outcomes(1.0, number, [ended("a", OutcomeKind.FAILED, "ValueError: no")])
    assert wc.Kill(number) in effects
    assert (told(core), take_ended(core)) == ([("a", 1, "failed")], ["a"])
    core.executor_died(1.1, number, "killed")
    assert told(core) == [("a", 1, "failed")]


# --- ends


def test_crashed_executor_takes_its_actor_along_and_is_not_replaced_beyond_the_pool() -> None:
    core = make()
    number = host(core)
    assert spawned(core.executor_died(1.0, number, "killed by SIGKILL")) == []
    assert (told(core), take_ended(core)) == ([("a", 1, "crashed")], ["a"])
    assert core.report(10).outcomes[0][0].message == "killed by SIGKILL"


def test_stop_kills_the_executor_of_an_actor_at_once() -> None:
    core = make()
    number = host(core)
    assert core.stop(1.0, "a", 1) == [wc.Kill(number)]
    assert told(core) == []
    core.executor_died(1.1, number, "killed")
    assert (told(core), take_ended(core)) == ([("a", 1, "cancelled")], ["a"])


def test_stop_of_an_actor_that_has_not_begun_drops_it() -> None:
    core = make()
    core.receive(0.0, [task("running")])
    core.receive(0.0, [actor("a", shape=CPU)])
    assert core.stop(0.0, "a", 1) == []
    assert (told(core), take_ended(core)) == ([("a", 1, "cancelled")], ["a"])


def test_stop_of_another_incarnation_changes_nothing() -> None:
    core = make()
    host(core, attempt=2)
    assert core.stop(1.0, "a", 1) == []
    assert [item.task for item in core.actors()] == ["a"]


def test_stop_twice_kills_once() -> None:
    core = make()
    host(core)
    core.stop(1.0, "a", 1)
    assert core.stop(1.0, "a", 1) == []


def test_newer_incarnation_that_comes_while_an_older_one_is_here_comes_back_and_the_older_is_killed() -> None:
    core = make()
    number = host(core, attempt=1)
    assert wc.Kill(number) in core.receive(1.0, [actor("a", 2)])
    assert told(core) == [("a", 2, "returned")]
    core.executor_died(1.1, number, "killed")
    assert told(core) == [("a", 2, "returned"), ("a", 1, "cancelled")]


def test_incarnation_received_twice_is_hosted_once() -> None:
    core = make()
    host(core)
    assert given(core.receive(1.0, [actor("a")])) == []
    assert len(core.actors()) == 1


def test_next_incarnation_is_hosted_by_an_executor_of_its_own() -> None:
    core = make()
    first = host(core)
    core.executor_died(1.0, first, "killed")
    take_ended(core)
    (pooled,) = core.executors
    core.executor_ready(1.0, pooled)
    assert find_executor(core.receive(2.0, [actor("a", 2)])) == pooled
    core.outcomes(2.0, first, [ended("a", OutcomeKind.FAILED)])
    assert [item.attempt for item in core.actors()] == [2]
    assert told(core) == [("a", 1, "crashed")]


# --- draining


def test_drain_hands_back_an_actor_that_has_not_begun_and_leaves_those_that_have_to_retire() -> None:
    core = make()
    host(core, shape=CPU)
    core.receive(0.0, [actor("b", shape=CPU)])
    core.drain()
    assert told(core) == [("b", 1, "returned")]
    assert [item.task for item in core.actors()] == ["a"]
    assert not core.idle()


@pytest.mark.parametrize("kind", [OutcomeKind.RETURNED, OutcomeKind.CRASHED])
def test_actor_that_retired_is_told_as_its_executor_says_and_the_executor_ends(kind: OutcomeKind) -> None:
    core = make()
    number = host(core)
    core.drain()
    effects = core.outcomes(1.0, number, [ended("a", kind, "its worker drains")])
    assert effects == [wc.Kill(number)]
    assert told(core) == [("a", 1, kind.value)]
    core.executor_died(1.1, number, "exit 0")
    core.acknowledge(report := core.report(10))
    core.forget(report.number)
    assert core.idle()


def test_actor_that_comes_while_draining_is_returned() -> None:
    core = make()
    core.drain()
    assert given(core.receive(1.0, [actor("a")])) == []
    assert told(core) == [("a", 1, "returned")]


# --- the end of the worker's life


def test_life_given_up_kills_all_actors_and_tells_nobody_but_the_agent() -> None:
    core = make()
    number = host(core)
    core.receive(0.0, [actor("b", shape=(("cpu", 9.0),))])
    assert core.abandon() == [wc.Kill(number)]
    assert sorted(take_ended(core)) == ["a", "b"]
    assert (core.held(), told(core), core.report(10).created) == ([], [], [])
    core.executor_died(1.0, number, "killed")
    assert told(core) == []


def test_life_given_up_the_next_may_host_the_same_actor() -> None:
    core = make()
    old = host(core)
    (pooled,) = [number for number in core.executors if number != old]
    core.abandon()
    core.executor_ready(1.0, pooled)
    assert find_executor(core.receive(1.0, [actor("a", 2)])) == pooled
    assert core.constructed(pooled) is not None
    core.executor_died(1.1, old, "killed")
    assert [item.attempt for item in core.actors()] == [2]
    assert core.report(10).created == [("a", 2)]


def test_actors_are_held_until_their_end_is_acknowledged() -> None:
    core = make()
    number = host(core, attempt=4)
    assert core.held() == [("a", 4)]
    core.executor_died(1.0, number, "killed")
    assert core.held() == [("a", 4)]
    core.acknowledge(report := core.report(10))
    core.forget(report.number)
    assert core.held() == []
