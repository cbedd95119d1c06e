"""One request that makes no sense is refused by itself: the session, the worker and the controller go on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import pytest
from fray import JobContext, TaskOptions, create_job_ctx
from fray.errors import ConfigurationError, EncodeError
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import AsyncControllerClient, ControllerClient


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(num_cpus=2) as running:
        yield running


@pytest.fixture
def ctx(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobContext]:
    monkeypatch.setenv("FRAY_TOKEN", cluster.token)
    with create_job_ctx("fray", controller_address=cluster.address) as opened:
        yield opened


@pytest.fixture
def controller(cluster: LocalCluster) -> Iterator[ControllerClient]:
    client = ControllerClient(cluster.address, cluster.token)
    yield client
    client.close()


@pytest.mark.unit
@pytest.mark.parametrize(
    "options",
    [
        {"priority": 2**40},
        {"max_retries": 2**40},
        {"name": "a\nb"},
        {"retry_delay_s": math.nan},
        {"timeout": math.inf},
        {"deadline": math.nan},
        {"deadline": 1e12},
        {"timeout": True},
        {"priority": True},
    ],
    ids=str,
)
def test_options_that_cannot_travel_are_refused_where_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        TaskOptions(**options)


@pytest.mark.integration
def test_a_function_that_captured_too_much_is_refused_and_the_session_goes_on(ctx: JobContext) -> None:
    big = os.urandom(17 * 2**20)
    with pytest.raises(EncodeError, match="what it captured"):
        ctx.run(lambda: len(big))
    assert ctx.get(ctx.run(len, big), timeout=60) == len(big)


@pytest.mark.integration
def test_a_task_gets_many_dependencies_that_are_larger_together_than_a_message(ctx: JobContext) -> None:
    parts = [ctx.run(bytes, 250_000) for _ in range(300)]
    total = ctx.run(lambda *values: sum(map(len, values)), *parts)
    assert ctx.get(total, timeout=100) == 300 * 250_000
    assert ctx.get(ctx.run(len, "abc"), timeout=30) == 3


@pytest.mark.integration
@pytest.mark.parametrize("field", ["deadline_s", "timeout_s", "retry_delay_s"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_times_that_make_no_sense_are_refused_by_the_controller(controller: ControllerClient, field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=field):
        controller.call("submit_task", pb.TaskSpec(entrypoint="math:sqrt", json_args="[4]", **{field: value}))


@pytest.mark.integration
@pytest.mark.parametrize("amount", [math.nan, -5.0])
def test_a_worker_that_offers_nonsense_is_refused(controller: ControllerClient, amount: float) -> None:
    with pytest.raises(ConfigurationError, match="cpu"):
        controller.call("register_worker", pb.WorkerInfo(worker_id="odd", incarnation="odd.1", resources={"cpu": amount}))
    assert len(controller.call("list_workers", pb.Empty()).workers) == 1


@pytest.mark.integration
def test_a_negative_limit_is_refused(controller: ControllerClient) -> None:
    with pytest.raises(ConfigurationError, match="limit -1"):
        controller.call("list_tasks", pb.ListTasksRequest(limit=-1))


@pytest.mark.integration
def test_a_result_that_json_cannot_hold_fails_the_task(controller: ControllerClient) -> None:
    handle = controller.call("submit_task", pb.TaskSpec(entrypoint="builtins:float", json_args='["nan"]'))
    result = controller.call("get_task_result", pb.TaskHandle(task_id=handle.task_id, wait_s=15))
    assert result.status == pb.TaskStatus.FAILED
    assert "JSON" in result.error


@pytest.mark.integration
def test_a_failure_told_by_a_worker_in_another_language_is_retried(cluster: LocalCluster, controller: ControllerClient) -> None:
    async def play() -> list[int]:
        client = AsyncControllerClient(cluster.address, cluster.token)
        offer = pb.WorkerInfo(worker_id="foreign", incarnation="foreign.1", resources={"pen": 1.0})
        await client.call("register_worker", offer)
        task = pb.TaskSpec(task_id="foreign", entrypoint="any:thing", max_retries=1, resources={"pen": 1.0})
        await client.call("submit_task", task)
        attempts: list[int] = []
        async with contextlib.aclosing(client.attach(pb.AttachRequest(incarnation="foreign.1"))) as stream:
            async for commands in stream:
                for order in commands.start:
                    attempts.append(order.attempt)
                    outcome = pb.TaskHandle(task_id="foreign", attempt=order.attempt, incarnation="foreign.1")
                    outcome.result_data, outcome.error = b"J1", "no luck"
                    method = "report_task_failed" if len(attempts) == 1 else "report_task_complete"
                    await client.call(method, outcome)
                if len(attempts) == 2:
                    break
        await client.call("report", pb.ReportRequest(incarnation="foreign.1", leaving=True))
        await client.close()
        return attempts

    assert asyncio.run(play()) == [1, 2]
    assert controller.call("get_task_result", pb.TaskHandle(task_id="foreign")).status == pb.TaskStatus.FINISHED
