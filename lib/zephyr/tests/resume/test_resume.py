"""Runs with ``resume=True`` whose drivers are killed, stalled, or meet another driver. Each driver is a process of its own.

``ZEPHYR_RESUME_SEEDS`` says how many seeds to try instead of a few.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import jobs
import pytest
from drivers import BESIDE, KILLED, Case, Halt, Names, Nursery, Result, read_records
from fray import JobContext
from fray.testing import eventually
from zephyr import Backend, Dataset, PlanChanged

pytestmark = pytest.mark.integration

SEEDS = int(os.environ.get("ZEPHYR_RESUME_SEEDS", "6"))
SLOTS = 2
REQUESTS = 75
"""Changes of an object store that each job makes at least."""
CALLS = {"shuffle": 40, "flat": 16}
JOBS = list(CALLS)
STALLED = int(signal.SIGSTOP)
ONLY_ONE = "make sure that only one driver carries out this run"
OUR_ERROR = re.compile(r"^(zephyr\.errors\.\w+): ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a job leaves and tells when nothing happens to it."""

    result: Result | None
    items: Any
    changes: list[str]

    def touching(self, *names: str) -> list[int]:
        """Return the numbers of the changes that name one of these."""
        return [number for number, change in enumerate(self.changes, 1) if any(name in change for name in names)]

    def check(self, case: Case) -> None:
        """Make sure that a run has come to the same, and that nothing else is left."""
        assert case.told()["items"] == self.items or self.result is not None
        if self.result is not None:
            got = case.result()
            got.check_manifest()
            assert (got.files, got.entries, got.totals) == (self.result.files, self.result.entries, self.result.totals)
            assert got.others == BESIDE
        assert case.leftovers() == set()

    def count_rework(self, case: Case) -> int:
        """Return how many tasks were started more often than once."""
        assert self.result is not None
        task_of = {
            f"reduce {record.get('key')}": name
            for name, data in self.result.files.items()
            for record in read_records(name, data)
        }
        rounds = [{task_of.get(call, call) for call in calls} for calls in case.calls()]
        return sum(map(len, rounds)) - len(set().union(*rounds))


class Jobs(Protocol):
    """Gives what a job comes to."""

    def __call__(self, job: str, changed: bool = False) -> Undisturbed: ...


@pytest.fixture(scope="session")
def undisturbed(nursery: Nursery, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """Gives what a job comes to."""

    @cache
    def run(job: str, changed: bool = False) -> Undisturbed:
        scratch = tmp_path_factory.mktemp("undisturbed")
        case = Case(nursery, inputs, str(scratch / "place"), scratch)
        assert case.run(job, changed=changed) == 0, case.log.read_text()
        return Undisturbed(case.result() if job != "items" else None, case.told()["items"], case.told()["changes"])

    return run


def kill_and_resume(case: Case, job: str, changes: int, rng: random.Random, most: int = 4) -> int:
    """Kill drivers of a run, at calls and changes, until one gets through; return how many were killed."""
    remaining = {"change": changes, "call": CALLS[job]}
    for kills in range(most):
        at = rng.choice(list(remaining))
        halt = Halt(at, rng.randint(1, max(1, remaining[at])))  # type: ignore[arg-type]
        if (ended := case.run(job, halt=halt)) == 0:
            return kills
        assert ended == KILLED, case.log.read_text()
        remaining[at] -= halt.number
    assert case.run(job) == 0, case.log.read_text()
    return most


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("job", JOBS)
def test_a_driver_killed_at_random_moments_resumes_to_the_same_bytes_and_redoes_only_what_was_under_way(
    case: Case, undisturbed: Jobs, job: str, seed: int
) -> None:
    expected = undisturbed(job)
    kills = kill_and_resume(case, job, len(expected.changes), random.Random(f"{job} {seed}"))
    assert kills
    expected.check(case)
    assert expected.count_rework(case) <= SLOTS * kills


@pytest.mark.parametrize("beside", sorted(BESIDE))
@pytest.mark.parametrize("job", JOBS)
def test_a_driver_killed_while_it_writes_beside_the_outputs_resumes_and_leaves_all_of_it(
    case: Case, undisturbed: Jobs, job: str, beside: str
) -> None:
    expected = undisturbed(job)
    moments = expected.touching(beside)
    assert moments
    for moment in moments:
        each = case.beside(f"{case.place}-{moment}")
        assert each.run(job, halt=Halt("change", moment)) == KILLED
        assert each.run(job) == 0, each.log.read_text()
        expected.check(each)


@pytest.mark.parametrize("job", [*JOBS, "items"])
def test_a_driver_killed_while_it_removes_intermediate_data_leaves_a_run_that_can_be_resumed(
    case: Case, undisturbed: Jobs, job: str
) -> None:
    expected = undisturbed(job)
    moments = [moment for moment in expected.touching(*jobs.REMOVALS) if moment > len(expected.changes) - 64]
    assert len(moments) > 10
    for moment in moments[1::12]:
        each = case.beside(f"{case.place}-{moment}")
        assert each.run(job, halt=Halt("change", moment)) == KILLED
        assert each.run(job) == 0, each.log.read_text()
        expected.check(each)


def test_another_plan_does_not_take_over_what_a_driver_killed_while_it_removed_it_has_left(
    case: Case, undisturbed: Jobs
) -> None:
    first, changed = undisturbed("items"), undisturbed("items", changed=True)
    assert first.items != changed.items
    begin = next(moment for moment in first.touching(*jobs.REMOVALS) if moment > len(first.changes) - 64)
    for moment in range(begin, len(first.changes) + 1, 9):
        each = case.beside(f"{case.place}-{moment}")
        assert each.run("items", halt=Halt("change", moment)) == KILLED
        if each.run("items", changed=True) == 0:
            changed.check(each)
        else:
            assert "PlanChanged" in each.log.read_text()


def test_a_process_group_killed_from_outside_resumes_in_another_process_with_another_hash_seed(
    case: Case, undisturbed: Jobs, tmp_path: Path
) -> None:
    expected = undisturbed("shuffle")

    def start(seed: str) -> subprocess.Popen[bytes]:
        order = json.dumps(asdict(case.order("shuffle")))
        env = os.environ | {"PYTHONHASHSEED": seed}
        return subprocess.Popen([sys.executable, jobs.__file__, order], env=env, start_new_session=True)

    with start("1") as process:
        eventually(lambda: len(case.calls()[0]) >= 12, what="twelve calls")
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == KILLED
    with start("2") as process:
        assert process.wait() == 0, case.log.read_text()
    expected.check(case)
    assert expected.count_rework(case) <= SLOTS


def test_a_run_without_a_name_is_found_by_its_outputs(case: Case, undisturbed: Jobs) -> None:
    expected = undisturbed("flat")
    assert case.run("flat", name=None, halt=Halt("call", 12)) == KILLED
    assert case.run("flat", name=None) == 0, case.log.read_text()
    expected.check(case)
    assert expected.count_rework(case) <= SLOTS


def test_a_run_of_another_name_begins_anew(case: Case) -> None:
    assert case.run("flat", name="one", halt=Halt("call", 12)) == KILLED
    assert case.run("flat", name="other") == 0, case.log.read_text()
    assert len(case.calls()[1]) == CALLS["flat"]


@pytest.mark.parametrize("case", ["local"], indirect=True)
def test_a_finished_run_is_not_done_again(case: Case, undisturbed: Jobs) -> None:
    for _ in range(2):
        assert case.run("shuffle") == 0, case.log.read_text()
    assert case.calls()[1] == []
    undisturbed("shuffle").check(case)


@pytest.mark.parametrize("seed", range(max(3, SEEDS // 4)))
@pytest.mark.parametrize("case", ["moto", "rclone"], indirect=True)
def test_a_driver_killed_at_random_moments_resumes_on_an_object_store(case: Case, undisturbed: Jobs, seed: int) -> None:
    job = JOBS[seed % 2]
    expected = undisturbed(job)
    kills = kill_and_resume(case, job, REQUESTS, random.Random(f"{seed} on S3"), most=2)
    assert kills
    expected.check(case)
    assert expected.count_rework(case) <= SLOTS * kills
    assert (ONLY_ONE in case.log.read_text()) == (case.storage == "rclone")


def start_two(case: Case, other: Nursery, job: str, **changes: Any) -> tuple[str, str]:
    """Run two drivers of one run at the same time, and return how they have ended and what the log says."""
    order = case.order(job, signed=True, **changes)
    other.start(order)
    return str(case.run(job, signed=True)), other.wait()


def check_meeting(case: Case, expected: Undisturbed) -> None:
    """Make sure that each output is whole, from one process, as expected but for that, and what the manifest says it is."""
    assert expected.result is not None
    got = case.result()
    got.check_manifest()
    assert got.others == BESIDE
    assert got.files.keys() == expected.result.files.keys()
    for name, data in got.files.items():
        records = read_records(name, data)
        assert len({record["by"] for record in records}) == 1
        assert [record | {"by": 0} for record in records] == read_records(name, expected.result.files[name])


@pytest.mark.parametrize("repetition", range(max(1, SEEDS // 10)))
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("case", ["local", "threaded_moto"], indirect=True)
def test_of_two_drivers_at_once_one_succeeds_and_the_other_succeeds_or_fails_cleanly(
    case: Case, undisturbed: Jobs, other_nursery: Nursery, job: str, repetition: int
) -> None:
    ended = start_two(case, other_nursery, job)
    text = case.log.read_text()
    assert sorted(ended)[0] == "0", text
    assert ended == ("0", "0") or OUR_ERROR.search(text), text
    check_meeting(case, undisturbed(job))
    assert case.run(job, signed=True) == 0, case.log.read_text()
    check_meeting(case, undisturbed(job))
    assert case.leftovers() == set()


@pytest.mark.parametrize("tenth", [2, 5, 9])
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("case", ["local", "threaded_moto"], indirect=True)
def test_a_driver_that_stalls_until_another_has_finished_its_run_spoils_nothing(
    case: Case, undisturbed: Jobs, other_nursery: Nursery, job: str, tenth: int
) -> None:
    expected = undisturbed(job)
    changes = REQUESTS if case.storage != "local" else expected.touching("_manifest.json")[0]
    halt = Halt("change", changes * tenth // 10, STALLED)
    pid = other_nursery.start(case.order(job, signed=True, halt=halt))
    assert other_nursery.wait() == "stopped"
    finished = case.run(job, signed=True)
    os.kill(pid, signal.SIGCONT)
    late = other_nursery.wait()
    text = case.log.read_text()
    assert finished == 0, text
    assert late == "0" or OUR_ERROR.search(text), text
    check_meeting(case, expected)
    assert case.run(job, signed=True) == 0, case.log.read_text()
    check_meeting(case, expected)
    assert case.leftovers() == set()


def test_a_driver_that_stalls_until_another_plan_has_begun_under_the_same_name_adds_nothing_to_it(
    case: Case, undisturbed: Jobs, other_nursery: Nursery
) -> None:
    expected = undisturbed("items", changed=True)
    pid = other_nursery.start(case.order("items", halt=Halt("call", 6, STALLED)))
    assert other_nursery.wait() == "stopped"
    assert case.run("items") == 0
    assert case.run("items", changed=True, halt=Halt("call", 2)) == KILLED
    os.kill(pid, signal.SIGCONT)
    late = other_nursery.wait()
    assert late == "0" or OUR_ERROR.search(case.log.read_text()), case.log.read_text()
    assert case.run("items", changed=True) == 0, case.log.read_text()
    expected.check(case)


@pytest.mark.parametrize("job", JOBS)
def test_a_driver_that_fails_takes_nothing_from_one_that_goes_on(
    case: Case, undisturbed: Jobs, other_nursery: Nursery, job: str
) -> None:
    moment = CALLS[job] * 3 // 4
    pid = other_nursery.start(case.order(job, signed=True, halt=Halt("call", moment, STALLED)))
    assert other_nursery.wait() == "stopped"
    assert case.run(job, signed=True, fails_at=case.calls()[0][-1]) == 1
    os.kill(pid, signal.SIGCONT)
    assert other_nursery.wait() == "0", case.log.read_text()
    check_meeting(case, undisturbed(job))
    assert case.leftovers() == set()


FAILING = Names()
STARTED = Names()


def total(key: str, records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    STARTED.add(key)
    if key in FAILING.found:
        raise RuntimeError(key)
    return {"key": key, "total": sum(record["n"] for record in records)}


def grand_total(key: str, records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return {"key": key, "grand_total": sum(record["n"] for record in records)}


def build(place: Path, change: str) -> Dataset[str]:
    """Return a dataset, or one that differs from it in one respect."""
    factor = 3 if change == "closure" else 2

    def scale(record: dict[str, Any], offset: int = 1 if change == "default" else 0) -> dict[str, Any]:
        STARTED.add(record["file"])
        return {**record, "n": record["n"] * factor + offset}

    if change == "body":

        def scale(record: dict[str, Any], offset: int = 0) -> dict[str, Any]:
            return {**record, "n": record["n"] * factor - offset}

    dataset = Dataset.from_files(f"{place}/in/*.jsonl").load_jsonl().map(scale)
    if change == "verb":
        dataset = dataset.filter(jobs.key_of)
    grouped = dataset.group_by(jobs.key_of, grand_total if change == "reducer" else total, 4 if change == "shards" else 5)
    return grouped.write_jsonl(f"{place}/out/{{shard}}.jsonl.gz", level=1 if change == "option" else None)


def change_input(place: Path, change: str) -> None:
    first, *_ = sorted((place / "in").iterdir())
    if change == "content":
        at = first.stat().st_mtime_ns
        first.write_text(first.read_text().replace('"n": 0', '"n": 9'))
        os.utime(first, ns=(at, at + 10**9))
    elif change == "more":
        (place / "in" / "more.jsonl").write_text(first.read_text())


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("body", "scale"),
        ("closure", "scale"),
        ("default", "scale"),
        ("verb", r"- stage 1: .*\n.*\+ stage 1: .*key_of"),
        ("reducer", r"- .*total.*\n.*\+ .*grand_total"),
        ("shards", r"- .*5.*\n.*\+ .*4"),
        ("option", "JsonlWriter"),
        ("content", "source: 16 items"),
        ("more", "source: 17 items"),
    ],
)
def test_a_run_whose_plan_has_changed_is_not_resumed_and_the_error_tells_what_changed(
    sync: JobContext, inputs: Path, tmp_path: Path, change: str, names: str
) -> None:
    shutil.copytree(inputs, tmp_path / "in")
    FAILING.add("key-07")
    run = partial(Backend.execute, context=sync, storage_path=str(tmp_path / "storage"), name="job", resume=True)
    with pytest.raises(RuntimeError, match="key-07"):
        run(build(tmp_path, ""))
    FAILING.clear()
    change_input(tmp_path, change)
    STARTED.clear()
    with pytest.raises(PlanChanged, match=names) as raised:
        run(build(tmp_path, change))
    assert STARTED.found == []
    assert "give this run another name" in str(raised.value)
    shutil.rmtree(raised.value.job_path)
    run(build(tmp_path, change))
    assert not list((tmp_path / "storage").rglob("*.zep"))


def test_a_failed_run_whose_plan_is_the_same_goes_on(sync: JobContext, inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs, tmp_path / "in")
    FAILING.add("key-07")
    run = partial(Backend.execute, context=sync, storage_path=str(tmp_path / "storage"), name="job", resume=True)
    with pytest.raises(RuntimeError, match="key-07"):
        run(build(tmp_path, ""))
    FAILING.clear()
    STARTED.clear()
    assert len(run(build(tmp_path, ""))) == 5
    assert "key-07" in STARTED.found
    assert len(STARTED.found) < 24
    assert not [name for name in STARTED.found if name.startswith("input")]
