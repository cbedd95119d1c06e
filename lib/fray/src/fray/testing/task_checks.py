"""The rules for values, tasks, waiting, options and closing."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import functools
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from fray.errors import ConfigurationError, ContextClosed, EncodeError, TaskCancelled, TaskFailed, TaskTimeout
from fray.job.context import JobContext, fray_default_job_ctx, get_default_job_ctx
from fray.job.executor import FrayExecutor
from fray.job.futures import JobFuture
from fray.testing.checks import IN_PROCESS, NOT_PLACED, RUNS_AT_ONCE, check, raises
from fray.testing.polling import eventually
from fray.testing.steps import NoRoundTrip, Rich, be_alone, fail_deep_down, nap, note, raise_error, wait_for_file

# --- values ---------------------------------------------------------------------------------------------------------


@check()
def run_passes_arguments_and_returns_the_value(ctx: JobContext, tmp: Path) -> None:
    def show(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert ctx.get(ctx.run(show)) == ((), {})
    assert ctx.get(ctx.run(show, 1, None, x="y", fn=3)) == ((1, None), {"x": "y", "fn": 3})
    assert ctx.run(pow, 2, 10).result() == 1024
    assert ctx.get(ctx.run(lambda: None)) is None


@check()
def get_takes_futures_refs_and_lists_in_order(ctx: JobContext, tmp: Path) -> None:
    futures = [ctx.run(pow, i, 2) for i in range(5)]
    ref = ctx.put({"a": [1, 2]})
    assert ctx.get(futures) == [0, 1, 4, 9, 16]
    assert ctx.get(ref) == {"a": [1, 2]}
    assert ctx.get([ref, futures[3]]) == [{"a": [1, 2]}, 9]
    assert ctx.get([]) == []
    assert ctx.get(futures[2]) == ctx.get(futures[2]) == 4


@check()
def get_refuses_what_is_no_future(ctx: JobContext, tmp: Path) -> None:
    wrongs: tuple[Any, ...] = (3, "x", None, [ctx.put(1), 5], cf.Future())
    for wrong in wrongs:
        assert "get()" in str(raises(TypeError, functools.partial(ctx.get, wrong)))


@check(sync=RUNS_AT_ONCE)
def get_times_out_and_can_be_asked_again(ctx: JobContext, tmp: Path) -> None:
    gate = tmp / "gate"
    future = ctx.run(wait_for_file, gate, "late")
    raises(TimeoutError, lambda: ctx.get(future, timeout=0.05))
    raises(TimeoutError, lambda: ctx.get([future], timeout=0))
    raises(TimeoutError, lambda: future.result(timeout=0.01))
    gate.touch()
    assert ctx.get(future, timeout=30) == "late"


@check()
def functions_of_any_kind_run(ctx: JobContext, tmp: Path) -> None:
    offset = 10

    def closure(x: int) -> int:
        return x + offset

    assert ctx.get([ctx.run(closure, 1), ctx.run(functools.partial(closure, 2)), ctx.run(lambda: offset)]) == [11, 12, 10]
    assert ctx.get(ctx.run("a-b".split, "-")) == ["a", "b"]
    assert ctx.get(ctx.run(_Adder(5), 1)) == 6
    assert ctx.get(ctx.run(_Adder, 7)).amount == 7


@check()
def a_function_sees_the_globals_and_closure_of_each_run(ctx: JobContext, tmp: Path) -> None:
    box = [1]

    def read() -> int:
        return box[0]

    first = ctx.get(ctx.run(read))
    box[0] = 2
    assert (first, ctx.get(ctx.run(read))) == (1, 2)


@check()
def generators_arrive_as_lists_and_coroutines_are_run(ctx: JobContext, tmp: Path) -> None:
    def count(n: int) -> Any:
        yield from range(n)

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    assert ctx.get(ctx.run(count, 3)) == [0, 1, 2]
    assert ctx.get(ctx.run(later, 4)) == 4


@check()
def large_values_travel(ctx: JobContext, tmp: Path) -> None:
    data = bytes(range(256)) * 8000  # 2 MB: above every inline limit

    def double(blob: bytes) -> bytes:
        return blob * 2

    assert ctx.get(ctx.run(double, data)) == data * 2
    assert ctx.get(ctx.run(len, ctx.put(data))) == len(data)
    assert ctx.get(ctx.run(len, ctx.run(double, data))) == 2 * len(data)


@check()
def run_refuses_what_is_not_callable(ctx: JobContext, tmp: Path) -> None:
    assert "not callable" in str(raises(TypeError, lambda: ctx.run(3)))  # type: ignore[arg-type]


@check(sync=IN_PROCESS, threadpool=IN_PROCESS)
def arguments_that_cannot_travel_are_named_at_run(ctx: JobContext, tmp: Path) -> None:
    with (tmp / "f").open("w") as file:
        assert "TextIOWrapper" in str(raises(EncodeError, lambda: ctx.run(len, file)))
        assert "open files" in str(raises(EncodeError, lambda: ctx.run(lambda: file)))
        raises(EncodeError, lambda: ctx.put(threading.Lock()))
    assert "cannot be pickled" in str(raises(EncodeError, lambda: ctx.run(len, [ctx.run(len, "a")])))


@check(sync=IN_PROCESS, threadpool=IN_PROCESS)
def results_that_cannot_travel_are_named(ctx: JobContext, tmp: Path) -> None:
    assert "lock" in str(raises(EncodeError, lambda: ctx.get(ctx.run(threading.Lock))))
    assert ctx.get(ctx.run(len, "still alive")) == 11


# --- errors ---------------------------------------------------------------------------------------------------------


@check()
def exceptions_surface_from_get_with_type_text_and_traceback(ctx: JobContext, tmp: Path) -> None:
    future = ctx.run(fail_deep_down, "boom")
    error = raises(ValueError, lambda: ctx.get(future))
    assert str(error) == "boom"
    assert "fail_deep_down" in "".join(traceback.format_exception(error))
    assert isinstance(future.exception(), ValueError)
    raises(ZeroDivisionError, lambda: ctx.run(lambda: 1 / 0).result())
    assert raises(KeyError, lambda: ctx.get(ctx.run({}.__getitem__, "k"))).args == ("k",)


@check()
def exceptions_of_ones_own_keep_their_fields(ctx: JobContext, tmp: Path) -> None:
    error = raises(Rich, lambda: ctx.get(ctx.run(raise_error, Rich, "a", 2)))
    assert isinstance(error, Rich)
    assert (error.what, error.count) == ("a", 2)


@check()
def exceptions_that_cannot_be_rebuilt_still_arrive(ctx: JobContext, tmp: Path) -> None:
    for kind, args in ((NoRoundTrip, ("a", "b")), (_NoPickle, ()), (_LocksUp, ())):
        error = raises((kind, TaskFailed), lambda kind=kind, args=args: ctx.get(ctx.run(raise_error, kind, *args)))  # type: ignore[misc]
        text = "".join(traceback.format_exception(error))
        assert kind.__name__ in text, text
        assert "raise_error" in text, text


@check()
def leaving_the_interpreter_is_a_failure_of_the_task_alone(ctx: JobContext, tmp: Path) -> None:
    assert "SystemExit" in str(raises(TaskFailed, lambda: ctx.get(ctx.run(sys.exit, 3))))
    assert "KeyboardInterrupt" in str(raises(TaskFailed, lambda: ctx.get(ctx.run(raise_error, KeyboardInterrupt))))
    assert "GeneratorExit" in str(raises(TaskFailed, lambda: ctx.get(ctx.run(raise_error, GeneratorExit))))
    assert ctx.get(ctx.run(len, "abc")) == 3


@check()
def a_time_out_raised_by_user_code_is_its_own(ctx: JobContext, tmp: Path) -> None:
    assert str(raises(TimeoutError, lambda: ctx.get(ctx.run(raise_error, TimeoutError, "mine"), timeout=60))) == "mine"


# --- dependencies ---------------------------------------------------------------------------------------------------


@check()
def futures_and_refs_as_arguments_are_dependencies(ctx: JobContext, tmp: Path) -> None:
    one = ctx.run(lambda: 1)
    two = ctx.run(lambda a, b=0: a + b, one, b=one)
    assert ctx.get(ctx.run(lambda a, b, c: (a, b, c), two, ctx.put("r"), c=one)) == (2, "r", 1)
    chain = one
    for _ in range(30):
        chain = ctx.run(lambda x: x + 1, chain)
    assert ctx.get(chain) == 31
    many = [ctx.run(pow, i, 1) for i in range(60)]
    assert ctx.get(ctx.run(lambda *xs: sum(xs), *many)) == sum(range(60))


@check()
def a_failed_dependency_fails_its_dependents_alike(ctx: JobContext, tmp: Path) -> None:
    ran = tmp / "ran"
    bad = ctx.run(fail_deep_down, "origin")
    after = ctx.run(lambda x: ran.touch(), bad)
    assert str(raises(ValueError, lambda: ctx.get(ctx.run(lambda x: x, after)))) == "origin"
    assert not ran.exists()


# --- waiting --------------------------------------------------------------------------------------------------------


@check(sync=RUNS_AT_ONCE)
def wait_returns_ready_futures_in_completion_order(ctx: JobContext, tmp: Path) -> None:
    slow = ctx.run(wait_for_file, tmp / "slow", "slow")
    fast = ctx.run(lambda: "fast")
    ready, pending = ctx.wait([slow, fast])
    assert (ready, pending) == ([fast], [slow])
    (tmp / "slow").touch()
    ready, pending = ctx.wait([slow, fast], num_returns=2)
    assert (ready, pending) == ([fast, slow], [])


@check()
def wait_returns_no_more_than_asked_for(ctx: JobContext, tmp: Path) -> None:
    futures = [ctx.run(pow, i, 2) for i in range(4)]
    ctx.get(futures)
    ready, pending = ctx.wait(futures, num_returns=3)
    assert len(ready) == 3
    assert len(pending) == 1
    assert {*ready, *pending} == {*futures}
    assert ctx.wait(futures, num_returns=0) == ([], futures)
    assert ctx.wait([], num_returns=0) == ([], [])


@check()
def wait_refuses_nonsense(ctx: JobContext, tmp: Path) -> None:
    future = ctx.run(len, "a")
    raises(ValueError, lambda: ctx.wait([future], num_returns=2))
    raises(ValueError, lambda: ctx.wait([], num_returns=1))
    raises(ValueError, lambda: ctx.wait([future, future], num_returns=1))
    raises(TypeError, lambda: ctx.wait([future, 3], num_returns=1))  # type: ignore[list-item]
    raises(TypeError, lambda: ctx.wait(3))  # type: ignore[arg-type]


@check(sync=RUNS_AT_ONCE)
def wait_times_out_with_what_is_ready(ctx: JobContext, tmp: Path) -> None:
    slow = ctx.run(wait_for_file, tmp / "slow", 1)
    fast = ctx.run(lambda: 2)
    ctx.get(fast)
    assert ctx.wait([slow, fast], num_returns=2, timeout=0.05) == ([fast], [slow])
    assert ctx.wait([slow], timeout=0) == ([], [slow])
    (tmp / "slow").touch()
    assert ctx.wait([slow], timeout=30) == ([slow], [])


@check()
def futures_work_with_the_standard_library(ctx: JobContext, tmp: Path) -> None:
    futures = [ctx.run(pow, i, 2) for i in range(6)]
    assert isinstance(futures[0], cf.Future)
    assert isinstance(futures[0], JobFuture)
    assert cf.wait(futures, timeout=60).not_done == set()
    assert sorted(f.result() for f in cf.as_completed([ctx.run(pow, i, 2) for i in range(4)], timeout=60)) == [0, 1, 4, 9]

    async def main() -> list[Any]:
        values: list[Any] = await asyncio.gather(*(asyncio.wrap_future(ctx.run(pow, i, 2)) for i in range(3)))
        return [*values, await ctx.run(pow, 9, 2)]

    assert asyncio.run(main()) == [0, 1, 4, 81]
    called: list[Any] = []
    future = ctx.run(len, "abc")
    future.add_done_callback(called.append)
    eventually(lambda: called == [future])
    assert future.done()


@check()
def an_executor_over_the_context_behaves_like_any_other(ctx: JobContext, tmp: Path) -> None:
    with FrayExecutor(ctx) as executor:
        assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
        late = executor.submit(len, "abc")
    assert late.done()
    raises(RuntimeError, lambda: executor.submit(len, "x"))
    assert ctx.get(ctx.run(len, "context still open")) == 18


# --- nesting --------------------------------------------------------------------------------------------------------


@check()
def tasks_that_wait_for_tasks_never_block_each_other(ctx: JobContext, tmp: Path) -> None:
    def fib(n: int) -> int:
        if n < 2:
            return n
        inner = get_default_job_ctx()
        return sum(inner.get([inner.run(fib, n - 1), inner.run(fib, n - 2)]))

    with fray_default_job_ctx(ctx):
        assert ctx.get(ctx.run(fib, 6), timeout=100) == 8


@check()
def every_way_of_waiting_lends_the_slot(ctx: JobContext, tmp: Path) -> None:
    def wait_by(way: str, depth: int) -> int:
        if depth == 0:
            return 1
        inner = get_default_job_ctx()
        futures = [inner.run(wait_by, way, depth - 1) for _ in range(2)]
        if way == "wait":
            inner.wait(futures, num_returns=2)
        elif way == "cf.wait":
            cf.wait(futures)
        elif way == "as_completed":
            return sum(f.result() for f in cf.as_completed(futures))
        elif way == "await":

            async def gather() -> int:
                return sum([await f for f in futures])

            return asyncio.run(gather())
        return sum(f.result() for f in futures)

    with fray_default_job_ctx(ctx):
        for way in ("result", "wait", "cf.wait", "as_completed", "await"):
            assert ctx.get(ctx.run(wait_by, way, 2), timeout=100) == 4, way


# --- options --------------------------------------------------------------------------------------------------------


@check()
def options_are_checked_and_leave_the_context_alone(ctx: JobContext, tmp: Path) -> None:
    assert "max_retries" in str(raises(ConfigurationError, lambda: ctx.options(retries=3)))
    raises(ConfigurationError, lambda: ctx.options(max_retries=-2))
    raises(ConfigurationError, lambda: ctx.options(timeout=0))
    raises(ConfigurationError, lambda: ctx.options(resources={"cpu": float("nan")}))
    raises(ConfigurationError, lambda: ctx.options(resources={"gpu": -1}))
    raises(ConfigurationError, lambda: ctx.options(retry_exceptions=("ValueError",)))
    view = ctx.options(max_retries=2, retry_delay_s=0.01)
    raises(ValueError, lambda: ctx.get(ctx.run(_fail_until, tmp / "base", 1)))
    assert ctx.get(view.run(_fail_until, tmp / "view", 2)) == 3
    assert ctx.get(view.options(name="x").run(_fail_until, tmp / "again", 2)) == 3


@check()
def failures_are_retried_as_often_as_asked(ctx: JobContext, tmp: Path) -> None:
    raises(ValueError, lambda: ctx.get(ctx.options(max_retries=2, retry_delay_s=0.01).run(_fail_until, tmp / "a", 3)))
    assert len((tmp / "a").read_bytes()) == 3
    raises(ValueError, lambda: ctx.get(ctx.run(_fail_until, tmp / "b", 1)))
    assert len((tmp / "b").read_bytes()) == 1
    assert ctx.get(ctx.options(max_retries=-1, retry_delay_s=0.0).run(_fail_until, tmp / "c", 9)) == 10


@check()
def only_the_named_exceptions_are_retried(ctx: JobContext, tmp: Path) -> None:
    picky = ctx.options(max_retries=3, retry_delay_s=0.01, retry_exceptions=(OSError,))
    raises(ValueError, lambda: ctx.get(picky.run(_fail_until, tmp / "a", 1)))
    assert len((tmp / "a").read_bytes()) == 1
    assert ctx.get(picky.run(_fail_until, tmp / "b", 1, FileNotFoundError)) == 2


@check()
def an_attempt_beyond_its_timeout_fails(ctx: JobContext, tmp: Path) -> None:
    error = raises(TaskTimeout, lambda: ctx.get(ctx.options(timeout=0.2, name="slowpoke").run(nap, 60)))
    assert "slowpoke" in str(error)
    assert "0.2" in str(error)
    assert ctx.get(ctx.options(timeout=30).run(len, "abc")) == 3


@check()
def a_timeout_counts_as_a_failure_that_may_be_retried(ctx: JobContext, tmp: Path) -> None:
    def slow_at_first() -> str:
        if not (tmp / "seen").exists():
            (tmp / "seen").touch()
            nap(60)
        return "quick"

    assert ctx.get(ctx.options(timeout=1.0, max_retries=1, retry_delay_s=0.01).run(slow_at_first)) == "quick"


@check()
def a_task_beyond_its_deadline_fails_retries_or_not(ctx: JobContext, tmp: Path) -> None:
    hurried = ctx.options(deadline=0.5, max_retries=-1, retry_delay_s=0.05)
    raises(TaskTimeout, lambda: ctx.get(hurried.run(_fail_until, tmp / "a", 10**6), timeout=60))
    raises(TaskTimeout, lambda: ctx.get(ctx.options(deadline=0.3).run(nap, 60), timeout=60))


@check(sync=RUNS_AT_ONCE)
def a_deadline_also_ends_the_queueing(ctx: JobContext, tmp: Path) -> None:
    blockers = [ctx.run(wait_for_file, tmp / "gate", i) for i in range(2)]
    raises(TaskTimeout, lambda: ctx.get(ctx.options(deadline=0.3).run(len, "abc"), timeout=30))
    (tmp / "gate").touch()
    assert ctx.get(blockers) == [0, 1]


@check(sync=RUNS_AT_ONCE, ray="Ray has no priorities")
def higher_priority_runs_first(ctx: JobContext, tmp: Path) -> None:
    blockers = [ctx.run(wait_for_file, tmp / "gate", i) for i in range(2)]
    for number in range(2):
        eventually(lambda number=number: (tmp / f"started-{number}").exists())  # type: ignore[misc]
    alone = ctx.options(resources={"cpu": 2})  # where tasks are placed, one at a time: no race between two processes
    low = [alone.run(note, tmp / "order", "low") for _ in range(6)]
    high = [alone.options(priority=5).run(note, tmp / "order", "high") for _ in range(6)]
    assert ctx.wait([*low, *high], timeout=0.5)[0] == []  # time enough for all of them to be where they wait
    (tmp / "gate").touch()
    ctx.get([*blockers, *low, *high])
    order = (tmp / "order").read_text().split()
    assert order.count("high") == order.count("low") == 6
    assert "low" not in order[:5], order


@check(sync=NOT_PLACED, threadpool=NOT_PLACED)
def tasks_that_ask_for_all_cpus_run_alone(ctx: JobContext, tmp: Path) -> None:
    whole = ctx.options(resources={"cpu": 2})
    ctx.get([whole.run(be_alone, tmp / "here") for _ in range(4)])
    half = ctx.options(resources={"cpu": 0.5})
    assert ctx.get([half.run(pow, i, 2) for i in range(6)]) == [0, 1, 4, 9, 16, 25]


# --- cancelling and closing -----------------------------------------------------------------------------------------


@check(sync=RUNS_AT_ONCE)
def a_cancelled_task_that_waits_never_runs(ctx: JobContext, tmp: Path) -> None:
    blockers = [ctx.run(wait_for_file, tmp / "gate", i) for i in range(2)]
    queued = ctx.run(note, tmp / "ran", "x")
    after = ctx.run(lambda x: x, queued)
    assert queued.cancel()
    assert queued.cancel()
    assert queued.cancelled()
    assert queued.done()
    raises(cf.CancelledError, queued.result)
    raises((cf.CancelledError, TaskCancelled), lambda: ctx.get(after, timeout=60))
    (tmp / "gate").touch()
    assert ctx.get(blockers) == [0, 1]
    assert ctx.get(ctx.run(len, "abc")) == 3
    assert not (tmp / "ran").exists()


@check(sync=RUNS_AT_ONCE)
def a_cancelled_task_that_runs_is_stopped(ctx: JobContext, tmp: Path) -> None:
    future = ctx.run(_tick, tmp / "ticks")
    eventually(lambda: (tmp / "ticks").exists())
    assert future.cancel()
    assert future.cancelled()
    eventually(lambda: (tmp / "ticks.end").exists(), what="the task is interrupted")
    assert ctx.get(ctx.run(len, "slot is free"), timeout=60) == 12


@check()
def a_done_future_cannot_be_cancelled(ctx: JobContext, tmp: Path) -> None:
    future = ctx.run(len, "abc")
    assert ctx.get(future) == 3
    assert not future.cancel()
    assert future.result() == 3


@check()
def a_closed_context_says_so(ctx: JobContext, tmp: Path) -> None:
    future = ctx.run(len, "abc")
    assert ctx.get(future) == 3
    ctx.close()
    ctx.close()
    assert "closed" in str(raises(ContextClosed, lambda: ctx.run(len, "abc")))
    raises(ContextClosed, lambda: ctx.options(name="x").run(len, "abc"))
    raises(ContextClosed, lambda: ctx.put(1))
    assert future.result() == 3


@check(sync=RUNS_AT_ONCE)
def closing_ends_what_is_not_done(ctx: JobContext, tmp: Path) -> None:
    futures = [ctx.run(nap, 60) for _ in range(4)]
    ctx.close()
    for future in futures:
        raises((cf.CancelledError, TaskCancelled), lambda future=future: future.result(timeout=30))  # type: ignore[misc]


@check(sync=RUNS_AT_ONCE)
def many_threads_can_share_a_context(ctx: JobContext, tmp: Path) -> None:
    with cf.ThreadPoolExecutor(16) as threads:
        batches = threads.map(lambda n: ctx.get([ctx.run(pow, n, i) for i in range(5)]), range(16))
    assert list(batches) == [[n**i for i in range(5)] for n in range(16)]


# --- what the checks run as tasks -----------------------------------------------------------------------------------


class _Adder:
    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, x: int) -> int:
        return x + self.amount


class _NoPickle(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class _LocksUp(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


def _fail_until(path: Path, times: int, kind: type[Exception] = ValueError) -> int:
    """Fail the first ``times`` calls; return the number of calls."""
    with path.open("ab") as file:
        file.write(b".")
    calls = path.stat().st_size
    if calls <= times:
        raise kind(f"call {calls}")
    return calls


def _tick(path: Path) -> None:
    try:
        for _ in range(6000):
            path.touch()
            time.sleep(0.01)
    finally:
        path.with_name("ticks.end").touch()
