"""Clients of a simulation: sessions that submit, cancel, acknowledge, lose their streams and leave.

A client knows what each of its tasks may end as, and that it ends once; executors use clients for the tasks of tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fray.errors import ActorDied
from fray.job.rpc.controller.core.model import TaskSpec
from fray.job.rpc.outbox import Entry, Outbox, Request
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.errors import RESTARTED
from fray.testing.simulation.callers import Hub
from fray.testing.simulation.controller import Controller, Results
from fray.testing.simulation.desks import Desk
from fray.testing.simulation.members import Member
from fray.testing.simulation.scripts import Script, draw_script
from fray.testing.simulation.users import ActorUser
from fray.testing.simulation.world import Rejected, Stream, World
from fray.types import SessionId, TaskId

SUBMIT_ITEMS = 4
"""Tasks in one request."""


class Client(Member):
    """A session as the real client keeps it: one request in flight, results acknowledged, streams opened again."""

    def __init__(self, world: World, controller: Controller, name: str, parent: SessionId | None = None) -> None:
        super().__init__(world)
        self._controller = controller
        self.session = SessionId(name)
        self.parent = parent
        self.hub = Hub(self)
        self.user = ActorUser(self, controller.exchange)
        self.gone = False
        """Closed, vanished or failed."""
        self.lost = False
        """Whether the controller gave the session up."""
        self.futures: dict[TaskId, Callable[[str], None]] = {}
        self.outcomes: dict[TaskId, list[str]] = {}
        self.specs: dict[TaskId, TaskSpec] = {}
        self._outbox = Outbox(batch_items=SUBMIT_ITEMS)
        self._to_submit = 0
        self._sending = False
        self._stream: Stream | None = None
        self._streams = 0
        self._is_new_stream = self._uses_actors = False
        self._is_new = True

    def start(self) -> None:
        """Open the session, then submit in bursts."""
        self.open()
        self._is_new = False
        self._to_submit = self.world.rng.randint(5, 40)
        self.later(0.0, self._submit_some)

    def use_actors(self) -> None:
        """Create and call actors too, once the session is open."""
        self._uses_actors = True

    def open(self) -> None:
        """Introduce the client; again until it works."""
        controller = self._controller
        self.world.call(
            lambda: controller.open_session(self.session, self.parent),
            self.mine(self._opened),
            self.mine(lambda why: self.fail(why) if why == "unknown" else self.later(0.2, self.open)),
            when_saved=controller.when_saved,
        )

    def submit(self, script: Script, settled: Callable[[str], None] | None = None, **options: Any) -> TaskId:
        """Send a task; ``settled`` is told how it ended."""
        task = TaskId(f"{self.session}-{len(self.specs) + 1}")
        spec = TaskSpec(task, self.session, script.function_id, script.function_id, b"arguments", **options)
        self.world.scripts[task] = script
        self.specs[task] = spec
        self.outcomes[task] = []
        self.world.report.tasks += 1
        self.futures[task] = settled or (lambda _: None)
        self._outbox.entries.append(Entry(task, spec, 0, script.function_id, b"", self._outbox.received_seq))
        if self.gone:
            self._settle(task, "gone")
        self._send()
        return task

    def cancel(self, task: TaskId) -> None:
        """Cancel a task; nobody is told when it has really stopped."""
        if task in self.futures:
            self._outbox.cancels.append(task)
            self._settle(task, "cancelled")
            self._send()

    def close(self) -> None:
        """Cancel what is open, say goodbye."""
        if not self.gone:
            self._end("cancelled")
            self._say_goodbye()

    def vanish(self) -> None:
        """End without a word."""
        if not self.gone:
            self._end("gone")
            self.life += 1

    def fail(self, why: str) -> None:
        """Take it that the controller does not know the session any more."""
        if not self.gone:
            self.lost = True
            self._end(f"lost: {why}")

    def break_stream(self) -> None:
        """Lose the stream of results."""
        if self._stream is not None:
            self._stream.cut()

    def is_settled(self) -> bool:
        """Whether there is nothing left to do."""
        if self._is_new or self._uses_actors:
            return self.gone
        quiet = self.user.is_settled() and not self.futures and not self._to_submit and not self._outbox.has_news()
        return quiet and self._outbox.acked_seq == self._outbox.received_seq

    def send_calls(self, calls: pb.ActorCalls) -> None:
        """Send calls of an actor through the controller."""
        if not self.gone:
            self._outbox.calls.append(calls)
            self._send()

    def locate(self, actor: TaskId, done: Callable[[pb.ActorInfo], None], failed: Callable[[str], None]) -> None:
        """Ask the controller where an actor is."""
        exchange = self._controller.exchange
        self.world.call(
            lambda: exchange.get(actor, "", self.session),
            self.mine(done),
            self.mine(failed),
            when_saved=exchange.when_saved,
        )

    def find_desk(self, address: str) -> Desk | None:
        """Return who takes calls at an address, if somebody can be reached there."""
        desk = self._controller.desks.get(address)
        return desk if desk is not None and desk.is_reachable() else None

    def check(self) -> None:
        """See that each task had one outcome, and one that its script explains."""
        world = self.world
        for task, outcomes in self.outcomes.items():
            world.require(len(outcomes) == 1, f"{task} had outcomes {outcomes}", task)
            world.report.outcomes[outcomes[0]] += 1
            if not self.lost:
                allowed = self._allowed(task)
                world.require(outcomes[0] in allowed, f"{task} ended as {outcomes[0]}, not as {sorted(allowed)}", task)

    def _allowed(self, task: TaskId) -> set[str]:
        if self.outcomes[task][0] in ("cancelled", "gone"):
            return {"cancelled", "gone"}
        return self._possible(task)

    def _possible(self, task: TaskId) -> set[str]:
        """Return how the controller may have ended a task that its client did not cancel, its dependencies included."""
        spec, script, world = self.specs[task], self.world.scripts[task], self.world
        limits = self._controller.state.limits
        possible = {"finished"}
        if limits.max_losses < 1000 and not world.calm:
            possible.add("lost")
        if script.crashes >= limits.max_kills or (limits.max_kills < 1000 and not world.calm):
            possible.add("crashed")
        if script.failures > spec.max_retries >= 0 or script.children:
            possible.add("user")
        if spec.timeout is not None or spec.deadline_s is not None:
            possible.add("timeout")
        for dependency in spec.dependencies:
            possible |= self._possible(dependency)
            if self.outcomes[dependency] == ["cancelled"]:
                possible.add("cancelled")
        return possible

    # --- what it does

    def _submit_some(self) -> None:
        rng = self.world.rng
        for _ in range(min(self._to_submit, rng.choice([1, 3, 10]))):
            self._to_submit -= 1
            script, options = draw_script(rng)
            unsettled = list(self.futures)
            if unsettled and rng.random() < 0.25:
                options["dependencies"] = tuple(rng.sample(unsettled, min(len(unsettled), rng.randint(1, 3))))
            task = self.submit(script, None, **options)
            if script.duration_s > 1000 and "timeout" not in options and "deadline_s" not in options:
                self.later(rng.uniform(0.0, 5.0), lambda task=task: self.cancel(task))  # type: ignore[misc]
            elif rng.random() < 0.1:
                self.later(rng.uniform(0.0, 3.0), lambda task=task: self.cancel(task))  # type: ignore[misc]
        if self._to_submit:
            self.later(rng.choice([0.0, 0.1, rng.uniform(0.0, 4.0)]), self._submit_some)

    def _opened(self, generation: int) -> None:
        if self.gone or self._stream is not None:  # or an answer that came twice
            return
        self._outbox.begin_generation(generation)
        self._watch()
        if self._uses_actors:
            self._uses_actors = False
            self.user.start()
        self._send()

    def _end(self, how: str) -> None:
        self.gone = True
        self._to_submit = 0
        for task in list(self.futures):
            self._settle(task, how)
        self.hub.fail(ActorDied(f"the client {self.session} has gone: {how}"))
        self.user.end()
        if self._stream is not None:
            self._stream.cut()

    def _say_goodbye(self) -> None:
        self.life += 1  # answers to what is in flight are for nobody
        self.thaw()
        controller = self._controller
        self.world.call(
            lambda: controller.close_session(self.session),
            lambda _: None,
            lambda _: self.world.at(0.5, self._say_goodbye),
            when_saved=controller.when_saved,
        )

    def _settle(self, task: TaskId, how: str) -> None:
        told = self.futures.pop(task, None)
        if told is not None:
            self.outcomes[task].append(how)
            told(how)

    def _send(self) -> None:
        if self._sending or self.gone or self._stream is None:
            return
        outbox = self._outbox
        acknowledges = outbox.received_seq > outbox.acked_seq and not self.futures
        if not (outbox.has_news() or acknowledges):
            return
        self._sending = True
        request = outbox.next()
        message, controller = replace(request), self._controller  # what it is now: it may change while it is on its way
        self.world.call(
            lambda: controller.submit(self.session, message),
            self.mine(lambda saved: self._sent(request, message.generation, saved)),
            self.mine(lambda why: self._not_sent(request, why)),
        )

    def _sent(self, request: Request, generation: int, saved: bool) -> None:
        self._outbox.sent(request, generation, saved)
        self._sending = False
        self._send()

    def _not_sent(self, request: Request, why: str) -> None:
        if why == "unknown":
            self.fail(why)
            return
        if why == "no room":
            self._make_room(request)
        elif why.startswith(RESTARTED):
            self._outbox.begin_generation(int(why.split()[1]))

        def again() -> None:
            self._sending = False
            self._send()

        self.later(0.2, again)

    def _make_room(self, refused: Request) -> None:
        """Send what need not wait for room, and what may make some: cancellations, acknowledgements, calls of actors."""
        request, controller = self._outbox.make_room(refused), self._controller
        message = replace(request)
        self.world.call(
            lambda: controller.submit(self.session, message),
            lambda _: None,
            self.mine(lambda _: self._outbox.put_back(request)),
        )

    def _watch(self) -> None:
        if self.gone:
            return
        world, controller = self.world, self._controller
        stream = self._stream = Stream(world, self.mine(self._take), self.mine(self._watch_ended))
        after_seq, generation = self._outbox.received_seq, self._outbox.generation
        self._streams, self._is_new_stream = self._streams + 1, True

        def arrive() -> None:
            try:
                if not stream.broken:
                    controller.watch(self.session, after_seq, generation, stream)
            except Rejected as rejected:
                stream.finish(str(rejected))

        world.at(world.delay(), arrive)

    def _watch_ended(self, why: str) -> None:
        if why == "unknown":
            self.fail(why)
        else:
            self.later(0.1, self._watch)

    def _take(self, results: Results) -> None:
        outbox = self._outbox
        outbox.begin_generation(results.generation)
        if results.generation < outbox.generation:
            return
        outbox.forget(results.saved_batch)
        for some in results.answers:
            self.hub.take_answers(some)
        for info in results.infos:
            self.hub.take_info(info)
        outbox.received_seq = max(outbox.received_seq, results.last_seq)
        for task, error, _ in results.ended:
            self._settle(task, "finished" if error is None else error.value)
        if self._is_new_stream and self._streams > 1:
            self.hub.resync()
        self._is_new_stream = False
        self._send()
