"""The RPCs that a worker answers itself, called in JSON as another language would."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.worker import FrayWorker

pytestmark = pytest.mark.integration

TOKEN = "direct-calls"


@pytest.fixture(scope="module")
def worker() -> Iterator[FrayWorker]:
    server = FrayControllerServer(token=TOKEN)
    server.start()
    running = FrayWorker(server.address, token=TOKEN, num_cpus=1)
    running.start()
    yield running
    running.stop(grace=0)
    server.stop()


def _call(worker: FrayWorker, method: str, message: dict[str, Any], token: str = TOKEN) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{worker.address}/fray.FrayWorker/{method}",
        json.dumps(message).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        result: dict[str, Any] = json.load(answer)
        return result


def test_a_worker_says_that_it_is_well(worker: FrayWorker) -> None:
    assert _call(worker, "HealthCheck", {}) == {}


def test_a_worker_runs_one_task_for_a_direct_caller(worker: FrayWorker) -> None:
    result = _call(worker, "ExecuteTask", {"entrypoint": "math:sqrt", "jsonArgs": "[16]"})
    assert result["status"] == "TASK_STATUS_FINISHED"
    assert json.loads(result["resultJson"]) == 4.0


def test_a_direct_caller_learns_how_its_task_failed(worker: FrayWorker) -> None:
    raised = _call(worker, "ExecuteTask", {"entrypoint": "math:sqrt", "jsonArgs": "[-1]"})
    assert (raised["status"], raised["errorKind"]) == ("TASK_STATUS_FAILED", "ERROR_KIND_USER")
    assert "ValueError" in raised["error"]
    late = _call(worker, "ExecuteTask", {"entrypoint": "time:sleep", "jsonArgs": "[60]", "timeoutS": 0.2})
    assert late["errorKind"] == "ERROR_KIND_TIMEOUT"
    crashed = _call(worker, "ExecuteTask", {"entrypoint": "os:_exit", "jsonArgs": "[3]"})
    assert crashed["errorKind"] == "ERROR_KIND_CRASHED"
    assert "exit code 3" in crashed["error"]
    assert _call(worker, "ExecuteTask", {"entrypoint": "math:sqrt", "jsonArgs": "[9]"})["resultJson"] == "3.0"


def test_a_worker_refuses_a_wrong_token(worker: FrayWorker) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _call(worker, "ExecuteTask", {"entrypoint": "math:sqrt", "jsonArgs": "[16]"}, token="wrong")
    with refused.value as answer:
        assert answer.code == 401
