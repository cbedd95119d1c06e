"""A deterministic simulation of a whole cluster: the real cores, model clients and executors, a virtual network with faults.

One ``random.Random(seed)`` decides everything and time is virtual, so a seed that fails fails again. For a while messages
get lost, late or repeated, streams break, workers crash, freeze, drain and restart, executors die, clients vanish; then
the faults stop, and everything must come to rest with each task settled once.

Run many seeds with ``python -m fray.testing.simulation --seeds 1000``, one with ``--seed S``.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fray.job.rpc.controller.core import apply, invariants, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import (
    ErrorKind,
    Limits,
    Outcome,
    OutcomeKind,
    Shape,
    State,
    Task,
    TaskSpec,
    TaskState,
)
from fray.job.rpc.controller.core.story import explain_pending, tell_story
from fray.job.rpc.controller.core.tasks import find_refusal
from fray.job.rpc.worker import core as wc
from fray.types import Incarnation, SessionId, TaskId, WorkerId

Sabotage = Callable[[State, ev.Event], ev.Event | None]
"""Changes an event before the controller sees it, or swallows it: shows that the simulation notices."""

FAULTY_S = 25.0
"""Virtual seconds during which faults happen."""
PATIENCE_S = 300.0
"""Virtual seconds after the faults within which everything must have come to rest."""
HEARTBEAT_S = 2.0
"""As in the real agent."""
DRAIN_GRACE_S = 8.0
"""How long a draining worker waits for what runs."""
REPORT_ITEMS = 3
"""Outcomes in one report: few, so that reports overlap with what happens meanwhile."""
SUBMIT_ITEMS = 4
"""Tasks in one request."""
LOG_LINES = 80
"""Events shown when a seed fails."""


HARM = (
    "crash",
    "freeze",
    "drain",
    "kill",
    "kill",
    "sick",
    "cut off",
    "cut off",
    "break orders",
    "break results",
    "away",
    "vanish",
    "leave",
)
"""What is done to members while faults happen."""


class Rejected(Exception):
    """The controller answered that it does not know somebody, or has no room."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a task does when it runs."""

    function_id: str
    """Names the code: tasks of one name take about equally long."""
    duration_s: float
    """How long one run takes, without waiting."""
    failures: int = 0
    """The first so many runs raise."""
    crashes: int = 0
    """The first so many runs end the executor."""
    stubborn: bool = False
    """Whether it ignores interrupts."""
    children: int = 0
    """Tasks it submits and waits for, one after another."""


@dataclass(slots=True)
class SimulationReport:
    """What happened under one seed."""

    seed: int
    """Which."""
    events: int = 0
    """Events the controller took."""
    tasks: int = 0
    """Tasks that clients submitted."""
    virtual_s: float = 0.0
    """Virtual time until everything was at rest."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """What clients saw, by kind."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults injected, by kind."""
    stats: Counter[str] = field(default_factory=Counter)
    """The controller's own counts."""


def simulate(seed: int, *, sabotage: Sabotage | None = None, faulty_s: float = FAULTY_S) -> SimulationReport:
    """Run one seed until everything is at rest.

    Raises:
        AssertionError: naming the seed, what went wrong, the latest events and the story of the task.
    """
    world = _World(seed, sabotage, faulty_s)
    try:
        world.run()
    except Exception as error:
        if isinstance(error, AssertionError) and str(error).startswith("seed "):
            raise
        raise AssertionError(world.describe(f"{type(error).__name__}: {error}")) from error
    return world.report


class _World:
    """Time, chance, the network, and everybody."""

    def __init__(self, seed: int, sabotage: Sabotage | None, faulty_s: float) -> None:
        self.rng = random.Random(seed)
        self.report = SimulationReport(seed)
        self.now = 0.0
        self.faulty = faulty_s > 0
        self.faulty_s = faulty_s
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.scripts: dict[TaskId, Script] = {}
        self.runs: Counter[TaskId] = Counter()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = 0
        rng = self.rng
        limits = Limits(
            session_grace_s=6.0,
            reattach_grace_s=rng.choice([0.5, 2.0]),
            silence_s=rng.choice([5.0, 10.0]),
            max_losses=rng.choice([2, 10, 1000]),
            max_kills=rng.choice([3, 1000]),
            session_tasks=rng.choice([5, 1000]),
        )
        self.controller = _Controller(self, limits, sabotage)
        self.loss = rng.choice([0.0, 0.02, 0.1])
        self.calm = rng.random() < 0.1  # nothing is lost, nobody dies: the plain course of things
        self.workers = [_Worker(self, f"w{n}", self._capacity(n)) for n in range(rng.randint(1, 4))]
        self.clients = [_Client(self, f"c{n}") for n in range(rng.randint(1, 3))]

    def _capacity(self, number: int) -> dict[str, float]:
        if number == 0:
            return {"cpu": 2.0, "gpu": 1.0}  # fits every shape there is
        return {"cpu": float(self.rng.randint(1, 4))}

    # --- time and the network

    def at(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later."""
        self._ticket += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._ticket, what))

    def delay(self) -> float:
        """Return how long a message travels."""
        if self.faulty and not self.calm and self.rng.random() < 0.05:
            return self.rng.uniform(0.1, 3.0)
        return self.rng.uniform(0.0002, 0.02)

    def happens(self, chance: float, what: str) -> bool:
        """Decide on a fault."""
        if not self.faulty or self.calm or self.rng.random() >= chance:
            return False
        self.report.faults[what] += 1
        return True

    def call(
        self, handler: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[str], None], held_s: float = 0.0
    ) -> None:
        """Make a unary call: its request or its answer may get lost, and a request may come twice."""
        if self.happens(self.loss, "request lost"):
            self.at(self.rng.uniform(0.3, 2.0), lambda: failed("lost"))
            return

        def deliver() -> None:
            try:
                answer = handler()
            except Rejected as rejected:
                text = str(rejected)
                self.at(self.delay(), lambda: failed(text))
                return
            if self.happens(self.loss, "answer lost"):
                self.at(self.rng.uniform(0.3, 2.0), lambda: failed("lost"))
            else:
                self.at(self.delay(), lambda: done(answer))

        def deliver_again() -> None:
            with contextlib.suppress(Rejected):  # nobody listens to the answer
                handler()

        wait_s = held_s + self.delay()
        self.at(wait_s, deliver)
        if self.happens(self.loss / 2, "request repeated"):
            self.at(wait_s + self.rng.uniform(0.0, 4.0), deliver_again)

    # --- the course of things

    def run(self) -> None:
        for member in (*self.workers, *self.clients):
            self.at(self.rng.uniform(0.0, 0.5), member.start)
        if self.faulty and not self.calm:
            self.at(self.rng.uniform(0.5, 2.0), self._do_harm)
        self.at(self.faulty_s, self._heal)
        while self._heap:
            when, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            if self.now > self.faulty_s + PATIENCE_S:
                raise AssertionError(self.describe("it does not come to rest: " + self._unrest()))
            what()
            if not self.faulty and self._at_rest():
                break
        self._check_rest()

    def _do_harm(self) -> None:
        if not self.faulty:
            return
        rng = self.rng
        worker, client = rng.choice(self.workers), rng.choice(self.clients)
        what = rng.choice(HARM)
        self.report.faults[what] += 1
        if what == "crash":
            worker.restart_in(rng.uniform(0.0, 4.0))
        elif what == "freeze":
            worker.freeze(rng.choice([0.5, 3.0, 15.0]))
        elif what == "drain":
            worker.drain()
        elif what == "break orders":
            worker.break_stream()
        elif what == "kill":
            worker.kill_executor()
        elif what == "cut off":
            worker.cut_off(rng.choice([1.0, 4.0, 8.0]))
        elif what == "sick":
            worker.sicken(rng.uniform(0.5, 6.0))
        elif what == "break results":
            client.break_stream()
        elif what == "away":
            client.freeze(rng.choice([1.0, 4.0, 12.0]))
            client.break_stream()
        elif what == "vanish" and rng.random() < 0.2:
            client.vanish()
        elif what == "leave" and rng.random() < 0.2:
            client.close()
        self.at(rng.uniform(0.2, 3.0), self._do_harm)

    def _heal(self) -> None:
        self.faulty = False
        for member in (*self.workers, *self.clients):
            member.thaw()

    def _at_rest(self) -> bool:
        for client in self.clients:
            if client.is_settled() and not client.gone:
                client.close()
        state = self.controller.state
        return (
            not state.sessions
            and all(client.gone for client in self.clients)
            and all(worker.core.idle() for worker in self.workers)
        )

    def _unrest(self) -> str:
        state = self.controller.state
        lines = [f"sessions {sorted(state.sessions)}"]
        lines += [f"client {c.session} waits for {sorted(c.futures)}" for c in self.clients if c.futures]
        for worker in state.workers.values():
            lines.append(f"{worker.incarnation}: used {worker.used} attached {worker.attached} {sorted(worker.assigned)}")
        for sim in self.workers:
            busy = {e.number: sorted(e.items) for e in sim.core.executors.values()}
            lines.append(f"{sim.name}: holds {sim.core.held()}, executors {busy}")
        return "\n  ".join(lines)

    def _check_rest(self) -> None:
        state = self.controller.state
        invariants.check(state)
        require = self.require
        require(not state.tasks, f"{len(state.tasks)} tasks are kept though all was acknowledged or closed")
        for worker in state.workers.values():
            require(not worker.assigned and not worker.prefetched, f"{worker.id} keeps {sorted(worker.assigned)}")
            require(all(used < 1e-6 for used in worker.used.values()), f"{worker.id} has not got back {worker.used}")
            require(worker.load() < 1e-6, f"{worker.id} counts a load of {worker.load()} without one")
        for queue in state.queues.values():
            require(queue.length == 0, f"queue {queue.shape} is not empty")
        ended = sum(state.stats[f"tasks {final}"] for final in ("finished", "failed", "cancelled"))
        require(ended == state.stats["tasks accepted"], f"{ended} ends of {state.stats['tasks accepted']} accepted tasks")
        for client in self.clients:
            client.check()
        self.report.virtual_s = self.now
        self.report.stats = state.stats

    def require(self, holds: bool, text: str, task: TaskId | None = None) -> None:
        """Fail the seed unless something holds."""
        if not holds:
            raise AssertionError(self.describe(text, task))

    def describe(self, text: str, task_id: TaskId | None = None) -> str:
        """Return a failure in words: the seed, the latest events, the stories of the tasks concerned."""
        state = self.controller.state
        lines = [f"seed {self.report.seed} at {self.now:.4f} s: {text}", *self.log]
        ended = {task.id: task for task in state.history}
        concerned = [task_id] if task_id else [task for task in (*state.tasks, *self.scripts) if task in text]
        for name in dict.fromkeys(concerned[:5] or list(state.tasks)[:5]):
            task = state.tasks.get(name) or ended.get(name)
            if task is not None:
                lines += [f"story of {name} ({task.state.value}):", *(f"  {line}" for line in tell_story(task))]
            if isinstance(task, Task):
                lines.append(f"  pending: {explain_pending(state, task, self.now)}")
        return "\n".join(lines)


class _Stream:
    """Messages from the controller to a member, in order, until it breaks. Each end learns of that in its own time."""

    def __init__(self, world: _World, take: Callable[[Any], None], ended: Callable[[str], None]) -> None:
        self._world, self._take, self._ended = world, take, ended
        self.lost_by_server: Callable[[], None] = lambda: None
        self.broken = False
        self._last = 0.0

    def send(self, message: Any) -> None:
        """Push a message; into the void, when the stream has broken and the controller does not know yet."""
        self._deliver(lambda: self._take(message))

    def finish(self, why: str = "ended") -> None:
        """End it from the controller's side."""
        self._deliver(lambda: self._break(why))

    def cut(self) -> None:
        """Break it."""
        if self.broken:
            return
        self.broken = True
        rng = self._world.rng
        self._world.at(rng.uniform(0.0, 1.5), lambda: self._ended("broken"))
        self._world.at(rng.uniform(0.0, 1.5), self.lost_by_server)

    def _break(self, why: str) -> None:
        self.broken = True
        self._ended(why)

    def _deliver(self, what: Callable[[], None]) -> None:
        world = self._world
        self._last = max(self._last, world.now + world.delay())

        def arrive() -> None:
            if not self.broken:
                what()

        world.at(self._last - world.now, arrive)


class _Member:
    """A process: may freeze and go on, or end; what was to happen in a life that is over does not happen."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.life = 0
        self.frozen = False
        self._backlog: list[tuple[int, Callable[[], None]]] = []

    def start(self) -> None:
        """Begin."""
        raise NotImplementedError

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, in this life only, and not while frozen."""
        life = self.life
        self.world.at(delay_s, lambda: self._enter(life, what))

    def mine(self, what: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback that belongs to this life."""
        life = self.life
        return lambda value: self._enter(life, lambda: what(value))

    def freeze(self, seconds: float) -> None:
        """Stop for a while, without anybody noticing."""
        self.frozen = True
        self.world.at(seconds, self.thaw)

    def thaw(self) -> None:
        """Go on, with everything that has gathered."""
        self.frozen = False
        while self._backlog and not self.frozen:
            life, what = self._backlog.pop(0)
            self._enter(life, what)

    def _enter(self, life: int, what: Callable[[], None]) -> None:
        if life != self.life:
            return
        if self.frozen:
            self._backlog.append((life, what))
        else:
            what()


@dataclass(slots=True)
class _Orders:
    """What waits for a worker's stream."""

    stream: _Stream | None = None
    start: list[tuple[Task, int]] = field(default_factory=list)
    stop: list[tuple[TaskId, int]] = field(default_factory=list)
    reclaim: list[tuple[TaskId, int]] = field(default_factory=list)
    waking: bool = False


@dataclass(slots=True)
class _Results:
    """A session's stream and how far it has come."""

    stream: _Stream
    cursor: int
    waking: bool = False


class _Controller:
    """The driver and the service, without an event loop."""

    def __init__(self, world: _World, limits: Limits, sabotage: Sabotage | None) -> None:
        self._world = world
        self.state = State(limits)
        self._sabotage = sabotage
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
        world.log.append(f"{world.now:9.4f}  {_brief(changed)}")
        effects = apply(self.state, changed)
        self._check_commits()
        invariants.check(self.state)
        for effect in effects:
            world.log.append(f"{'':9}    -> {_brief(effect)}")
            self._perform(effect)
        self._arm()

    # --- handlers

    def open_session(self, session: SessionId, parent: SessionId | None) -> None:
        self.post(ev.SessionOpened(self._world.now, session, parent=parent))
        self._check_session(session)

    def close_session(self, session: SessionId) -> None:
        self.post(ev.SessionClosed(self._world.now, session))

    def submit(
        self, session: SessionId, batch: int, specs: Sequence[TaskSpec], cancels: Sequence[TaskId], acked_seq: int
    ) -> None:
        self._check_session(session)
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

    def watch(self, session: SessionId, after_seq: int, stream: _Stream) -> None:
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

    def register(self, incarnation: Incarnation, worker: WorkerId, capacity: dict[str, float]) -> None:
        self.post(ev.WorkerRegistered(self._world.now, incarnation, worker, capacity))

    def attach(self, incarnation: Incarnation, held: Sequence[tuple[TaskId, int]], stream: _Stream) -> None:
        if incarnation not in self.state.workers:
            raise Rejected("unknown")
        orders = self._orders.setdefault(incarnation, _Orders())
        if orders.stream is not None:
            orders.stream.finish()
        orders.stream = stream
        orders.start, orders.stop, orders.reclaim = [], [], []

        def lost() -> None:
            if orders.stream is stream:
                orders.stream = None
                self.post(ev.WorkerDetached(self._world.now, incarnation))

        stream.lost_by_server = lost
        self.post(ev.WorkerAttached(self._world.now, incarnation, held))

    def take_report(self, event: ev.WorkerReported, leaving: bool) -> bool:
        """Return whether the worker is fenced off; the core sees the report all the same, and must refuse it."""
        fenced = event.incarnation not in self.state.workers
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
            case fx.NotifySession():
                pass
            case fx.EndSession(session):
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
        orders.stream.send((start, orders.stop, orders.reclaim))
        orders.start, orders.stop, orders.reclaim = [], [], []

    def _item(self, task: Task) -> wc.Item:
        spec = task.spec
        for dependency in spec.dependencies:
            kept = self.state.tasks.get(dependency)
            known = kept is not None and kept.state is TaskState.FINISHED
            self._world.require(known, f"{spec.id} is started without the value of {dependency}", spec.id)
        return wc.Item(spec.id, task.attempt, spec.function_id, spec.shape, spec.timeout, order=spec, priority=spec.priority)

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
        results.stream.send((batch, results.cursor))

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


class _Client(_Member):
    """A session as the real client keeps it: one request in flight, results acknowledged, streams opened again."""

    def __init__(self, world: _World, name: str, parent: SessionId | None = None) -> None:
        super().__init__(world)
        self.session = SessionId(name)
        self.parent = parent
        self.gone = False
        """Closed, vanished or failed."""
        self.lost = False
        """Whether the controller gave the session up."""
        self.futures: dict[TaskId, Callable[[str], None]] = {}
        self.outcomes: dict[TaskId, list[str]] = {}
        self.specs: dict[TaskId, TaskSpec] = {}
        self._unsent: list[tuple[TaskSpec, int]] = []
        self._cancels: list[TaskId] = []
        self._batch = self._received_seq = self._acked_seq = self._to_submit = 0
        self._sending = False
        self._retry: tuple[int, list[TaskSpec], list[TaskId], int, int] | None = None
        self._stream: _Stream | None = None

    def start(self) -> None:
        """Open the session, then submit in bursts."""
        self.open()
        self._to_submit = self.world.rng.randint(5, 40)
        self.later(0.0, self._submit_some)

    def open(self) -> None:
        """Introduce the client; again until it works."""
        controller = self.world.controller
        self.world.call(
            lambda: controller.open_session(self.session, self.parent),
            self.mine(lambda _: self._opened()),
            self.mine(lambda why: self.fail(why) if why == "unknown" else self.later(0.2, self.open)),
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
        self._unsent.append((spec, self._received_seq))
        if self.gone:
            self._settle(task, "gone")
        self._send()
        return task

    def cancel(self, task: TaskId) -> None:
        """Cancel a task; nobody is told when it has really stopped."""
        if task in self.futures:
            self._cancels.append(task)
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
        quiet = not self.futures and not self._unsent and not self._to_submit and self._retry is None
        return quiet and not self._cancels and self._acked_seq == self._received_seq

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
        limits = world.controller.state.limits
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
            script, options = _draw(rng)
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

    def _opened(self) -> None:
        if not self.gone:
            self._watch()
            self._opened = lambda: None  # type: ignore[method-assign]
            self._send()

    def _end(self, how: str) -> None:
        self.gone = True
        self._to_submit = 0
        for task in list(self.futures):
            self._settle(task, how)
        if self._stream is not None:
            self._stream.cut()

    def _say_goodbye(self) -> None:
        self.life += 1  # answers to what is in flight are for nobody
        self.thaw()
        controller = self.world.controller
        self.world.call(
            lambda: controller.close_session(self.session),
            lambda _: None,
            lambda _: self.world.at(0.5, self._say_goodbye),
        )

    def _settle(self, task: TaskId, how: str) -> None:
        told = self.futures.pop(task, None)
        if told is not None:
            self.outcomes[task].append(how)
            told(how)

    def _send(self) -> None:
        if self._sending or self.gone or self._stream is None:
            return
        acknowledges = self._received_seq > self._acked_seq and not self.futures
        if not (self._unsent or self._cancels or self._retry or acknowledges):
            return
        self._sending = True
        if self._retry is None:
            batch, self._unsent = self._unsent[:SUBMIT_ITEMS], self._unsent[SUBMIT_ITEMS:]
            unsent = {spec.id for spec, _ in self._unsent}
            cancels = [task for task in self._cancels if task not in unsent]
            self._cancels = [task for task in self._cancels if task in unsent]
            self._batch += 1
            acked = self._unsent[0][1] if self._unsent else self._received_seq
            safe = batch[0][1] if batch else self._received_seq
            self._retry = (self._batch, [spec for spec, _ in batch], cancels, acked, safe)
        number, specs, cancels, acked, _ = self._retry
        controller = self.world.controller
        self.world.call(
            lambda: controller.submit(self.session, number, specs, cancels, acked),
            self.mine(lambda _: self._sent()),
            self.mine(self._not_sent),
        )

    def _sent(self) -> None:
        if self._retry is not None:
            self._acked_seq = max(self._acked_seq, self._retry[3])
        self._retry = None
        self._sending = False
        self._send()

    def _not_sent(self, why: str) -> None:
        if why == "unknown":
            self.fail(why)
            return
        if why == "no room" and self._retry is not None:
            _, _, cancels, _, safe = self._retry
            cancels, controller = [*cancels, *self._cancels], self.world.controller  # what fills the session may have to go
            self.world.call(lambda: controller.submit(self.session, 0, [], cancels, safe), lambda _: None, lambda _: None)

        def again() -> None:
            self._sending = False
            self._send()

        self.later(0.2, again)

    def _watch(self) -> None:
        if self.gone:
            return
        world, controller = self.world, self.world.controller
        stream = self._stream = _Stream(world, self.mine(self._take), self.mine(self._watch_ended))
        after_seq = self._received_seq

        def arrive() -> None:
            try:
                if not stream.broken:
                    controller.watch(self.session, after_seq, stream)
            except Rejected:
                stream.finish("unknown")

        world.at(world.delay(), arrive)

    def _watch_ended(self, why: str) -> None:
        if why == "unknown":
            self.fail(why)
        else:
            self.later(0.1, self._watch)

    def _take(self, message: tuple[list[tuple[TaskId, ErrorKind | None, bytes]], int]) -> None:
        results, last_seq = message
        self._received_seq = max(self._received_seq, last_seq)
        for task, error, _ in results:
            self._settle(task, "finished" if error is None else error.value)
        self._send()


class _Worker(_Member):
    """An agent with a real core and model executors; under one name it lives many lives."""

    def __init__(self, world: _World, name: str, capacity: dict[str, float]) -> None:
        super().__init__(world)
        self.name = WorkerId(name)
        self.capacity = capacity
        self.core = wc.WorkerCore(capacity, executors=max(1, int(capacity["cpu"])))
        self.executors: dict[int, _Executor] = {}
        self._incarnation = Incarnation("")
        self._lives = 0
        self._stream: _Stream | None = None
        self._reporting = False
        self._timer_at: float | None = None
        self._draining = self._leaving = False
        self._starting = True
        self._sick_until = self._cut_until = 0.0

    def start(self) -> None:
        """Begin as a new process."""
        self.core = wc.WorkerCore(self.capacity, executors=max(1, int(self.capacity["cpu"])))
        self.executors = {}
        self._stream, self._timer_at = None, None
        self._reporting = self._draining = self._leaving = self._starting = False
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
        for executor in list(self.executors.values()):
            executor.vanish()

    def drain(self) -> None:
        """Hand back, finish, leave; then come again."""
        if not self._draining and not self._starting and not self.frozen:
            self._draining = True
            self.core.drain()
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

    def perform(self, effects: Sequence[wc.Effect]) -> None:
        """Do what the core wants."""
        for effect in effects:
            match effect:
                case wc.Spawn(number):
                    self.executors[number] = _Executor(self, number)
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
        if self.core.broken:
            self.drain()
        if self.core.has_news() and not self._reporting:
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
        controller = self.world.controller
        self.world.call(
            lambda: controller.register(incarnation, self.name, self.capacity),
            self.mine(lambda _: self._attach()),
            self.mine(lambda _: self.later(0.3, self._register)),
        )

    def _attach(self) -> None:
        world, controller = self.world, self.world.controller
        stream = self._stream = _Stream(world, self.mine(self._obey), self.mine(self._orders_ended))
        incarnation, held = self._incarnation, self.core.held()

        def arrive() -> None:
            try:
                if not stream.broken:
                    controller.attach(incarnation, held, stream)
            except Rejected:
                stream.finish("unknown")

        world.at(max(0.0, self._cut_until - world.now) + world.delay(), arrive)

    def _orders_ended(self, why: str) -> None:
        if why == "unknown":
            self.perform(self.core.abandon())
            self._register()
        else:
            self.later(0.1, self._attach)

    def _obey(self, message: tuple[list[wc.Item], list[tuple[TaskId, int]], list[tuple[TaskId, int]]]) -> None:
        start, stop, reclaim = message
        now = self.world.now
        if start:
            self.perform(self.core.receive(now, start))
        for task, attempt in stop:
            self.perform(self.core.stop(now, task, attempt))
        for task, attempt in reclaim:
            self.core.hand_back(task, attempt)
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
        event = ev.WorkerReported(0.0, self._incarnation, outcomes, report.blocked, report.unblocked, draining)
        controller = self.world.controller
        self.world.call(
            lambda: controller.take_report(event, leaving),
            self.mine(lambda fenced: self._reported(report, fenced, leaving)),
            self.mine(lambda _: self._gone() if leaving else self.later(0.2, self._report)),
            held_s=max(0.0, self._cut_until - self.world.now),
        )

    def _leave(self) -> None:
        """Go, though something may still run."""
        self._leaving = True
        if not self._reporting:
            self._reporting = True
            self._report()

    def _gone(self) -> None:
        self.restart_in(self.world.rng.uniform(0.0, 2.0))

    def _reported(self, report: wc.Report, fenced: bool, leaving: bool) -> None:
        self._reporting = False
        if leaving:
            self._gone()
        elif not fenced:
            self.core.acknowledge(report)
            self.after_change()


class _Executor(_Member):
    """A process that runs tasks one after another, as the real one: done ones are told together, others given back."""

    def __init__(self, worker: _Worker, number: int) -> None:
        super().__init__(worker.world)
        self.worker, self.number = worker, number
        self._queue: deque[wc.Item] = deque()
        self._done: list[Outcome] = []
        self._current: wc.Item | None = None
        self._run = 0
        self._child: _Client | None = None
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
            self._child = _Client(self.world, f"{session}.{self.worker.name}.{self.number}.{self.world.now:.3f}", session)
            self._child.open()
        script = Script("child", self.world.rng.choice([0.001, 0.002, 0.3]))
        task = item.task

        def settled(how: str) -> None:
            if self._dead or run != self._run:
                return
            self._tell(lambda now: self.worker.core.unblocked(now, task))
            if how == "finished":
                self.later(self.world.rng.choice([0.0, 0.0001, 0.01]), lambda: self._wait_for_child(run, left - 1))
            else:
                self._finish(OutcomeKind.FAILED, f"its child was {how}", 0.01)

        self._flush()
        self._return_queue()
        self._tell(lambda now: self.worker.core.blocked(now, task))
        self._child.submit(script, lambda how: self.later(0.0, lambda: settled(how)))

    def _flush(self) -> None:
        if self._done:
            done, self._done = self._done, []
            self._tell(lambda now: self.worker.core.outcomes(now, self.number, done))

    def _tell(self, what: Callable[[float], list[wc.Effect]], forget: bool = False) -> None:
        """Let the agent take a message, after those before it."""
        self._last = max(self._last, self.world.now + self.world.rng.uniform(0.0001, 0.003))

        def arrive() -> None:
            if forget:
                self.worker.executors.pop(self.number, None)
            self.worker.perform(what(self.world.now))

        self.worker.later(self._last - self.world.now, arrive)


def _draw(rng: random.Random) -> tuple[Script, dict[str, Any]]:
    """Return a task to submit."""
    options: dict[str, Any] = {}
    shapes: list[Shape] = [(("cpu", 1.0),)] * 6 + [(("cpu", 0.5),), (("cpu", 2.0),), (("cpu", 1.0), ("gpu", 1.0)), ()]
    options["shape"] = rng.choice(shapes)
    options["priority"] = rng.choice([0, 0, 0, 1, -1])
    kind = rng.choice(["short"] * 8 + ["long", "long", "fails", "crashes", "endless", "stubborn", "nests", "nests", "slow"])
    if kind == "short":
        return Script(rng.choice(["f1", "f2"]), rng.uniform(0.0005, 0.002)), options
    if kind == "long":
        return Script("long", rng.uniform(0.5, 3.0)), options
    if kind == "fails":
        options |= {"max_retries": rng.randint(0, 3), "retry_delay_s": 0.1}
        return Script("f1", 0.002, failures=rng.randint(1, 3)), options
    if kind == "crashes":
        return Script("f2", 0.002, crashes=rng.randint(1, 4)), options
    if kind in ("endless", "stubborn"):
        limit = rng.choice(["timeout", "deadline_s", ""])
        if limit:
            options[limit] = rng.uniform(0.2, 3.0)
        return Script("endless", 1e6, stubborn=kind == "stubborn"), options
    if kind == "nests":
        return Script(rng.choice(["nest", "f1"]), 0.01, children=rng.randint(1, 4)), options
    return Script("f1", rng.uniform(0.1, 1.0)), options  # of a name that is mostly short


def _copy(outcome: Outcome) -> Outcome:
    return Outcome(*(getattr(outcome, name) for name in Outcome.__slots__))


def _brief(value: Any) -> str:
    fields = []
    for name in value.__slots__:
        content = getattr(value, name)
        if name == "now" or content in ((), [], "", False, None, {}):
            continue
        if name in ("tasks", "outcomes"):
            content = [_brief_item(item) for item in content]
        fields.append(f"{name}={content}")
    return f"{type(value).__name__}({', '.join(fields)})"


def _brief_item(item: Any) -> str:
    if isinstance(item, Outcome):
        return f"{item.task}/{item.attempt} {item.kind.value}"
    if isinstance(item, Task):
        return f"{item.spec.id}/{item.attempt}"
    return str(item.id) if isinstance(item, TaskSpec) else str(item)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds and print what they did; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m fray.testing.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, default=None, help="run one seed and show what it did")
    options = parser.parse_args(arguments)
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    started = time.perf_counter()
    failed = []
    total: Counter[str] = Counter()
    for seed in seeds:
        try:
            report = simulate(seed)
        except AssertionError as error:
            failed.append(seed)
            if len(failed) <= 3 or options.seed is not None:
                print(error)
            continue
        for group in (report.outcomes, report.faults, report.stats):
            total.update(group)
        total["events"] += report.events
    rate = len(seeds) / (time.perf_counter() - started)
    print(f"{len(seeds)} seeds, {rate:.1f} per second, {len(failed)} failed: {failed[:50]}")
    print(", ".join(f"{name}: {count}" for name, count in sorted(total.items())))
    return min(len(failed), 1)


if __name__ == "__main__":
    sys.exit(main())
