"""What clients of a simulation do with actors: create and find them, call them in bursts, cancel, kill.

A user knows what each of its calls may end as, and that it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from fray.errors import ActorDied, TaskCancelled
from fray.job.rpc.actors.book import Call
from fray.job.rpc.actors.lane import ActorLane
from fray.job.rpc.controller.core.model import TaskSpec
from fray.job.rpc.futures import ActorFuture
from fray.job.rpc.proto import fray_pb as pb
from fray.testing.simulation.callers import Hub
from fray.testing.simulation.exchange import NAME_TAKEN, NO_ACTOR, Exchange
from fray.testing.simulation.ledger import MadeCall
from fray.testing.simulation.scripts import draw_actor, draw_call
from fray.testing.simulation.world import Plant, World
from fray.types import SessionId, TaskId


class Owner(Protocol):
    """What a user needs of its client."""

    world: World
    session: SessionId
    hub: Hub
    gone: bool

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, in this life of the client only."""

    def mine(self, what: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback that belongs to this life."""

    def fail(self, why: str) -> None:
        """Take it that the controller does not know the session any more."""


class ActorUser:
    """The actors' part of one client's script."""

    def __init__(self, owner: Owner, exchange: Exchange) -> None:
        self._owner, self._exchange, self._world = owner, exchange, owner.world
        self._ledger = owner.world.ledger
        self._rng = owner.world.actor_rng
        self._to_do = 0
        """Steps that are begun or planned, and calls that are not settled."""
        self._created = 0
        self._numbers: Counter[TaskId] = Counter()
        self._open: dict[str, ActorFuture] = {}
        self._awaited: Counter[TaskId] = Counter()
        """Actors whose construction it waits for."""
        self._cancelled: set[str] = set()

    def start(self) -> None:
        """Create some actors and look for others, over time."""
        for _ in range(self._rng.randint(1, 2)):
            self._plan(self._rng.uniform(0.0, 8.0), self._create)
        if self._rng.random() < 0.6:
            self._plan(self._rng.uniform(1.0, 12.0), self._find)

    def is_settled(self) -> bool:
        """Whether there is nothing left to do."""
        return not self._to_do

    def list_waiting(self) -> list[tuple[TaskId, str]]:
        """Return the actors it waits for, and for what of them."""
        calls = [(self._ledger.find_call(name).actor, name) for name in self._open]
        return calls + [(actor, f"the creation of {actor}") for actor in self._awaited.elements()]

    def describe(self) -> str:
        """Return what it waits for."""
        return f"has {self._to_do} things to do with actors, and waits for {sorted(self._open)}"

    def end(self) -> None:
        """Do nothing more: the client has gone, and its actors go with it."""
        self._to_do = 0
        self._awaited.clear()
        for number in range(1, self._created + 1):
            self._ledger.excuse(self._name(number))

    # --- actors

    def _plan(self, delay_s: float, what: Callable[[], None]) -> None:
        self._to_do += 1
        self._owner.later(delay_s, what)

    def _did(self) -> None:
        self._to_do = max(0, self._to_do - 1)

    def _create(self) -> None:
        self._created += 1
        actor = self._name(self._created)
        script, spec, shape = draw_actor(self._rng)
        self._ledger.add(actor, script, spec.name)
        task = TaskSpec(actor, self._owner.session, "C", "C", shape=shape, actor=spec)
        self._ask(lambda: self._exchange.create(task, self._owner.session, self._rng.random() < 0.5))

    def _name(self, number: int) -> TaskId:
        return TaskId(f"{self._owner.session}-a{number}")

    def _find(self) -> None:
        name = self._rng.choice(["n1", "n2", "n3"])
        self._ask(lambda: self._exchange.get(TaskId(""), name, self._owner.session))

    def _ask(self, what: Callable[[], pb.ActorInfo]) -> None:
        """Ask the controller for an actor until it answers, and use it; what it does not know, or refuses, ends the step."""

        def failed(why: str) -> None:
            if why in (NAME_TAKEN, NO_ACTOR):
                self._did()
            elif why == "unknown":
                self._owner.fail(why)
            else:
                self._owner.later(0.2, lambda: self._ask(what))

        period = self._owner.hub.period

        def done(info: pb.ActorInfo) -> None:  # whoever asked may be busy meanwhile
            self._owner.later(self._rng.choice([0.0, 0.0, 0.6]), lambda: self._use(info, period))

        when_saved = self._exchange.when_saved
        self._world.call(what, self._owner.mine(done), self._owner.mine(failed), when_saved=when_saved)

    def _use(self, info: pb.ActorInfo, asked_in: int) -> None:
        """Wait until an actor is constructed, then call it."""
        lane = self._owner.hub.open(info, asked_in)
        actor = TaskId(lane.actor_id)
        self._awaited[actor] += 1
        retries = info.settings.max_task_retries if info.settings is not None else 0
        if self._rng.random() < 0.2:
            self._owner.later(self._rng.uniform(0.0, 15.0), lambda: self._kill(actor))

        def created(future: Any) -> None:
            self._awaited[actor] -= 1
            if future.exception() is None and not self._owner.gone:
                self._plan(0.0, lambda: self._call_some(lane, retries, self._rng.randint(1, 30)))
            self._did()

        lane.created.add_done_callback(created)

    def _kill(self, actor: TaskId) -> None:
        self._ledger.excuse(actor)

        def failed(why: str) -> None:
            if why != NO_ACTOR:
                self._owner.later(0.2, lambda: self._kill(actor))

        self._world.call(
            lambda: self._exchange.kill(actor),
            lambda _: None,
            self._owner.mine(failed),
            when_saved=self._exchange.when_saved,
        )

    # --- calls

    def _call_some(self, lane: ActorLane, retries: int, left: int) -> None:
        rng = self._rng
        for _ in range(min(left, rng.choice([1, 1, 3, 8]))):
            left -= 1
            self._call(lane, retries)
        if left:
            self._plan(rng.choice([0.0, 0.01, 0.3, rng.uniform(0.0, 3.0)]), lambda: self._call_some(lane, retries, left))
        self._did()

    def _call(self, lane: ActorLane, retries: int) -> None:
        actor = TaskId(lane.actor_id)
        self._numbers[actor] += 1
        number = self._numbers[actor]
        name = f"{self._owner.session}>{actor}#{number}"
        self._ledger.make_call(MadeCall(name, actor, self._owner.session, number, retries, draw_call(self._rng)))
        future = self._open[name] = ActorFuture(name, bytes.decode, lane.cancel)
        self._to_do += 1
        future.add_done_callback(lambda _: self._world.at(0.0, lambda: self._settled(actor, name)))  # raises there
        given = 1 if Plant.RETRIED_ANYWAY in self._world.plants and not retries else retries
        lane.submit(Call(future, "m", name.encode(), retries_left=given))
        if self._rng.random() < 0.03:
            self._owner.later(self._rng.uniform(0.0, 2.0), lambda: self._cancel(name))

    def _cancel(self, name: str) -> None:
        future = self._open.get(name)
        if future is not None:
            self._cancelled.add(name)
            future.cancel()

    def _settled(self, actor: TaskId, name: str) -> None:
        future = self._open.pop(name)
        self._did()
        outcomes = self._world.report.call_outcomes
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            outcomes["cancelled"] += 1
        elif error is None:
            outcomes["value"] += 1
            self._ledger.hear(actor, name, future.result())
        else:
            asked = not isinstance(error, TaskCancelled) or name in self._cancelled
            self._world.require(asked, f"{name} was cancelled though nobody asked for it", actor)
            known = isinstance(error, ActorDied | TaskCancelled | ValueError)
            self._world.require(known, f"{name} ended with {error!r}", actor)
            excused = not self._world.is_undisturbed or self._owner.gone or self._ledger.find(actor).excused
            self._world.require(excused or not isinstance(error, ActorDied), f"{name} was lost without a fault: {error}", actor)
            outcomes[type(error).__name__] += 1
