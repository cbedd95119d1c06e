"""The rules for what an actor is given and gives back: arguments, values, failures, and the order of its calls."""

from __future__ import annotations

import concurrent.futures as cf
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fray.errors import EncodeError, TaskFailed
from fray.job.context import JobContext
from fray.testing.checks import IN_PROCESS, RUNS_AT_ONCE, check, raises
from fray.testing.steps import NoRoundTrip, Rich, fail_deep_down, raise_error, wait_for_file


class Counter:
    """An actor with a number."""

    def __init__(self, start: int = 0, step: int = 1) -> None:
        if not isinstance(start, int):
            raise ValueError("start must be a number")
        self.value, self.step = start, step

    def add(self, times: int = 1) -> int:
        self.value += self.step * times
        return self.value

    def fail(self, text: str) -> None:
        raise ValueError(text)


class Log:
    """An actor that keeps what it is told, and calls any function."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def add(self, line: Any) -> None:
        self.lines.append(line)

    def read(self) -> list[Any]:
        return self.lines

    def call(self, fn: Any, *args: Any) -> Any:
        return fn(*args)

    def show(self, *args: Any, key: Any = None, **kwargs: Any) -> Any:
        return args, key, kwargs

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)


class AsyncLog:
    """The same with ``async`` methods."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    async def add(self, line: Any) -> None:
        self.lines.append(line)

    async def read(self) -> list[Any]:
        return self.lines

    async def call(self, fn: Any, *args: Any) -> Any:
        return fn(*args)

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)


# --- order ----------------------------------------------------------------------------------------------------------


@check()
def an_actor_keeps_state_and_carries_out_calls_in_order(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter, 10, step=2)
    assert ctx.get([counter.add.remote() for _ in range(5)]) == [12, 14, 16, 18, 20]
    assert ctx.get(counter.add.remote(times=2)) == 24
    assert ctx.get(counter.add.remote(ctx.run(lambda: 3))) == 30
    log = ctx.create_actor(Log)
    for number in range(200):
        log.add.remote(number)
    assert ctx.get(log.read.remote()) == list(range(200))


@check()
def an_actor_keeps_the_order_of_each_calling_thread(ctx: JobContext, tmp: Path) -> None:
    log = ctx.create_actor(Log)
    with cf.ThreadPoolExecutor(8) as threads:
        for futures in threads.map(lambda n: [log.add.remote([n, i]) for i in range(20)], range(8)):
            ctx.get(futures)
    lines = ctx.get(log.read.remote())
    for thread in range(8):
        assert [number for who, number in lines if who == thread] == list(range(20))


@check(sync=RUNS_AT_ONCE)
def an_actors_call_with_late_arguments_keeps_its_place(ctx: JobContext, tmp: Path) -> None:
    log = ctx.create_actor(Log)
    late = log.add.remote(ctx.run(wait_for_file, tmp / "gate", "first"))
    second = log.add.remote("second")
    assert ctx.wait([late, second], timeout=0.3)[0] == []
    (tmp / "gate").touch()
    ctx.get([late, second])
    assert ctx.get(log.read.remote()) == ["first", "second"]


@check(sync=RUNS_AT_ONCE)
def a_call_with_late_arguments_leaves_an_actor_to_others(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter)
    late = ctx.run(_add_after, tmp / "gate", counter)  # it calls the actor that the call with its value waits for
    calls = [counter.add.remote(late), counter.add.remote()]
    (tmp / "gate").touch()
    assert ctx.get(calls, timeout=60) == [2, 3]


@check(ray="Ray begins the coroutines of an actor in any order")
def an_actor_begins_coroutines_in_order(ctx: JobContext, tmp: Path) -> None:
    log = ctx.create_actor(AsyncLog)
    ctx.get([log.add.remote(number) for number in range(60)])
    assert ctx.get(log.read.remote()) == list(range(60))


@check()
def many_actors_take_many_calls_each(ctx: JobContext, tmp: Path) -> None:
    counters = [ctx.create_actor(Counter, 100 * number) for number in range(20)]
    futures = [[counter.add.remote() for counter in counters] for _ in range(20)]
    assert ctx.get(futures[-1]) == [100 * number + 20 for number in range(20)]
    assert ctx.get(futures[0]) == [100 * number + 1 for number in range(20)]


# --- values ---------------------------------------------------------------------------------------------------------


@check()
def an_actors_methods_take_any_arguments(ctx: JobContext, tmp: Path) -> None:
    log = ctx.create_actor(Log)
    assert ctx.get(log.show.remote()) == ((), None, {})
    assert ctx.get(log.show.remote(1, None, key=[2], method="m", args=3)) == ((1, None), [2], {"method": "m", "args": 3})
    assert ctx.get(log.call.remote(lambda x: x + 1, 2)) == 3


@check()
def an_actor_receives_the_values_of_futures_and_refs(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter, ctx.run(lambda: 3), step=ctx.put(2))
    first = counter.add.remote(ctx.put(2))
    second = counter.add.remote(times=first)
    assert ctx.get([first, second]) == [7, 21]
    assert ctx.get(ctx.run(lambda a, b: (a, b), second, b=first)) == (21, 7)
    other = ctx.create_actor(Log)
    assert ctx.get(other.show.remote(second, key=counter.add.remote(ctx.run(lambda x: x, first)))) == ((21,), 35, {})


@check()
def an_actor_takes_and_returns_large_values(ctx: JobContext, tmp: Path) -> None:
    data = bytes(range(256)) * 8000  # 2 MB: above every inline limit
    log = ctx.create_actor(Log)
    ctx.get(log.add.remote(data))
    assert ctx.get(log.read.remote()) == [data]
    assert ctx.get(log.call.remote(len, log.call.remote(bytes, data))) == len(data)
    assert ctx.get(ctx.create_actor(Counter, ctx.run(len, data)).add.remote()) == len(data) + 1


@check()
def generators_of_an_actor_arrive_as_lists(ctx: JobContext, tmp: Path) -> None:
    assert ctx.get(ctx.create_actor(Log).count.remote(3)) == [0, 1, 2]
    assert ctx.get(ctx.create_actor(AsyncLog).count.remote(3)) == [0, 1, 2]


@check(sync=IN_PROCESS, threadpool=IN_PROCESS)
def an_actor_names_what_cannot_travel(ctx: JobContext, tmp: Path) -> None:
    log = ctx.create_actor(Log)
    assert "lock" in str(raises(EncodeError, lambda: log.add.remote(threading.Lock())))
    assert "lock" in str(raises(EncodeError, lambda: ctx.create_actor(Counter, threading.Lock())))
    assert "lock" in str(raises(EncodeError, lambda: ctx.get(log.call.remote(threading.Lock))))
    ctx.get(log.add.remote("still alive"))
    assert ctx.get(log.read.remote()) == ["still alive"]


# --- failures -------------------------------------------------------------------------------------------------------


@check()
def an_actors_exceptions_have_their_type_text_and_traceback(ctx: JobContext, tmp: Path) -> None:
    for cls in (Log, AsyncLog):
        log = ctx.create_actor(cls)
        future = log.call.remote(fail_deep_down, "boom")
        error = raises(ValueError, partial(ctx.get, future))
        assert str(error) == "boom"
        assert "fail_deep_down" in "".join(traceback.format_exception(error))
        assert isinstance(future.exception(), ValueError)
        rich = raises(Rich, partial(_result, log.call.remote(raise_error, Rich, "a", 2)))
        assert isinstance(rich, Rich)
        assert (rich.what, rich.count) == ("a", 2)
        text = str(raises((NoRoundTrip, TaskFailed), partial(_result, log.call.remote(raise_error, NoRoundTrip, "a", "b"))))
        assert "a and b" in text, text
        ctx.get(log.add.remote("goes on"))
        assert ctx.get(log.read.remote()) == ["goes on"]


@check()
def an_actors_missing_method_is_its_futures_failure(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter)
    missing = counter.nothing.remote()
    assert "nothing" in str(raises(AttributeError, lambda: ctx.get(missing)))
    assert "remote" in str(raises(TypeError, lambda: counter.add()))
    raises(TypeError, lambda: ctx.get(counter.add.remote(1, 2, 3)))
    assert ctx.get(counter.add.remote()) == 1


@check()
def an_actor_survives_calls_that_leave_the_interpreter(ctx: JobContext, tmp: Path) -> None:
    for cls in (Log, AsyncLog):
        log = ctx.create_actor(cls)
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit):
            failed = log.call.remote(raise_error, kind)
            assert kind.__name__ in str(raises(TaskFailed, partial(ctx.get, failed)))
        ctx.get(log.add.remote("alive"))
        assert ctx.get(log.read.remote()) == ["alive"]


@check()
def a_failed_dependency_fails_an_actors_call_alone(ctx: JobContext, tmp: Path) -> None:
    log = ctx.create_actor(Log)
    bad = ctx.run(fail_deep_down, "origin")
    for dependent in (log.add.remote(bad), log.show.remote(key=log.add.remote(bad)), ctx.run(len, log.add.remote(bad))):
        assert str(raises(ValueError, partial(ctx.get, dependent))) == "origin"
    assert str(raises(ValueError, lambda: ctx.create_actor(Counter, bad))) == "origin"
    assert ctx.get(log.read.remote()) == []


@check()
def an_actors_constructor_raises_at_creation(ctx: JobContext, tmp: Path) -> None:
    raises(ValueError, lambda: ctx.create_actor(Counter, "x"))
    raises(TypeError, lambda: ctx.create_actor(Counter, nonsense=1))
    for _ in range(2):
        assert "number" in str(raises(ValueError, lambda: ctx.create_actor(Counter, "x", name="once-more")))
    assert ctx.get(ctx.create_actor(Counter, 1, name="once-more").add.remote()) == 2


def _add_after(gate: Path, counter: Any) -> Any:
    wait_for_file(gate, "late")
    return counter.add.remote().result(timeout=60)


def _result(future: Any) -> Any:
    return future.result(timeout=60)
