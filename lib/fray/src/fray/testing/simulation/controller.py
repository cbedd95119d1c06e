"""The controller of a simulation: the real core, with a driver and a service that need no event loop.

After every event the invariants are checked, and that each task is committed once, with what its current attempt returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from fray.job.rpc.controller.channels import SavedNumbers
from fray.job.rpc.controller.core import apply, invariants, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.changes import Changes
from fray.job.rpc.controller.core.model import STABLE, ErrorKind, Limits, Outcome, State, Task, TaskState
from fray.job.rpc.controller.core.restore import restore
from fray.job.rpc.controller.core.tasks import find_refusal, set_timer
from fray.job.rpc.outbox import Request
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.errors import RESTARTED
from fray.job.rpc.worker import core as wc
from fray.testing.simulation.desks import Desk
from fray.testing.simulation.disk import Disk, Saver
from fray.testing.simulation.exchange import Exchange, Switch
from fray.testing.simulation.report import describe_event
from fray.testing.simulation.world import Plant, Rejected, Stream, World
from fray.types import Incarnation, SessionId, TaskId, WorkerId

Sabotage = Callable[[State, ev.Event], ev.Event | None]
"""Changes an event before the controller sees it, or swallows it: shows that the simulation notices."""


@dataclass(frozen=True, slots=True)
class Commands:
    """What a worker gets down its stream."""

    start: list[wc.Item]
    stop: list[tuple[TaskId, int]]
    reclaim: list[tuple[TaskId, int]]
    calls: list[pb.ActorCalls]
    ended_sessions: list[str]
    generation: int
    saved_report: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker is told in answer to a report."""

    fenced: bool
    generation: int
    saved_report: int


@dataclass(frozen=True, slots=True)
class Results:
    """What a client gets down its stream."""

    ended: list[tuple[TaskId, ErrorKind | None, bytes]]
    last_seq: int
    answers: list[pb.ActorAnswers]
    infos: list[pb.ActorInfo]
    generation: int
    saved_batch: int


@dataclass(slots=True)
class _Orders:
    """What waits for a worker's stream."""

    reports: SavedNumbers = field(default_factory=SavedNumbers)
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


class _Life:
    """What ends with a life of the controller."""

    def __init__(self, state: State, saver: Saver, generation: int) -> None:
        self.state, self.saver, self.generation = state, saver, generation
        self.orders: dict[Incarnation, _Orders] = {}
        self.results: dict[SessionId, _Results] = {}
        self.batches: dict[SessionId, SavedNumbers] = {}
        self.timer_at: float | None = None
        self.published: Counter[SessionId] = Counter()
        self.committed: set[TaskId] = set()
        """Tasks that have ended in this life."""
        self.expected = set(state.workers)
        """Workers of before, until they have come back."""
        self.started: set[TaskId] = set()
        """Tasks that were given to a worker in this life, as far as they are known."""


class Controller:
    """The driver and the service, without an event loop. It may crash, and go on later with what its disk holds."""

    def __init__(self, world: World, limits: Limits, sabotage: Sabotage | None) -> None:
        self._world, self._limits, self._sabotage = world, limits, sabotage
        self._disk = Disk() if world.is_durable else None
        self._offset_s = 0.0
        self._down = False
        state = State(limits, changes=Changes()) if self._disk is not None else State(limits)
        self._life = _Life(state, Saver(world, self._disk, state, self._offset_s), 1)
        switch = Switch(self.post, self._call_worker, self._wake_results, self._check_up, self.when_saved)
        self.exchange = Exchange(world, state, switch)
        self.desks: dict[str, Desk] = {}
        """Where workers take calls, by address: what a network knows."""
        self._ends: dict[TaskId, bytes] = {}
        """Results that are saved: nothing may change them, or make them again."""
        self._opened: set[SessionId] = set()
        """Sessions whose opening was answered: they end for a reason only."""
        self._ended: set[SessionId] = set()

    @property
    def state(self) -> State:
        """What the present life knows."""
        return self._life.state

    @property
    def is_down(self) -> bool:
        """Whether it has crashed and not started again."""
        return self._down

    @property
    def generation(self) -> int:
        """Number of the present life."""
        return self._life.generation

    def when_saved(self, action: Callable[[], None], dropped: Callable[[], None] = lambda: None) -> None:
        """Do something when all that has happened so far is saved."""
        self._life.saver.when_saved(action, dropped)

    def crash(self, seconds: float) -> None:
        """End at once, and start again after a while."""
        if self._down or self._disk is None:
            return
        self._down = True
        self._world.report.faults["controller crashed"] += 1
        life = self._life
        life.saver.crash()
        for orders in life.orders.values():
            if orders.stream is not None:
                orders.stream.cut()
                orders.stream = None
        for results in life.results.values():
            results.stream.cut()
        life.results.clear()
        self._world.at(seconds, self._start_again)

    def _start_again(self) -> None:
        """Begin another life with what the disk holds; the calendar may have jumped."""
        assert self._disk is not None
        world = self._world
        self._offset_s += world.disk_rng.choice([0.0, 0.0, 0.0, 3600.0, -3600.0, 40.0])
        generation = self._life.generation + 1
        state = restore(self._disk.read(), self._limits, world.now, self._offset_s, generation)
        if Plant.NOBODY_AWAITED in world.plants:
            state.awaited.clear()
        invariants.check(state)
        self._down = False
        life = self._life = _Life(state, Saver(world, self._disk, state, self._offset_s), generation)
        self.exchange.restart(state)
        for session in state.sessions.values():
            for task in session.outbox.values():
                same = self._ends.get(task.spec.id) in (None, task.result)
                world.require(same, f"{task.spec.id}: a saved result has changed", task.spec.id)
                life.committed.add(task.spec.id)
            life.published[session.id] = session.last_seq
        self._arm()

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
        self._life.saver.step()
        self._arm()

    # --- handlers

    def open_session(self, session: SessionId, parent: SessionId | None) -> int:
        """Return the number of this life."""
        self._check_up()
        self.post(ev.SessionOpened(self._world.now, session, parent=parent))
        self._check_session(session)
        self.when_saved(lambda: self._opened.add(session))
        return self.generation

    def close_session(self, session: SessionId) -> None:
        self._check_up()
        self._ended.add(session)
        self.post(ev.SessionClosed(self._world.now, session))

    def submit(self, session: SessionId, request: Request) -> bool:
        """Return whether all of it is saved already."""
        self._check_session(session)
        if request.generation != self.generation:
            raise Rejected(f"{RESTARTED} {self.generation}")
        for some in request.calls:
            self.exchange.relay(some)
        now, life = self._world.now, self._life
        is_repeated = 0 < request.batch <= self.state.sessions[session].last_batch
        if request.tasks:
            for spec in () if is_repeated else request.tasks:
                refusal = find_refusal(self.state, self.state.sessions[session], 1, len(spec.payload))
                if refusal is not None:
                    raise Rejected("no room")
            self.post(ev.TasksSubmitted(now, session, request.tasks, request.batch))
        if request.cancels:
            self.post(ev.CancelRequested(now, [TaskId(task) for task in request.cancels]))
        if request.acked_seq:
            self.post(ev.ResultsAcknowledged(now, session, request.acked_seq))
        mark = life.saver.mark()
        if request.batch:
            life.batches.setdefault(session, SavedNumbers()).add(request.batch, mark)
        return life.saver.is_saved(mark)

    def watch(self, session: SessionId, after_seq: int, generation: int, stream: Stream) -> None:
        self._check_session(session)
        life = self._life
        old = life.results.get(session)
        if old is not None:
            old.stream.finish()
            old.stream.lost_by_server()
        is_same = generation == self.generation or Plant.OLD_NUMBERS in self._world.plants
        results = life.results[session] = _Results(stream, after_seq if is_same else 0)
        ended = False

        def lost() -> None:
            nonlocal ended
            if not ended and life is self._life and not self._down:
                ended = True
                if life.results.get(session) is results:
                    del life.results[session]
                self.post(ev.SessionUnwatched(self._world.now, session))

        stream.lost_by_server = lost
        self.post(ev.SessionWatched(self._world.now, session))
        self._wake_results(session)

    def register(self, incarnation: Incarnation, worker: WorkerId, capacity: dict[str, float], lane_address: str) -> None:
        self._check_up()
        self.post(ev.WorkerRegistered(self._world.now, incarnation, worker, capacity, lane_address=lane_address))

    def attach(
        self,
        incarnation: Incarnation,
        held: Sequence[tuple[TaskId, int]],
        told: Sequence[tuple[TaskId, int]],
        generation: int,
        stream: Stream,
    ) -> None:
        self._check_up()
        if incarnation not in self.state.workers:
            raise Rejected("unknown")
        life = self._life
        if generation != self.generation:
            held = [*held, *told]
        self._check_not_replaced(incarnation, held)
        orders = life.orders.setdefault(incarnation, _Orders())
        if orders.stream is not None:
            orders.stream.finish()
        orders.stream = stream
        orders.start, orders.stop, orders.reclaim, orders.calls = [], [], [], []

        def lost() -> None:
            if orders.stream is stream and life is self._life and not self._down:
                orders.stream = None
                self.post(ev.WorkerDetached(self._world.now, incarnation))

        stream.lost_by_server = lost
        self.post(ev.WorkerAttached(self._world.now, incarnation, held))

    def take_report(
        self, event: ev.WorkerReported, number: int, leaving: bool, answers: Sequence[pb.ActorAnswers] = ()
    ) -> Answer:
        """Take a report; the core sees that of a worker that is fenced off all the same, and must refuse it."""
        self._check_up()
        if event.incarnation in self.state.awaited:
            self.post(ev.WorkerReported(self._world.now, event.incarnation))
            raise Rejected("attach first")
        fenced = event.incarnation not in self.state.workers
        for some in () if fenced else answers:
            self.exchange.pass_on(some)
        self.post(replace(event, now=self._world.now, outcomes=[_copy(outcome) for outcome in event.outcomes]))
        saver = self._life.saver
        orders = self._orders_of(event.incarnation)
        orders.reports.add(number, saver.mark())
        if leaving:
            self.post(ev.WorkerLeft(self._world.now, event.incarnation))
        return Answer(fenced, self.generation, orders.reports.latest(saver.is_saved))

    # --- effects

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StartTasks(incarnation, tasks):
                self._start(incarnation, tasks)
            case fx.StopTasks(incarnation, attempts):
                self._stop(incarnation, attempts)
            case fx.ReclaimTasks(incarnation, attempts):
                self._orders_of(incarnation).reclaim.extend(attempts)
            case fx.DisconnectWorker(incarnation):
                gone = self._life.orders.pop(incarnation, None)
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
                self._ended.add(session)
                self.exchange.end_session(session)
                for incarnation, worker in self.state.workers.items():
                    if worker.actors:
                        self._orders_of(incarnation).ended_sessions.append(session)
                results = self._life.results.pop(session, None)
                if results is not None:
                    results.stream.finish()

    def _start(self, incarnation: Incarnation, tasks: list[Task]) -> None:
        for task in tasks:
            self._life.started.add(task.spec.id)
            done = task.spec.id in self._ends
            self._world.require(not done, f"{task.spec.id} is started again though its result is saved", task.spec.id)
        self._orders_of(incarnation).start.extend((task, task.attempt) for task in tasks if task.actor is None)
        lives = [(task, task.attempt) for task in tasks if task.actor is not None]
        if lives:
            self.when_saved(lambda: self._orders_of(incarnation).start.extend(lives))

    def _stop(self, incarnation: Incarnation, attempts: list[tuple[TaskId, int]]) -> None:
        if any(name in self.state.tasks and self.state.tasks[name].actor is not None for name, _ in attempts):
            self.when_saved(lambda: self._orders_of(incarnation).stop.extend(attempts))
        else:
            self._orders_of(incarnation).stop.extend(attempts)

    def _orders_of(self, incarnation: Incarnation) -> _Orders:
        known = self._life.orders
        orders = known.get(incarnation) or _Orders()
        if incarnation in self.state.workers:
            known[incarnation] = orders
        if not orders.waking:
            orders.waking = True
            self._world.at(self._world.rng.uniform(0.0, 0.003), lambda: self._send_orders(orders))
        return orders

    def _send_orders(self, orders: _Orders) -> None:
        orders.waking = False
        if orders.stream is None:
            return
        start = [self._item(task) for task, attempt in orders.start if task.attempt == attempt and task.worker is not None]
        saved_report = orders.reports.latest(self._life.saver.is_saved)
        orders.stream.send(
            Commands(
                start,
                orders.stop,
                orders.reclaim,
                orders.calls,
                orders.ended_sessions,
                self.generation,
                saved_report,
            )
        )
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
        results = self._life.results.get(session)
        if results is not None and not results.waking:
            results.waking = True
            self._world.at(self._world.rng.uniform(0.0, 0.003), lambda: self._send_results(session, results))

    def _send_results(self, session_id: SessionId, results: _Results) -> None:
        results.waking = False
        session = self.state.sessions.get(session_id)
        life = self._life
        if session is None or life.results.get(session_id) is not results:
            return
        batch = []
        while results.cursor < session.last_seq:
            results.cursor += 1
            task = session.outbox.get(results.cursor)
            if task is not None:
                batch.append((task.spec.id, task.error_kind, task.result))
        answers, infos = self.exchange.take(session_id)
        saved_batch = life.batches.setdefault(session_id, SavedNumbers()).latest(life.saver.is_saved)
        results.stream.send(Results(batch, results.cursor, answers, infos, self.generation, saved_batch))

    def _arm(self) -> None:
        life, when = self._life, next_deadline(self.state)
        if when is None or (life.timer_at is not None and life.timer_at <= when):
            return
        life.timer_at = when
        self._world.at(max(0.0, when - self._world.now), lambda: self._tick(life, when))

    def _tick(self, life: _Life, when: float) -> None:
        if life is self._life and not self._down and life.timer_at == when:
            life.timer_at = None
            self.post(ev.TimePassed(self._world.now))

    def _hasten_restarts(self) -> None:
        for task in self.state.tasks.values():
            if task.state is TaskState.DELAYED and task.actor is not None and task.delayed_until > self._world.now:
                task.delayed_until = self._world.now
                set_timer(self.state, self._world.now, "retry", task.spec.id)

    def _check_up(self) -> None:
        if self._down:
            raise Rejected("down")

    def _check_session(self, session_id: SessionId) -> None:
        self._check_up()
        session = self.state.sessions.get(session_id)
        if session is None or session.closed:
            known = session is not None or session_id in self._ended or session_id not in self._opened
            self._world.require(known, f"the session {session_id} was lost")
            raise Rejected("unknown")

    def _check_not_replaced(self, incarnation: Incarnation, held: Sequence[tuple[TaskId, int]]) -> None:
        """See that what a worker still has when it comes back in time after a restart was given to nobody else."""
        if incarnation not in self._life.expected:
            return
        self._life.expected.remove(incarnation)
        for name, _ in held:
            task = self.state.tasks.get(name)
            given = name in self._life.started and task is not None and not task.state.is_final
            self._world.require(not given, f"{name} was given away though {incarnation} came back with it", name)

    def _check_commits(self) -> None:
        """See that each task is committed once, with the result of its current attempt."""
        life = self._life
        for session in self.state.sessions.values():
            for seq in range(life.published[session.id] + 1, session.last_seq + 1):
                task = session.outbox.get(seq)
                if task is None:
                    continue
                name = task.spec.id
                known = name in life.committed or name in self._ends
                self._world.require(not known, f"{name} was committed twice", name)
                life.committed.add(name)
                if task.state is TaskState.FINISHED:
                    expected = f"{name}/{task.attempt}".encode()
                    self._world.require(task.result == expected, f"{name}: committed {task.result!r}, not {expected!r}", name)
                    life.saver.when_saved(partial(self._ends.__setitem__, name, task.result))
            life.published[session.id] = session.last_seq


def _copy(outcome: Outcome) -> Outcome:
    return Outcome(*(getattr(outcome, name) for name in Outcome.__slots__))
