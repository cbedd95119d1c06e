"""Executors of a simulation: they play the scripts of tasks one after another, as the processes of a real worker would.

They talk with their agent through messages that take time, and wait for tasks of their own with a client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fray.job.rpc.controller.core.model import Outcome, OutcomeKind
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker import frames
from fray.testing.simulation.clients import Client
from fray.testing.simulation.controller import Controller
from fray.testing.simulation.desks import Desk
from fray.testing.simulation.hosts import Host
from fray.testing.simulation.members import Member
from fray.testing.simulation.scripts import Script
from fray.testing.simulation.world import World
from fray.types import SessionId, TaskId, WorkerId


class Agent(Protocol):
    """What an executor needs of its worker."""

    world: World
    controller: Controller
    name: WorkerId
    core: wc.WorkerCore
    desk: Desk
    executors: dict[int, Executor]

    def is_sick(self) -> bool:
        """Whether no executor can start now."""

    def perform(self, effects: Sequence[wc.Effect]) -> None:
        """Do what the core wants."""

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, in this life of the worker only."""


class Executor(Member):
    """A process that runs tasks one after another, as the real one: done ones are told together, others given back."""

    def __init__(self, worker: Agent, number: int) -> None:
        super().__init__(worker.world)
        self.worker, self.number = worker, number
        self._queue: deque[wc.Item] = deque()
        self._done: list[Outcome] = []
        self._current: wc.Item | None = None
        self._run = 0
        self._host: Host | None = None
        self._child: Client | None = None
        self._child_of = SessionId("")
        self._last = 0.0
        self._dead = False
        rng = self.world.rng
        if worker.is_sick() or self.world.happens(0.03, "executor did not start"):
            self.later(rng.uniform(0.01, 0.3), lambda: self.die("did not start"))
        else:
            self.later(rng.uniform(0.02, 0.4), self._ready)

    def receive(self, items: list[wc.Item]) -> None:
        """Take work; begin with it if idle."""
        self._queue.extend(items)
        if self._current is None:
            self.later(0.0001, self._next)

    def take_frame(self, frame: frames.Frame) -> None:
        """Take what is for the actor that lives here."""
        host = self._host
        if host is not None and not self._dead:
            self.later(0.0002, lambda: host.receive(frame))

    def tell_created(self) -> None:
        """Tell the worker that the actor's constructor has returned."""
        self._tell(lambda _: self.worker.desk.created(self.number))

    def tell_answers(self, task: TaskId, answers: list[Any]) -> None:
        """Send the actor's answers."""
        self._tell(lambda _: self.worker.desk.answered(task, answers, self.number))

    def tell_done(self, outcome: Outcome) -> None:
        """Tell the worker how the actor ended."""
        self._tell(lambda now: self.worker.core.outcomes(now, self.number, [outcome]))

    def interrupt(self, task: TaskId) -> None:
        """Stop or drop a task."""
        self.later(0.0002, lambda: self._interrupt(task))

    def recall(self) -> None:
        """Give back what has not begun."""
        self.later(0.0002, self._return_queue)

    def die(self, why: str) -> None:
        """End; the agent learns of it after everything that was sent before."""
        if not self._dead:
            self.vanish()
            self._tell(lambda now: self.worker.core.executor_died(now, self.number, why), forget=True)

    def vanish(self) -> None:
        """End without anybody left to be told."""
        self._dead = True
        self.life += 1
        if self._child is not None:
            self._child.vanish()

    def _ready(self) -> None:
        self._tell(lambda now: self.worker.core.executor_ready(now, self.number))

    def _next(self) -> None:
        if self._current is not None:
            return
        if not self._queue:
            self._flush()
            return
        item = self._current = self._queue.popleft()
        if item.actor:
            self._host = Host(self, item)
            return
        script = self.world.scripts[item.task]
        self.world.runs[item.task] += 1
        self._run += 1
        run = self._run
        if script.children:
            self._wait_for_child(run, script.children)
        else:
            self.later(script.duration_s, lambda: self._end(run))

    def _end(self, run: int) -> None:
        item = self._current
        if item is None or run != self._run:
            return
        script, runs = self.world.scripts[item.task], self.world.runs[item.task]
        if runs <= script.crashes:
            self.die("crashed")
        elif runs <= script.crashes + script.failures:
            self._finish(OutcomeKind.FAILED, "it raised", script.duration_s)
        else:
            self._finish(OutcomeKind.FINISHED, "", script.duration_s)

    def _finish(self, kind: OutcomeKind, message: str, run_s: float) -> None:
        item = self._current
        assert item is not None
        payload = f"{item.task}/{item.attempt}".encode() if kind is OutcomeKind.FINISHED else b""
        self._done.append(Outcome(item.task, 0, kind, payload, message, kind is OutcomeKind.FAILED, run_s))
        self._current = None
        self._run += 1
        if self.world.rng.random() < 0.5:
            self._flush()
        self._next()

    def _interrupt(self, task: TaskId) -> None:
        for item in self._queue:
            if item.task == task:
                self._queue.remove(item)
                self._done.append(Outcome(task, 0, OutcomeKind.CANCELLED))
                self._flush()
                return
        if self._current is not None and self._current.task == task and not self.world.scripts[task].stubborn:
            self._finish(OutcomeKind.CANCELLED, "stopped", 0.0)

    def _return_queue(self) -> None:
        tasks = [item.task for item in self._queue]
        self._queue.clear()
        if tasks:
            self._tell(lambda now: self.worker.core.returned(now, self.number, tasks))

    def _wait_for_child(self, run: int, left: int) -> None:
        """Submit a task, lend the place, wait, and go on with the next."""
        item = self._current
        if item is None or run != self._run:
            return
        if left == 0:
            self.later(self.world.scripts[item.task].duration_s, lambda: self._end(run))
            return
        session = item.order.session
        if self._child is None or self._child.gone or self._child_of != session:
            if self._child is not None:
                self._child.close()
            self._child_of = session
            name = f"{session}.{self.worker.name}.{self.number}.{self.world.now:.3f}"
            self._child = Client(self.world, self.worker.controller, name, session)
            self._child.open()
        script = Script("child", self.world.rng.choice([0.001, 0.002, 0.3]))
        task = item.task

        def settled(how: str) -> None:
            if self._dead or run != self._run:
                return
            self._tell(lambda now: self.worker.core.unblocked(now, task, self.number))
            if how == "finished":
                self.later(self.world.rng.choice([0.0, 0.0001, 0.01]), lambda: self._wait_for_child(run, left - 1))
            else:
                self._finish(OutcomeKind.FAILED, f"its child was {how}", 0.01)

        self._flush()
        self._return_queue()
        self._tell(lambda now: self.worker.core.blocked(now, task, self.number))
        self._child.submit(script, lambda how: self.later(0.0, lambda: settled(how)))

    def _flush(self) -> None:
        if self._done:
            done, self._done = self._done, []
            self._tell(lambda now: self.worker.core.outcomes(now, self.number, done))

    def _tell(self, what: Callable[[float], list[wc.Effect] | None], forget: bool = False) -> None:
        """Let the agent take a message, after those before it."""
        self._last = max(self._last, self.world.now + self.world.rng.uniform(0.0001, 0.003))

        def arrive() -> None:
            if forget:
                self.worker.executors.pop(self.number, None)
            self.worker.perform(what(self.world.now) or [])

        self.worker.later(self._last - self.world.now, arrive)
