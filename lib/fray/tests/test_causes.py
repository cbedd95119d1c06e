"""In this process an exception keeps the cause that the user gave it."""

from __future__ import annotations

import pytest
from fray import create_job_ctx

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
