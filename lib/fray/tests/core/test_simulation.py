"""Whole clusters under faults, one seed after another; and proof that the simulation notices planted bugs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import OutcomeKind, State
from fray.testing.simulation import Plant, Sabotage, SimulationReport, simulate
from fray.testing.simulation.command import main

SEEDS = 100
"""Few: `make test` runs 2,000 beside the tests."""
BLOCK = 20


@pytest.mark.unit
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_seeds_with_faults_come_to_rest_with_each_task_settled_once(first: int) -> None:
    for seed in range(first, first + BLOCK):
        simulate(seed)


@pytest.mark.unit
def test_seed_run_twice_does_the_same() -> None:
    assert simulate(7) == simulate(7)


@pytest.mark.unit
def test_seeds_together_meet_every_kind_of_fault_and_outcome() -> None:
    wanted = {
        "faults": {
            *("crash", "freeze", "drain", "kill", "sick", "cut off", "break orders", "break results", "away"),
            *("request lost", "answer lost", "request repeated", "executor did not start", "controller crashed"),
            *("kill actor", "break lane", "close lanes", "pause", "part", "crash host", "drain host"),
        },
        "outcomes": {"finished", "user", "timeout", "cancelled", "crashed"},
        "call_outcomes": {"value", "ValueError", "ActorDied", "cancelled"},
        "lives": {"took calls", "restored", "retired"},
        "stats": {
            *("tasks restored", "actors restored", "attempts found again", "stale reports refused"),
            *("batches repeated", "attempts requeued", "workers lost"),
        },
    }
    for seed in range(SEEDS):
        report = simulate(seed)
        for field, names in wanted.items():
            names -= {name for name, count in getattr(report, field).items() if count}
        if not any(wanted.values()):
            return
    pytest.fail(f"{SEEDS} seeds have not met {wanted}")


@pytest.mark.unit
def test_seeds_without_faults_finish_everything_and_lose_no_call_without_a_reason() -> None:
    for seed in range(3, 13):
        report = simulate(seed, faulty_s=0.0)
        assert isinstance(report, SimulationReport)
        assert report.outcomes["finished"]
        assert not report.faults
        assert "lost" not in report.outcomes and "gone" not in report.outcomes


@pytest.mark.unit
def test_seed_in_which_clients_use_no_actors_is_among_the_first() -> None:
    with_actors = {simulate(seed).calls > 0 for seed in range(5)}
    assert with_actors == {True, False}


def _forget_outcomes() -> Sabotage:
    """Acknowledge reports, and lose some of what they say."""
    count = 0

    def forget(state: State, event: ev.Event) -> ev.Event:
        nonlocal count
        if isinstance(event, ev.WorkerReported) and event.outcomes:
            count += 1
            if count % 20 == 0:
                return replace(event, outcomes=())
        return event

    return forget


def _disable_fencing(state: State, event: ev.Event) -> ev.Event:
    """Take every outcome as one of the current attempt, whoever sent it."""
    if isinstance(event, ev.WorkerReported):
        for outcome in event.outcomes:
            task = state.tasks.get(outcome.task)
            if task is not None and task.worker is not None and outcome.kind is not OutcomeKind.RETURNED:
                outcome.attempt = task.attempt
                event = replace(event, incarnation=task.worker)
    return event


def _ignore_losses(state: State, event: ev.Event) -> ev.Event | None:
    """Believe that a worker that attaches again still has everything."""
    if isinstance(event, ev.WorkerAttached):
        worker = state.workers.get(event.incarnation)
        if worker is not None:
            return replace(event, held=[(task.spec.id, task.attempt) for task in worker.assigned.values()])
    return event


def _ignore_waiting(state: State, event: ev.Event) -> ev.Event:
    """Let waiting tasks keep their places."""
    return replace(event, blocked=()) if isinstance(event, ev.WorkerReported) else event


@pytest.mark.unit
@pytest.mark.parametrize(
    ("plant", "noticed"),
    [
        pytest.param(_forget_outcomes, "does not come to rest", id="acknowledged outcomes are lost"),
        pytest.param(lambda: _disable_fencing, "committed", id="stale attempts are not fenced off"),
        pytest.param(lambda: _ignore_losses, "does not come to rest", id="undelivered attempts are not given again"),
        pytest.param(lambda: _ignore_waiting, "does not come to rest", id="waiting tasks keep their places"),
    ],
)
def test_planted_bug_is_noticed_and_the_failure_names_its_seed(plant: object, noticed: str) -> None:
    for seed in range(200):
        try:
            simulate(seed, sabotage=plant())  # type: ignore[operator]
        except AssertionError as error:
            text = str(error)
            assert text.startswith(f"seed {seed} at ")
            if noticed in text:
                assert "WorkerReported(" in text
                assert "story of " in text
                return
    pytest.fail("no seed noticed the planted bug")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("plant", "noticed"),
    [
        pytest.param(Plant.NO_LEASE, "takes calls now", id="no lease"),
        pytest.param(Plant.RESTART_AT_ONCE, "takes calls now", id="restarted at once"),
        pytest.param(Plant.REPEATED_CALLS, "was carried out", id="repeated calls not known"),
        pytest.param(Plant.STALE_ANSWERS, "was answered", id="incarnation of answers not checked"),
        pytest.param(Plant.RETRIED_ANYWAY, "it may be made again 0 times", id="made again though it must not be"),
        pytest.param(Plant.EARLY_NEWS, "hangs", id="early news lost"),
    ],
)
def test_bug_planted_under_actors_is_noticed(plant: Plant, noticed: str) -> None:
    assert_noticed(plant, noticed)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("plant", "noticed"),
    [
        pytest.param(Plant.EARLY_ACKNOWLEDGEMENTS, "", id="acknowledged before it is saved"),
        pytest.param(Plant.OLD_NUMBERS, "does not come to rest", id="numbers of an earlier life"),
        pytest.param(Plant.NOBODY_AWAITED, "was given away", id="workers of before not awaited"),
    ],
)
def test_bug_planted_under_the_journal_is_noticed(plant: Plant, noticed: str) -> None:
    assert_noticed(plant, noticed)


def assert_noticed(plant: Plant, noticed: str) -> None:
    """See that some seed fails with a bug, with these words."""
    for seed in range(300):
        try:
            simulate(seed, plants=[plant])
        except AssertionError as error:
            if noticed in str(error).splitlines()[0]:
                return
    pytest.fail("no seed noticed the planted bug")


@pytest.mark.unit
def test_command_keeps_its_totals_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "4", "--first", "10", "--processes", "1", "--json", str(tmp_path / "totals")]) == 0
    totals = json.loads((tmp_path / "totals").read_text())
    assert (totals["seeds"], totals["failed"]) == (4, [])
    assert totals["events"] > 100 and totals["virtual_hours"] > 0 and totals["faults"] and totals["stats"]
    assert "4 seeds" in capsys.readouterr().out
