"""The rules for how actors come, are found and named, and go."""

from __future__ import annotations

import concurrent.futures as cf
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fray.errors import ActorDied, ActorNameTaken, ActorNotFound, ConfigurationError, ContextClosed, TaskCancelled, TaskTimeout
from fray.job.actors import save_checkpoint
from fray.job.context import JobContext, fray_default_job_ctx, get_actor, get_default_job_ctx, kill
from fray.testing.actor_checks import AsyncLog, Counter, Log
from fray.testing.checks import NOT_PLACED, RUNS_AT_ONCE, check, raises
from fray.testing.polling import eventually
from fray.testing.steps import nap, note, read_notes, wait_for_file

_NO_CHECKPOINTS = "actors on Ray have no checkpoints; it says so"
_NOT_TAKEN_BACK = "Ray cannot take a call of an actor back without harm to those behind it"
_GONE = (ActorDied, ContextClosed, TaskCancelled, cf.CancelledError)


class _Noted:
    """An actor that notes its constructions in a file."""

    def __init__(self, ledger: Path, seconds: float = 0.0) -> None:
        note(ledger, "born")
        nap(seconds)
        self.ledger, self.count = ledger, 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def note(self, word: str) -> None:
        note(self.ledger, word)

    def wait(self, gate: Path) -> Any:
        return wait_for_file(gate, "wait")

    def nap(self, seconds: float) -> None:
        note(self.ledger, "napping")
        nap(seconds)


# --- creation -------------------------------------------------------------------------------------------------------


@check()
def what_can_be_no_actor_is_refused(ctx: JobContext, tmp: Path) -> None:
    for wrong in (len, "Counter", Counter()):
        assert "class" in str(raises(TypeError, partial(ctx.create_actor, wrong)))  # type: ignore[arg-type]
    assert "max_restarts" in str(raises(ConfigurationError, lambda: ctx.options(max_restart=1).create_actor(Counter)))
    raises(ConfigurationError, lambda: ctx.options(max_concurrency=0).create_actor(Counter))
    assert "async" in str(raises(ConfigurationError, lambda: ctx.options(checkpoint_every=2).create_actor(AsyncLog)))
    raises(ConfigurationError, lambda: ctx.options(checkpoint_every=2, max_concurrency=2).create_actor(Counter))
    assert ctx.get(ctx.create_actor(Counter).add.remote()) == 1


@check()
def an_actor_takes_every_option(ctx: JobContext, tmp: Path) -> None:
    view = ctx.options(max_restarts=-1, max_task_retries=2, max_concurrency=1, pending_timeout=30, priority=1, deadline=60)
    counter = view.create_actor(Counter, 4, preemptible=False, lifetime="non_detached")
    assert view.get(counter.add.remote()) == 5
    assert ctx.get(ctx.create_actor(Counter, step=3, preemptible=True).add.remote()) == 3


@check()
def actors_are_created_from_several_threads(ctx: JobContext, tmp: Path) -> None:
    with cf.ThreadPoolExecutor(4) as threads:
        counters = list(threads.map(partial(ctx.create_actor, Counter), range(8)))
    assert ctx.get([counter.add.remote() for counter in counters]) == [1, 2, 3, 4, 5, 6, 7, 8]


@check()
def an_actor_that_is_not_constructed_in_time_is_given_up(ctx: JobContext, tmp: Path) -> None:
    hurried = ctx.options(deadline=0.5)
    raises(TaskTimeout, lambda: hurried.create_actor(_Noted, tmp / "ledger", 60.0, name="too-slow"))
    raises(ActorNotFound, lambda: ctx.get_actor("too-slow"))
    assert ctx.get(ctx.create_actor(Counter, name="too-slow").add.remote()) == 1


@check(sync=NOT_PLACED, threadpool=NOT_PLACED)
def an_actor_that_nobody_can_host_is_given_up_in_time(ctx: JobContext, tmp: Path) -> None:
    demanding = ctx.options(resources={"unobtainium": 1}, deadline=0.5)
    error = raises(TaskTimeout, lambda: demanding.create_actor(Counter, name="nowhere"))
    assert "unobtainium" in str(error), str(error)
    raises(ActorNotFound, lambda: ctx.get_actor("nowhere"))


# --- names ----------------------------------------------------------------------------------------------------------


@check()
def actor_names_are_unique(ctx: JobContext, tmp: Path) -> None:
    first = ctx.create_actor(Counter, 0, name="one-of-a-kind")
    ctx.get(first.add.remote())
    assert "one-of-a-kind" in str(raises(ActorNameTaken, lambda: ctx.create_actor(Counter, 0, name="one-of-a-kind")))
    same = ctx.create_actor(Counter, 0, name="one-of-a-kind", get_if_exists=True)
    assert ctx.get(same.add.remote()) == 2
    assert ctx.get(ctx.get_actor("one-of-a-kind").add.remote()) == 3
    assert ctx.get(ctx.create_actor(Counter, 5, name="another-kind", get_if_exists=True).add.remote()) == 6


@check()
def an_actor_is_found_by_its_name_as_long_as_it_lives(ctx: JobContext, tmp: Path) -> None:
    assert "nobody" in str(raises(ActorNotFound, lambda: ctx.get_actor("nobody")))
    ctx.create_actor(Counter, 1, name="somebody")
    with fray_default_job_ctx(ctx):
        found = get_actor("somebody")
        assert ctx.get(found.add.remote()) == 2
        kill(found)
        raises(ActorNotFound, lambda: get_actor("somebody"))


@check()
def of_many_that_create_an_actor_of_one_name_one_succeeds(ctx: JobContext, tmp: Path) -> None:
    create = partial(ctx.create_actor, _Noted, tmp / "ledger", 0.1, name="contested")
    outcomes = _race(lambda: _name_or_error(create))
    assert outcomes.count("ActorNameTaken") == 7, outcomes
    assert outcomes.count("created") == 1, outcomes
    assert ctx.get(ctx.get_actor("contested").add.remote()) == 1
    assert read_notes(tmp / "ledger") == ["born"]


@check()
def all_that_get_or_create_an_actor_get_the_same(ctx: JobContext, tmp: Path) -> None:
    create = partial(ctx.create_actor, _Noted, tmp / "ledger", 0.1, name="shared", get_if_exists=True)
    handles = _race(create)
    assert sorted(ctx.get([handle.add.remote() for handle in handles])) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len({ctx.actor_status(handle).actor_id for handle in handles}) == 1
    assert read_notes(tmp / "ledger") == ["born"]


# --- the end --------------------------------------------------------------------------------------------------------


@check()
def a_killed_actor_takes_no_calls_and_frees_its_name(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter, 1, name="short-lived")
    assert ctx.get(counter.add.remote()) == 2
    ctx.kill(counter)
    ctx.kill(counter)
    error = raises(ActorDied, lambda: ctx.get(counter.add.remote(), timeout=60))
    assert "short-lived" in str(error)
    status = ctx.actor_status(counter)
    assert status.state == "DEAD"
    assert status.reason
    raises(ActorNotFound, lambda: ctx.get_actor("short-lived"))
    again = ctx.create_actor(Counter, 7, name="short-lived")
    ctx.kill(counter)
    assert ctx.get(again.add.remote()) == 8


@check(sync=RUNS_AT_ONCE)
def calls_that_a_killed_actor_did_not_answer_fail(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=3, max_task_retries=3).create_actor(_Noted, tmp / "ledger")
    running = actor.nap.remote(60)
    queued = [actor.note.remote("queued") for _ in range(3)]
    eventually(lambda: "napping" in read_notes(tmp / "ledger"))
    ctx.kill(actor)
    for future in (running, *queued, actor.add.remote()):
        raises(ActorDied, partial(ctx.get, future, timeout=60))
    assert read_notes(tmp / "ledger") == ["born", "napping"]


@check()
def closing_a_context_ends_its_actors(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter)
    assert ctx.get(counter.add.remote()) == 1
    ctx.close()
    raises(_GONE, lambda: counter.add.remote().result(timeout=60))
    raises(ContextClosed, lambda: ctx.create_actor(Counter))
    raises(ContextClosed, lambda: ctx.get_actor("nobody"))


@check(sync=RUNS_AT_ONCE)
def closing_a_context_ends_calls_that_an_actor_carries_out(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.create_actor(_Noted, tmp / "ledger")
    futures = [actor.nap.remote(60), actor.note.remote("queued")]
    eventually(lambda: "napping" in read_notes(tmp / "ledger"))
    ctx.close()
    for future in futures:
        raises(_GONE, partial(future.result, timeout=60))
    assert read_notes(tmp / "ledger") == ["born", "napping"]


@check(sync=RUNS_AT_ONCE, ray=_NOT_TAKEN_BACK)
def an_actors_queued_call_that_is_cancelled_is_not_carried_out(ctx: JobContext, tmp: Path) -> None:
    actor, other = ctx.create_actor(_Noted, tmp / "ledger"), ctx.create_actor(_Noted, tmp / "other")
    first = actor.wait.remote(tmp / "gate")
    eventually((tmp / "started-wait").exists)
    queued, after = actor.note.remote("cancelled"), actor.note.remote("after")
    assert queued.cancel()
    assert queued.cancelled()
    raises(cf.CancelledError, queued.result)
    ctx.get(other.note.remote("the cancellation went before this, the same way"), timeout=60)
    (tmp / "gate").touch()
    assert ctx.get(first, timeout=60) == "wait"
    ctx.get(after, timeout=60)
    assert read_notes(tmp / "ledger") == ["born", "after"]
    assert not after.cancel()


# --- status and checkpoints -----------------------------------------------------------------------------------------


@check()
def an_actors_status_says_who_it_is(ctx: JobContext, tmp: Path) -> None:
    named, other = ctx.create_actor(Counter, name="known"), ctx.create_actor(Log)
    status = ctx.actor_status(named)
    assert (status.name, status.class_name, status.state) == ("known", "Counter", "ALIVE")
    assert (status.incarnation, status.restarts, status.reason) == (1, 0, "")
    assert ctx.actor_status(ctx.get_actor("known")) == status
    assert ctx.actor_status(other).actor_id != status.actor_id
    assert (ctx.actor_status(other).name, ctx.actor_status(other).class_name) == ("", "Log")


@check()
def what_is_no_handle_of_an_actor_is_refused(ctx: JobContext, tmp: Path) -> None:
    counter = ctx.create_actor(Counter)
    for wrong in (None, "counter", Counter(), counter.add, counter.add.remote()):
        raises(TypeError, partial(ctx.kill, wrong))
        raises(TypeError, partial(ctx.actor_status, wrong))
    assert ctx.get(counter.add.remote()) == 2


@check(ray=_NO_CHECKPOINTS)
def an_actor_saves_its_state_when_it_asks_to(ctx: JobContext, tmp: Path) -> None:
    saver = ctx.create_actor(_Saver)
    assert ctx.get([saver.save.remote(), saver.save.remote()]) == [1, 2]


@check()
def a_checkpoint_is_saved_by_an_actors_method_alone(ctx: JobContext, tmp: Path) -> None:
    raises(ConfigurationError, save_checkpoint)
    raises(ConfigurationError, lambda: ctx.get(ctx.run(save_checkpoint)))
    with fray_default_job_ctx(ctx):
        saver = ctx.create_actor(_Saver)
        raises(ConfigurationError, lambda: ctx.get(saver.save_in_task.remote()))
    raises(ConfigurationError, lambda: ctx.get(ctx.create_actor(_AsyncSaver).save.remote()))
    raises(ConfigurationError, lambda: ctx.get(ctx.options(max_concurrency=2).create_actor(_Saver).save.remote()))


@check(sync=NOT_PLACED, threadpool=NOT_PLACED, fray="actors on Fray have checkpoints")
def an_actor_without_checkpoints_says_so(ctx: JobContext, tmp: Path) -> None:
    assert "checkpoint" in str(raises(ConfigurationError, lambda: ctx.options(checkpoint_every=2).create_actor(Counter)))
    saver = ctx.create_actor(_Saver)
    assert "checkpoint" in str(raises(ConfigurationError, lambda: ctx.get(saver.save.remote())))


class _Saver:
    def __init__(self) -> None:
        self.count = 0

    def save(self) -> int:
        self.count += 1
        save_checkpoint()
        return self.count

    def save_in_task(self) -> None:
        get_default_job_ctx().run(save_checkpoint).result()


class _AsyncSaver:
    async def save(self) -> None:
        save_checkpoint()


def _race(fn: Callable[[], Any]) -> list[Any]:
    with cf.ThreadPoolExecutor(8) as threads:
        return [future.result() for future in [threads.submit(fn) for _ in range(8)]]


def _name_or_error(create: Callable[[], Any]) -> str:
    try:
        create()
    except Exception as error:
        return type(error).__name__
    return "created"
