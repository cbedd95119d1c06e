"""The rules for actors that wait, call themselves and each other."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
from functools import partial
from pathlib import Path
from typing import Any

from fray.job.context import JobContext, fray_default_job_ctx, get_actor, get_default_job_ctx
from fray.testing.actor_checks import AsyncLog, Counter
from fray.testing.checks import NOT_PLACED, RUNS_AT_ONCE, check
from fray.testing.polling import eventually
from fray.testing.steps import wait_for_file

_NOT_WHILE_IT_WAITS = "an actor on Ray takes no call while it waits: one that waits for itself waits for ever"
_HOLDS_ON_WAITING = "Ray frees no resources of an actor while it waits"
_WAYS = ("get", "result", "exception", "wait", "cf.wait", "as_completed", "await")


# --- handles --------------------------------------------------------------------------------------------------------


@check()
def handles_of_an_actor_travel_inside_values(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter)
    with fray_default_job_ctx(ctx):
        assert ctx.get(ctx.run(_add_by, {"handles": [counter]})) == 1
        user = ctx.create_actor(_User, [counter])
        assert ctx.get(user.add.remote()) == 2
        assert ctx.get(user.add_by.remote({"handles": [counter]})) == 3
        assert ctx.get(ctx.get(user.show.remote()).add.remote()) == 4
    assert ctx.get(counter.add.remote()) == 5


@check()
def an_actor_creates_and_uses_actors(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        parent = ctx.create_actor(_Parent)
        assert ctx.get([parent.add.remote(), parent.add.remote()]) == [11, 12]


@check()
def an_actor_finds_others_by_name(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        counter = ctx.create_actor(Counter, name="found-by-name")
        assert ctx.get(ctx.run(_add_by_name, "found-by-name")) == 1
        assert ctx.get(ctx.create_actor(_User, []).add_by_name.remote("found-by-name")) == 2
    assert ctx.get(counter.add.remote()) == 3


# --- waiting --------------------------------------------------------------------------------------------------------


@check()
def an_actor_waits_for_tasks_and_actors_in_every_way(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter)
    with fray_default_job_ctx(ctx):
        waiter = ctx.create_actor(_Waiter)
        for number, way in enumerate(_WAYS):
            assert ctx.get(waiter.wait_by.remote(way, counter), timeout=60) == [8, number + 1], way


@check()
def an_actors_coroutines_await_tasks_and_actors(ctx: JobContext, tmp: Path) -> None:
    counter, log = ctx.create_actor(Counter), ctx.create_actor(AsyncLog)
    ctx.get(log.add.remote("line"))
    with fray_default_job_ctx(ctx):
        asker = ctx.create_actor(_Asker)
        assert ctx.get(asker.ask.remote(counter, log), timeout=60) == [8, 1, ["line"]]


@check(ray=_NOT_WHILE_IT_WAITS)
def an_actor_calls_itself_and_waits(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        actor = ctx.create_actor(_Waiter, name="calls-itself")
        assert ctx.get(actor.count_down.remote(actor, 5), timeout=60) == [5, 4, 3, 2, 1, 0]
        assert ctx.get(actor.count_down_by_name.remote("calls-itself", 3), timeout=60) == [3, 2, 1, 0]


@check(ray=_NOT_WHILE_IT_WAITS)
def an_actor_waits_for_itself_in_every_way(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        actor = ctx.create_actor(_Waiter)
        for way in _WAYS:
            assert ctx.get(actor.wait_by.remote(way, actor), timeout=60) == [8, "added"], way


@check(ray=_NOT_WHILE_IT_WAITS)
def actors_call_each_other_and_wait(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        one, two = ctx.create_actor(_Waiter), ctx.create_actor(_Waiter)
        assert ctx.get(one.pass_on.remote(one, two, 6), timeout=60) == 6
        assert ctx.get([one.pass_on.remote(one, two, 3), one.pass_on.remote(one, two, 4)], timeout=60) == [3, 4]


@check(ray=_NOT_WHILE_IT_WAITS)
def a_task_of_an_actor_calls_that_actor(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        actor = ctx.create_actor(_Waiter)
        assert ctx.get(actor.add_in_task.remote(actor, 3), timeout=60) == "added"


@check()
def an_actors_coroutine_awaits_its_own_actor(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        asker = ctx.create_actor(_Asker)
        assert ctx.get(asker.ask_itself.remote(asker, 4), timeout=60) == 4


@check(sync=RUNS_AT_ONCE)
def nobody_else_calls_an_actor_while_it_waits(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        account = ctx.create_actor(_Account)
        slow = account.read_twice.remote(tmp / "gate")
        eventually((tmp / "started-go").exists)
        others = [account.change.remote(), ctx.run(_call, account, "change")]
        assert ctx.wait([slow, *others], timeout=0.5)[0] == []
        (tmp / "gate").touch()
        before, after = ctx.get(slow, timeout=60)
        assert before == after == 0
        assert sorted(ctx.get(others, timeout=60)) == [1, 2]


@check(sync=RUNS_AT_ONCE, ray=_NOT_WHILE_IT_WAITS)
def strangers_wait_until_an_actor_that_calls_itself_is_through(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        account = ctx.create_actor(_Account)
        slow = account.change_twice.remote(account, tmp / "gate")
        eventually((tmp / "started-go").exists)
        stranger = account.change.remote()
        assert ctx.wait([stranger], timeout=0.5)[0] == []
        (tmp / "gate").touch()
        assert ctx.get(slow, timeout=60) == [1, 2]
        assert ctx.get(stranger, timeout=60) == 3


@check(sync=NOT_PLACED, threadpool=NOT_PLACED, ray=_HOLDS_ON_WAITING)
def an_actor_lends_what_it_occupies_while_it_waits(ctx: JobContext, tmp: Path) -> None:
    with fray_default_job_ctx(ctx):
        waiter = ctx.options(resources={"cpu": 2}).create_actor(_Waiter)
        counter = ctx.create_actor(Counter)
        for number, way in enumerate(_WAYS):
            assert ctx.get(waiter.wait_by.remote(way, counter), timeout=60) == [8, number + 1], way


# --- what runs in the actors ----------------------------------------------------------------------------------------


class _User:
    def __init__(self, counters: list[Any]) -> None:
        self.counters = counters

    def add(self) -> Any:
        return _add_by({"handles": self.counters})

    def add_by(self, box: dict[str, Any]) -> Any:
        return _add_by(box)

    def add_by_name(self, name: str) -> Any:
        return _add_by_name(name)

    def show(self) -> Any:
        return self.counters[0]


class _Parent:
    def __init__(self) -> None:
        self.child = get_default_job_ctx().create_actor(Counter, 10)

    def add(self) -> Any:
        return _call(self.child, "add")


class _Waiter:
    def __init__(self) -> None:
        self.trail: list[int] = []

    def add(self) -> str:
        return "added"

    def wait_by(self, way: str, other: Any) -> list[Any]:
        ctx = get_default_job_ctx()
        futures = [ctx.run(pow, 2, 3), other.add.remote()]
        if way == "wait":
            assert ctx.wait(futures, num_returns=2)[1] == []
        elif way == "cf.wait":
            assert not cf.wait(futures).not_done
        elif way == "as_completed":
            assert {*cf.as_completed(futures)} == {*futures}
        elif way == "exception":
            assert [future.exception() for future in futures] == [None, None]
        elif way == "get":
            return list(ctx.get(futures))
        elif way == "await":
            return asyncio.run(_gather(futures))
        return [future.result() for future in futures]

    def count_down(self, me: Any, n: int) -> Any:
        self.trail = [n] if n == 5 else [*self.trail, n]
        return get_default_job_ctx().get(me.count_down.remote(me, n - 1)) if n else self.trail

    def count_down_by_name(self, name: str, n: int) -> list[int]:
        rest = get_actor(name).count_down_by_name.remote(name, n - 1).result() if n else []
        return [n, *rest]

    def pass_on(self, me: Any, other: Any, n: int) -> Any:
        return 1 + other.pass_on.remote(other, me, n - 1).result() if n else 0

    def add_in_task(self, me: Any, depth: int) -> Any:
        ctx = get_default_job_ctx()
        method = partial(_call, me, "add_in_task", me, depth - 1) if depth else partial(_call, me, "add")
        return ctx.get(ctx.run(method))


class _Asker:
    async def ask(self, counter: Any, log: Any) -> list[Any]:
        return [await get_default_job_ctx().run(pow, 2, 3), await counter.add.remote(), await log.read.remote()]

    async def ask_itself(self, me: Any, n: int) -> Any:
        return 1 + await me.ask_itself.remote(me, n - 1) if n else 0


class _Account:
    def __init__(self) -> None:
        self.value = 0

    def change(self) -> int:
        self.value += 1
        return self.value

    def read_twice(self, gate: Path) -> tuple[int, int]:
        before, ctx = self.value, get_default_job_ctx()
        ctx.get(ctx.run(wait_for_file, gate, "go"))
        return before, self.value

    def change_twice(self, me: Any, gate: Path) -> list[int]:
        ctx = get_default_job_ctx()
        first = ctx.get(me.change.remote())
        ctx.get(ctx.run(wait_for_file, gate, "go"))
        return [first, ctx.get(me.change.remote())]


async def _gather(futures: list[Any]) -> list[Any]:
    return [await future for future in futures]


def _add_by(box: dict[str, Any]) -> Any:
    return _call(box["handles"][0], "add")


def _add_by_name(name: str) -> Any:
    return _call(get_actor(name), "add")


def _call(actor: Any, method: str, *args: Any) -> Any:
    return getattr(actor, method).remote(*args).result()
