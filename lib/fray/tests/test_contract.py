"""The contract of JobContext over every context."""

from __future__ import annotations

from pathlib import Path

import pytest
from fray import create_job_ctx
from fray.testing import CHECKS


def _rows(kind: str, *marks: pytest.MarkDecorator) -> list[object]:
    return [pytest.param(kind, name, marks=marks, id=f"{kind}-{name}") for name in CHECKS if kind not in CHECKS[name].exempt]


@pytest.mark.unit
@pytest.mark.parametrize(("kind", "name"), [*_rows("sync"), *_rows("threadpool")])
def test_contract_in_this_process(kind: str, name: str, tmp_path: Path) -> None:
    with create_job_ctx(kind, max_workers=2) as ctx:  # type: ignore[arg-type]
        CHECKS[name].fn(ctx, tmp_path)
