"""Which task gets a place, where, and when nothing does."""

from __future__ import annotations

from typing import Any

import pytest
from fray.job.rpc.controller.core import apply
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import Outcome, OutcomeKind
from fray.job.rpc.controller.core.story import explain_pending, tell_story

pytestmark = pytest.mark.unit

HALF = (("cpu", 0.5),)
TWO = (("cpu", 2.0),)
GPU = (("cpu", 1.0), ("gpu", 1.0))


def test_tasks_by_resources_each_goes_where_it_fits(cluster: Any) -> None:
    cluster.session()
    cluster.worker("small", cpu=1.0)
    cluster.worker("large", cpu=4.0, gpu=1.0)
    cluster.submit("with-gpu", shape=GPU)
    cluster.submit("two", shape=TWO)
    cluster.submit("one")
    assert cluster.where("with-gpu", "two", "one") == ["large.1", "large.1", "small.1"]


def test_fractions_share_one_cpu_until_it_is_full(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit(*(f"t{n}" for n in range(12)), shape=(("cpu", 0.1),))
    assert cluster.states(*(f"t{n}" for n in range(12))) == ["assigned"] * 10 + ["queued"] * 2


def test_fractions_given_back_leave_nothing_behind(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    for n in range(100):
        cluster.submit(f"t{n}", shape=(("cpu", 0.1 + n / 1000),))
        cluster.end(f"t{n}")
    cluster.submit("whole")
    assert cluster.states("whole") == ["assigned"]


def test_priority_of_a_later_task_goes_first(cluster: Any, started: Any) -> None:
    cluster.session()
    cluster.submit("low", priority=-1)
    cluster.submit("normal")
    cluster.submit("high", priority=5, shape=HALF)
    cluster.submit("high-too", priority=5)
    assert started(cluster.worker("w", cpu=2.5))[:4] == ["high", "high-too", "normal"]


def test_same_priority_first_come_is_first_served(cluster: Any, started: Any) -> None:
    cluster.session()
    names = [f"t{n}" for n in range(20)]
    cluster.submit(*names)
    order = started(cluster.worker("w"))
    for name in names[:-1]:
        order += started(cluster.end(name))
    assert order == names


def test_two_sessions_one_with_many_tasks_get_equal_shares(cluster: Any) -> None:
    cluster.session("many")
    cluster.session("few")
    cluster.submit(*(f"m{n}" for n in range(50)), session="many")
    cluster.submit(*(f"f{n}" for n in range(5)), session="few")
    cluster.worker("w", cpu=8.0)
    assert sum(state == "assigned" for state in cluster.states(*(f"f{n}" for n in range(5)))) == 4


def test_share_counts_run_time_not_tasks(cluster: Any) -> None:
    cluster.session("slow")
    cluster.session("fast")
    cluster.measure("slow", 3.0)
    cluster.measure("fast", 1.0)
    cluster.submit(*(f"s{n}" for n in range(20)), session="slow", function_id="slow")
    cluster.submit(*(f"f{n}" for n in range(20)), session="fast", function_id="fast")
    cluster.worker("w", cpu=8.0)
    placed = cluster.state.workers["w.1"].assigned
    assert sum(name.startswith("f") for name in placed) == 6


def test_idle_session_saves_no_credit(cluster: Any) -> None:
    cluster.session("early")
    cluster.session("late")
    cluster.worker("w")
    cluster.submit(*(f"e{n}" for n in range(40)), session="early")
    for n in range(20):
        cluster.end(f"e{n}")
    cluster.submit(*(f"l{n}" for n in range(20)), session="late")
    order = []
    for _ in range(10):
        (current,) = cluster.state.workers["w.1"].assigned
        order.append(current[0])
        cluster.end(current)
    assert 4 <= order.count("l") <= 6


def test_least_loaded_worker_is_chosen(cluster: Any) -> None:
    cluster.session()
    cluster.worker("a", cpu=4.0)
    cluster.worker("b", cpu=4.0)
    cluster.submit("t1")
    cluster.submit("t2")
    assert set(cluster.where("t1", "t2")) == {"a.1", "b.1"}


def test_function_never_measured_is_not_prefetched(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit("t1", "t2")
    assert cluster.states("t1", "t2") == ["assigned", "queued"]


def test_short_function_measured_is_prefetched_up_to_the_budget(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit("first")
    cluster.end("first", run_s=0.01)
    cluster.submit(*(f"t{n}" for n in range(20)))
    worker = cluster.state.workers["w.1"]
    assert len(worker.assigned) == 6  # one runs; 0.05 s of work behind it
    assert len(worker.prefetched) == 5
    assert "queued ahead on w" in tell_story(cluster.task("t3"))[-1]


def test_long_function_is_never_prefetched(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.measure("f", 0.2)
    cluster.submit("t1", "t2")
    assert cluster.states("t1", "t2") == ["assigned", "queued"]


def test_function_that_became_long_is_not_prefetched_any_more(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.measure("f", 0.001)
    cluster.submit("t1")
    cluster.end("t1", run_s=5.0)
    cluster.submit("t2", "t3")
    assert cluster.states("t2", "t3") == ["assigned", "queued"]


def test_prefetched_task_moves_up_when_the_one_before_ends(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.measure("f", 0.01)
    cluster.submit("t1", "t2", "t3")
    assert [cluster.task(name).holding for name in ("t1", "t2", "t3")] == [True, False, False]
    cluster.end("t1")
    assert [cluster.task(name).holding for name in ("t2", "t3")] == [True, False]


def test_backlog_after_all_prefetched_ended_is_nothing(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.measure("f", 0.01)
    cluster.submit("t1", "t2", "t3")
    for name in ("t1", "t2", "t3"):
        cluster.end(name, run_s=0.02)
    assert cluster.state.workers["w.1"].load() == 0.0


def test_prefetched_task_that_turns_out_to_wait_leaves_the_backlog(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.measure("f", 0.01)
    cluster.submit("t1", "t2")
    cluster.post(ev.WorkerReported, "w.1", blocked=[("t2", 1)])
    assert cluster.state.workers["w.1"].load() == 1.0  # the one that runs, and nothing behind it


def test_idle_worker_gets_half_of_what_the_busy_one_has_queued_ahead(cluster: Any, only: Any) -> None:
    cluster.session()
    cluster.worker("busy")
    cluster.measure("f", 0.01)
    cluster.submit(*(f"t{n}" for n in range(5)))
    (order,) = only(cluster.worker("idle"), fx.ReclaimTasks)
    assert order == fx.ReclaimTasks("busy.1", [("t3", 1), ("t4", 1)])
    cluster.end("t4", OutcomeKind.RETURNED)
    cluster.end("t3", OutcomeKind.RETURNED)
    assert cluster.where("t3") == ["idle.1"]


def test_reclaim_is_not_asked_twice_for_the_same_tasks(cluster: Any, only: Any) -> None:
    cluster.session()
    cluster.worker("busy")
    cluster.measure("f", 0.01)
    cluster.submit("t0", "t1", "t2")
    asked = [order.tasks for order in only(cluster.worker("idle"), fx.ReclaimTasks)]
    for _ in range(5):
        asked += [order.tasks for order in only(cluster.post(ev.TimePassed), fx.ReclaimTasks)]
    flat = [task for tasks in asked for task in tasks]
    assert len(flat) == len(set(flat))


def test_large_shape_among_a_stream_of_small_ones_does_not_starve(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("s0", "s1")
    cluster.submit("large", shape=TWO)
    running, placed_at = ["s0", "s1"], None
    for n in range(2, 60):
        cluster.submit(f"s{n}")
        cluster.now += 0.1
        cluster.end(running.pop(0))
        running = [name for name in cluster.state.workers["w.1"].assigned if name != "large"]
        if cluster.states("large") == ["assigned"]:
            placed_at = cluster.now
            break
    assert placed_at is not None and placed_at < 2.0


def test_small_tasks_after_the_large_one_go_on(cluster: Any) -> None:
    test_large_shape_among_a_stream_of_small_ones_does_not_starve(cluster)
    cluster.end("large")
    assert len(cluster.state.workers["w.1"].assigned) == 2
    assert not cluster.state.reservations


def test_reservation_ends_with_the_task_it_was_for(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("s0")
    cluster.submit("large", shape=TWO)
    cluster.after(1.5)
    assert cluster.state.workers["w.1"].reserved_for == TWO
    cluster.post(ev.CancelRequested, ["large"])
    cluster.submit("s1")
    assert cluster.states("s1") == ["assigned"]


def test_reservation_ends_in_the_step_in_which_another_worker_takes_the_last_task_it_was_for(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("s0")
    cluster.submit("large", shape=TWO)
    cluster.after(1.5)
    cluster.submit("s1")
    assert cluster.states("s1") == ["queued"]
    cluster.worker("other", cpu=2.0)
    assert cluster.where("large", "s1") == ["other.1", "w.1"]


def test_those_ahead_that_fit_run_when_the_one_before_them_that_did_not_is_gone(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=4.0)
    cluster.measure("f", 0.01)
    three = (("cpu", 3.0),)
    cluster.submit("large1", shape=three)
    cluster.submit("small1")
    cluster.submit("large2", shape=three)
    cluster.submit("small2")
    cluster.end("small1")
    assert [cluster.task(name).holding for name in ("large1", "large2", "small2")] == [True, False, False]
    cluster.post(ev.CancelRequested, ["large2"])
    cluster.end("large2", OutcomeKind.CANCELLED)
    assert cluster.task("small2").holding


SLOT = (("cpu", 0.1), ("slot", 1.0))
LITTLE = (("cpu", 0.1),)


def test_those_that_need_nothing_that_one_queued_ahead_waits_for_run_beside_it(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0, slot=1.0)
    cluster.measure("f", 0.01)
    cluster.submit("holder", "ahead", shape=SLOT)
    cluster.submit("small", shape=LITTLE)
    assert [cluster.task(name).holding for name in ("holder", "ahead", "small")] == [True, False, True]


def test_short_ones_are_queued_ahead_only_behind_one_whose_place_they_get(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("long", function_id="long")
    cluster.measure("f", 0.01)
    cluster.submit("large", shape=TWO)
    cluster.submit("small")
    assert cluster.where("large", "small") == [None, "w.1"]
    assert cluster.task("small").holding


def test_no_more_are_queued_ahead_of_one_that_waits_for_what_they_take(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.measure("f", 0.01)
    cluster.submit("s1", "s2")
    cluster.submit("large", shape=TWO)
    cluster.submit("s3")
    assert cluster.where("large", "s3") == [None, None]


def test_short_ones_are_queued_ahead_though_others_wait_for_what_they_do_not_take(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=1.0, slot=1.0)
    cluster.submit("holder", function_id="long", shape=(("slot", 1.0),))
    cluster.submit("next", function_id="long", shape=(("slot", 1.0),))
    cluster.measure("f", 0.01)
    cluster.submit("s1", "s2")
    assert cluster.where("next", "s1", "s2") == [None, "w.1", "w.1"]


def test_an_idle_worker_gets_what_fits_from_another_than_the_one_with_most_ahead(cluster: Any, only: Any) -> None:
    cluster.session()
    cluster.worker("many", cpu=1.0, slot=1.0)
    cluster.measure("f", 0.001)
    cluster.submit(*(f"m{n}" for n in range(9)), shape=SLOT)
    cluster.worker("few", gpu=1.0)
    cluster.submit("g1", "g2", shape=(("gpu", 1.0),))
    assert cluster.where("g2") == ["few.1"]
    orders = only(cluster.worker("idle", gpu=1.0), fx.ReclaimTasks)
    assert orders == [fx.ReclaimTasks("few.1", [("g2", 1)])]


def test_infeasible_demand_is_reported_once_with_what_is_missing(cluster: Any, only: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=4.0)
    notices = only(cluster.submit("t", shape=(("cpu", 8.0),)), fx.NotifySession)
    notices += only(cluster.after(5.0), fx.NotifySession)
    assert len(notices) == 1
    assert notices[0].session == "s"
    assert "the most cpu on one worker is 4 of 8" in notices[0].text
    assert "which no worker has" in explain_pending(cluster.state, cluster.task("t"), cluster.now)


def test_infeasible_demand_starts_when_a_fitting_worker_comes(cluster: Any, started: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=4.0)
    cluster.submit("t", shape=(("cpu", 8.0),))
    assert started(cluster.worker("large", cpu=8.0)) == ["t"]


def test_infeasible_demand_of_a_later_session_is_reported_again(cluster: Any, only: Any) -> None:
    cluster.session("first")
    cluster.session("second")
    cluster.worker("w")
    assert only(cluster.submit("t1", session="first", shape=GPU), fx.NotifySession)
    cluster.post(ev.CancelRequested, ["t1"])
    assert only(cluster.submit("t2", session="second", shape=GPU), fx.NotifySession)


def test_last_fitting_worker_lost_is_reported(cluster: Any, only: Any) -> None:
    cluster.session()
    cluster.worker("gpu", gpu=1.0, cpu=1.0)
    cluster.worker("cpu")
    cluster.submit("t1", "t2", shape=GPU)
    assert only(cluster.post(ev.WorkerLeft, "gpu.1"), fx.NotifySession)


def test_demands_together_on_no_worker_are_named(cluster: Any, only: Any) -> None:
    cluster.session()
    cluster.worker("a", cpu=8.0)
    cluster.worker("b", cpu=1.0, gpu=1.0)
    (notice,) = only(cluster.submit("t", shape=(("cpu", 4.0), ("gpu", 1.0))), fx.NotifySession)
    assert "no single worker has all of it together" in notice.text


def test_task_that_needs_nothing_runs_on_a_full_worker(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit("full")
    cluster.submit("nothing", shape=())
    assert cluster.states("nothing") == ["assigned"]


def test_waiting_task_lends_its_place_and_takes_it_back_beyond_capacity(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit("parent", "child")
    assert cluster.states("child") == ["queued"]
    cluster.post(ev.WorkerReported, "w.1", blocked=[("parent", 1)])
    assert cluster.states("child") == ["assigned"]
    cluster.post(ev.WorkerReported, "w.1", unblocked=[("parent", 1)])
    assert cluster.state.workers["w.1"].used == {"cpu": 2.0}
    cluster.submit("next")
    assert cluster.states("next") == ["queued"]
    cluster.end("child")
    assert cluster.states("next") == ["queued"]
    cluster.end("parent")
    assert cluster.states("next") == ["assigned"]


def test_nested_waits_deeper_than_the_cluster_do_not_lock_up(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    for depth in range(10):
        cluster.submit(f"t{depth}")
        assert cluster.states(f"t{depth}") == ["assigned"]
        cluster.post(ev.WorkerReported, "w.1", blocked=[(f"t{depth}", 1)])
    for depth in reversed(range(10)):
        cluster.post(ev.WorkerReported, "w.1", [Outcome(f"t{depth}", 1, OutcomeKind.FINISHED)])
    assert cluster.state.workers["w.1"].used == {"cpu": 0.0}


def test_draining_worker_gets_nothing_more(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("t1")
    cluster.post(ev.WorkerReported, "w.1", draining=True)
    cluster.submit("t2")
    assert cluster.states("t1", "t2") == ["assigned", "queued"]
    assert explain_pending(cluster.state, cluster.task("t2"), 0.0) == "all workers with cpu: 1 are draining"
    cluster.worker("other")
    assert cluster.where("t2") == ["other.1"]


def test_task_handed_back_by_a_draining_worker_goes_to_another(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit("t")
    cluster.worker("other")
    outcome = Outcome("t", 1, OutcomeKind.RETURNED)
    cluster.post(ev.WorkerReported, "w.1", [outcome], draining=True)
    assert cluster.where("t") == ["other.1"]


def test_pending_reasons_name_each_state(cluster: Any) -> None:
    cluster.session()

    def why(name: str) -> str:
        return explain_pending(cluster.state, cluster.task(name), cluster.now)

    cluster.submit("t", max_retries=1)
    assert why("t").startswith("no worker is connected; start one: fray worker")
    cluster.worker("w")
    assert why("t") == ""
    cluster.submit("behind", "last")
    assert why("last") == "waits for cpu: 1; all is in use (1 other tasks wait for the same)"
    cluster.submit("dependent", dependencies=("t", "behind"))
    assert why("dependent") == "waits for 2 task(s) it depends on"
    cluster.end("t", OutcomeKind.FAILED, retryable=True)
    assert why("t").startswith("backs off before attempt 2, for another 0.")


def test_story_tells_what_happened_with_times(cluster: Any) -> None:
    cluster.session()
    cluster.now = 10.0
    cluster.submit("t", max_retries=1)
    cluster.now = 11.0
    cluster.worker("w")
    cluster.now = 12.5
    cluster.end("t", OutcomeKind.FAILED, message="ValueError: no", retryable=True)
    cluster.after(1.0)
    cluster.post(ev.WorkerLeft, "w.1")
    story = tell_story(cluster.task("t"))
    assert story[0] == "+0.000 s  submitted"
    assert story[1] == "+1.000 s  assigned to w"
    assert story[2].startswith("+2.500 s  attempt 1 failed: ValueError: no; again in 0.")
    assert story[-1].endswith("its worker w left (1 of 10 losses)")


def test_story_of_a_task_retried_for_ever_stays_short(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.submit("t", max_retries=-1, retry_delay_s=0.0)
    for _ in range(100):
        cluster.end("t", OutcomeKind.FAILED, retryable=True)
        cluster.after(0.0)
    assert len(tell_story(cluster.task("t"))) <= 41
    assert tell_story(cluster.task("t"))[0] == "+0.000 s  submitted"


def test_many_workers_and_tasks_a_decision_looks_at_few_workers(cluster: Any) -> None:
    class Counting(dict):
        looked = 0

        def get(self, *args: Any) -> Any:
            Counting.looked += 1
            return super().get(*args)

    cluster.session()
    for n in range(200):
        cluster.post(ev.WorkerRegistered, f"w{n}.1", f"w{n}", {"cpu": 4.0})
        cluster.post(ev.WorkerAttached, f"w{n}.1")
    cluster.submit(*(f"t{n}" for n in range(2000)))
    cluster.state.workers = Counting(cluster.state.workers)
    for n in range(100):
        task = cluster.task(f"t{n}")
        apply(cluster.state, ev.WorkerReported(0.0, task.worker, [Outcome(task.spec.id, 1, OutcomeKind.FINISHED)]))
    assert Counting.looked < 100 * 20
