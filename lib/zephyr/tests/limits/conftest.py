"""A cluster for the tests of limits, and contexts that tell what they were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fray import JobContext, create_job_ctx


@pytest.fixture(scope="module")
def fray() -> Iterator[JobContext]:
    with create_job_ctx("fray", controller_address="local[2]") as context:
        yield context


@pytest.fixture(params=["sync", "threadpool", pytest.param("fray", marks=pytest.mark.integration)])
def any_ctx(request: pytest.FixtureRequest) -> Iterator[JobContext]:
    """Every context that Fray itself has."""
    if request.param == "fray":
        yield request.getfixturevalue("fray")
        return
    with create_job_ctx(request.param, max_workers=None if request.param == "sync" else 2) as context:
        yield context


class Recording:
    """A context that keeps what it was asked to run."""

    def __init__(self, context: JobContext, calls: list[Any] | None = None) -> None:
        self._context = context
        self.calls: list[Any] = [] if calls is None else calls

    def options(self, **changes: Any) -> Recording:
        return Recording(self._context.options(**changes), self.calls)

    def run(self, *args: Any) -> Any:
        self.calls.append(args)
        return self._context.run(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@pytest.fixture
def recording() -> Callable[[JobContext], Any]:
    return Recording
