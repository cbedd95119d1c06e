"""What becomes of actors when their controller ends: its state is in memory, so they end too, and everybody is told."""

from __future__ import annotations

import os
import threading

import psutil
import pytest
from fray import create_job_ctx
from fray.errors import ActorDied, ContextClosed
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "restart"


def _make_class() -> type:
    class Sleeper:
        def pid(self) -> int:
            return os.getpid()

        def sleep(self, seconds: float) -> None:
            threading.Event().wait(seconds)

    return Sleeper


def test_actors_of_a_controller_that_was_restarted_end_and_no_call_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)
    server = FrayControllerServer(token=TOKEN)
    port = server.start()
    worker = FrayWorker(server.address, token=TOKEN, num_cpus=1)
    worker.start()
    ctx = create_job_ctx("fray", controller_address=server.address)
    actor = ctx.create_actor(_make_class(), name="one")
    pid = ctx.get(actor.pid.remote())
    under_way = actor.sleep.remote(60)
    server.stop()
    again = FrayControllerServer(port=port, token=TOKEN)
    again.start()
    with pytest.raises(ActorDied):
        under_way.result(timeout=60)
    with pytest.raises(ActorDied):
        actor.pid.remote().result(timeout=60)
    with pytest.raises(ContextClosed):
        ctx.create_actor(_make_class())
    eventually(lambda: not psutil.pid_exists(pid), what="the process of the actor ends")
    ctx.close()
    with create_job_ctx("fray", controller_address=again.address) as fresh:
        made = fresh.create_actor(_make_class(), name="one")
        assert fresh.get(made.pid.remote(), timeout=60) != pid
    worker.stop(grace=0)
    again.stop()
