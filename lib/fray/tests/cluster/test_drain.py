"""A worker that is asked to leave goes, busy or idle."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fray import create_job_ctx
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "drain"


def _wait_for_file(started: Path, go: Path) -> str:
    started.touch()
    eventually(go.exists, timeout=60)
    return "done"


@pytest.mark.parametrize("shares_the_loop", [False, True])
def test_an_idle_worker_leaves_at_once_and_the_controller_knows(shares_the_loop: bool) -> None:
    server = FrayControllerServer(token=TOKEN)
    server.start()
    controller = ControllerClient(server.address, TOKEN)
    try:
        for _ in range(3):
            worker = FrayWorker(server.address, token=TOKEN, num_cpus=1, embedded_in=server if shares_the_loop else None)
            worker.start()
            eventually(lambda: [w.attached for w in controller.call("list_workers", pb.Empty()).workers] == [True])
            worker.stop(grace=2.0)  # raises TimeoutError when it hangs
            assert not controller.call("list_workers", pb.Empty()).workers
    finally:
        controller.close()
        server.stop()


def test_a_busy_worker_ends_its_task_hands_back_the_rest_and_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)
    server = FrayControllerServer(token=TOKEN)
    server.start()
    first = FrayWorker(server.address, token=TOKEN, num_cpus=1)
    first.start()
    with create_job_ctx("fray", controller_address=server.address) as ctx:
        running = ctx.run(_wait_for_file, tmp_path / "started", tmp_path / "go")
        waiting = [ctx.run(len, "abc") for _ in range(5)]
        eventually((tmp_path / "started").exists)
        leaving = threading.Thread(target=first.stop)
        leaving.start()
        second = FrayWorker(server.address, token=TOKEN, num_cpus=1)
        second.start()
        assert ctx.get(waiting, timeout=30) == [3] * 5
        (tmp_path / "go").touch()
        assert running.result(timeout=30) == "done"
        leaving.join()
    second.stop(grace=0)
    server.stop()
