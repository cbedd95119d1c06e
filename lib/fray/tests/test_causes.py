"""In this process an exception keeps the cause that the user gave it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from fray import create_job_ctx
from fray.job.futures import JobFuture
from fray.serialization import capture_failure, decode_failure, encode_failure

pytestmark = pytest.mark.unit


def fail(with_cause: bool) -> None:
    if with_cause:
        raise ValueError("outer") from KeyError("inner")
    raise ValueError("outer")


@pytest.mark.parametrize("kind", ["sync", "threadpool"])
def test_an_exception_arrives_with_its_cause_and_without_ours(kind: str) -> None:
    with create_job_ctx(kind) as ctx:
        with pytest.raises(ValueError, match="outer") as caught:
            ctx.get(ctx.run(fail, True))
        assert isinstance(caught.value.__cause__, KeyError)
        with pytest.raises(ValueError, match="outer") as caught:
            ctx.get(ctx.run(fail, False))
        assert caught.value.__cause__ is None


def test_a_callback_that_exits_ends_neither_the_thread_nor_the_callbacks_behind_it() -> None:
    future: JobFuture[int] = JobFuture("a task")
    seen: list[Any] = []
    future.add_done_callback(lambda _: sys.exit("as if this were the main thread"))
    future.add_done_callback(seen.append)
    assert future.resolve(1)
    assert seen == [future]


def test_an_exception_whose_notes_are_no_list_takes_ours() -> None:
    error = ValueError("odd")
    error.__notes__ = "no list"  # type: ignore[assignment]
    back = decode_failure(encode_failure(capture_failure(error)))
    back.add_note("ours")
    assert isinstance(back, ValueError) and back.__notes__ == ["ours"]
