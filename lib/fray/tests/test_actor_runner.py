"""The order in which the calls of one actor are carried out, without any context around it."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fray import JobFuture, save_checkpoint
from fray.errors import ConfigurationError
from fray.job.actors import ActorCall, ActorRunner
from fray.job.futures import current_slot, lent_slot
from fray.testing import eventually

pytestmark = pytest.mark.unit

NAME = "runner-under-test"
_numbers = itertools.count()


class FakeCall(ActorCall):
    """A call whose outcome is a future."""

    def __init__(
        self, method: str, *args: Any, chain: tuple[str, ...] = (), wanted: bool = True, refuse: BaseException | None = None
    ) -> None:
        super().__init__(f"call-{next(_numbers)}", method, chain)
        self.outcome: cf.Future[Any] = cf.Future()
        self._args, self._wanted, self._refuse = args, wanted, refuse

    def is_wanted(self) -> bool:
        return self._wanted

    def arguments(self) -> tuple[Any, Any]:
        for arg in self._args:
            if isinstance(arg, BaseException):
                raise arg
        return self._args, {}

    def finish(self, value: Any) -> None:
        if self._refuse is not None:
            raise self._refuse
        self.outcome.set_result(value)

    def fail(self, error: BaseException) -> None:
        self.outcome.set_exception(error)


class Actor:
    """An actor whose calls do what the tests say."""

    def __init__(self) -> None:
        self.trail: list[Any] = []

    def add(self, what: Any) -> int:
        self.trail.append(what)
        return len(self.trail)

    def do(self, fn: Callable[[], Any]) -> Any:
        return fn()


class AsyncActor(Actor):
    async def wait(self, event: str) -> str:
        self.trail.append(event)
        await asyncio.Event().wait()
        return event

    async def linger(self, gate: threading.Event) -> str:
        self.trail.append("lingers")
        return "ended" if await asyncio.to_thread(gate.wait, 20) else "late"

    async def meet(self, barrier: list[asyncio.Event], index: int) -> int:
        barrier[index].set()
        await barrier[1 - index].wait()
        return index

    async def stay(self) -> int:
        self.trail.append("in")
        here = self.trail.count("in") - self.trail.count("out")
        for _ in range(5):
            await asyncio.sleep(0)
        self.trail.append("out")
        return here


class FakeSlot:
    """A place that counts how often it is lent."""

    def __init__(self) -> None:
        self.changes: list[str] = []

    def lend(self) -> None:
        self.changes.append("lend")

    def reclaim(self) -> None:
        self.changes.append("reclaim")

    def resume(self) -> None:
        pass


@contextmanager
def served(instance: Any, **settings: Any) -> Iterator[ActorRunner]:
    """A runner that serves on a thread; at the end it has stopped, and no thread of its own is left."""
    runner = ActorRunner(NAME, instance, **settings)
    thread = threading.Thread(target=runner.serve, name=NAME)
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(20)
    eventually(lambda: not [t.name for t in threading.enumerate() if t.name.startswith(NAME)], what="no thread is left")


def submit(runner: ActorRunner, *calls: FakeCall) -> list[FakeCall]:
    for call in calls:
        runner.submit(call)
    return list(calls)


def results(calls: list[FakeCall]) -> list[Any]:
    return [call.outcome.result(20) for call in calls]


def pass_by(entered: threading.Event, gate: threading.Event) -> bool:
    """Tell that a call has begun, and end it when the gate opens."""
    entered.set()
    return gate.wait(20)


# --- one at a time --------------------------------------------------------------------------------------------------


def test_calls_are_carried_out_in_order_on_the_thread_that_serves() -> None:
    actor = Actor()
    with served(actor) as runner:
        where = FakeCall("do", lambda: threading.current_thread().name)
        assert results(submit(runner, *(FakeCall("add", n) for n in range(50)), where)) == [*range(1, 51), NAME]
    assert actor.trail == list(range(50))


def test_calls_that_came_before_the_runner_served_are_carried_out_first() -> None:
    actor = Actor()
    runner = ActorRunner(NAME, actor)
    calls = submit(runner, FakeCall("add", "a"), FakeCall("add", "b"))
    calls += submit(runner, FakeCall("do", runner.stop))
    assert not cf.wait([calls[0].outcome], timeout=0.05).done
    runner.serve()
    assert results(calls) == [1, 2, None]


def test_a_call_waits_until_the_one_before_it_has_ended() -> None:
    gate = threading.Event()
    actor = Actor()
    with served(actor) as runner:
        busy = FakeCall("do", lambda: gate.wait(20))
        calls = submit(runner, busy, FakeCall("add", "after"), FakeCall("add", "on its behalf", chain=(busy.id,)))
        assert not cf.wait([call.outcome for call in calls], timeout=0.05).done
        gate.set()
        assert results(calls) == [True, 1, 2]


def test_failures_go_to_their_calls_and_the_runner_goes_on() -> None:
    with served(Actor()) as runner:
        failing = submit(
            runner,
            FakeCall("nothing"),
            FakeCall("add", KeyError("argument")),
            FakeCall("add"),
            FakeCall("do", lambda: 1 // 0),
            FakeCall("do", lambda: exec("raise SystemExit(3)")),
            FakeCall("add", "value", refuse=OSError("cannot travel")),
        )
        errors = [type(call.outcome.exception(20)) for call in failing]
        assert errors == [AttributeError, KeyError, TypeError, ZeroDivisionError, SystemExit, OSError]
        assert results(submit(runner, FakeCall("add", "alive"))) == [2]


def test_a_call_that_is_not_wanted_any_more_is_passed_over() -> None:
    actor = Actor()
    with served(actor) as runner:
        unwanted, after = submit(runner, FakeCall("add", "unwanted", wanted=False), FakeCall("add", "wanted"))
        assert results([after]) == [1]
        assert not unwanted.outcome.done()
    assert actor.trail == ["wanted"]


# --- waiting --------------------------------------------------------------------------------------------------------


def test_only_calls_on_behalf_of_one_that_waits_come_in_between() -> None:
    actor, held = Actor(), JobFuture[Any]()
    with served(actor) as runner:
        outer = FakeCall("do", held.result)
        submit(runner, outer, FakeCall("add", "stranger"))
        other = FakeCall("add", "on behalf of another", chain=("another",))
        inner = FakeCall("add", "inner", chain=("another", outer.id))
        assert results(submit(runner, other, inner)[1:]) == [1]
        assert not other.outcome.done()
        held.resolve("done")
        assert results([outer, other]) == ["done", 3]
    assert actor.trail == ["inner", "stranger", "on behalf of another"]


def test_calls_on_behalf_of_each_other_nest() -> None:
    with served(Actor()) as runner:

        def dive(depth: int, chain: tuple[str, ...]) -> FakeCall:
            call = FakeCall("do", lambda: None, chain=chain)
            call._args = (lambda: _dive_on(call, depth),)
            return submit(runner, call)[0]

        def _dive_on(call: FakeCall, depth: int) -> int:
            if not depth:
                return 0
            inner = dive(depth - 1, (*call.chain, call.id))
            with lent_slot():
                return 1 + int(inner.outcome.result(20))

        assert results([dive(6, ())]) == [6]
        assert results([dive(3, ()), dive(2, ())]) == [3, 2]


def test_a_call_goes_on_only_when_those_that_came_in_between_have_ended() -> None:
    gate, entered, held = threading.Event(), threading.Event(), JobFuture[Any]()
    actor = Actor()

    def outer_body() -> None:
        held.result()
        actor.trail.append("outer goes on")

    def inner_body() -> None:
        entered.set()
        gate.wait(20)
        actor.trail.append("inner ends")

    with served(actor) as runner:
        outer = FakeCall("do", outer_body)
        inner = FakeCall("do", inner_body, chain=(outer.id,))
        submit(runner, outer, inner)
        assert entered.wait(20)
        held.resolve(None)
        assert not cf.wait([outer.outcome], timeout=0.05).done
        gate.set()
        results([outer, inner])
    assert actor.trail == ["inner ends", "outer goes on"]


def test_the_place_of_an_actor_is_lent_while_its_one_call_waits() -> None:
    slot, held = FakeSlot(), JobFuture[Any]()
    with served(Actor(), slot=slot) as runner:
        call = submit(runner, FakeCall("do", held.result))[0]
        eventually(lambda: slot.changes == ["lend"])
        held.resolve(1)
        assert results([call]) == [1]
    assert slot.changes == ["lend", "reclaim"]


def test_the_place_of_an_actor_is_kept_where_other_calls_may_run_on_it() -> None:
    slot, held = FakeSlot(), JobFuture[Any]()
    with served(Actor(), slot=slot, max_concurrency=2) as runner:
        waiting = submit(runner, FakeCall("do", held.result))[0]
        eventually(lambda: waiting.lent)
        assert results(submit(runner, FakeCall("add", 1))) == [1]
        held.resolve(1)
        results([waiting])
    assert slot.changes == []


@pytest.mark.parametrize(("cls", "has_one"), [(Actor, True), (AsyncActor, False)])
def test_the_slot_of_who_made_the_runner_is_not_that_of_its_calls(cls: type, has_one: bool) -> None:
    outside = FakeSlot()
    token = current_slot.set(outside)
    try:
        with served(cls()) as runner:
            seen = results(submit(runner, FakeCall("do", current_slot.get)))[0]
    finally:
        current_slot.reset(token)
    assert seen is not outside
    assert (seen is not None) is has_one


# --- several at a time ----------------------------------------------------------------------------------------------


def test_as_many_calls_run_as_allowed_and_no_more() -> None:
    both, more = threading.Barrier(2), threading.Event()
    with served(Actor(), max_concurrency=2) as runner:
        together = submit(runner, *(FakeCall("do", lambda: both.wait(20) >= 0) for _ in range(2)))
        assert results(together) == [True, True]
        inside = [threading.Event() for _ in range(3)]
        calls = submit(runner, *(FakeCall("do", lambda e=e: pass_by(e, more)) for e in inside))
        assert inside[0].wait(20)
        assert inside[1].wait(20)
        assert not inside[2].wait(0.05)
        more.set()
        assert results(calls) == [True, True, True]


def test_coroutines_meet_on_one_thread() -> None:
    with served(AsyncActor()) as runner:
        barrier = [asyncio.Event(), asyncio.Event()]
        assert results(submit(runner, FakeCall("meet", barrier, 0), FakeCall("meet", barrier, 1))) == [0, 1]
        where = FakeCall("do", lambda: threading.current_thread().name)
        assert results(submit(runner, where)) == [NAME]


def test_coroutines_are_no_more_than_allowed() -> None:
    with served(AsyncActor(), max_concurrency=3) as runner:
        assert set(results(submit(runner, *(FakeCall("stay") for _ in range(12))))) <= {1, 2, 3}


def test_failures_of_coroutines_go_to_their_calls() -> None:
    with served(AsyncActor()) as runner:
        failing = submit(
            runner,
            FakeCall("nothing"),
            FakeCall("do", lambda: exec("raise SystemExit(3)")),
            FakeCall("add", "value", refuse=OSError("cannot travel")),
        )
        assert [type(call.outcome.exception(20)) for call in failing] == [AttributeError, SystemExit, OSError]
        assert results(submit(runner, FakeCall("add", "alive"))) == [2]


# --- the end --------------------------------------------------------------------------------------------------------


def test_after_stop_no_call_begins_and_the_running_one_ends() -> None:
    gate, entered = threading.Event(), threading.Event()
    actor = Actor()
    with served(actor) as runner:
        running = submit(runner, FakeCall("do", lambda: pass_by(entered, gate)))[0]
        queued = submit(runner, FakeCall("add", "queued"))[0]
        assert entered.wait(20)
        runner.stop()
        late = submit(runner, FakeCall("add", "late"))[0]
        gate.set()
        assert results([running]) == [True]
    assert actor.trail == []
    assert not queued.outcome.done()
    assert not late.outcome.done()


@pytest.mark.parametrize("limit", [1, 2])
def test_serve_returns_when_all_running_calls_have_ended(limit: int) -> None:
    gate, inside = threading.Event(), [threading.Event() for _ in range(limit)]
    runner = ActorRunner(NAME, Actor(), limit)
    thread = threading.Thread(target=runner.serve, name=NAME)
    thread.start()
    for event in inside:
        submit(runner, FakeCall("do", lambda event=event: pass_by(event, gate)))
    assert all(event.wait(20) for event in inside)
    runner.stop()
    thread.join(0.05)
    assert thread.is_alive()
    gate.set()
    thread.join(20)
    assert not thread.is_alive()


def test_serve_waits_for_a_call_on_another_thread_after_its_own_has_ended() -> None:
    gates, inside = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    where: dict[str, int] = {}
    runner = ActorRunner(NAME, Actor(), 2)
    thread = threading.Thread(target=runner.serve, name=NAME)
    thread.start()

    def body(index: int) -> None:
        where[threading.current_thread().name] = index
        inside[index].set()
        gates[index].wait(20)

    submit(runner, *(FakeCall("do", lambda index=index: body(index)) for index in range(2)))
    assert all(event.wait(20) for event in inside)
    runner.stop()
    own = where[NAME]
    gates[own].set()
    thread.join(0.05)
    assert thread.is_alive()
    gates[1 - own].set()
    thread.join(20)
    assert not thread.is_alive()
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith(NAME)], what="no thread is left")


def test_stop_cancels_coroutines_that_wait() -> None:
    actor = AsyncActor()
    with served(actor) as runner:
        waiting = submit(runner, FakeCall("wait", "for ever"))[0]
        eventually(lambda: actor.trail)
        runner.stop()
        assert isinstance(waiting.outcome.exception(20), asyncio.CancelledError)


def test_stop_lets_coroutines_end_when_told_to() -> None:
    gate, actor = threading.Event(), AsyncActor()
    with served(actor) as runner:
        lingering = submit(runner, FakeCall("linger", gate))[0]
        eventually(lambda: actor.trail)
        runner.stop(cancel=False)
        late = submit(runner, FakeCall("add", "late"))[0]
        gate.set()
        assert results([lingering]) == ["ended"]
    assert not late.outcome.done()


def test_an_idle_runner_keeps_one_thread() -> None:
    with served(Actor(), max_concurrency=4) as runner:
        barrier = threading.Barrier(4)
        results(submit(runner, *(FakeCall("do", lambda: barrier.wait(20)) for _ in range(4))))
        eventually(lambda: [t.name for t in threading.enumerate() if t.name.startswith(NAME)] == [NAME])
        assert results(submit(runner, FakeCall("add", 1))) == [1]


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_save_checkpoint_in_a_call_is_what_the_runner_was_given() -> None:
    saved: list[str] = []
    with served(Actor(), saver=lambda: saved.append("saved")) as runner:
        results(submit(runner, FakeCall("do", save_checkpoint), FakeCall("do", save_checkpoint)))
    assert saved == ["saved", "saved"]


@pytest.mark.parametrize(("cls", "limit"), [(AsyncActor, None), (Actor, 2)])
def test_save_checkpoint_is_refused_where_several_calls_run_at_a_time(cls: type, limit: int | None) -> None:
    saved: list[str] = []
    with served(cls(), max_concurrency=limit, saver=lambda: saved.append("saved")) as runner:
        call = submit(runner, FakeCall("do", save_checkpoint))[0]
        assert isinstance(call.outcome.exception(20), ConfigurationError)
    assert saved == []
