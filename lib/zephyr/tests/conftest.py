"""Contexts and places for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fray import JobContext, create_job_ctx


@pytest.fixture(params=["sync", "threadpool"])
def ctx(request: pytest.FixtureRequest) -> Iterator[JobContext]:
    with create_job_ctx(request.param, max_workers=None if request.param == "sync" else 2) as context:
        yield context


@pytest.fixture
def sync() -> Iterator[JobContext]:
    with create_job_ctx("sync") as context:
        yield context


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place of intermediate data; nothing may be left in it."""
    path = tmp_path / "intermediate"
    monkeypatch.setenv("FRAY_STORAGE", str(path))
    yield path / "zephyr"
    left = path / "zephyr"
    assert not left.exists() or not list(left.iterdir())
