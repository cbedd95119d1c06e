"""What becomes of tasks, workers and sessions: budgets, fencing, losses, cancellation, leases."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from fray.errors import InvalidTransition
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core import next_deadline
from fray.job.rpc.controller.core.machine import ANONYMOUS_SESSION
from fray.job.rpc.controller.core.model import ErrorKind, Outcome, OutcomeKind, TaskState
from fray.job.rpc.controller.core.story import explain_pending
from fray.job.rpc.controller.core.tasks import find_refusal

pytestmark = pytest.mark.unit

FAILED, FINISHED, CRASHED = OutcomeKind.FAILED, OutcomeKind.FINISHED, OutcomeKind.CRASHED


@pytest.fixture
def ready(cluster: Any) -> Any:
    """A session, and a worker with one CPU."""
    cluster.session()
    cluster.worker("w")
    return cluster


# --- the three budgets


def test_user_failure_without_retries_fails_at_once(ready: Any) -> None:
    ready.submit("t")
    ready.end("t", FAILED, payload=b"failure", message="ValueError: no", retryable=True)
    task = ready.task("t")
    assert (task.state, task.error_kind, task.result) == (TaskState.FAILED, ErrorKind.USER, b"failure")


def test_user_failures_with_retries_back_off_and_then_fail(ready: Any) -> None:
    ready.submit("t", max_retries=2, retry_delay_s=1.0)
    delays = []
    for _ in range(2):
        ready.end("t", FAILED, retryable=True)
        assert ready.states("t") == ["delayed"]
        delays.append(ready.task("t").delayed_until - ready.now)
        ready.after(delays[-1])
        assert ready.states("t") == ["assigned"]
    assert 0.5 <= delays[0] <= 1.0 <= delays[1] <= 2.0
    ready.end("t", FAILED, retryable=True)
    assert ready.states("t") == ["failed"]
    assert ready.task("t").attempt == 3


def test_user_failure_that_is_not_wanted_is_not_retried(ready: Any) -> None:
    ready.submit("t", max_retries=5)
    ready.end("t", FAILED, retryable=False)
    assert ready.states("t") == ["failed"]


def test_unlimited_retries_go_on(ready: Any) -> None:
    ready.submit("t", max_retries=-1, retry_delay_s=0.0)
    for _ in range(50):
        ready.end("t", FAILED, retryable=True)
        ready.after(0.0)
    assert ready.task("t").attempt == 51


def test_timeout_counts_as_a_user_failure(ready: Any) -> None:
    ready.submit("t", max_retries=1, retry_delay_s=0.0, timeout=1.0)
    ready.end("t", OutcomeKind.TIMEOUT)
    ready.after(0.0)
    ready.end("t", OutcomeKind.TIMEOUT, message="ran longer than its timeout of 1 s")
    task = ready.task("t")
    assert (task.error_kind, task.message) == (ErrorKind.TIMEOUT, "ran longer than its timeout of 1 s")


def test_poison_task_fails_after_three_executors_with_the_cause(ready: Any) -> None:
    ready.submit("t", max_retries=10)
    for _ in range(3):
        assert ready.states("t") == ["assigned"]
        ready.end("t", CRASHED, message="killed by SIGSEGV")
    task = ready.task("t")
    assert (task.state, task.error_kind, task.failures) == (TaskState.FAILED, ErrorKind.CRASHED, 0)
    assert "SIGSEGV" in task.message


def test_lost_workers_have_a_budget_of_their_own(make_cluster: Any) -> None:
    cluster = make_cluster(max_losses=3)
    cluster.session()
    cluster.submit("t")
    for life in range(1, 4):
        cluster.worker("w", f"w.{life}")
        cluster.after(1.0)
        assert cluster.where("t") == [f"w.{life}"]
        cluster.post(ev.WorkerLeft, f"w.{life}")
    task = cluster.task("t")
    assert (task.state, task.error_kind, task.kills, task.failures) == (TaskState.FAILED, ErrorKind.LOST, 0, 0)
    assert "its worker w left (3 of 3 losses)" in task.message


def test_budgets_do_not_add_up(ready: Any) -> None:
    ready.submit("t", max_retries=1, retry_delay_s=0.0)
    for _ in range(2):
        ready.end("t", CRASHED)
    for life in range(2, 8):
        ready.worker("w", f"w.{life}")
        ready.after(5.0)
    ready.end("t", FAILED, retryable=True)
    ready.after(0.0)
    task = ready.task("t")
    assert (task.kills, task.losses, task.failures, task.state) == (2, 6, 1, TaskState.ASSIGNED)
    ready.end("t")
    assert ready.states("t") == ["finished"]


def test_task_that_lost_two_workers_waits_before_it_gets_a_third(make_cluster: Any) -> None:
    cluster = make_cluster()
    cluster.session()
    cluster.submit("t", "other")
    cluster.worker("w", "w.1")
    cluster.worker("w", "w.2")
    assert cluster.where("t") == ["w.2"]  # the first loss costs no time
    cluster.worker("w", "w.3")
    assert (cluster.states("t"), cluster.where("other")) == (["delayed"], ["w.3"])
    cluster.end("other")
    cluster.after(0.3)
    assert cluster.where("t") == ["w.3"]


def test_undelivered_attempts_count_against_no_budget(make_cluster: Any) -> None:
    cluster = make_cluster(max_losses=2, max_kills=2)
    cluster.session()
    cluster.worker("w")
    cluster.submit("t")
    for _ in range(250):
        cluster.post(ev.WorkerDetached, "w.1")
        cluster.post(ev.WorkerAttached, "w.1", [])
        cluster.end("t", OutcomeKind.RETURNED)
    task = cluster.task("t")
    assert (task.state, task.losses, task.kills, task.failures) == (TaskState.ASSIGNED, 0, 0, 0)


# --- fencing


def test_report_of_a_stale_attempt_changes_nothing_and_is_counted(ready: Any) -> None:
    ready.submit("t")
    ready.end("t", CRASHED)
    assert ready.task("t").attempt == 2
    assert ready.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"old")]) == []
    assert ready.states("t") == ["assigned"]
    assert ready.state.stats["stale reports refused"] == 1
    ready.end("t", payload=b"new")
    assert ready.task("t").result == b"new"


def test_report_of_a_past_life_changes_nothing_and_is_counted(ready: Any) -> None:
    ready.submit("t")
    ready.worker("w", "w.2")
    assert ready.where("t") == ["w.2"]
    ready.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"old")])
    ready.post(ev.WorkerReported, "w.1", [Outcome("t", 2, FINISHED, b"old")])
    assert ready.states("t") == ["assigned"]
    assert ready.state.stats["stale reports refused"] == 2


def test_report_of_another_workers_attempt_is_refused(ready: Any) -> None:
    ready.submit("t")
    ready.worker("other")
    ready.post(ev.WorkerReported, "other.1", [Outcome("t", 1, FINISHED)])
    assert ready.states("t") == ["assigned"]


def test_report_repeated_commits_one_result(ready: Any, only: Any) -> None:
    ready.submit("t")
    assert only(ready.end("t", payload=b"first"), fx.WakeSession)
    again = ready.post(ev.WorkerReported, "w.1", [Outcome("t", 1, FINISHED, b"second")])
    assert only(again, fx.WakeSession) == []
    assert ready.task("t").result == b"first"
    assert ready.state.sessions["s"].last_seq == 1


def test_attachment_of_a_past_life_is_refused(ready: Any) -> None:
    ready.worker("w", "w.2")
    assert ready.post(ev.WorkerAttached, "w.1", []) == [fx.DisconnectWorker("w.1")]


def test_attachment_with_a_stale_attempt_is_told_to_drop_it(ready: Any, only: Any) -> None:
    ready.submit("t")
    ready.end("t")
    orders = ready.post(ev.WorkerAttached, "w.1", [("t", 1), ("unknown", 7)])
    assert sorted(attempt for stop in only(orders, fx.StopTasks) for attempt in stop.tasks) == [("t", 1), ("unknown", 7)]


def test_illegal_move_is_our_bug_and_tells_the_story(ready: Any) -> None:
    ready.submit("t")
    task = ready.task("t")
    ready.end("t")
    with pytest.raises(InvalidTransition, match="cannot go from finished to queued") as caught:
        task.move(TaskState.QUEUED)
    assert "assigned to w" in str(caught.value)


# --- workers


def test_worker_restarted_under_the_same_id_loses_its_tasks_at_once(ready: Any, only: Any) -> None:
    ready.submit("t")
    effects = ready.post(ev.WorkerRegistered, "w.2", "w", {"cpu": 1.0})
    assert only(effects, fx.DisconnectWorker) == [fx.DisconnectWorker("w.1")]
    assert ready.states("t") == ["queued"]
    assert "its worker restarted" in ready.task("t").story[-1][1]


def test_registration_repeated_is_no_change(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.WorkerRegistered, "w.1", "w", {"cpu": 1.0})
    assert ready.where("t") == ["w.1"]


def test_worker_lost_its_tasks_go_elsewhere_in_the_same_step(ready: Any, started: Any) -> None:
    ready.submit("t")
    ready.worker("other")
    assert started(ready.post(ev.WorkerLeft, "w.1")) == ["t"]
    assert ready.where("t") == ["other.1"]


def test_worker_lost_its_tasks_keep_their_order_before_later_ones(cluster: Any, started: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=3.0)
    cluster.submit("a", "b", "c", "d")
    cluster.post(ev.WorkerLeft, "w.1")
    assert started(cluster.worker("other", cpu=4.0)) == ["a", "b", "c", "d"]


def test_nothing_is_kept_of_many_tasks_when_all_are_forgotten(ready: Any) -> None:
    names = [f"t{n}" for n in range(3000)]
    ready.submit(*names)
    ready.post(ev.CancelRequested, names)
    ready.end("t0", OutcomeKind.CANCELLED)
    assert len(ready.state.tasks) == 3000
    ready.post(ev.ResultsAcknowledged, "s", 3000)
    assert sys.getsizeof(ready.state.tasks) < 1000


@pytest.mark.parametrize("kind", [OutcomeKind.RETURNED, OutcomeKind.CRASHED])
def test_attempts_that_one_report_gives_back_keep_their_order_before_later_ones(cluster: Any, kind: Any, started: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=4.0)
    cluster.submit("a", "b", "c", "d", "e")
    outcomes = [Outcome("d", 1, OutcomeKind.FINISHED), *(Outcome(name, 1, kind) for name in "abc")]
    cluster.post(ev.WorkerReported, "w.1", outcomes, draining=True)
    assert started(cluster.worker("other", cpu=4.0)) == ["a", "b", "c", "e"]


def test_worker_silent_too_long_is_lost(ready: Any) -> None:
    ready.submit("t")
    ready.after(9.9)
    assert ready.states("t") == ["assigned"]
    ready.after(0.2)
    assert ready.states("t") == ["queued"]
    assert "was silent for 10.0 s" in ready.task("t").story[-1][1]


def test_worker_that_reports_is_not_silent_however_long_its_task(ready: Any) -> None:
    ready.submit("t")
    for _ in range(500):
        ready.after(9.0)
        ready.post(ev.WorkerReported, "w.1")
    assert ready.where("t") == ["w.1"]


def test_worker_back_within_the_grace_keeps_its_tasks(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.WorkerDetached, "w.1")
    ready.after(1.9)
    ready.post(ev.WorkerAttached, "w.1", [("t", 1)])
    ready.after(1.0)
    assert (ready.where("t"), ready.task("t").attempt) == (["w.1"], 1)


def test_worker_not_back_within_the_grace_is_lost(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.WorkerDetached, "w.1")
    ready.after(2.1)
    assert ready.states("t") == ["queued"]
    assert not ready.state.workers


def test_worker_detached_gets_nothing(ready: Any) -> None:
    ready.post(ev.WorkerDetached, "w.1")
    ready.submit("t")
    assert ready.states("t") == ["queued"]


def test_attempt_that_never_arrived_is_given_again(ready: Any, started: Any) -> None:
    ready.submit("t")
    assert started(ready.post(ev.WorkerAttached, "w.1", [])) == ["t"]
    assert ready.task("t").attempt == 2


# --- time


def test_deadline_of_a_pending_task_fails_it(cluster: Any) -> None:
    cluster.session()
    cluster.submit("t", deadline_s=5.0)
    assert next_deadline(cluster.state) == 5.0
    cluster.after(5.0)
    task = cluster.task("t")
    assert (task.state, task.error_kind) == (TaskState.FAILED, ErrorKind.TIMEOUT)
    assert "did not end within its deadline of 5 s" in task.message


def test_deadline_of_a_running_task_stops_it_first(ready: Any, only: Any) -> None:
    ready.submit("t", deadline_s=5.0, max_retries=3)
    assert only(ready.after(5.0), fx.StopTasks) == [fx.StopTasks("w.1", [("t", 1)])]
    assert ready.states("t") == ["assigned"]
    ready.end("t", OutcomeKind.CANCELLED)
    assert ready.task("t").error_kind is ErrorKind.TIMEOUT


def test_deadline_while_backing_off_ends_the_task(ready: Any) -> None:
    ready.submit("t", deadline_s=5.0, max_retries=3, retry_delay_s=60.0)
    ready.end("t", FAILED, retryable=True)
    ready.after(5.0)
    assert ready.states("t") == ["failed"]
    ready.after(100.0)
    assert ready.states("t") == ["failed"]


# --- cancelling


def test_cancel_of_a_pending_task_ends_it_at_once(cluster: Any) -> None:
    cluster.session()
    cluster.submit("t")
    cluster.post(ev.CancelRequested, ["t"], "not needed")
    task = cluster.task("t")
    assert (task.state, task.error_kind, task.message) == (TaskState.CANCELLED, ErrorKind.CANCELLED, "not needed")


def test_cancel_of_a_running_task_waits_for_its_worker(ready: Any, only: Any) -> None:
    ready.submit("t", "next")
    assert only(ready.post(ev.CancelRequested, ["t"]), fx.StopTasks) == [fx.StopTasks("w.1", [("t", 1)])]
    assert ready.states("t", "next") == ["assigned", "queued"]
    ready.end("t", OutcomeKind.CANCELLED)
    assert ready.states("t", "next") == ["cancelled", "assigned"]


def test_cancel_twice_orders_once(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.CancelRequested, ["t"])
    assert ready.post(ev.CancelRequested, ["t"]) == []


def test_cancel_is_told_again_to_a_worker_that_attaches_again(ready: Any, only: Any) -> None:
    ready.submit("t")
    ready.post(ev.WorkerDetached, "w.1")
    ready.post(ev.CancelRequested, ["t"])
    orders = ready.post(ev.WorkerAttached, "w.1", [("t", 1)])
    assert only(orders, fx.StopTasks) == [fx.StopTasks("w.1", [("t", 1)])]


def test_cancelled_task_whose_worker_is_lost_is_not_run_again(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.CancelRequested, ["t"])
    ready.post(ev.WorkerLeft, "w.1")
    assert ready.states("t") == ["cancelled"]


def test_cancelled_task_handed_back_unstarted_is_cancelled(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.CancelRequested, ["t"])
    ready.end("t", OutcomeKind.RETURNED)
    assert ready.states("t") == ["cancelled"]


def test_cancel_of_unknown_or_ended_tasks_changes_nothing(ready: Any) -> None:
    ready.submit("t")
    ready.end("t")
    assert ready.post(ev.CancelRequested, ["t", "unknown"]) == []


def test_cancel_of_a_task_ends_those_that_wait_for_it(ready: Any) -> None:
    ready.submit("running")
    ready.submit("t")
    ready.submit("dependent", dependencies=("t",))
    ready.submit("after", dependencies=("dependent",))
    ready.post(ev.CancelRequested, ["t"])
    assert ready.states("dependent", "after") == ["cancelled", "cancelled"]
    assert "on which it depends, cancelled" in ready.task("dependent").message


def test_cancelled_waiting_task_stays_cancelled_when_its_dependency_ends(ready: Any) -> None:
    ready.submit("t")
    ready.submit("dependent", dependencies=("t",))
    ready.post(ev.CancelRequested, ["dependent"])
    ready.end("t")
    assert ready.states("dependent") == ["cancelled"]


# --- dependencies


def test_dependent_starts_when_all_it_needs_has_finished(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("a", "b")
    cluster.submit("sum", dependencies=("a", "b", "a"))
    cluster.end("a")
    assert cluster.states("sum") == ["waiting"]
    cluster.end("b")
    assert cluster.states("sum") == ["assigned"]


def test_dependent_of_a_failed_task_fails_with_its_failure(ready: Any) -> None:
    ready.submit("t")
    ready.submit("dependent", dependencies=("t",))
    ready.end("t", FAILED, payload=b"failure", message="ValueError: no")
    dependent = ready.task("dependent")
    assert (dependent.error_kind, dependent.result) == (ErrorKind.USER, b"failure")
    ready.submit("later", dependencies=("t",))
    assert ready.states("later") == ["failed"]


def test_value_that_is_read_by_others_is_kept_after_its_acknowledgement(ready: Any) -> None:
    ready.submit("t")
    ready.submit("dependent", dependencies=("t",))
    ready.end("t", payload=b"value")
    ready.post(ev.ResultsAcknowledged, "s", 1)
    assert ready.task("t").result == b"value"
    ready.end("dependent")
    assert "t" not in ready.state.tasks


def test_dependency_on_a_forgotten_task_is_expired(ready: Any) -> None:
    ready.submit("t")
    ready.end("t")
    ready.post(ev.ResultsAcknowledged, "s", 1)
    ready.submit("dependent", dependencies=("t",))
    task = ready.task("dependent")
    assert (task.state, task.error_kind) == (TaskState.FAILED, ErrorKind.EXPIRED)


def test_task_that_depends_on_itself_does_not_hang(ready: Any) -> None:
    ready.submit("t", dependencies=("t",))
    assert ready.states("t") == ["failed"]


# --- submitting and acknowledging


def test_batch_repeated_changes_nothing(ready: Any) -> None:
    ready.submit("t", batch=1)
    ready.end("t")
    ready.post(ev.ResultsAcknowledged, "s", 1)
    ready.submit("t", batch=1)
    assert not ready.state.tasks
    assert ready.state.stats["batches repeated"] == 1


def test_task_repeated_changes_nothing(ready: Any) -> None:
    ready.submit("t")
    ready.submit("t")
    assert ready.state.stats["tasks accepted"] == 1


def test_submission_to_an_unknown_session_is_refused_and_counted(cluster: Any) -> None:
    cluster.submit("t", session="nobody")
    assert not cluster.state.tasks
    assert cluster.state.stats["submissions refused: no session"] == 1


def test_acknowledged_results_are_forgotten_but_their_stories_stay(ready: Any) -> None:
    for name in ("a", "b"):
        ready.submit(name)
        ready.end(name)
    ready.post(ev.ResultsAcknowledged, "s", 1)
    assert list(ready.state.tasks) == ["b"]
    assert [ended.id for ended in ready.state.history] == ["a"]


def test_acknowledgement_beyond_what_there_is_is_cut_short(ready: Any) -> None:
    ready.submit("t")
    ready.end("t")
    ready.post(ev.ResultsAcknowledged, "s", 99)
    ready.post(ev.ResultsAcknowledged, "s", 99)
    assert ready.state.sessions["s"].acked_seq == 1


def test_acknowledgement_of_a_closing_session_is_ignored(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w", cpu=2.0)
    cluster.submit("done", "running")
    cluster.end("done")
    cluster.post(ev.SessionClosed, "s")
    assert cluster.post(ev.ResultsAcknowledged, "s", 1) == []


def test_session_full_of_tasks_or_bytes_is_refused_more_until_some_end(make_cluster: Any) -> None:
    cluster = make_cluster(session_tasks=2, session_bytes=100)
    cluster.session()
    session = cluster.state.sessions["s"]
    assert find_refusal(cluster.state, session, 1, 1000) is None  # alone, anything goes
    cluster.worker("w")
    cluster.submit("a", payload=b"x" * 60)
    assert "the session holds 60 bytes" in (find_refusal(cluster.state, session, 1, 50) or "")
    cluster.submit("b")
    assert "has 2 unended tasks; the limit is 2" in (find_refusal(cluster.state, session, 1, 0) or "")
    cluster.end("a", payload=b"y" * 90)
    assert find_refusal(cluster.state, session, 1, 20) is None


def test_session_that_never_acknowledges_is_refused_more(make_cluster: Any) -> None:
    cluster = make_cluster(session_results=2)
    cluster.session()
    cluster.worker("w")
    for name in ("a", "b", "c"):
        cluster.submit(name)
        cluster.end(name)
    session = cluster.state.sessions["s"]
    assert "3 results that it has not acknowledged; the limit is 2" in (find_refusal(cluster.state, session, 1, 0) or "")
    cluster.post(ev.ResultsAcknowledged, "s", 1)
    assert find_refusal(cluster.state, session, 1, 0) is None


def test_session_whose_client_does_not_read_gets_no_places_until_it_does(make_cluster: Any) -> None:
    cluster = make_cluster(session_bytes=100)
    cluster.session()
    cluster.session("other")
    cluster.worker("w")
    cluster.submit("a", "b", "c")
    cluster.submit("x", "y", session="other")
    cluster.end("a", payload=b"r" * 101)
    assert cluster.where("b", "x") == [None, "w.1"]  # the others go on
    assert "until its client has read" in explain_pending(cluster.state, cluster.task("b"), 0.0)
    cluster.end("x")
    cluster.end("y")
    assert cluster.states("b", "c") == ["queued", "queued"]
    cluster.post(ev.ResultsAcknowledged, "s", 1)
    assert cluster.where("b") == ["w.1"]
    cluster.end("b")
    cluster.end("c", payload=b"r" * 101)
    cluster.submit("d")
    cluster.post(ev.SessionClosed, "s")
    assert not cluster.state.stalled and "s" not in cluster.state.sessions


def test_number_of_an_attempt_that_was_dropped_as_unknown_is_not_given_again(cluster: Any) -> None:
    cluster.session()
    cluster.worker("w")
    cluster.post(ev.WorkerDetached, "w.1")
    cluster.post(ev.WorkerAttached, "w.1", [("t", 3)])  # of a life of the controller that had not saved it
    cluster.submit("t")
    assert cluster.task("t").attempt == 4
    cluster.post(ev.WorkerReported, "w.1", [Outcome("t", 3, OutcomeKind.CANCELLED)])
    assert cluster.where("t") == ["w.1"]


def test_deadlines_of_tasks_that_have_ended_are_forgotten(ready: Any) -> None:
    for number in range(3000):
        ready.submit(f"t{number}", deadline_s=1e6)
        ready.end(f"t{number}")
        ready.post(ev.ResultsAcknowledged, "s", number + 1)
    assert len(ready.state.timers) < 1100
    ready.submit("last", deadline_s=1.0)
    ready.after(1.0)
    assert ready.task("last").cancelling is ErrorKind.TIMEOUT


def test_results_without_a_session_expire(cluster: Any) -> None:
    cluster.post(ev.SessionOpened, ANONYMOUS_SESSION, anonymous=True)
    cluster.worker("w")
    cluster.submit("t", session=ANONYMOUS_SESSION)
    cluster.end("t")
    for _ in range(61):
        cluster.post(ev.WorkerReported, "w.1")
        cluster.after(9.9)
    assert not cluster.state.tasks
    assert ANONYMOUS_SESSION in cluster.state.sessions


# --- sessions


def test_client_away_for_the_grace_period_its_tasks_are_cancelled(ready: Any, only: Any) -> None:
    ready.submit("running", "pending")
    ready.post(ev.SessionUnwatched, "s")
    for _ in range(3):
        ready.after(9.0)
        ready.post(ev.WorkerReported, "w.1")
    assert ready.states("running", "pending") == ["assigned", "queued"]
    assert only(ready.after(4.0), fx.StopTasks) == [fx.StopTasks("w.1", [("running", 1)])]
    assert list(ready.state.tasks) == ["running"]
    assert only(ready.end("running", OutcomeKind.CANCELLED), fx.EndSession) == [fx.EndSession("s")]
    assert not ready.state.sessions and not ready.state.tasks


def test_client_back_within_the_grace_period_goes_on(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.SessionUnwatched, "s")
    ready.after(8.0)
    ready.post(ev.SessionWatched, "s")
    ready.post(ev.WorkerReported, "w.1")
    ready.after(9.0)
    ready.post(ev.WorkerReported, "w.1")
    ready.after(9.0)
    ready.post(ev.WorkerReported, "w.1")
    ready.after(9.0)
    assert ready.states("t") == ["assigned"]


def test_two_streams_one_ends_the_session_is_still_watched(ready: Any) -> None:
    ready.post(ev.SessionWatched, "s")
    ready.post(ev.SessionUnwatched, "s")
    ready.after(1000.0)
    assert "s" in ready.state.sessions


def test_client_that_never_opened_its_stream_expires(cluster: Any, only: Any) -> None:
    cluster.post(ev.SessionOpened, "s")
    assert only(cluster.after(30.0), fx.EndSession) == [fx.EndSession("s")]


def test_close_with_nothing_running_ends_the_session_at_once(ready: Any) -> None:
    ready.submit("t")
    ready.end("t")
    assert fx.EndSession("s") in ready.post(ev.SessionClosed, "s")
    assert not ready.state.sessions and not ready.state.tasks


def test_closing_session_takes_nothing_more(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.SessionClosed, "s")
    ready.submit("late")
    assert list(ready.state.tasks) == ["t"]
    ready.post(ev.SessionClosed, "s")
    ready.end("t")
    assert not ready.state.sessions


def test_closing_ends_chains_of_dependents(ready: Any) -> None:
    ready.submit("t")
    ready.submit("b", dependencies=("t",))
    ready.submit("c", dependencies=("b",))
    ready.post(ev.SessionClosed, "s")
    ready.post(ev.WorkerLeft, "w.1")
    assert not ready.state.sessions and not ready.state.tasks


def test_child_session_ends_with_its_parent(ready: Any) -> None:
    ready.submit("parent-task")
    ready.session("child", parent="s")
    ready.session("grandchild", parent="child")
    ready.submit("t", session="child")
    ready.submit("u", session="grandchild")
    ready.post(ev.SessionClosed, "s")
    assert list(ready.state.tasks) == ["parent-task"]
    assert list(ready.state.sessions) == ["s"]


def test_child_session_of_a_session_that_ended_is_not_opened(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.SessionClosed, "s")
    ready.post(ev.SessionOpened, "late", parent="s")
    ready.post(ev.SessionOpened, "later", parent="never-was")
    assert list(ready.state.sessions) == ["s"]


def test_session_opened_again_is_no_change(ready: Any) -> None:
    ready.submit("t")
    ready.post(ev.SessionOpened, "s")
    assert "t" in ready.state.sessions["s"].live


def test_stream_of_an_earlier_session_ends_late_the_new_one_is_still_watched(cluster: Any) -> None:
    cluster.session()
    cluster.post(ev.SessionClosed, "s")
    cluster.post(ev.SessionOpened, "s")
    cluster.post(ev.SessionUnwatched, "s")
    cluster.post(ev.SessionWatched, "s")
    cluster.after(1000.0)
    assert "s" in cluster.state.sessions
