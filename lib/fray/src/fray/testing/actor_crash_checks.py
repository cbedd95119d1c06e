"""The rules for actors whose process ends, and for their states on storage. Fray's and Ray's actors have processes."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from fray.errors import ActorDied, ActorNotFound
from fray.job.actors import save_checkpoint
from fray.job.context import JobContext, create_job_ctx
from fray.testing.actor_checks import Counter
from fray.testing.checks import ENDS_WITH_ITS_PROCESS, check, raises
from fray.testing.polling import eventually
from fray.testing.steps import note, read_notes

_NO_CHECKPOINTS = "actors on Ray have no checkpoints"
_FAILS_AT_ONCE = "Ray fails a call that finds the actor restarting, unless it may be retried"
_ONE_CONTEXT = "its actors are known to it alone"
_RAYS_OWN = "what becomes of detached actors is Ray's own matter"


class Mortal:
    """An actor that ends its own process, and notes in a file when it was made and what it did."""

    def __init__(self, ledger: Path) -> None:
        note(ledger, "born")
        self.ledger, self.count = ledger, 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def die(self, how: str = "exit") -> None:
        note(self.ledger, "die")
        _end_process(how)

    def die_once(self) -> str:
        note(self.ledger, "try")
        if read_notes(self.ledger).count("try") == 1:
            _end_process("exit")
        return "survived"


class _Stillborn:
    """An actor whose constructor ends its process the first times."""

    def __init__(self, ledger: Path, times: int) -> None:
        note(ledger, "born")
        if read_notes(ledger).count("born") <= times:
            _end_process("exit")

    def add(self) -> int:
        return 1


class _Keeper:
    """An actor with a state that is not simply its attributes."""

    def __init__(self, ledger: Path) -> None:
        note(ledger, "born")
        self.numbers: list[int] = []
        self.lock = threading.Lock()  # cannot be pickled

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": list(self.numbers)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.numbers, self.lock = state["kept"], threading.Lock()

    def add(self, number: int) -> int:
        with self.lock:
            self.numbers.append(number)
        return len(self.numbers)

    def read(self) -> list[int]:
        return self.numbers

    def save(self) -> None:
        save_checkpoint()

    def die(self) -> None:
        _end_process("kill")


# --- without restarts -----------------------------------------------------------------------------------------------


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def an_actor_that_ends_its_process_is_dead(ctx: JobContext, tmp: Path) -> None:
    for how in ("exit", "kill"):
        ledger, name = tmp / how, f"mortal-by-{how}"
        actor = ctx.create_actor(Mortal, ledger, name=name)
        assert ctx.get(actor.add.remote()) == 1
        futures = [actor.die.remote(how), actor.add.remote(), actor.add.remote()]
        for future in futures:
            raises(ActorDied, partial(ctx.get, future, timeout=60))
        raises(ActorDied, partial(_add, ctx, actor))
        status = _status_when(ctx, actor, "DEAD")
        assert status.reason
        assert read_notes(ledger) == ["born", "die"]
        assert ctx.get(ctx.create_actor(Counter, name=name).add.remote()) == 1
        raises(ActorDied, partial(_add, ctx, actor))


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def an_actor_that_dies_while_it_is_constructed_is_not_created(ctx: JobContext, tmp: Path) -> None:
    raises(ActorDied, lambda: ctx.create_actor(_Stillborn, tmp / "ledger", 9, name="stillborn"))
    assert read_notes(tmp / "ledger") == ["born"]
    raises(ActorNotFound, lambda: ctx.get_actor("stillborn"))
    assert ctx.get(ctx.create_actor(Counter, name="stillborn").add.remote()) == 1


# --- with restarts --------------------------------------------------------------------------------------------------


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def an_actor_that_may_be_restarted_lives_again(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=1).create_actor(Mortal, tmp / "ledger", name="lives-twice")
    assert ctx.get([actor.add.remote(), actor.add.remote()]) == [1, 2]
    raises(ActorDied, lambda: ctx.get(actor.die.remote(), timeout=60))
    assert _add_when_back(ctx, actor) == 1
    status = _status_when(ctx, actor, "ALIVE")
    assert (status.restarts, status.incarnation, status.reason) == (1, 2, "")
    assert read_notes(tmp / "ledger") == ["born", "die", "born"]
    assert ctx.get(ctx.get_actor("lives-twice").add.remote()) == 2


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS, ray=_FAILS_AT_ONCE)
def calls_wait_while_an_actor_is_restarted(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=3).create_actor(Mortal, tmp / "ledger")
    for _ in range(3):
        raises(ActorDied, lambda: ctx.get(actor.die.remote(), timeout=60))
        assert ctx.get([actor.add.remote() for _ in range(4)], timeout=60) == [1, 2, 3, 4]
    assert read_notes(tmp / "ledger") == ["born", *["die", "born"] * 3]


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def an_actor_is_dead_when_its_restarts_are_used_up(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=1).create_actor(Mortal, tmp / "ledger")
    for _ in range(2):
        assert _add_when_back(ctx, actor) == 1
        raises(ActorDied, lambda: ctx.get(actor.die.remote(), timeout=60))
    raises(ActorDied, partial(_add, ctx, actor))
    assert _status_when(ctx, actor, "DEAD").reason
    assert read_notes(tmp / "ledger") == ["born", "die", "born", "die"]


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def an_actor_that_is_killed_is_not_restarted(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=-1).create_actor(Mortal, tmp / "ledger")
    assert ctx.get(actor.add.remote()) == 1
    ctx.kill(actor)
    raises(ActorDied, partial(_add, ctx, actor))
    assert ctx.actor_status(actor).state == "DEAD"
    assert read_notes(tmp / "ledger") == ["born"]


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def a_call_under_way_when_an_actor_dies_is_retried_if_asked(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=1, max_task_retries=1).create_actor(Mortal, tmp / "ledger")
    assert _add(ctx, actor) == 1
    assert ctx.get([actor.die_once.remote(), actor.add.remote()], timeout=60) == ["survived", 1]
    assert read_notes(tmp / "ledger") == ["born", "try", "born", "try"]


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def a_call_that_kills_every_life_of_an_actor_is_given_up(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=5, max_task_retries=1).create_actor(Mortal, tmp / "ledger")
    raises(ActorDied, lambda: ctx.get(actor.die.remote(), timeout=60))
    assert _add_when_back(ctx, actor) == 1
    assert read_notes(tmp / "ledger") == ["born", "die", "born", "die", "born"]


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS)
def an_actors_constructor_that_ends_its_process_is_tried_again(ctx: JobContext, tmp: Path) -> None:
    actor = ctx.options(max_restarts=1).create_actor(_Stillborn, tmp / "ledger", 1)
    assert _add(ctx, actor) == 1
    assert read_notes(tmp / "ledger") == ["born", "born"]


# --- states on storage ----------------------------------------------------------------------------------------------


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS, ray=_NO_CHECKPOINTS)
def an_actor_has_its_latest_checkpoint_after_a_crash(ctx: JobContext, tmp: Path) -> None:
    keeper = ctx.options(max_restarts=2, checkpoint_every=2).create_actor(_Keeper, tmp / "ledger")
    for first in (0, 10):
        before = ctx.get(keeper.read.remote(), timeout=60)
        ctx.get([keeper.add.remote(first + number) for number in range(5)])
        raises(ActorDied, lambda: ctx.get(keeper.die.remote(), timeout=60))
        after = ctx.get(keeper.read.remote(), timeout=60)
        whole = [*before, *range(first, first + 5)]
        assert after in (whole[:-1], whole), after
    assert ctx.actor_status(keeper).restarts == 2


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS, ray=_NO_CHECKPOINTS)
def an_actor_has_the_state_that_it_saved_itself_after_a_crash(ctx: JobContext, tmp: Path) -> None:
    keeper = ctx.options(max_restarts=1).create_actor(_Keeper, tmp / "ledger")
    ctx.get([keeper.add.remote(1), keeper.add.remote(2), keeper.save.remote(), keeper.add.remote(3)])
    raises(ActorDied, lambda: ctx.get(keeper.die.remote(), timeout=60))
    assert ctx.get(keeper.read.remote(), timeout=60) == [1, 2]


@check(sync=ENDS_WITH_ITS_PROCESS, threadpool=ENDS_WITH_ITS_PROCESS, ray=_NO_CHECKPOINTS)
def an_actor_without_checkpoints_begins_anew_after_a_crash(ctx: JobContext, tmp: Path) -> None:
    keeper = ctx.options(max_restarts=1).create_actor(_Keeper, tmp / "ledger")
    ctx.get([keeper.add.remote(1), keeper.add.remote(2)])
    raises(ActorDied, lambda: ctx.get(keeper.die.remote(), timeout=60))
    assert ctx.get(keeper.read.remote(), timeout=60) == []
    assert read_notes(tmp / "ledger") == ["born", "born"]


# --- contexts come and go -------------------------------------------------------------------------------------------


@check(sync=_ONE_CONTEXT, threadpool=_ONE_CONTEXT, ray=_RAYS_OWN)
def a_detached_actor_outlives_the_context_that_made_it(ctx: JobContext, tmp: Path) -> None:
    kept, lost = f"kept-{uuid.uuid4().hex}", f"lost-{uuid.uuid4().hex}"
    with _another(ctx) as maker:
        maker.get(maker.create_actor(Counter, name=kept, lifetime="detached").add.remote())
        maker.get(maker.create_actor(Counter, name=lost, preemptible=False).add.remote())
        assert ctx.get(ctx.get_actor(lost).add.remote()) == 2
    found = ctx.get_actor(kept)
    assert ctx.get([found.add.remote(), found.add.remote()]) == [2, 3]
    eventually(lambda: _is_gone(ctx, lost), what="the other actor ends with its context")
    with _another(ctx) as other:
        other.kill(other.get_actor(kept))
    raises(ActorDied, lambda: ctx.get(found.add.remote(), timeout=60))
    raises(ActorNotFound, lambda: ctx.get_actor(kept))


def _add(ctx: JobContext, actor: Any) -> Any:
    return ctx.get(actor.add.remote(), timeout=60)


def _add_when_back(ctx: JobContext, actor: Any) -> Any:
    """Call until the actor answers: a context may fail calls that find it restarting."""

    def attempt() -> Any:
        try:
            return _add(ctx, actor)
        except ActorDied as error:
            if ctx.actor_status(actor).state == "DEAD":
                raise AssertionError("the actor is not restarted") from error
            return None

    return eventually(attempt, timeout=60)


def _another(ctx: Any) -> JobContext:
    return create_job_ctx("fray", controller_address=ctx.address)


def _is_gone(ctx: JobContext, name: str) -> bool:
    try:
        ctx.get_actor(name)
    except ActorNotFound:
        return True
    return False


def _status_when(ctx: JobContext, actor: Any, state: str) -> Any:
    eventually(lambda: ctx.actor_status(actor).state == state, what=f"the actor is {state}")
    return ctx.actor_status(actor)


def _end_process(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)
