"""What a worker tells about attempts that wait for other tasks."""

from __future__ import annotations

import pytest
from fray.job.rpc.worker.core import Item, WorkerCore
from fray.types import TaskId

TASK = TaskId("t-1")


def _running() -> WorkerCore:
    core = WorkerCore({"cpu": 1.0}, executors=1)
    core.start()
    (number,) = core.executors
    core.executor_ready(0.0, number)
    core.receive(0.0, [Item(TASK, 1, "fn", (("cpu", 1.0),), None, None)])
    return core


@pytest.mark.unit
def test_an_attempt_that_waits_again_while_its_report_is_on_the_way_stays_reported_as_waiting() -> None:
    core = _running()
    core.blocked(1.0, TASK)
    on_its_way = core.report(10)
    core.unblocked(2.0, TASK)
    core.blocked(3.0, TASK)
    core.acknowledge(on_its_way)
    assert core.report(10).unblocked == []


@pytest.mark.unit
def test_an_attempt_that_goes_on_while_its_report_is_on_the_way_is_told_next() -> None:
    core = _running()
    core.blocked(1.0, TASK)
    on_its_way = core.report(10)
    core.unblocked(2.0, TASK)
    core.acknowledge(on_its_way)
    assert core.report(10).unblocked == [(TASK, 1)]
