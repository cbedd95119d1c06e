"""The rules for how many calls an actor carries out at a time, and what actors occupy."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import threading
from pathlib import Path

from fray.job.context import JobContext
from fray.testing.actor_checks import Counter
from fray.testing.checks import NOT_PLACED, RUNS_AT_ONCE, check
from fray.testing.steps import be_alone, meet, nap


@check()
def an_actor_carries_out_one_call_at_a_time(ctx: JobContext, tmp: Path) -> None:
    crowd = ctx.create_actor(_Crowd)
    with cf.ThreadPoolExecutor(4) as threads:
        for futures in threads.map(lambda _: [crowd.be_alone.remote(tmp / "here") for _ in range(2)], range(4)):
            ctx.get(futures)


@check(sync=RUNS_AT_ONCE)
def an_actor_carries_out_as_many_calls_as_asked_for(ctx: JobContext, tmp: Path) -> None:
    crowd = ctx.options(max_concurrency=2).create_actor(_Crowd)
    a, b = tmp / "a", tmp / "b"
    assert ctx.get([crowd.meet.remote(a, b), crowd.meet.remote(b, a)]) == [True, True]
    ctx.get([crowd.stay.remote() for _ in range(8)])
    assert ctx.get(crowd.most.remote()) <= 2


@check(sync=RUNS_AT_ONCE)
def an_actors_coroutines_run_at_the_same_time(ctx: JobContext, tmp: Path) -> None:
    crowd = ctx.create_actor(_AsyncCrowd)
    calls = [crowd.meet.remote(number, 20) for number in range(20)]
    assert ctx.get(calls, timeout=60) == list(range(20))


@check(sync=RUNS_AT_ONCE)
def an_actors_coroutines_are_limited_when_asked(ctx: JobContext, tmp: Path) -> None:
    crowd = ctx.options(max_concurrency=2).create_actor(_AsyncCrowd)
    assert ctx.get([crowd.meet.remote(number, 2) for number in range(2)], timeout=60) == [0, 1]
    ctx.get([crowd.stay.remote() for _ in range(8)])
    assert ctx.get(crowd.most.remote()) <= 2


@check(sync=RUNS_AT_ONCE)
def idle_actors_leave_the_slots_to_tasks(ctx: JobContext, tmp: Path) -> None:
    counters = [ctx.create_actor(Counter, number) for number in range(5)]
    a, b = tmp / "a", tmp / "b"
    assert ctx.get([ctx.run(meet, a, b), ctx.run(meet, b, a)], timeout=60) == [True, True]
    assert ctx.get([counter.add.remote() for counter in counters]) == [1, 2, 3, 4, 5]


@check(sync=NOT_PLACED, threadpool=NOT_PLACED)
def an_actor_occupies_what_it_asks_for(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.options(resources={"cpu": 2}).create_actor(Counter)
    task = ctx.run(len, "abc")
    assert ctx.wait([task], timeout=0.5)[0] == []
    assert ctx.get(counter.add.remote()) == 1
    ctx.kill(counter)
    assert ctx.get(task, timeout=60) == 3


class _Crowd:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.here = self.at_most = 0

    def be_alone(self, path: Path) -> None:
        be_alone(path)

    def meet(self, here: Path, there: Path) -> bool:
        return meet(here, there)

    def stay(self) -> None:
        with self.lock:
            self.here += 1
            self.at_most = max(self.at_most, self.here)
        nap(0.03)
        with self.lock:
            self.here -= 1

    def most(self) -> int:
        return self.at_most


class _AsyncCrowd:
    def __init__(self) -> None:
        self.here = self.at_most = 0
        self.all_here = asyncio.Event()

    async def meet(self, number: int, expected: int) -> int:
        self.here += 1
        if self.here == expected:
            self.all_here.set()
        await asyncio.wait_for(self.all_here.wait(), 30)
        self.here -= 1
        return number

    async def stay(self) -> None:
        self.here += 1
        self.at_most = max(self.at_most, self.here)
        await asyncio.sleep(0.03)
        self.here -= 1

    async def most(self) -> int:
        return self.at_most
