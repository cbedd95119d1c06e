"""Under load, and with peers that misbehave, nothing is lost and memory keeps its bounds. ``make load`` has the full sizes."""

from __future__ import annotations

import pytest

from load.figures import Figure, Report
from load.sizes import LOADS, Load

CASES = [pytest.param(load, id=load.name, marks=() if load.is_everyday else pytest.mark.slow) for load in LOADS]


@pytest.mark.integration
@pytest.mark.parametrize("load", CASES)
def test_under_load_nothing_is_lost_and_memory_keeps_its_bounds(load: Load) -> None:
    problems = load.run(**load.small).problems
    assert not problems, "\n".join(problems)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("figure", "is_kept"),
    [
        (Figure("free", 1e9), True),
        (Figure("above", 11, at_most=10), False),
        (Figure("at", 10, at_most=10, at_least=10), True),
        (Figure("below", 9, at_least=10), False),
    ],
    ids=lambda value: value.name if isinstance(value, Figure) else "",
)
def test_a_figure_outside_its_bounds_is_a_problem(figure: Figure, is_kept: bool) -> None:
    report = Report("", {}, [figure])
    assert (not report.problems) is is_kept
    assert ("NOT KEPT" in str(figure)) is not is_kept
