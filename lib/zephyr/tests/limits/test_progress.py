"""Progress goes to stderr: when it is asked for, or when somebody looks at a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from fray import JobContext
from zephyr import Backend, Dataset, counters

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def count(item: int) -> int:
    counters.increment("seen", 1000)
    return item


def last_lines(text: str) -> list[str]:
    """Return what stays of each stage's line."""
    return [line.rpartition("\r")[2].strip() for line in text.split("\n") if line.strip()]


def test_each_stage_shows_its_shards_rows_and_bytes(ctx: JobContext, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.from_list([1000] * 3).flat_map(range).map(count).reshard(5).map(str)
    Backend.execute(dataset, ctx, name="nightly", progress=True)
    captured = capsys.readouterr()
    first, third = last_lines(captured.err)
    assert first.startswith("nightly: stage 1 of 3: 100%") and third.startswith("nightly: stage 3 of 3: 100%")
    assert "3/3" in first and "5/5" in third
    assert "3,000 rows" in first and "3,000 rows" in third
    assert " kB" in first and " kB" in third
    assert "seen 3,000,000" in first and "seen" not in third
    assert captured.out == ""


def test_a_write_shows_the_rows_and_bytes_of_its_files(
    sync: JobContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Dataset.from_list(["x" * 99] * 4).flat_map(lambda line: [line] * 5)
    Backend.execute(lines.write_text(f"{tmp_path}/{{shard}}.txt"), sync, progress=True)
    (line,) = last_lines(capsys.readouterr().err)
    assert "4/4" in line and "20 rows, 2 kB" in line


def test_parts_of_files_count_as_they_are_read(
    sync: JobContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("123456789\n" * 100)
    monkeypatch.setattr("zephyr.plan.splits.PART_BYTES", 100)
    Backend.execute(Dataset.from_files(f"{tmp_path}/in.txt").load_text(), sync, progress=True)
    (line,) = last_lines(capsys.readouterr().err)
    assert "10/10" in line and "100 rows" in line


@pytest.mark.parametrize(("progress", "shown"), [("auto", False), (False, False), (True, True)])
def test_what_is_no_terminal_shows_progress_only_when_asked(
    sync: JobContext, capsys: pytest.CaptureFixture[str], progress: Any, shown: bool
) -> None:
    Backend.execute(Dataset.from_list([1]).map(str), sync, progress=progress)
    assert ("stage 1 of 1" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(("progress", "shown"), [("auto", True), (False, False), (True, True)])
def test_a_terminal_shows_progress_unless_told_not_to(
    sync: JobContext, monkeypatch: pytest.MonkeyPatch, progress: Any, shown: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    Backend.execute(Dataset.from_list([1]).map(str), sync, progress=progress)
    assert ("stage 1 of 1" in terminal.getvalue()) == shown


def test_the_default_is_to_look_for_a_terminal(
    sync: JobContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Backend.execute(Dataset.from_list([1]).map(str), sync)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    list(Backend.iterate(Dataset.from_list([1]).map(str), sync))
    assert "stage 1 of 1" in terminal.getvalue()


def test_a_stage_that_fails_shows_how_far_it_came(sync: JobContext, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        Backend.execute(Dataset.from_list([2, 1, 0]).map(lambda n: 1 // n), sync, progress=True)
    assert "2/3" in last_lines(capsys.readouterr().err)[0]
