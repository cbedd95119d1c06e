"""A worker's actors in a simulation: the real desk, its lease, and the ways by which calls come and answers go.

A worker that says goodbye has ended its executors before, as its word is the controller's leave to restart its actors at
once. Here it gives up its lease, which comes to the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import LEASE_SHARE
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.actors import ActorDesk, Route
from fray.testing.simulation.lines import Line
from fray.testing.simulation.world import Plant, World
from fray.types import TaskId


class Agent(Protocol):
    """What a desk needs of its worker."""

    world: World
    core: wc.WorkerCore
    frozen: bool

    def mine(self, what: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback that belongs to this life of the process."""

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, in this life of the process only."""

    def perform(self, effects: Sequence[wc.Effect]) -> None:
        """Do what the core wants."""

    def after_change(self) -> None:
        """Report what is to be reported."""

    def send_frame(self, executor: int, frame: frames.Frame) -> None:
        """Send something to an executor."""


class Relay:
    """The way to callers by the controller: answers go with the next report."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.answers: list[pb.ActorAnswers] = []

    def send(self, answers: pb.ActorAnswers) -> None:
        self.answers.append(answers)
        self._wake()

    def take(self) -> list[pb.ActorAnswers]:
        """Return what waits."""
        answers, self.answers = self.answers, []
        return answers

    def put_back(self, answers: list[pb.ActorAnswers]) -> None:
        """Send again what did not arrive."""
        self.answers[:0] = answers


class Witness:
    """A way back that writes down who speaks."""

    def __init__(self, world: World, route: Route) -> None:
        self._world, self._route = world, route

    def send(self, answers: pb.ActorAnswers) -> None:
        if answers.answers:
            seqs = [answer.seq for answer in answers.answers]
            self._world.note(f"{answers.actor_id}/{answers.incarnation} answers {answers.caller} {seqs}")
            self._world.ledger.speak(TaskId(answers.actor_id), answers.incarnation, "answers")
        self._route.send(answers)


class Desk:
    """The actors of one life of a worker's process."""

    def __init__(self, agent: Agent, address: str, silence_s: float) -> None:
        self._agent, self._world = agent, agent.world
        self.address = address
        """Names this process to callers."""
        self._enter = agent.mine(lambda job: job())
        self._closed_until = 0.0
        self._lease_s = silence_s * LEASE_SHARE
        self._lease_until = 0.0
        self._desk = ActorDesk(self._send, self._has_lease)
        self.relay = Relay(lambda: agent.later(0.0, agent.after_change))
        self.lines: list[Line] = []
        """Connections of callers."""
        self.draining = self._gone = False

    def is_reachable(self) -> bool:
        """Whether a caller can connect now."""
        return not (self._agent.frozen or self._gone or (self._world.faulty and self._world.now < self._closed_until))

    def close_lanes(self, seconds: float) -> None:
        """Let all connections break, and no other be made for a while."""
        self._closed_until = self._world.now + seconds
        self.break_lines()

    def break_line(self, rng: random.Random) -> None:
        """Let a connection break, of those that are not broken."""
        self.lines = [line for line in self.lines if not line.is_cut]
        if self.lines:
            rng.choice(self.lines).cut()

    def break_lines(self) -> None:
        """Let all connections break."""
        lines, self.lines = self.lines, []
        for line in lines:
            line.cut()

    def vanish(self) -> None:
        """End with the process."""
        self._gone = True
        self.break_lines()

    def receive(self, calls: pb.ActorCalls, route: Route) -> None:
        """Take calls from the network, once the process runs."""
        self._enter(lambda: self.take(calls, route))

    def take(self, calls: pb.ActorCalls, route: Route) -> None:
        """Take calls."""
        if Plant.REPEATED_CALLS in self._world.plants:
            self._repeat(calls)
        self._desk.take(calls, Witness(self._world, route))

    def forget(self, callers: list[str]) -> None:
        """Forget callers that are gone."""
        self._desk.forget(callers)

    def created(self, executor: int) -> None:
        """Take calls for an actor whose constructor has returned."""
        item = self._agent.core.constructed(executor)
        if item is not None:
            if self._has_lease():
                self._world.ledger.speak(item.task, item.attempt, "begins to take calls")
            self._desk.open(item, executor)
            if self.draining:
                self._desk.retire(item)

    def answered(self, task: TaskId, answers: list[tuple[str, int, str, bytes, str]], executor: int) -> None:
        """Take answers from an executor."""
        self._desk.answered(task, answers, executor)

    def drain(self) -> None:
        """Let all actors retire."""
        self.draining = True
        for item in self._agent.core.actors():
            self._desk.retire(item)

    def close_ended(self) -> None:
        """Take no more calls for actors that have ended."""
        core = self._agent.core
        if core.ended_actors:
            ended, core.ended_actors = core.ended_actors, []
            self._desk.close(ended)

    # --- the lease

    def renew(self, sent_at: float) -> None:
        """Take the controller's word, in answer to something sent at a time, that it counts on this worker."""
        was_over = not self._has_lease()
        self._lease_until = max(self._lease_until, sent_at + self._lease_s)
        if Plant.NO_LEASE not in self._world.plants:
            self._agent.core.lease_until = self._lease_until
        if was_over:
            self._agent.perform(self._agent.core.time_passed(self._world.now))
        self._desk.renew()

    def say_goodbye(self) -> None:
        """Take no calls and give no answers any more: the controller is about to be told that this life is over."""
        self._lease_until = 0.0

    def _has_lease(self) -> bool:
        return self._world.now < self._lease_until or Plant.NO_LEASE in self._world.plants

    # --- executors

    def _send(self, executor: int, frame: frames.Frame) -> None:
        if frame[0] == frames.CALL:
            for item in self._agent.core.executors[executor].items.values():
                self._world.note(f"{item.task}/{item.attempt} takes {[(call[0], call[1]) for call in frame[1]]}")
                self._world.ledger.speak(item.task, item.attempt, "takes calls")
        self._agent.send_frame(executor, frame)

    def _repeat(self, calls: pb.ActorCalls) -> None:
        item = self._agent.core.items.get(TaskId(calls.actor_id))
        if item is not None and item.executor is not None and item.attempt == calls.incarnation:
            again: list[Any] = [(calls.caller, call.seq, call.method, call.payload, []) for call in calls.calls]
            self._agent.send_frame(item.executor, (frames.CALL, again))
