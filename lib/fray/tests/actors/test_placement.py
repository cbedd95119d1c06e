"""Where actors live, and what moves them."""

from __future__ import annotations

import concurrent.futures as cf
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fray import JobContext, create_job_ctx, get_default_job_ctx
from fray.errors import ActorDied, TaskTimeout
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually

pytestmark = pytest.mark.integration

LIMITS = {"silence_s": 2.0, "reattach_grace_s": 0.5}


def _make_class() -> type:
    """Return a class that travels by value: a process that runs it need not import this module, and pytest with it."""

    class Adder:
        def __init__(self) -> None:
            self.value = 0

        def add(self) -> int:
            self.value += 1
            return self.value

        def pid(self) -> int:
            return os.getpid()

    return Adder


Adder = _make_class()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    with LocalCluster(workers=1, num_cpus=2, limits=LIMITS) as cluster:
        monkeypatch.setenv("FRAY_TOKEN", cluster.token)
        yield cluster


@pytest.fixture
def ctx(cluster: LocalCluster) -> Iterator[JobContext]:
    with create_job_ctx("fray", controller_address=cluster.address) as ctx:
        yield ctx


def worker_of(ctx: JobContext, actor: Any) -> str:
    return ctx.actor_status(actor).worker_id


def test_actors_are_spread_over_equal_workers(cluster: LocalCluster, ctx: JobContext) -> None:
    cluster.add_worker()
    actors = [ctx.create_actor(Adder) for _ in range(8)]
    assert sorted(Counter(worker_of(ctx, actor) for actor in actors).values()) == [4, 4]


def test_actor_that_no_worker_can_host_says_what_is_missing_and_starts_when_one_comes(
    cluster: LocalCluster, ctx: JobContext, capfd: pytest.CaptureFixture[str]
) -> None:
    special = ctx.options(resources={"special": 1})
    with cf.ThreadPoolExecutor(1) as thread:
        coming = thread.submit(special.create_actor, Adder, name="special")
        seen = ""

        def told() -> bool:
            nonlocal seen
            seen += capfd.readouterr().err
            return "special: 1, which no worker has" in seen

        eventually(told, what="the client is told what is missing")
        assert "special: 1" in ctx.actor_status(ctx.get_actor("special")).reason
        cluster.add_worker(resources={"special": 1}, worker_id="the-special-one")
        assert worker_of(ctx, coming.result(timeout=60)) == "the-special-one"


def test_actor_that_must_not_be_preempted_keeps_off_workers_that_may_be(cluster: LocalCluster, ctx: JobContext) -> None:
    cluster.add_worker(tags={"preemptible": "true"}, worker_id="cheap", num_cpus=64)
    assert {worker_of(ctx, ctx.create_actor(Adder, preemptible=False)) for _ in range(3)} != {"cheap"}
    assert all(worker_of(ctx, ctx.create_actor(Adder, preemptible=False)) != "cheap" for _ in range(3))
    assert worker_of(ctx, ctx.create_actor(Adder)) == "cheap"  # it has the least load
    picky = ctx.options(deadline=0.5, resources={"cpu": 10})
    with pytest.raises(TaskTimeout, match="a worker that is not preemptible"):
        picky.create_actor(Adder, preemptible=False)


def test_actor_occupies_what_it_asks_for_and_nothing_otherwise(ctx: JobContext) -> None:
    idle = [ctx.create_actor(Adder) for _ in range(5)]
    holders = [ctx.options(resources={"cpu": 1}).create_actor(Adder) for _ in range(2)]
    waiting = ctx.run(len, "waits for a CPU")
    assert ctx.wait([waiting], timeout=0.5) == ([], [waiting])
    assert ctx.get([actor.add.remote() for actor in (*idle, *holders)]) == [1] * 7
    ctx.kill(holders[0])
    assert ctx.get(waiting, timeout=60) == 15


def test_two_hundred_actors_live_on_one_worker(ctx: JobContext) -> None:
    with cf.ThreadPoolExecutor(16) as threads:
        actors = list(threads.map(lambda _: ctx.create_actor(Adder), range(200)))
    assert ctx.get([actor.add.remote() for actor in actors], timeout=100) == [1] * 200
    assert len(set(ctx.get([actor.pid.remote() for actor in actors]))) == 200


def test_worker_that_drains_hands_an_actor_with_checkpoints_on_without_a_failed_call(
    cluster: LocalCluster, ctx: JobContext
) -> None:
    leaving = FrayWorker(cluster.address, "leaving", token=cluster.token, num_cpus=2)
    leaving.start()
    lasting = ctx.options(max_restarts=0, checkpoint_every=1000)
    actors = [lasting.create_actor(Adder) for _ in range(4)]
    mortals = [ctx.create_actor(Adder) for _ in range(4)]
    moving = [actor for actor in actors if worker_of(ctx, actor) == "leaving"]
    dying = [actor for actor in mortals if worker_of(ctx, actor) == "leaving"]
    assert (len(moving), len(dying)) == (2, 2)
    before = [ctx.get([actor.add.remote() for _ in range(10)]) for actor in moving]
    with cf.ThreadPoolExecutor(1) as thread:
        gone = thread.submit(leaving.stop, 30.0)
        after = [[ctx.get(actor.add.remote(), timeout=60) for _ in range(300)] for actor in moving]
        gone.result(timeout=60)
    after[0] += ctx.get([moving[0].add.remote() for _ in range(50)], timeout=60)
    assert before[0] + after[0] == list(range(1, 361))
    assert before[1] + after[1] == list(range(1, 311))
    assert not [actor for actor in moving if worker_of(ctx, actor) == "leaving"]
    for actor in dying:
        with pytest.raises(ActorDied, match="drained"):
            ctx.get(actor.add.remote(), timeout=60)


def test_worker_that_is_killed_loses_its_actors_to_another_one(cluster: LocalCluster, ctx: JobContext) -> None:
    actor = ctx.options(max_restarts=1, checkpoint_every=2).create_actor(Adder)
    assert ctx.get([actor.add.remote() for _ in range(5)]) == [1, 2, 3, 4, 5]
    cluster.add_worker(worker_id="next")
    os.kill(cluster.workers[0].process.pid, signal.SIGKILL)
    assert ctx.get(_first_answer(ctx, actor), timeout=60) == 5  # the fourth call was saved, the fifth was not
    assert worker_of(ctx, actor) == "next"


def test_processes_of_actors_end_with_their_session_but_for_detached_ones(cluster: LocalCluster, ctx: JobContext) -> None:
    with create_job_ctx("fray", controller_address=cluster.address) as other:
        mine = other.create_actor(Adder, name="mine")
        kept = other.create_actor(Adder, name="kept", lifetime="detached")
        pids = other.get([mine.pid.remote(), kept.pid.remote()])
    eventually(lambda: not psutil.pid_exists(pids[0]), what="the process of the session's actor ends")
    again = ctx.get_actor("kept")
    assert ctx.get(again.pid.remote()) == pids[1]
    ctx.kill(again)
    eventually(lambda: not psutil.pid_exists(pids[1]), what="the process of the killed actor ends")


def _first_answer(ctx: JobContext, actor: Any) -> Any:
    """Return the future of the first call after the restart."""

    def answered() -> Any:
        future = actor.add.remote()
        try:
            future.result(timeout=60)
        except ActorDied:
            return None
        return future

    return eventually(answered, what="the actor answers", timeout=60)


def test_actor_that_a_task_has_made_lives_as_long_as_the_session_of_the_client(cluster: LocalCluster, ctx: JobContext) -> None:
    def make(cls: type) -> int:
        made = get_default_job_ctx().create_actor(cls, name="made-in-a-task")
        pid: int = made.pid.remote().result()
        return pid

    with create_job_ctx("fray", controller_address=cluster.address) as other:
        pid = other.get(other.run(make, Adder))
        assert other.get([other.run(pow, 2, 3) for _ in range(20)]) == [8] * 20
        assert other.get(other.get_actor("made-in-a-task").add.remote()) == 1
    eventually(lambda: not psutil.pid_exists(pid), what="the actor ends with the client's session")


def test_checkpoints_are_deleted_with_their_actor(ctx: Any) -> None:
    actor = ctx.options(checkpoint_every=1).create_actor(Adder)
    ctx.get(actor.add.remote())
    folder = Path(ctx.session.actors_url, "actors", ctx.actor_status(actor).actor_id)
    assert list(folder.iterdir())
    ctx.kill(actor)
    eventually(lambda: not folder.exists(), what="the checkpoints are deleted")
