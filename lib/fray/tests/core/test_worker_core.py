"""The worker's core: what runs on which executor, and what is reported."""

from __future__ import annotations

from typing import Any

import pytest
from fray.job.rpc.controller.core.model import Outcome, OutcomeKind
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker.core import WorkerCore

pytestmark = pytest.mark.unit

CPU = (("cpu", 1.0),)
FINISHED = OutcomeKind.FINISHED


def item(
    name: str, attempt: int = 1, function: str = "f", shape: Any = CPU, timeout: float | None = None, **more: Any
) -> wc.Item:
    return wc.Item(name, attempt, function, shape, timeout, order=None, **more)


def make(cpus: int = 1, known_s: float | None = None, executors: int | None = None) -> WorkerCore:
    """Return a worker with ready executors that has, if asked, measured ``f``."""
    core = WorkerCore({"cpu": float(cpus)}, executors or cpus)
    core.start()
    for number in range(1, (executors or cpus) + 1):
        core.executor_ready(0.0, number)
    if known_s is not None:
        core.receive(0.0, [item("measured")])
        core.outcomes(0.0, 1, [Outcome("measured", 0, FINISHED, run_s=known_s)])
        acknowledge(core, core.report(100))
    return core


def acknowledge(core: WorkerCore, report: wc.Report) -> None:
    """Let a controller answer a report, and have it saved at once."""
    core.acknowledge(report)
    core.forget(report.number)


def given(effects: list[wc.Effect]) -> dict[int, list[str]]:
    """Return what executors are given."""
    all_: dict[int, list[str]] = {}
    for effect in effects:
        if isinstance(effect, wc.Give):
            all_.setdefault(effect.executor, []).extend(i.task for i in effect.items)
    return all_


def told(core: WorkerCore) -> list[tuple[str, int, str]]:
    """Return what the controller would be told of ended attempts."""
    return [(o.task, o.attempt, o.kind.value) for o, _ in core.report(1000).outcomes]


def done(name: str, kind: OutcomeKind = FINISHED, run_s: float = 0.0) -> Outcome:
    return Outcome(name, 0, kind, run_s=run_s)


# --- running


def test_attempt_received_runs_and_is_reported_with_its_number() -> None:
    core = make()
    assert given(core.receive(0.0, [item("t", 7)])) == {1: ["t"]}
    core.outcomes(1.0, 1, [done("t")])
    assert told(core) == [("t", 7, "finished")]
    assert core.used == {"cpu": 0.0}


def test_attempt_received_twice_runs_once() -> None:
    core = make(cpus=2)
    core.receive(0.0, [item("t")])
    assert given(core.receive(0.0, [item("t")])) == {}


def test_attempts_beyond_the_capacity_wait_in_order() -> None:
    core = make(cpus=2)
    assert given(core.receive(0.0, [item("a"), item("b"), item("c"), item("d")])) == {1: ["a"], 2: ["b"]}
    assert given(core.outcomes(1.0, 2, [done("b")])) == {2: ["c"]}
    assert given(core.outcomes(1.0, 1, [done("a")])) == {1: ["d"]}


def test_attempt_of_higher_priority_begins_first() -> None:
    core = make()
    core.receive(0.0, [item("running"), item("normal")])
    core.receive(0.0, [item("urgent", priority=1)])
    assert given(core.outcomes(1.0, 1, [done("running")])) == {1: ["urgent"]}


SLOT = (("cpu", 0.1), ("slot", 1.0))


def test_attempt_passes_those_before_it_that_lack_what_it_does_not_take() -> None:
    core = WorkerCore({"cpu": 2.0, "slot": 1.0}, 2)
    core.start()
    core.executor_ready(0.0, 1)
    core.executor_ready(0.0, 2)
    core.receive(0.0, [item("holder", shape=SLOT), item("next", shape=SLOT)])
    assert given(core.receive(0.0, [item("small", shape=(("cpu", 0.1),))])) == {2: ["small"]}
    assert given(core.outcomes(1.0, 1, [done("holder")])) == {1: ["next"]}


def test_attempt_does_not_pass_one_that_lacks_what_it_takes() -> None:
    core = make(cpus=2)
    core.receive(0.0, [item("running"), item("large", shape=(("cpu", 2.0),))])
    assert given(core.receive(0.0, [item("small")])) == {}
    assert given(core.outcomes(1.0, 1, [done("running")])) == {1: ["large"]}


def test_executors_are_started_for_those_that_pass_too() -> None:
    core = WorkerCore({"cpu": 2.0, "slot": 1.0}, 1)
    core.start()
    core.executor_ready(0.0, 1)
    core.receive(0.0, [item("holder", shape=SLOT), item("next", shape=SLOT)])
    little = (("cpu", 0.1),)
    effects = core.receive(0.0, [item("s1", shape=little), item("s2", shape=little), item("s3", shape=little)])
    assert [effect for effect in effects if isinstance(effect, wc.Spawn)] == [wc.Spawn(2)]
    effects = core.time_passed(0.1) + core.time_passed(0.2) + core.time_passed(0.3)
    assert [effect for effect in effects if isinstance(effect, wc.Spawn)] == [wc.Spawn(3), wc.Spawn(4)]


def test_outcomes_of_an_unknown_executor_or_task_change_nothing() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    assert core.outcomes(0.0, 99, [done("t")]) == []
    core.outcomes(0.0, 1, [done("unknown")])
    assert told(core) == []


# --- batches


def test_functions_never_measured_are_given_one_by_one() -> None:
    core = make()
    assert given(core.receive(0.0, [item(f"t{n}") for n in range(10)])) == {1: ["t0"]}


def test_short_functions_measured_are_given_in_batches() -> None:
    core = make(known_s=0.0001)
    batch = given(core.receive(0.0, [item(f"t{n}") for n in range(100)]))[1]
    assert 30 <= len(batch) <= wc.BATCH_TASKS


def test_long_functions_are_given_one_by_one() -> None:
    core = make(known_s=0.1)
    assert given(core.receive(0.0, [item(f"t{n}") for n in range(10)])) == {1: ["t0"]}


def test_few_short_tasks_are_shared_among_executors() -> None:
    core = make(cpus=2, known_s=0.0001)
    batches = given(core.receive(0.0, [item(f"t{n}") for n in range(4)]))
    assert sorted(batches) == [1, 2]
    assert sorted(name for batch in batches.values() for name in batch) == ["t0", "t1", "t2", "t3"]


def test_tasks_with_a_timeout_are_never_in_a_batch() -> None:
    core = make(known_s=0.0001)
    assert given(core.receive(0.0, [item("a", timeout=1.0), item("b", timeout=1.0)])) == {1: ["a"]}


def test_tasks_of_another_shape_are_not_in_the_batch() -> None:
    core = make(known_s=0.0001)
    assert given(core.receive(0.0, [item("a"), item("b", shape=(("cpu", 0.5),)), item("c")])) == {1: ["a"]}


def test_batch_behind_a_slow_task_is_recalled_and_runs_elsewhere() -> None:
    core = make(cpus=2, known_s=0.0001)
    batches = given(core.receive(0.0, [item(f"t{n}") for n in range(8)]))
    slow, quick = sorted(batches, key=lambda number: -len(batches[number]))
    assert core.next_deadline() == pytest.approx(wc.RECALL_AFTER_S)
    core.outcomes(0.01, quick, [done(name) for name in batches[quick]])
    assert core.time_passed(0.06) == [wc.Recall(slow)]
    assert core.time_passed(0.2) == []  # asked once
    _, first, *others = batches[slow]
    again = given(core.returned(0.2, slow, [first, *others]))
    assert list(again) == [quick]
    assert again[quick][0] == first


def test_executor_that_was_recalled_is_given_nothing_until_it_is_free() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("a"), item("b")])
    core.time_passed(0.06)
    core.returned(0.06, 1, ["b"])
    assert given(core.receive(0.06, [item("c")])) == {}
    assert given(core.outcomes(0.1, 1, [done("a", run_s=0.0001)])) == {1: ["b", "c"]}


# --- stopping


def test_stop_of_a_waiting_attempt_drops_it() -> None:
    core = make()
    core.receive(0.0, [item("running"), item("t")])
    assert core.stop(0.0, "t", 1) == []
    assert told(core) == [("t", 1, "cancelled")]


def test_stop_of_a_running_attempt_interrupts_then_kills() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    assert core.stop(10.0, "t", 1) == [wc.Interrupt(1, "t")]
    assert core.stop(10.1, "t", 1) == []
    assert core.next_deadline() == 10.0 + wc.KILL_GRACE_S
    assert core.time_passed(10.0 + wc.KILL_GRACE_S) == [wc.Kill(1)]
    core.executor_died(11.1, 1, "killed")
    assert told(core) == [("t", 1, "cancelled")]


def test_stop_of_an_attempt_that_obeys_needs_no_kill() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    core.stop(0.0, "t", 1)
    core.outcomes(0.1, 1, [done("t", OutcomeKind.CANCELLED)])
    assert core.time_passed(100.0) == []
    assert told(core) == [("t", 1, "cancelled")]


def test_stop_that_comes_too_late_lets_the_value_through() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    core.stop(0.0, "t", 1)
    core.outcomes(0.1, 1, [done("t")])
    assert told(core) == [("t", 1, "finished")]


def test_stop_of_another_attempt_changes_nothing() -> None:
    core = make()
    core.receive(0.0, [item("t", 2)])
    assert core.stop(0.0, "t", 1) == []
    assert told(core) == []


def test_timeout_interrupts_then_kills_and_says_so() -> None:
    core = make()
    core.receive(0.0, [item("t", timeout=2.0)])
    assert core.next_deadline() == 2.0
    assert core.time_passed(2.0) == [wc.Interrupt(1, "t")]
    assert core.time_passed(3.0) == [wc.Kill(1)]
    core.executor_died(3.1, 1, "killed")
    ((outcome, _),) = core.report(10).outcomes
    assert (outcome.kind, outcome.message) == (OutcomeKind.TIMEOUT, "ran longer than its timeout of 2 s")


def test_timeout_counts_from_the_start_not_from_the_arrival() -> None:
    core = make()
    core.receive(0.0, [item("running"), item("t", timeout=2.0)])
    core.outcomes(100.0, 1, [done("running")])
    assert core.next_deadline() == 102.0


def test_killed_executor_the_batch_behind_runs_again_and_is_not_blamed() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("a"), item("b")])
    core.stop(0.0, "a", 1)
    core.time_passed(1.0)
    core.outcomes(1.0, 1, [done("a", OutcomeKind.CANCELLED)])  # it stopped just before the kill
    core.executor_died(1.1, 1, "killed")
    assert told(core) == [("a", 1, "cancelled")]
    assert given(core.executor_ready(1.2, 2)) == {2: ["b"]}


def test_executor_ordered_to_die_gets_nothing_more() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("a")])
    core.stop(0.0, "a", 1)
    core.time_passed(1.0)
    assert given(core.receive(1.0, [item("b")])) == {}


# --- executors that die


def test_crash_of_a_single_task_is_its_own() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    effects = core.executor_died(0.0, 1, "killed by SIGSEGV")
    ((outcome, _),) = core.report(10).outcomes
    assert (outcome.kind, outcome.message) == (OutcomeKind.CRASHED, "killed by SIGSEGV")
    assert wc.Spawn(2) in effects
    assert core.used == {"cpu": 0.0}


def test_crash_in_a_batch_runs_each_again_alone_and_blames_one() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("good"), item("poison"), item("other")])
    core.executor_died(0.0, 1, "exit code 7")
    assert told(core) == []
    assert given(core.executor_ready(0.1, 2)) == {2: ["good"]}
    assert given(core.outcomes(0.2, 2, [done("good")])) == {2: ["poison"]}
    core.executor_died(0.3, 2, "exit code 7")
    assert given(core.executor_ready(0.4, 3)) == {3: ["other"]}
    core.outcomes(0.5, 3, [done("other")])
    assert told(core) == [("good", 1, "finished"), ("poison", 1, "crashed"), ("other", 1, "finished")]


def test_idle_executor_that_dies_is_replaced() -> None:
    core = make(cpus=2)
    assert core.executor_died(0.0, 1, "killed") == [wc.Spawn(3)]


def test_executors_that_never_start_the_worker_hands_back_and_says_why() -> None:
    core = WorkerCore({"cpu": 1.0}, 1)
    (spawn,) = core.start()
    core.receive(0.0, [item("a"), item("b")])
    spawned = [spawn]
    for _ in range(wc.MAX_SPAWN_FAILURES):
        assert isinstance(spawned[-1], wc.Spawn)
        spawned += core.executor_died(0.0, spawned[-1].executor, "No module named 'fray'")
    assert len(spawned) == wc.MAX_SPAWN_FAILURES  # no endless loop of starting
    assert told(core) == [("a", 1, "returned"), ("b", 1, "returned")]
    assert core.draining
    assert core.broken == "No module named 'fray'"
    assert core.receive(0.0, [item("c")]) == []
    assert ("c", 1, "returned") in told(core)


def test_executors_that_sometimes_do_not_start_are_tried_again() -> None:
    core = WorkerCore({"cpu": 1.0}, 1)
    core.start()
    core.receive(0.0, [item("a")])
    for number in (1, 2):
        core.executor_died(0.0, number, "exit code 1")
    assert given(core.executor_ready(0.0, 3)) == {3: ["a"]}
    assert not core.broken


def test_executors_beyond_the_pool_are_ended_only_as_far_as_needed() -> None:
    core = make(cpus=1)
    core.receive(0.0, [item("parent"), item("child")])
    core.blocked(0.0, "parent")
    core.executor_ready(0.0, 2)
    core.outcomes(0.1, 2, [done("child")])
    core.unblocked(0.1, "parent")
    kills = [effect for effect in core.outcomes(0.2, 1, [done("parent")]) if isinstance(effect, wc.Kill)]
    kills += [effect for effect in core.time_passed(0.3) if isinstance(effect, wc.Kill)]
    kills += [effect for effect in core.executor_ready(0.3, 99) if isinstance(effect, wc.Kill)]
    assert len(kills) <= 1


# --- waiting


def test_waiting_attempt_lends_its_place_and_takes_it_back_beyond_capacity() -> None:
    core = make()
    core.receive(0.0, [item("parent"), item("child")])
    assert core.blocked(0.0, "parent") == [wc.Spawn(2)]
    assert given(core.executor_ready(0.0, 2)) == {2: ["child"]}
    core.unblocked(0.1, "parent")
    assert core.used == {"cpu": 2.0}
    core.outcomes(0.2, 1, [done("parent")])
    core.outcomes(0.2, 2, [done("child")])
    assert core.used == {"cpu": 0.0}


def test_waiting_attempt_whose_executor_dies_starts_again_as_one_that_does_not_wait() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("parent"), item("behind")])
    core.blocked(0.0, "parent")
    acknowledge(core, core.report(10))
    core.executor_died(0.1, 1, "killed")
    assert core.report(10).unblocked == [("parent", 1)]
    core.executor_ready(0.2, 2)
    core.blocked(0.3, "parent")
    core.unblocked(0.4, "parent")
    assert core.used == {"cpu": 1.0}
    core.outcomes(0.5, 2, [done("parent")])
    core.outcomes(0.6, 2, [done("behind")])
    assert core.used == {"cpu": 0.0}


def test_nothing_is_given_behind_a_waiting_attempt() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("parent")])
    core.blocked(0.0, "parent")
    assert 1 not in given(core.receive(0.0, [item("t")]))


# --- reports


def test_outcomes_come_again_until_acknowledged() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    core.outcomes(0.0, 1, [done("t")])
    first, second = core.report(10), core.report(10)
    assert told(core) == [("t", 1, "finished")]
    assert core.held() == [("t", 1)]
    acknowledge(core, first)
    acknowledge(core, second)
    assert not core.has_news() and core.idle() and core.held() == []


def test_acknowledged_outcomes_are_held_until_they_are_saved_and_told_again_to_a_restarted_controller() -> None:
    core = make(cpus=2)
    core.receive(0.0, [item("a"), item("b")])
    core.outcomes(0.0, 1, [done("a")])
    first = core.report(10)
    core.acknowledge(first)
    assert not core.has_news() and not core.idle() and core.report(10).outcomes == []
    core.outcomes(0.1, 2, [done("b")])
    assert (core.held(), core.told()) == ([("b", 1)], [("a", 1)])
    core.tell_again()
    assert (core.held(), core.told()) == ([("a", 1), ("b", 1)], [])
    again = core.report(10)
    assert [outcome.task for outcome, _ in again.outcomes] == ["a", "b"]
    core.acknowledge(again)
    core.forget(first.number)
    assert not core.idle()
    core.forget(again.number)
    assert core.idle() and core.held() == core.told() == []


def test_outcome_that_came_while_a_report_was_under_way_is_kept() -> None:
    core = make()
    core.receive(0.0, [item("a"), item("b")])
    core.outcomes(0.0, 1, [done("a")])
    report = core.report(10)
    core.outcomes(0.1, 1, [done("b")])
    acknowledge(core, report)
    assert told(core) == [("b", 1, "finished")]


def test_report_takes_no_more_than_its_limit_and_the_rest_next_time() -> None:
    core = make(cpus=8)
    core.receive(0.0, [item(f"t{n}") for n in range(5)])
    for n in range(5):
        core.outcomes(0.0, n + 1, [done(f"t{n}")])
    sizes = []
    while core.has_news():
        report = core.report(2)
        sizes.append(len(report.outcomes))
        acknowledge(core, report)
    assert sizes == [2, 2, 1]


def test_waiting_that_changed_while_a_report_was_under_way_is_told_as_it_is_now() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    core.blocked(0.0, "t")
    report = core.report(10)
    core.unblocked(0.1, "t")
    acknowledge(core, report)
    assert core.report(10).unblocked == [("t", 1)]
    core.blocked(0.2, "t")
    acknowledge(core, report)
    assert core.report(10).unblocked == []


def test_worker_whose_lease_is_over_begins_nothing_until_it_is_renewed() -> None:
    core = make()
    core.lease_until = 10.0
    assert given(core.receive(10.0, [item("t")])) == {}
    core.lease_until = 20.0
    assert given(core.time_passed(10.5)) == {1: ["t"]}


# --- handing back, draining, beginning anew


def test_hand_back_of_a_waiting_attempt_returns_it() -> None:
    core = make()
    core.receive(0.0, [item("running"), item("t")])
    core.hand_back("t", 1)
    core.hand_back("running", 1)
    core.hand_back("t", 2)
    assert told(core) == [("t", 1, "returned")]


def test_hand_back_of_one_that_an_executor_has_returns_it_when_and_if_the_executor_gives_it_back() -> None:
    core = make(known_s=0.001)
    core.receive(0.0, [item("a"), item("b"), item("c")])
    core.hand_back("b", 1)
    core.hand_back("a", 1)
    assert told(core) == []
    core.time_passed(0.06)
    core.returned(0.06, 1, ["b", "c"])
    assert told(core) == [("b", 1, "returned")]
    assert given(core.outcomes(1.0, 1, [done("a")])) == {1: ["c"]}
    assert told(core) == [("b", 1, "returned"), ("a", 1, "finished")]


def test_hand_back_of_one_whose_executor_died_is_forgotten_as_it_may_have_begun() -> None:
    core = make(known_s=0.001)
    core.receive(0.0, [item("a"), item("b"), item("c")])
    core.hand_back("a", 1)
    core.executor_died(0.1, 1, "killed")
    assert told(core) == []
    core.executor_ready(0.2, 2)
    core.executor_died(0.3, 2, "killed")
    assert told(core) == [("a", 1, "crashed")]


def test_drain_returns_what_waits_and_finishes_what_runs() -> None:
    core = make()
    core.receive(0.0, [item("running"), item("t")])
    core.drain()
    core.receive(0.1, [item("late")])
    assert told(core) == [("t", 1, "returned"), ("late", 1, "returned")]
    assert not core.idle()
    core.outcomes(0.2, 1, [done("running")])
    acknowledge(core, core.report(10))
    assert core.idle()


def test_drain_returns_what_an_executor_gives_back_or_leaves_behind() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item(f"t{n}") for n in range(4)])
    core.drain()
    core.returned(0.1, 1, ["t3"])
    assert told(core) == [("t3", 1, "returned")]
    core.executor_died(0.2, 1, "killed")
    assert sorted(told(core)) == [(f"t{n}", 1, "returned") for n in range(4)]


def test_abandon_forgets_everything_and_kills_what_runs() -> None:
    core = make(cpus=2)
    core.receive(0.0, [item("a"), item("b"), item("c")])
    core.outcomes(0.0, 1, [done("a")])
    assert core.abandon() == [wc.Kill(1), wc.Kill(2)]
    assert core.held() == [] and not core.has_news() and core.next_deadline() is None
    core.outcomes(0.1, 2, [done("b")])  # too late
    assert told(core) == []
    core.receive(0.2, [item("b", 2)])
    core.executor_died(0.3, 1, "killed")
    core.executor_died(0.3, 2, "killed")
    assert given(core.executor_ready(0.4, 3)) == {3: ["b"]}
    assert core.used == {"cpu": 1.0}


def test_abandon_tells_direct_callers() -> None:
    core = make()
    core.receive(0.0, [item("call", direct=True)])
    core.abandon()
    ((outcome),) = core.direct_outcomes
    assert outcome.kind is OutcomeKind.CRASHED
    assert "given up" in outcome.message


def test_direct_attempt_is_answered_to_its_caller_not_to_the_controller() -> None:
    core = make()
    core.receive(0.0, [item("call", direct=True)])
    assert core.held() == []
    core.outcomes(0.1, 1, [done("call")])
    assert [outcome.task for outcome in core.direct_outcomes] == ["call"]
    assert not core.has_news()


def test_waiting_attempts_are_told_in_every_report() -> None:
    core = make()
    core.receive(0.0, [item("t")])
    core.blocked(0.0, "t")
    acknowledge(core, core.report(10))
    assert not core.has_news()
    assert core.report(10).blocked == [("t", 1)]
    core.outcomes(0.1, 1, [done("t")])
    assert core.report(10).blocked == []


def test_newer_attempt_of_a_task_that_is_here_comes_back_and_the_older_is_stopped() -> None:
    core = make()
    core.receive(0.0, [item("t", 2)])
    assert core.receive(0.0, [item("t", 3)]) == [wc.Interrupt(1, "t")]
    assert told(core) == [("t", 3, "returned")]
    core.outcomes(0.1, 1, [done("t", OutcomeKind.CANCELLED)])
    assert given(core.receive(0.2, [item("t", 4)])) == {1: ["t"]}


# --- memory


def test_attempt_whose_executor_takes_too_much_has_crashed_for_that_reason() -> None:
    core = make()
    core.receive(0.0, [item("greedy"), item("next")])
    assert core.exceeded(1, "used 9 MB") == [wc.Kill(1)]
    core.executor_died(1.0, 1, "killed by SIGKILL")
    assert [(o.task, o.kind.value, o.message) for o, _ in core.report(100).outcomes] == [("greedy", "crashed", "used 9 MB")]


def test_executor_that_takes_too_much_is_given_nothing_more() -> None:
    core = make()
    core.receive(0.0, [item("greedy"), item("next")])
    core.exceeded(1, "used 9 MB")
    assert given(core.outcomes(1.0, 1, [done("greedy")])) == {}
    assert told(core) == [("greedy", 1, "finished")]


def test_attempts_in_one_executor_that_takes_too_much_run_again_each_alone() -> None:
    core = make(known_s=0.0001)
    core.receive(0.0, [item("a"), item("b")])
    core.exceeded(1, "used 9 MB")
    core.executor_died(1.0, 1, "killed by SIGKILL")
    assert told(core) == []
    assert given(core.executor_ready(2.0, 2)) == {2: ["a"]}


def test_executor_that_has_ended_meanwhile_is_not_ended_for_taking_too_much() -> None:
    core = make()
    core.executor_died(0.0, 1, "killed by SIGKILL")
    assert core.exceeded(1, "used 9 MB") == []
