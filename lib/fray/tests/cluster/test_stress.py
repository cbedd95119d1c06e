"""Many submitters at once: every future resolves, nothing leaks."""

from __future__ import annotations

import concurrent.futures as cf
import os
import random
import threading
from pathlib import Path

import psutil
import pytest
from fray import create_job_ctx
from fray.errors import TaskCrashed
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.testing import eventually

SUBMITTERS, TASKS = 200, 50
KEPT_ALIVE = 8


class Planned(Exception):
    """A failure that the test asked for."""


def _work(number: int, size: int, fate: str) -> tuple[int, bytes]:
    if fate == "raise":
        raise Planned(number)
    if fate == "crash":
        os._exit(9)
    return number, bytes(size)


def _plan(submitter: int) -> list[tuple[int, int, str]]:
    chance = random.Random(submitter)
    rows = []
    for i in range(TASKS):
        fate = "raise" if chance.random() < 0.05 else "return"
        size = chance.choice([0, 10, 1000, 20_000]) if chance.random() < 0.99 else 400_000
        rows.append((submitter * TASKS + i, size, fate))
    if submitter % 50 == 0:
        rows[7] = (rows[7][0], 0, "crash")
    return rows


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.integration
def test_200_submitters_with_10000_tasks_of_random_sizes_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {child.pid for child in psutil.Process().children(recursive=True)}  # of fixtures that outlive their module
    with LocalCluster(workers=2, num_cpus=1, limits={"max_kills": 2}) as cluster:
        monkeypatch.setenv("FRAY_TOKEN", cluster.token)
        controller = ControllerClient(cluster.address, cluster.token)
        assert controller.call("get_status", pb.Empty()).workers == 2
        roots = {child.process.pid for child in (cluster.controller, *cluster.workers) if child is not None}
        threads = set(threading.enumerate())
        files = {pid: _open_files(pid) for pid in (os.getpid(), *roots)}
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            folder = Path(ctx._session.store.root)  # type: ignore[attr-defined]

            def submit(submitter: int) -> tuple[int, int, int]:
                rows = _plan(submitter)
                futures = [ctx.run(_work, *row) for row in rows]
                returned = raised = crashed = 0
                for (number, size, _), future in zip(rows, futures, strict=True):
                    try:
                        got, data = future.result(timeout=100)
                        assert (got, len(data)) == (number, size)
                        returned += 1
                    except Planned as error:
                        assert error.args == (number,)
                        raised += 1
                    except TaskCrashed:
                        crashed += 1
                return returned, raised, crashed

            with cf.ThreadPoolExecutor(SUBMITTERS) as pool:
                counts = list(pool.map(submit, range(SUBMITTERS)))
            rows = [row for submitter in range(SUBMITTERS) for row in _plan(submitter)]
            wanted = tuple(sum(fate == kind for _, _, fate in rows) for kind in ("return", "raise", "crash"))
            assert tuple(map(sum, zip(*counts, strict=True))) == wanted
            assert sum(wanted) == SUBMITTERS * TASKS

            def forgotten() -> bool:
                status = controller.call("get_status", pb.Empty())
                return not status.tasks and not any(status.used.values())

            eventually(forgotten, what="the controller forgets acknowledged tasks and all slots are free")
        eventually(lambda: not folder.exists(), what="the session's storage is deleted")
        eventually(lambda: controller.call("get_status", pb.Empty()).sessions == 0)
        eventually(lambda: not set(threading.enumerate()) - threads, what="the context's threads end")
        eventually(
            lambda: all(_open_files(pid) <= count + KEPT_ALIVE for pid, count in files.items()),
            what="no files are open but a few connections that are kept alive",
        )
        controller.close()
        children = [child for child in psutil.Process().children(recursive=True) if child.pid not in others]
        templates = {child.pid for child in children if child.pid not in roots and child.ppid() in roots}
        assert len([child for child in children if child.ppid() in templates]) == 2, children
    eventually(lambda: not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE])
