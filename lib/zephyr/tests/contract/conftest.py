"""Contexts that a module shares, and this directory's helpers, made importable here and in the processes that run tasks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fray import JobContext, create_job_ctx

if (here := str(Path(__file__).parent)) not in sys.path:
    sys.path.append(here)


@pytest.fixture(scope="module")
def sync_ctx() -> Iterator[JobContext]:
    with create_job_ctx("sync") as context:
        yield context


@pytest.fixture(scope="module")
def threadpool_ctx() -> Iterator[JobContext]:
    with create_job_ctx("threadpool", max_workers=2) as context:
        yield context


@pytest.fixture(scope="module")
def fray_ctx() -> Iterator[JobContext]:
    with create_job_ctx("fray", controller_address="local[2]") as context:
        yield context
