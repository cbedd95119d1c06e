"""``zephyr clean``: what it removes, and what it never touches."""

from __future__ import annotations

import io
import json
import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fray import JobContext
from fsspec.implementations.memory import MemoryFileSystem
from zephyr import Backend, Dataset
from zephyr.execution.janitor import Entry, find_leftovers, latest_change, list_directory, remove_leftover
from zephyr.io.publish import draft_path
from zephyr.storage import StorageManager

Command = Callable[..., Any]

unit = pytest.mark.unit
DAY_S = 86_400.0


def kill_job(place: str, age_s: float = 0.0) -> str:
    """Leave what a killed job leaves, and return its directory."""
    storage = StorageManager(place, 0)
    storage.__enter__()
    storage.next_stage()
    writer = storage.create_writer(0, 0)
    writer.write("item")
    writer.finish()
    age(storage.job_path, age_s)
    return storage.job_path


def fail(_: Any) -> None:
    raise KeyError


def kill_run(place: str, ctx: JobContext, age_s: float = 0.0) -> str:
    """Leave what a run leaves that can be resumed, and return its directory."""
    with pytest.raises(KeyError):
        failing = Dataset.from_list([1, 2]).reshard(1).map(str).group_by(fail, max)
        Backend.execute(failing, ctx, storage_path=place, name="a run", resume=True)
    (path,) = (f"{place}/{entry.name}" for entry in list_directory(place) if entry.name.startswith("run-"))
    age(path, age_s)
    return path


def age(path: str, age_s: float) -> None:
    """Make what is at a path look older."""
    if path.startswith("memory:"):
        for name, file in MemoryFileSystem.store.items():
            if f"memory:/{name}".startswith(path):
                file.created -= timedelta(seconds=age_s)
    elif "://" not in path:
        for found in (Path(path), *Path(path).rglob("*")):
            os.utime(found, (time.time() - age_s,) * 2)


def exists(path: str) -> bool:
    fs, inner = fsspec.core.url_to_fs(path)
    fs.invalidate_cache()
    return bool(fs.exists(inner))


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage path."""
    return str(tmp_path / "place") if request.param == "local" else str(request.getfixturevalue("memory"))


@unit
def test_old_jobs_are_removed_and_young_ones_stay(zephyr: Command, place: str) -> None:
    old, young = kill_job(place, 8 * DAY_S), kill_job(place, 6 * DAY_S)
    told = zephyr("clean", place, "--older-than", "7d", "--yes", "--json").json
    (removed,) = told["removed"]
    assert (removed["path"], removed["kind"], removed["files"]) == (old, "job", 1)
    assert 8 * DAY_S <= removed["age_s"] < 8.1 * DAY_S
    assert removed["bytes"] == told["bytes"] > 0
    assert (told["kept"], told["dry_run"], told["older_than_s"], told["failed"]) == (1, False, 7 * DAY_S, [])
    assert not exists(old)
    assert exists(young)


@unit
@pytest.mark.parametrize(
    ("older_than", "removed"), [("99s", 1), ("101s", 0), ("1m", 1), ("1h", 0), ("1d", 0), ("1.5m", 1), ("0w", 1)]
)
def test_age_has_a_unit(older_than: str, removed: int, zephyr: Command, tmp_path: Path) -> None:
    kill_job(str(tmp_path / "place"), 100)
    assert len(zephyr("clean", "place", "--older-than", older_than, "--dry-run", "--json").json["removed"]) == removed


@unit
@pytest.mark.parametrize("age", ["7", "d", "7y", "-1d", ""])
def test_age_that_is_none_is_a_usage_error(age: str, zephyr: Command) -> None:
    zephyr("clean", ".", f"--older-than={age}").assert_fails(2, "such as 7d")


@unit
def test_job_is_as_old_as_its_latest_file(zephyr: Command, tmp_path: Path) -> None:
    job = kill_job(str(tmp_path / "place"), 8 * DAY_S)
    Path(job, "stage-001", "000001-000000.zep").touch()
    assert zephyr("clean", "place", "--older-than", "7d", "--yes", "--json").json["removed"] == []
    assert exists(job)


@unit
def test_dry_run_removes_nothing(zephyr: Command, place: str) -> None:
    job = kill_job(place, DAY_S)
    told = zephyr("clean", place, "--older-than", "1h", "--dry-run", "--json").json
    assert (told["dry_run"], [row["path"] for row in told["removed"]]) == (True, [job])
    assert "would remove 1" in zephyr("clean", place, "--older-than", "1h", "--dry-run").out
    assert exists(job)


@unit
@pytest.mark.parametrize(("answer", "code", "stays"), [("y\n", 0, False), ("n\n", 1, True), ("", 1, True)])
def test_user_is_asked_unless_yes_is_said(
    answer: str, code: int, stays: bool, zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = kill_job(str(tmp_path / "place"), DAY_S)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    done = zephyr("clean", "place", "--older-than", "1h")
    assert done.code == code
    assert job in done.out
    assert "Remove 1?" in done.err
    assert exists(job) == stays


@unit
def test_yes_asks_nothing_and_tells_what_was_removed(zephyr: Command, tmp_path: Path) -> None:
    job = kill_job(str(tmp_path / "place"), DAY_S)
    done = zephyr("clean", "place", "--older-than", "1h", "--yes")
    assert job in done.out
    assert "removed 1, " in done.out
    assert done.err == ""
    assert not exists(job)


@unit
def test_json_cannot_be_asked(zephyr: Command) -> None:
    zephyr("clean", ".", "--older-than", "1h", "--json").assert_fails(2, "--yes or --dry-run")


@unit
def test_runs_to_be_resumed_stay_unless_it_is_said_otherwise(zephyr: Command, place: str, sync: JobContext) -> None:
    run = kill_run(place, sync, DAY_S)
    told = zephyr("clean", place, "--older-than", "1h", "--yes", "--json").json
    assert (told["removed"], told["kept"]) == ([], 1)
    assert exists(run)
    told = zephyr("clean", place, "--older-than", "1h", "--yes", "--json", "--resumable").json
    assert [row["kind"] for row in told["removed"]] == ["run"]
    assert not exists(run)


@unit
def test_drafts_beside_outputs_are_removed_and_outputs_stay(zephyr: Command, place: str, sync: JobContext) -> None:
    Backend.execute(Dataset.from_list(["a"]).write_text(f"{place}/out/{{shard}}.txt"), sync)
    draft = draft_path(f"{place}/out/0.txt", uuid.uuid4().hex)
    for path in (draft, f"{place}/out/.mine.draft", f"{place}/out/0.draft"):
        with fsspec.open(path, "wb") as file:
            file.write(b"1234")
    age(f"{place}/out", DAY_S)
    assert zephyr("clean", f"{place}/out/", "--older-than", "2d", "--yes", "--json").json["removed"] == []
    (removed,) = zephyr("clean", f"{place}/out/", "--older-than", "1h", "--yes", "--json").json["removed"]
    assert (removed["path"], removed["kind"], removed["bytes"]) == (draft, "draft", 4)
    left = ["0.draft", "0.txt", "_SUCCESS", "_manifest.json", ".mine.draft"]
    assert sorted(entry.name for entry in list_directory(f"{place}/out")) == sorted(left)
    assert "nothing to remove" in zephyr("clean", f"{place}/out", "--older-than", "0s").out


@unit
@pytest.mark.parametrize("name", ["notes.txt", "stage-001/notes.txt", "stage-001/sub/x.zep", "stage-001/commits/x"])
def test_directory_with_anything_foreign_is_not_touched(name: str, zephyr: Command, place: str) -> None:
    job, other = kill_job(place), kill_job(place)
    with fsspec.open(f"{job}/{name}", "wb", auto_mkdir=True) as file:
        file.write(b"mine")
    age(place, DAY_S)
    told = zephyr("clean", place, "--older-than", "1h", "--yes", "--json", "--resumable").json
    assert [row["path"] for row in told["removed"]] == [other]
    assert exists(f"{job}/{name}")


@unit
def test_directories_of_other_names_and_shapes_are_not_touched(zephyr: Command, tmp_path: Path) -> None:
    place = tmp_path / "place"
    job = kill_job(str(place))
    for name in (f"{'a' * 31}/stage-001", f"{'b' * 32}", f"{'c' * 32}/stage-001/deeper", "dead-letters/x", "run-me/stage-001"):
        (place / name).mkdir(parents=True)
    (place / f"{'d' * 32}").write_text("a file")
    (place / f"{'e' * 32}").symlink_to(tmp_path)
    (place / f"{'f' * 32}").mkdir()
    (place / f"{'f' * 32}" / "stage-001").symlink_to(tmp_path)
    before = {path.name for path in place.iterdir()}
    told = zephyr("clean", place, "--older-than", "0s", "--yes", "--json", "--resumable").json
    assert [row["path"] for row in told["removed"]] == [job]
    assert {path.name for path in place.iterdir()} == before - {Path(job).name}


@unit
def test_prefix_without_anything_of_zephyrs_is_refused(zephyr: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    zephyr("clean", "photos", "--older-than", "0s", "--yes").assert_fails(1, "photos holds nothing of Zephyr's")
    assert (tmp_path / "photos" / "a.jpg").exists()


@unit
def test_empty_and_absent_prefixes_are_told_apart(zephyr: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = zephyr("clean", "empty", "--older-than", "7d")
    assert (done.code, done.lines) == (0, ["nothing to remove"])
    zephyr("clean", "absent", "--older-than", "7d").assert_fails(1, "there is nothing at", "absent")
    zephyr("clean", "", "--older-than", "7d").assert_fails(2, "empty")


@unit
def test_age_is_required(zephyr: Command) -> None:
    zephyr("clean", ".").assert_fails(2, "--older-than")


@unit
def test_what_cannot_be_removed_ends_with_1_and_the_rest_is_removed(
    zephyr: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [kill_job(str(tmp_path / "place"), DAY_S) for _ in range(3)]
    monkeypatch.chdir(jobs[1])  # which local file systems do not remove
    done = zephyr("clean", tmp_path / "place", "--older-than", "1h", "--yes", "--json")
    told = json.loads(done.out)
    assert done.code == 1
    assert f"cannot remove {jobs[1]}" in done.err
    assert sorted(row["path"] for row in told["removed"]) == sorted([jobs[0], jobs[2]])
    assert len(told["failed"]) == 1
    assert [exists(job) for job in jobs] == [False, True, False]


@unit
def test_directory_is_of_unknown_age_if_one_of_its_files_is() -> None:
    known, unknown = Entry("stage-001/a.zep", "file", 1, 5.0), Entry("stage-001/b.zep", "file", 1, None)
    directory = Entry("stage-001", "directory", 0, None)
    assert latest_change(directory, [known]) == 5.0
    assert latest_change(directory, [known, unknown]) is None
    assert latest_change(directory, []) is None


@unit
def test_what_somebody_else_has_removed_meanwhile_is_removed(place: str) -> None:
    kill_job(place)
    (leftover,) = find_leftovers(place)
    remove_leftover(leftover)
    remove_leftover(leftover)
    assert not exists(leftover.path)


@pytest.mark.integration
def test_jobs_and_drafts_on_s3_are_found_and_removed(zephyr: Command, moto: str, sync: JobContext) -> None:
    job, run = kill_job(f"{moto}/jobs"), kill_run(f"{moto}/jobs", sync)
    assert zephyr("clean", f"{moto}/jobs", "--older-than", "1h", "--yes", "--json").json["kept"] == 2
    told = zephyr("clean", f"{moto}/jobs", "--older-than", "0s", "--yes", "--json").json
    assert [(row["path"], row["kind"], row["files"]) for row in told["removed"]] == [(job, "job", 1)]
    assert not exists(job)
    assert exists(run)
    assert zephyr("inspect", run, "--json").json["resumable"] is True
    zephyr("clean", f"{moto}/absent", "--older-than", "1h").assert_fails(1, "there is nothing at")
