"""The controller of a simulation: the real core, with a driver and a service that need no event loop.

After every event the invariants are checked, and that each task is committed once, with what its current attempt returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fray.job.rpc.controller.core import apply, invariants, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import STABLE, Limits, Outcome, State, Task, TaskSpec, TaskState
from fray.job.rpc.controller.core.tasks import find_refusal, set_timer
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.worker import core as wc
from fray.testing.simulation.desks import Desk
from fray.testing.simulation.exchange import Exchange, Switch
from fray.testing.simulation.report import describe_event
from fray.testing.simulation.world import Plant, Rejected, Stream, World
from fray.types import Incarnation, SessionId, TaskId, WorkerId

Sabotage = Callable[[State, ev.Event], ev.Event | None]
"""Changes an event before the controller sees it, or swallows it: shows that the simulation notices."""


@dataclass(slots=True)
class _Orders:
    """What waits for a worker's stream."""

    stream: Stream | None = None
    start: list[tuple[Task, int]] = field(default_factory=list)
    stop: list[tuple[TaskId, int]] = field(default_factory=list)
    reclaim: list[tuple[TaskId, int]] = field(default_factory=list)
    calls: list[pb.ActorCalls] = field(default_factory=list)
    ended_sessions: list[str] = field(default_factory=list)
    waking: bool = False


@dataclass(slots=True)
class _Results:
    """A session's stream and how far it has come."""

    stream: Stream
    cursor: int
    waking: bool = False


class Controller:
    """The driver and the service, without an event loop."""

    def __init__(self, world: World, limits: Limits, sabotage: Sabotage | None) -> None:
        self._world = world
        self.state = State(limits)
        self._sabotage = sabotage
        self.exchange = Exchange(world, self.state, Switch(self.post, self._call_worker, self._wake_results))
        self.desks: dict[str, Desk] = {}
        """Where workers take calls, by address: what a network knows."""
        self._orders: dict[Incarnation, _Orders] = {}
        self._results: dict[SessionId, _Results] = {}
        self._timer_at: float | None = None
        self._published: Counter[SessionId] = Counter()
        self._committed: set[TaskId] = set()

    def post(self, event: ev.Event) -> None:
        """Apply an event, check everything, perform what follows."""
        world = self._world
        changed = self._sabotage(self.state, event) if self._sabotage is not None else event
        if changed is None:
            return
        world.report.events += 1
        world.log.append(f"{world.now:9.4f}  {describe_event(changed)}")
        effects = apply(self.state, changed)
        if Plant.RESTART_AT_ONCE in world.plants:
            self._hasten_restarts()
        self._check_commits()
        invariants.check(self.state)
        for effect in effects:
            world.log.append(f"{'':9}    -> {describe_event(effect)}")
            self._perform(effect)
        self._arm()

    # --- handlers

    def open_session(self, session: SessionId, parent: SessionId | None) -> None:
        self.post(ev.SessionOpened(self._world.now, session, parent=parent))
        self._check_session(session)

    def close_session(self, session: SessionId) -> None:
        self.post(ev.SessionClosed(self._world.now, session))

    def submit(
        self,
        session: SessionId,
        batch: int,
        specs: Sequence[TaskSpec],
        cancels: Sequence[TaskId],
        acked_seq: int,
        calls: Sequence[pb.ActorCalls] = (),
    ) -> None:
        self._check_session(session)
        for some in calls:
            self.exchange.relay(some)
        now = self._world.now
        if specs:
            for spec in specs:
                refusal = find_refusal(self.state, self.state.sessions[session], 1, len(spec.payload))
                if refusal is not None:
                    raise Rejected("no room")
            self.post(ev.TasksSubmitted(now, session, specs, batch))
        if cancels:
            self.post(ev.CancelRequested(now, cancels))
        if acked_seq:
            self.post(ev.ResultsAcknowledged(now, session, acked_seq))

    def watch(self, session: SessionId, after_seq: int, stream: Stream) -> None:
        self._check_session(session)
        old = self._results.get(session)
        if old is not None:
            old.stream.finish()
            old.stream.lost_by_server()
        results = self._results[session] = _Results(stream, after_seq)
        ended = False

        def lost() -> None:
            nonlocal ended
            if not ended:
                ended = True
                if self._results.get(session) is results:
                    del self._results[session]
                self.post(ev.SessionUnwatched(self._world.now, session))

        stream.lost_by_server = lost
        self.post(ev.SessionWatched(self._world.now, session))
        self._wake_results(session)

    def register(self, incarnation: Incarnation, worker: WorkerId, capacity: dict[str, float], lane_address: str) -> None:
        self.post(ev.WorkerRegistered(self._world.now, incarnation, worker, capacity, lane_address=lane_address))

    def attach(self, incarnation: Incarnation, held: Sequence[tuple[TaskId, int]], stream: Stream) -> None:
        if incarnation not in self.state.workers:
            raise Rejected("unknown")
        orders = self._orders.setdefault(incarnation, _Orders())
        if orders.stream is not None:
            orders.stream.finish()
        orders.stream = stream
        orders.start, orders.stop, orders.reclaim, orders.calls = [], [], [], []

        def lost() -> None:
            if orders.stream is stream:
                orders.stream = None
                self.post(ev.WorkerDetached(self._world.now, incarnation))

        stream.lost_by_server = lost
        self.post(ev.WorkerAttached(self._world.now, incarnation, held))

    def take_report(self, event: ev.WorkerReported, leaving: bool, answers: Sequence[pb.ActorAnswers] = ()) -> bool:
        """Return whether the worker is fenced off; the core sees the report all the same, and must refuse it."""
        fenced = event.incarnation not in self.state.workers
        for some in () if fenced else answers:
            self.exchange.pass_on(some)
        self.post(replace(event, now=self._world.now, outcomes=[_copy(outcome) for outcome in event.outcomes]))
        if leaving:
            self.post(ev.WorkerLeft(self._world.now, event.incarnation))
        return fenced

    # --- effects

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StartTasks(incarnation, tasks):
                orders = self._orders_of(incarnation)
                orders.start.extend((task, task.attempt) for task in tasks)
            case fx.StopTasks(incarnation, attempts):
                self._orders_of(incarnation).stop.extend(attempts)
            case fx.ReclaimTasks(incarnation, attempts):
                self._orders_of(incarnation).reclaim.extend(attempts)
            case fx.DisconnectWorker(incarnation):
                gone = self._orders.pop(incarnation, None)
                if gone is not None and gone.stream is not None:
                    stream, gone.stream = gone.stream, None
                    stream.finish()
            case fx.WakeSession(session):
                self._wake_results(session)
            case fx.TellActor(session, actor):
                self.exchange.tell(session, actor)
            case fx.NotifySession() | fx.EndActor():
                pass
            case fx.EndSession(session):
                self.exchange.end_session(session)
                for incarnation, worker in self.state.workers.items():
                    if worker.actors:
                        self._orders_of(incarnation).ended_sessions.append(session)
                results = self._results.pop(session, None)
                if results is not None:
                    results.stream.finish()

    def _orders_of(self, incarnation: Incarnation) -> _Orders:
        orders = self._orders.get(incarnation) or _Orders()
        if incarnation in self.state.workers:
            self._orders[incarnation] = orders
        if not orders.waking:
            orders.waking = True
            self._world.at(self._world.rng.uniform(0.0, 0.003), lambda: self._send_orders(orders))
        return orders

    def _send_orders(self, orders: _Orders) -> None:
        orders.waking = False
        if orders.stream is None:
            return
        start = [self._item(task) for task, attempt in orders.start if task.attempt == attempt and task.worker is not None]
        orders.stream.send((start, orders.stop, orders.reclaim, orders.calls, orders.ended_sessions))
        orders.start, orders.stop, orders.reclaim, orders.calls, orders.ended_sessions = [], [], [], [], []

    def _call_worker(self, incarnation: Incarnation, calls: pb.ActorCalls) -> None:
        self._orders_of(incarnation).calls.append(calls)

    def _item(self, task: Task) -> wc.Item:
        spec = task.spec
        for dependency in spec.dependencies:
            kept = self.state.tasks.get(dependency)
            known = kept is not None and kept.state is TaskState.FINISHED
            self._world.require(known, f"{spec.id} is started without the value of {dependency}", spec.id)
        shape = tuple((name, amount) for name, amount in spec.shape if name != STABLE)
        item = wc.Item(spec.id, task.attempt, spec.function_id, shape, spec.timeout, order=spec, priority=spec.priority)
        item.actor = item.alone = spec.actor is not None
        return item

    def _wake_results(self, session: SessionId) -> None:
        results = self._results.get(session)
        if results is not None and not results.waking:
            results.waking = True
            self._world.at(self._world.rng.uniform(0.0, 0.003), lambda: self._send_results(session, results))

    def _send_results(self, session_id: SessionId, results: _Results) -> None:
        results.waking = False
        session = self.state.sessions.get(session_id)
        if session is None or self._results.get(session_id) is not results:
            return
        batch = []
        while results.cursor < session.last_seq:
            results.cursor += 1
            task = session.outbox.get(results.cursor)
            if task is not None:
                batch.append((task.spec.id, task.error_kind, task.result))
        results.stream.send((batch, results.cursor, *self.exchange.take(session_id)))

    def _arm(self) -> None:
        when = next_deadline(self.state)
        if when is None or (self._timer_at is not None and self._timer_at <= when):
            return
        self._timer_at = when
        self._world.at(max(0.0, when - self._world.now), lambda: self._tick(when))

    def _tick(self, when: float) -> None:
        if self._timer_at == when:
            self._timer_at = None
            self.post(ev.TimePassed(self._world.now))

    def _hasten_restarts(self) -> None:
        for task in self.state.tasks.values():
            if task.state is TaskState.DELAYED and task.actor is not None and task.delayed_until > self._world.now:
                task.delayed_until = self._world.now
                set_timer(self.state, self._world.now, "retry", task.spec.id)

    def _check_session(self, session_id: SessionId) -> None:
        session = self.state.sessions.get(session_id)
        if session is None or session.closed:
            raise Rejected("unknown")

    def _check_commits(self) -> None:
        """See that each task is committed once, with the result of its current attempt."""
        for session in self.state.sessions.values():
            for seq in range(self._published[session.id] + 1, session.last_seq + 1):
                task = session.outbox.get(seq)
                if task is None:
                    continue
                name = task.spec.id
                self._world.require(name not in self._committed, f"{name} was committed twice", name)
                self._committed.add(name)
                if task.state is TaskState.FINISHED:
                    expected = f"{name}/{task.attempt}".encode()
                    self._world.require(task.result == expected, f"{name}: committed {task.result!r}, not {expected!r}", name)
            self._published[session.id] = session.last_seq


def _copy(outcome: Outcome) -> Outcome:
    return Outcome(*(getattr(outcome, name) for name in Outcome.__slots__))
