"""Workers of a simulation: the real core of a worker, with an agent around it that has no processes and no network.

Under one name a worker lives many lives; after every change the core's accounts are checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import STABLE
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker import frames
from fray.testing.simulation.controller import Answer, Commands, Controller
from fray.testing.simulation.desks import Desk
from fray.testing.simulation.executors import Executor
from fray.testing.simulation.members import Member
from fray.testing.simulation.world import Rejected, Stream, World
from fray.types import Incarnation, WorkerId

HEARTBEAT_S = 2.0
"""As in the real agent."""
DRAIN_GRACE_S = 8.0
"""How long a draining worker waits for what runs."""
REPORT_ITEMS = 3
"""Outcomes in one report: few, so that reports overlap with what happens meanwhile."""


class Worker(Member):
    """An agent with a real core and model executors; under one name it lives many lives."""

    def __init__(self, world: World, controller: Controller, name: str, capacity: dict[str, float]) -> None:
        super().__init__(world)
        self.controller = controller
        self.name = WorkerId(name)
        self.capacity = {name: amount for name, amount in capacity.items() if name != STABLE}
        self._offered = capacity
        self.core = wc.WorkerCore(capacity, executors=max(1, int(capacity["cpu"])))
        self.executors: dict[int, Executor] = {}
        self._incarnation = Incarnation("")
        self._lives = self._generation = 0
        self._stream: Stream | None = None
        self._reporting = False
        self._timer_at: float | None = None
        self._draining = self._leaving = False
        self._starting = True
        self._sick_until = self._cut_until = 0.0
        self._processes = 0
        self.desk = self._make_desk()

    def start(self) -> None:
        """Begin as a new process."""
        self.core = wc.WorkerCore(self.capacity, executors=max(1, int(self.capacity["cpu"])))
        self.executors = {}
        self._generation = 0
        self._stream, self._timer_at = None, None
        self._reporting = self._draining = self._leaving = self._starting = False
        self.desk = self._make_desk()
        self._register()
        self.perform(self.core.start())
        self.later(HEARTBEAT_S, self._beat)

    def restart_in(self, seconds: float) -> None:
        """End at once, with all executors; start again under the same name after a while."""
        if self._starting:
            return
        self._starting = True
        self.world.at(seconds, self.start)
        self.life += 1
        self.frozen = False
        if self._stream is not None:
            self._stream.cut()
        self.desk.vanish()
        for executor in list(self.executors.values()):
            executor.vanish()

    def drain(self) -> None:
        """Hand back, finish, leave; then come again."""
        if not self._draining and not self._starting and not self.frozen:
            self._draining = True
            self.core.drain()
            self.desk.drain()
            self.later(DRAIN_GRACE_S, self._leave)
            self.after_change()

    def break_stream(self) -> None:
        """Lose the stream of orders."""
        if self._stream is not None:
            self._stream.cut()

    def sicken(self, seconds: float) -> None:
        """Let no executor start for a while, and the present ones die."""
        self._sick_until = self.world.now + seconds
        for executor in list(self.executors.values()):
            executor.die("killed by chance")

    def cut_off(self, seconds: float) -> None:
        """Let reports wait in the network for a while, and the stream break; what runs goes on."""
        self._cut_until = self.world.now + seconds
        self.break_stream()

    def is_sick(self) -> bool:
        """Whether no executor can start now."""
        return self.world.faulty and self.world.now < self._sick_until

    def kill_executor(self) -> None:
        """Let an executor die, with whatever it runs."""
        if self.executors:
            self.executors[self.world.rng.choice(sorted(self.executors))].die("killed by chance")

    def send_frame(self, executor: int, frame: frames.Frame) -> None:
        """Send something to an executor that hosts an actor."""
        if executor in self.executors:
            self.executors[executor].take_frame(frame)

    def perform(self, effects: Sequence[wc.Effect]) -> None:
        """Do what the core wants."""
        for effect in effects:
            match effect:
                case wc.Spawn(number):
                    self.executors[number] = Executor(self, number)
                case wc.Give(number, items):
                    if number in self.executors:
                        self.executors[number].receive(items)
                case wc.Interrupt(number, task):
                    if number in self.executors:
                        self.executors[number].interrupt(task)
                case wc.Recall(number):
                    if number in self.executors:
                        self.executors[number].recall()
                case wc.Kill(number):
                    if number in self.executors:
                        self.executors[number].die("killed")
        self.after_change()

    def after_change(self) -> None:
        """Report news, keep one timer, leave when no executor can be started."""
        self._check_core()
        self.desk.close_ended()
        if self.core.broken:
            self.drain()
        if (self.core.has_news() or self.desk.relay.answers) and not self._reporting:
            self._reporting = True
            self.later(0.0005, self._report)
        when = self.core.next_deadline()
        if when is not None and (self._timer_at is None or when < self._timer_at):
            self._timer_at = when
            self.later(max(0.0, when - self.world.now), lambda: self._tick(when))

    def _check_core(self) -> None:
        """See that no attempt is forgotten and that what is occupied is counted right."""
        core = self.core
        given = 0
        occupied: Counter[str] = Counter()
        for executor in core.executors.values():
            given += len(executor.items)
            for item in executor.items.values():
                knows = item.executor == executor.number and core.items.get(item.task) is item
                self.world.require(knows, f"{item.task} does not know its executor", item.task)
            for name, amount in executor.occupied or ():
                occupied[name] += amount  # type: ignore[assignment]
        waiting = sum(1 for item in core.items.values() if item.executor is None)
        self.world.require(given + waiting == len(core.items), f"{self.name} has lost track of an attempt: {core.items}")
        for name, used in core.used.items():
            self.world.require(abs(used - occupied[name]) < 1e-6, f"{self.name} counts {used} of {name}, not {occupied[name]}")

    def _tick(self, when: float) -> None:
        if self._timer_at == when:
            self._timer_at = None
            self.perform(self.core.time_passed(self.world.now))

    # --- the controller

    def _register(self) -> None:
        self._lives += 1
        incarnation = self._incarnation = Incarnation(f"{self.name}.{self._lives}")
        controller, address, began = self.controller, self.desk.address, self.world.now

        def registered() -> None:
            self.desk.renew(began)
            self._attach()

        self.world.call(
            lambda: controller.register(incarnation, self.name, self._offered, address),
            self.mine(lambda _: registered()),
            self.mine(lambda _: self.later(0.3, self._register)),
            when_saved=controller.when_saved,
        )

    def _attach(self) -> None:
        world, controller = self.world, self.controller
        stream = self._stream = Stream(world, self.mine(self._obey), self.mine(self._orders_ended))
        incarnation, held, told, generation = self._incarnation, self.core.held(), self.core.told(), self._generation

        def arrive() -> None:
            try:
                if not stream.broken:
                    controller.attach(incarnation, held, told, generation, stream)
            except Rejected as rejected:
                stream.finish(str(rejected))

        world.at(max(0.0, self._cut_until - world.now) + world.delay(), arrive)

    def _orders_ended(self, why: str) -> None:
        if why == "unknown":
            self.perform(self.core.abandon())
            self._register()
        else:
            self.later(0.1, self._attach)

    def _begin_generation(self, generation: int) -> None:
        if generation > self._generation:
            if self._generation:
                self.core.tell_again()
            self._generation = generation

    def _obey(self, commands: Commands) -> None:
        self._begin_generation(commands.generation)
        self.core.forget(commands.saved_report)
        now = self.world.now
        if commands.start:
            self.perform(self.core.receive(now, commands.start))
        for some in commands.calls:
            self.desk.take(some, self.desk.relay)
        self.desk.forget(commands.ended_sessions)
        for task, attempt in commands.stop:
            self.perform(self.core.stop(now, task, attempt))
        for task, attempt in commands.reclaim:
            self.core.hand_back(task, attempt)
        if commands.reclaim:
            self.perform(self.core.time_passed(now))
        self.after_change()

    def _beat(self) -> None:
        if not self._reporting:
            self._reporting = True
            self._report()
        self.later(HEARTBEAT_S, self._beat)

    def _report(self) -> None:
        leaving = self._leaving or (self._draining and self.core.idle())
        report = self.core.report(REPORT_ITEMS)
        outcomes = [outcome for outcome, _ in report.outcomes]
        draining = self._draining or self.core.draining
        incarnation, sent_at = self._incarnation, self.world.now
        event = ev.WorkerReported(
            0.0, incarnation, outcomes, report.blocked, report.unblocked, draining, created=report.created
        )
        if leaving:
            self.desk.say_goodbye()
        answers = [] if leaving else self.desk.relay.take()
        controller = self.controller

        def failed() -> None:
            self.desk.relay.put_back(answers)
            self.later(0.2, self._report)

        def reported(answer: Answer) -> None:
            if not answer.fenced and incarnation == self._incarnation and answer.generation >= self._generation:
                self.desk.renew(sent_at)
            self._reported(report, answer, leaving)

        self.world.call(
            lambda: controller.take_report(event, report.number, leaving, answers),
            self.mine(reported),
            self.mine(lambda _: self._gone() if leaving else failed()),
            held_s=max(0.0, self._cut_until - self.world.now),
            when_saved=controller.when_saved if leaving else None,
        )

    def _leave(self) -> None:
        """Go, though something may still run."""
        self._leaving = True
        if not self._reporting:
            self._reporting = True
            self._report()

    def _gone(self) -> None:
        self.restart_in(self.world.rng.uniform(0.0, 2.0))

    def _make_desk(self) -> Desk:
        self._processes += 1
        desk = Desk(self, f"{self.name}:{self._processes}", self.controller.state.limits.silence_s)
        self.controller.desks[desk.address] = desk
        return desk

    def _reported(self, report: wc.Report, answer: Answer, leaving: bool) -> None:
        self._reporting = False
        if leaving:
            self._gone()
        elif not answer.fenced:
            self._begin_generation(answer.generation)
            if answer.generation == self._generation:
                self.core.acknowledge(report)
                self.core.forget(answer.saved_report)
            self.after_change()
