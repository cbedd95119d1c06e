"""The cores against models: the controller's against ``reference``, the worker's against what is promised of attempts,
and a controller that is restarted after any event against the one that was not.

The everyday run tries the same histories each time. A long one tries others, and makes a failing one short::

    FRAY_EXAMPLES=5000 .venv/bin/python -m pytest lib/fray/tests/core/test_against_reference.py --timeout 0
"""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fray.job.rpc.controller.core import apply, invariants, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.changes import Changes
from fray.job.rpc.controller.core.machine import ANONYMOUS_SESSION
from fray.job.rpc.controller.core.model import ActorSpec, Limits, Outcome, OutcomeKind, State, Task, TaskSpec
from fray.job.rpc.controller.core.records import take
from fray.job.rpc.controller.core.restore import restore
from fray.job.rpc.worker import core as wc
from fray.testing.simulation.disk import Disk
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

sys.path.insert(0, str(Path(__file__).parent))
from reference import EPS, Reference, View, end_of

pytestmark = pytest.mark.unit

EXAMPLES = int(os.environ.get("FRAY_EXAMPLES", "0"))
"""Histories of each kind in a long run; 0 for the everyday one."""

LIMITS = Limits(session_grace_s=12.0, silence_s=6.0, max_losses=3, max_kills=2, result_ttl_s=20.0)
RUN_S = {"short": 0.01, "long": 1.0, "other": 0.02}
"""How long functions run; none is measured at the beginning."""
SHAPES = [(("cpu", 1.0),), (("cpu", 0.5),), (("cpu", 2.0),), (("cpu", 1.0), ("gpu", 1.0)), ()]
CAPACITIES = [{"cpu": 1.0}, {"cpu": 2.0}, {"cpu": 3.0, "gpu": 1.0}]
WORKER_IDS = ["v", "w", "x"]
REPEATABLE = (
    ev.SessionOpened,
    ev.TasksSubmitted,
    ev.ActorRequested,
    ev.WorkerRegistered,
    ev.WorkerReported,
    ev.WorkerLeft,
    ev.SessionClosed,
    ev.CancelRequested,
    ev.ResultsAcknowledged,
)
"""What a network may deliver twice."""
REPEATABLE_LATE = (
    ev.TasksSubmitted,
    ev.ActorRequested,
    ev.WorkerRegistered,
    ev.WorkerLeft,
    ev.SessionClosed,
    ev.CancelRequested,
)
"""What may come again at any later time; the ids of a session are used once."""
IDLE_EVENTS = (
    ev.SessionOpened,
    ev.SessionWatched,
    ev.SessionUnwatched,
    ev.ResultsAcknowledged,
    ev.ActorWatched,
)
"""After which nothing can be placed that could not before."""

pick = st.integers(0, 1000)
some = st.lists(st.integers(0, 1000), min_size=1, max_size=3)


def can(weight: int = 1, **draws: Any) -> Callable[[Any], Any]:
    """Say what a step of a machine draws, and how often it is to come compared with others."""

    def mark(step: Any) -> Any:
        step.draws = (weight, draws)
        return step

    return mark


def steps(*machines: Mapping[str, Any]) -> Any:
    """Return a strategy for any step of some machines: one rule for all, as rules are switched off for whole histories."""
    found = {name: part.draws for machine in machines for name, part in machine.items() if hasattr(part, "draws")}
    choices = [
        st.tuples(st.just(name), st.fixed_dictionaries(draws)) for name, (weight, draws) in found.items() for _ in range(weight)
    ]
    return st.one_of(choices)


def observe(state: State) -> View:
    """Return what the reference compares with."""
    jobs = {}
    for task in (*state.tasks.values(), *state.dead_actors.values()):
        jobs[str(task.spec.id)] = {
            "phase": "ended" if task.state.is_final else task.state.value,
            "attempt": task.attempt,
            "worker": task.worker or "",
            "failures": task.failures,
            "losses": task.losses,
            "kills": task.kills,
            "stopping": task.cancelling.value if task.cancelling is not None else "",
            "lent": task.blocked,
            "end": end_of(task.error_kind, task.result) if task.state.is_final else None,
            "life": task.actor.state.value if task.actor is not None else "",
            "restarts": task.actor.restarts if task.actor is not None else 0,
        }
    sessions = {
        str(name): (session.closed, session.last_batch, [str(task.spec.id) for task in session.outbox.values()])
        for name, session in state.sessions.items()
    }
    workers = state.workers.items()
    return View(
        jobs,
        sessions,
        dict(state.actor_names),
        {name: worker.used for name, worker in workers},
        {name: (worker.id, worker.attached, worker.draining) for name, worker in workers},
        {name: worker.reserved_for for name, worker in workers if worker.reserved_for is not None},
        {task.spec.id for task in state.tasks.values() if task.holding},
    )


def dump(value: Any, skip: frozenset[str] = frozenset({"stats", "ticket", "changes", "last_seen", "queues"})) -> Any:
    """Return everything in a state as plain values; counters excepted, and when workers were heard of."""
    if isinstance(value, State):
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__ if name not in skip}
        fields["timers"] = sorted((when, what, whom) for when, _, what, whom in value.timers)
        fields["lengths"] = {shape: queue.length for shape, queue in value.queues.items()}
        return {name: dump(part) for name, part in fields.items()}
    if isinstance(value, dict):
        return [(key, _brief(part)) for key, part in value.items()]
    return _brief(value)


def _brief(value: Any) -> Any:
    """Return a part of a state; tasks that hang together by their names."""
    if not dataclasses.is_dataclass(value):
        return [_brief(part) for part in value] if isinstance(value, (list, tuple)) else copy.copy(value)
    parts = {}
    for name in value.__dataclass_fields__:
        part = getattr(value, name)
        if name in ("dependents", "live", "outbox", "assigned", "prefetched"):
            part = [getattr(item, "spec", item) and str(getattr(item, "spec", item)) for item in part or ()]
        elif name == "actor" and dataclasses.is_dataclass(part):
            part = _brief(part)
        if name not in ("last_seen", "reclaiming"):
            parts[name] = copy.copy(part) if isinstance(part, (dict, set, list)) else part
    return parts


class Crowd:
    """What workers have, as they know it themselves: attempts that were delivered and have not been answered."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.has: dict[str, dict[tuple[str, int], TaskSpec]] = {}
        self.past: list[tuple[str, str, int]] = []
        """Every attempt that was ever given to anybody."""

    def begin(self, worker: str) -> str:
        incarnation = f"{worker}.{1 + sum(name == worker for name in self.ids.values())}"
        self.ids[incarnation] = worker
        self.has[incarnation] = {}
        return incarnation

    def deliver(self, effects: Iterable[fx.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, fx.StartTasks):
                for task in effect.tasks:
                    self.has[effect.worker][task.spec.id, task.attempt] = task.spec
                    self.past.append((effect.worker, task.spec.id, task.attempt))

    def drop(self, incarnation: str, attempts: Iterable[tuple[str, int]]) -> None:
        for attempt in attempts:
            self.has[incarnation].pop(attempt, None)


class AgainstReference(RuleBasedStateMachine):
    """Random histories of one controller: after every event the core must be as the reference says."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(LIMITS, changes=Changes())
        self.reference = Reference(LIMITS, RUN_S)
        self.crowd = Crowd()
        self.now = 0.0
        self.count = 0
        self.batches: Counter[str] = Counter()
        self.log: list[ev.Event] = []

    # --- feeding

    def tick(self) -> float:
        """Return a time a little later: no two things happen at the same one."""
        self.count += 1
        self.now += 0.0001 + 0.00001 * (self.count % 7)
        return self.now

    def post(self, kind: type[Any], *args: Any, **fields: Any) -> None:
        """Let one event happen, and what is due at once; what a network may repeat is repeated and must change nothing."""
        event = kind(self.tick(), *args, **fields)
        self.log.append(event)
        self.feed(event)
        if isinstance(event, REPEATABLE):
            self.repeat(event)
        self.settle()

    def feed(self, event: ev.Event) -> list[fx.Effect]:
        effects = apply(self.state, event)
        invariants.check(self.state)
        view = observe(self.state)
        self.reference.apply(event)
        self.reference.resolve(event.now, view)
        for effect in effects:
            if isinstance(effect, fx.StartTasks):
                for task in effect.tasks:
                    values = [self.state.tasks.get(name) for name in task.spec.dependencies]
                    assert all(value and value.state.value == "finished" for value in values), "a value is not kept"
                    self.reference.placed(effect.worker, task.spec.id, task.attempt)
        self.reference.check(event.now, view, effects, isinstance(event, IDLE_EVENTS))
        self.crowd.deliver(effects)
        return effects

    def repeat(self, event: ev.Event) -> None:
        """Deliver an event once more: nothing changes, nothing is ordered."""
        if self.state.reservations:
            self.feed(ev.CancelRequested(self.now, ()))  # any event may end those that nobody needs any more
        before = dump(self.state)
        effects = apply(self.state, dataclasses.replace(event, now=self.now))
        assert [effect for effect in effects if not isinstance(effect, fx.ReclaimTasks)] == [], f"{effects} for a repetition"
        assert dump(self.state) == before, "a repetition has changed something"

    def settle(self) -> None:
        """Let the timer fire until nothing is due; it must not be set later than something must happen."""
        for _ in range(100):
            when = next_deadline(self.state)
            if when is None or when > self.now:
                break
            self.feed(ev.TimePassed(self.now))
        else:
            raise AssertionError(f"the timer fires again and again at {self.now}")
        due = min((when for when, _, _ in self.reference.due()), default=None)
        assert due is None or (when is not None and when <= due + EPS), f"the timer is set to {when}; {due} is due before"

    def choose(self, choices: Iterable[Any], index: int) -> Any:
        """Return one of several, or None if there is none."""
        listed = list(choices)
        return listed[index % len(listed)] if listed else None

    # --- sessions

    @initialize()
    def begin(self) -> None:
        self.open_session(0, False)
        self.register(1, 1, True)

    @can(parent=st.integers(0, 5), watch=st.booleans())
    def open_session(self, parent: int, watch: bool) -> None:
        if len(self.reference.sessions) > 3:
            return
        name = ANONYMOUS_SESSION if parent == 5 else f"s{self.count}"
        above = [key for key, lease in self.reference.sessions.items() if not lease.detached]
        self.post(ev.SessionOpened, name, parent=self.choose(above, parent) if parent < 2 else None, anonymous=parent == 5)
        if watch:
            self.post(ev.SessionWatched, name)

    @can(index=pick, comes=st.booleans())
    def watch(self, index: int, comes: bool) -> None:
        session = self.choose(self.reference.sessions, index)
        if session is not None:
            self.post(ev.SessionWatched if comes else ev.SessionUnwatched, session)

    @can(index=pick)
    def come_and_go(self, index: int) -> None:
        """A client goes away, comes back in time, and goes away again."""
        session = self.choose([name for name, lease in self.reference.sessions.items() if lease.streams == 1], index)
        if session is not None:
            for kind in (ev.SessionUnwatched, ev.SessionWatched, ev.SessionUnwatched):
                self.post(kind, session)
                self.pass_time(4.9, False)

    @can(index=pick, really=st.integers(0, 3))
    def close_session(self, index: int, really: int) -> None:
        names = [name for name, lease in self.reference.sessions.items() if not (lease.anonymous or lease.detached)]
        session = self.choose(names, index)
        if session is not None and not really:
            self.post(ev.SessionClosed, session)

    @can(2, index=pick, share=st.integers(0, 3))
    def acknowledge(self, index: int, share: int) -> None:
        session = self.choose([name for name, lease in self.reference.sessions.items() if not lease.anonymous], index)
        if session is not None:
            lease = self.reference.sessions[session]
            self.post(ev.ResultsAcknowledged, session, lease.acked + share if share else len(lease.results))

    # --- tasks

    @can(
        6,
        index=pick,
        count=st.integers(1, 4),
        shape=st.sampled_from(SHAPES),
        function=st.sampled_from(sorted(RUN_S)),
        priority=st.sampled_from([0, 0, 1]),
        retries=st.sampled_from([0, 0, 1, 2, -1]),
        delay_s=st.sampled_from([0.0, 0.1, 3.0]),
        deadline_s=st.sampled_from([None, None, None, 1.5, 5.0]),
        after=st.lists(pick, max_size=2),
    )
    def submit(
        self,
        index: int,
        count: int,
        shape: Any,
        function: str,
        priority: int,
        retries: int,
        delay_s: float,
        deadline_s: float | None,
        after: list[int],
    ) -> None:
        session = self.choose(self.reference.sessions, index)
        if session is None:
            return
        mine = [task.id for event in self.log if isinstance(event, ev.TasksSubmitted) for task in event.tasks]
        mine = [task for task in mine if task.startswith(f"{session}-")][-12:]
        names = [f"{session}-{self.count}.{n}" for n in range(count)]
        needs = tuple(self.choose([*mine, names[0]], place) for place in after) if mine else ()
        options: Any = {"shape": shape, "priority": priority, "max_retries": retries, "retry_delay_s": delay_s}
        options |= {"deadline_s": deadline_s, "payload": b"arguments", "dependencies": needs}
        self.batches[session] += 1
        specs = [TaskSpec(name, session, function, function, **options) for name in names]  # type: ignore[arg-type]
        self.post(ev.TasksSubmitted, session, specs, self.batches[session])

    @can(indexes=some)
    def cancel(self, indexes: list[int]) -> None:
        names = [self.choose(self.reference.jobs, index) or "unknown" for index in indexes]
        self.post(ev.CancelRequested, names)

    # --- actors

    @can(
        2,
        index=pick,
        shape=st.sampled_from([(), (), (("cpu", 1.0),)]),
        name=st.sampled_from(["", "n", "n", "m"]),
        restarts=st.sampled_from([0, 1, 2, -1]),
        detached=st.booleans(),
        deadline_s=st.sampled_from([None, None, 2.0]),
    )
    def request_actor(self, index: int, shape: Any, name: str, restarts: int, detached: bool, deadline_s: float | None) -> None:
        session = self.choose([key for key, lease in self.reference.sessions.items() if not lease.detached], index)
        if session is None:
            return
        actor = f"a{self.count}"
        owner = actor if detached else session
        asked = ActorSpec(name, restarts, detached)
        options: Any = {"shape": shape, "deadline_s": deadline_s, "actor": asked, "payload": b"arguments"}
        spec = TaskSpec(actor, owner, "class", "class", **options)  # type: ignore[arg-type]
        self.post(ev.ActorRequested, session, spec)

    @can(session=pick, actor=pick)
    def watch_actor(self, session: int, actor: int) -> None:
        actors = [name for name, job in self.reference.jobs.items() if job.spec.actor is not None]
        who, whom = self.choose(self.reference.sessions, session), self.choose(actors, actor)
        if who is not None and whom is not None:
            self.post(ev.ActorWatched, who, whom)

    # --- workers

    @can(worker=pick, capacity=pick, attach=st.booleans())
    def register(self, worker: int, capacity: int, attach: bool) -> None:
        if len(self.crowd.ids) > 13:
            return
        incarnation = self.crowd.begin(self.choose(WORKER_IDS, worker))
        self.post(ev.WorkerRegistered, incarnation, self.crowd.ids[incarnation], self.choose(CAPACITIES, capacity))
        if attach:
            self.post(ev.WorkerAttached, incarnation)

    @can(2, index=pick, keep=st.integers(0, 15))
    def attach(self, index: int, keep: int) -> None:
        """Attach, again perhaps; some of the attempts on their way to it were lost."""
        worker = self.choose(self.crowd.ids, index)
        held = [attempt for n, attempt in enumerate(self.crowd.has[worker]) if keep & (1 << n % 4)]
        self.crowd.has[worker] = {attempt: self.crowd.has[worker][attempt] for attempt in held}
        self.post(ev.WorkerAttached, worker, held)

    @can(2, index=pick, kind=st.sampled_from([ev.WorkerDetached, ev.WorkerDetached, ev.WorkerLeft]))
    def lose_touch(self, index: int, kind: type[Any]) -> None:
        worker = self.choose(self.reference.hosts, index)
        if worker is not None:
            self.post(kind, worker)

    @can(index=pick)
    def flap(self, index: int) -> None:
        """Lose touch, come back with everything, and lose touch again."""
        worker = self.choose(self.reference.usable(), index)
        if worker is not None:
            for kind in (ev.WorkerDetached, ev.WorkerAttached, ev.WorkerDetached):
                self.post(kind, worker, *([list(self.crowd.has[worker])] if kind is ev.WorkerAttached else []))
                self.now += 0.9

    @can(
        4, index=pick, which=some, kinds=st.lists(st.sampled_from([*OutcomeKind, OutcomeKind.FINISHED]), min_size=3, max_size=3)
    )
    def report(self, index: int, which: list[int], kinds: list[OutcomeKind]) -> None:
        """Tell how some attempts have ended."""
        worker = self.choose([name for name, has in self.crowd.has.items() if has], index)
        if worker is None:
            return
        outcomes: dict[tuple[str, int], Outcome] = {}
        for place, kind in zip(which, kinds, strict=False):
            task, attempt = self.choose(self.crowd.has[worker], place)
            spec = self.crowd.has[worker][task, attempt]
            outcomes[task, attempt] = self.outcome(spec, attempt, kind, place)
        self.crowd.drop(worker, outcomes)
        self.post(ev.WorkerReported, worker, list(outcomes.values()))

    @can(3, kind=st.sampled_from([OutcomeKind.CRASHED, OutcomeKind.FAILED, OutcomeKind.TIMEOUT]), luck=st.integers(0, 3))
    def go_wrong_again(self, kind: OutcomeKind, luck: int) -> None:
        """Let the attempt end badly whose task has had the most trouble: budgets are used up to the last."""
        ours = [(worker, *attempt) for worker, has in self.crowd.has.items() for attempt in has]
        ours = [place for place in ours if self.reference.current(*place) is not None]
        if ours:
            worker, task, attempt = max(ours, key=lambda place: self.reference.jobs[place[1]].trouble())
            spec = self.crowd.has[worker].pop((task, attempt))
            self.post(ev.WorkerReported, worker, [self.outcome(spec, attempt, kind, luck and 2)])

    @can(3, index=pick)
    def finish(self, index: int) -> None:
        """Let a worker finish all that it has, and the clients take note."""
        worker = self.choose([name for name, has in self.crowd.has.items() if has], index)
        if worker is not None:
            has = [(spec, attempt) for (_, attempt), spec in self.crowd.has[worker].items() if spec.actor is None]
            self.crowd.drop(worker, [(spec.id, attempt) for spec, attempt in has])
            done = [self.outcome(spec, attempt, OutcomeKind.FINISHED, 0) for spec, attempt in has]
            self.post(ev.WorkerReported, worker, done)
        for session, lease in list(self.reference.sessions.items()):
            self.post(ev.ResultsAcknowledged, session, len(lease.results))

    def outcome(self, spec: TaskSpec, attempt: int, kind: OutcomeKind, luck: int) -> Outcome:
        if spec.actor is not None and kind in (OutcomeKind.FINISHED, OutcomeKind.TIMEOUT):
            kind = OutcomeKind.CRASHED  # an actor stays
        payload = f"{kind.value} {spec.id} {attempt}".encode() if kind in (OutcomeKind.FINISHED, OutcomeKind.FAILED) else b""
        return Outcome(spec.id, attempt, kind, payload, retryable=luck % 2 == 0, run_s=RUN_S.get(spec.function_id, 0.0))

    @can(3, index=pick, lent=some, back=some, created=some)
    def tell(self, index: int, lent: list[int], back: list[int], created: list[int]) -> None:
        """Tell what waits for other tasks, what goes on, and which actors are constructed."""
        worker = self.choose([name for name, has in self.crowd.has.items() if has], index)
        if worker is None:
            return
        has = self.crowd.has[worker]
        made = {self.choose(has, place) for place in created}
        made = {attempt for attempt in made if has[attempt].actor is not None}
        waits, goes = ({self.choose(has, place) for place in places} for places in (lent, back))
        self.post(ev.WorkerReported, worker, (), sorted(waits - goes), sorted(goes), created=sorted(made))

    @can(index=pick)
    def drain(self, index: int) -> None:
        worker = self.choose(self.reference.hosts, index)
        if worker is not None:
            self.post(ev.WorkerReported, worker, draining=True)

    @can(index=pick, kind=st.sampled_from(list(OutcomeKind)))
    def report_late(self, index: int, kind: OutcomeKind) -> None:
        """Tell of an attempt that is not current any more: nothing may change but when its worker was heard of."""
        stale = [past for past in self.crowd.past if self.reference.current(*past) is None]
        past = self.choose(stale, index)
        if past is None:
            return
        worker, task, attempt = past
        before, refused = dump(self.state), self.state.stats["stale reports refused"]
        late = Outcome(task, attempt, kind, b"late", "late", True, 0.01)
        event = ev.WorkerReported(self.now, worker, [late], [(task, attempt)], [(task, attempt)], created=[(task, attempt)])
        effects = self.feed(event)
        assert [effect for effect in effects if not isinstance(effect, fx.ReclaimTasks)] == []
        assert dump(self.state) == before, "a stale report has changed something"
        assert self.state.stats["stale reports refused"] == refused + 1

    @can(index=pick)
    def repeat_late(self, index: int) -> None:
        """Deliver something of long ago once more."""
        event = self.choose([event for event in self.log if isinstance(event, REPEATABLE_LATE)], index)
        if event is not None:
            self.settle()
            self.feed(dataclasses.replace(event, now=self.now))
            self.repeat(event)

    # --- time

    @can(4, seconds=st.sampled_from([0.2, 0.7, 1.3, 2.9, 5.1]), silent=st.booleans())
    def pass_time(self, seconds: float, silent: bool) -> None:
        """Let time pass as the driver does: the timer fires when it says; workers are silent, or heard of at the beginning."""
        if not silent:
            for worker in list(self.reference.hosts):
                self.post(ev.WorkerReported, worker)
        until = self.tick() + seconds
        while (when := next_deadline(self.state)) is not None and when <= until:
            self.now = max(self.now, when)
            self.feed(ev.TimePassed(self.now))
            self.settle()
        self.now = until
        self.feed(ev.TimePassed(self.now))
        self.settle()

    @rule(step=steps(locals()))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        name, draws = step
        getattr(self, name)(**draws)


# --- a controller that is restarted


OFFSET_S = 1000.0
"""What the calendar is ahead of the controller's own clock, when it saves."""
AHEAD_S = 77.0
"""What the clock of the next controller is behind that of the first."""


class Replayed(AgainstReference):
    """The same histories; what was saved by then makes a controller that knows the same, after every event."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.events = 0

    def feed(self, event: ev.Event) -> list[fx.Effect]:
        effects = super().feed(event)
        self.disk.write(take(self.state.changes, OFFSET_S))
        restored = self.start_again()
        invariants.check(restored)
        known = remember(self.state, self.now)
        saved = remember(restored, self.now - AHEAD_S, AHEAD_S)
        for what in known:
            assert saved[what] == known[what], f"{what}: saved is {saved[what]}, known was {known[what]}"
        return effects

    @can(3)
    def go_on_in_both(self) -> None:
        """Let all workers come back to both, and everything run to its end: the outcomes are the same."""
        self.settle()
        has = {worker: set(attempts) for worker, attempts in self.crowd.has.items() if worker in self.state.workers}
        runs = {
            (task, attempt) for worker in has for task, attempt in has[worker] if self.reference.current(worker, task, attempt)
        }
        after = Rest(self.start_again(), self.now - AHEAD_S, copy.deepcopy(has), runs).run()
        before = Rest(copy.deepcopy(self.state), self.now, has, runs).run()
        for name in after.keys() | before.keys():
            assert after.get(name) == before.get(name), f"{name}: {after.get(name)} after a restart, {before.get(name)} without"

    @rule(step=steps(vars(AgainstReference), locals()))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        name, draws = step
        getattr(self, name)(**draws)

    def start_again(self) -> State:
        """Return what a controller knows that was started from the disk; its clock begins somewhere else."""
        return restore(self.disk.read(), LIMITS, self.now - AHEAD_S, OFFSET_S + AHEAD_S, 2)


def remember(state: State, now: float, clock_s: float = 0.0) -> dict[str, Any]:
    """Return what must survive the end of a controller, whose clock says ``now`` and is so far behind."""
    live = {name: told(task) for name, task in state.tasks.items() if not task.state.is_final}
    delayed = [(name, task) for name, task in state.tasks.items() if task.state.value == "delayed" and task.actor is None]
    results: dict[str, list[Any]] = {}
    for name, session in state.sessions.items():
        ended = [(str(task.spec.id), end_of(task.error_kind, task.result), task.message) for task in session.outbox.values()]
        results[name] = sorted(ended)
    sessions = {
        name: (session.name, session.parent, session.closed, session.last_batch, session.detached, session.anonymous)
        for name, session in state.sessions.items()
    }
    bytes_ = {name: session.held_bytes for name, session in state.sessions.items() if not session.closed}
    open_ = {name for name, session in state.sessions.items() if not session.closed}
    children = {name: session.children & open_ for name, session in state.sessions.items()}
    workers = {name: (worker.id, worker.capacity, worker.draining) for name, worker in state.workers.items()}
    dead = {name: end_of(task.error_kind, task.result) for name, task in state.dead_actors.items()}
    return {
        "live": live,
        "delayed": {name: round(task.delayed_until + clock_s, 6) for name, task in delayed if task.delayed_until > now + EPS},
        "results": results,
        "sessions": sessions,
        "children": children,
        "bytes": bytes_,
        "workers": workers,
        "names": dict(state.actor_names),
        "dead": dead,
    }


def told(task: Task) -> tuple[Any, ...]:
    """Return what must survive of a task that has not ended."""
    budgets = (task.failures, task.losses, task.kills, task.cancelling)
    if task.actor is None:
        return (task.spec, budgets)
    actor = task.actor
    return (
        task.spec,
        budgets,
        task.attempt,
        actor.state,
        actor.restarts,
        actor.quick_deaths,
        actor.doom,
        actor.was_constructed,
    )


class Rest:
    """What becomes of a state when all workers come back, everything that runs finishes, and there is room for all."""

    def __init__(self, state: State, now: float, has: dict[str, set[tuple[str, int]]], runs: set[tuple[str, int]]) -> None:
        self.state, self.now, self.has = state, now, has
        self.running = {task for task, _ in runs}
        """What must not be started again: it runs, and its worker is there."""
        self.found: dict[str, Any] = {}
        self.todo: list[ev.Event] = []

    def run(self) -> dict[str, Any]:
        for session in list(self.state.sessions):
            self.post(ev.SessionWatched(self.now, session))
        self.outcomes()
        for name, session_ in list(self.state.sessions.items()):
            self.post(ev.ResultsAcknowledged(self.now, name, session_.last_seq))
        self.has["big"] = set()
        self.post(ev.WorkerRegistered(self.now, "big", "big", {"cpu": 1000.0, "gpu": 1000.0}))  # type: ignore[arg-type]
        for worker in list(self.has):
            self.post(ev.WorkerAttached(self.now, worker, sorted(self.has[worker])))  # type: ignore[arg-type]
        for _ in range(1000):
            if not self.finish_all() and not self.wait():
                return self.outcomes()
        raise AssertionError("it does not come to rest")

    def post(self, event: ev.Event) -> None:
        effects = apply(self.state, event)
        invariants.check(self.state)
        for effect in effects:
            if isinstance(effect, fx.StartTasks):
                self.has[effect.worker] |= {(task.spec.id, task.attempt) for task in effect.tasks}
                again = {str(task.spec.id) for task in effect.tasks} & self.running
                assert not again, f"{again} runs, and is started once more"
                needed = {name for task in effect.tasks for name in task.spec.dependencies}
                assert needed <= self.state.tasks.keys(), "a value is not kept"
            elif isinstance(effect, fx.StopTasks) and effect.worker in self.has:
                stopped = self.has[effect.worker] & set(effect.tasks)
                self.has[effect.worker] -= stopped
                outcomes = [Outcome(task, attempt, OutcomeKind.CANCELLED) for task, attempt in sorted(stopped)]  # type: ignore[arg-type]
                self.todo.append(ev.WorkerReported(self.now, effect.worker, outcomes))
        while self.todo:
            self.post(self.todo.pop(0))

    def finish_all(self) -> bool:
        """Let workers finish their tasks, and construct their actors; tell whether there was anything."""
        worked = False
        for worker, has in self.has.items():
            tasks = sorted(attempt for attempt in has if not self.stays(attempt[0]))
            created = sorted(attempt for attempt in has if self.stays(attempt[0]))
            has -= set(tasks)
            self.running -= {task for task, _ in tasks}
            worked = worked or bool(tasks)
            outcomes = [Outcome(task, attempt, OutcomeKind.FINISHED, f"value of {task}".encode()) for task, attempt in tasks]  # type: ignore[arg-type]
            self.post(ev.WorkerReported(self.now, worker, outcomes, created=created))  # type: ignore[arg-type]
        return worked

    def stays(self, task: str) -> bool:
        return task.startswith("a") and "-" not in task

    def wait(self) -> bool:
        """Let time pass until the next back-off has ended; tell whether there is any."""
        delayed = [task.delayed_until for task in self.state.tasks.values() if task.state.value == "delayed"]
        when = next_deadline(self.state)
        if not delayed or when is None:
            return False
        self.now = max(self.now, when)
        for worker in self.has:
            self.post(ev.WorkerReported(self.now, worker))  # type: ignore[arg-type]
        self.post(ev.TimePassed(self.now))
        return True

    def outcomes(self) -> dict[str, Any]:
        """Return how everything has ended that anybody may ask for.

        Actors with a deadline, and what ends with them, are left out: a restart may take them longer than that.
        """
        known = [*self.state.tasks.values(), *self.state.dead_actors.values()]
        late = {str(task.spec.id) for task in known if task.actor is not None and task.spec.deadline_s is not None}
        for task in known:
            how = end_of(task.error_kind, task.result) if task.state.is_final else task.state
            if task.spec.id not in late and task.spec.session not in late:
                self.found[task.spec.id] = how if task.actor is None else (task.actor.state, task.error_kind)
        return self.found


# --- a worker

CAPACITY = {"cpu": 2.0, "disk": 1.0}
CPU = (("cpu", 1.0),)
WORKER_SHAPES = [CPU, CPU, (("cpu", 0.5),), (("cpu", 2.0),), (), (("cpu", 0.5), ("disk", 1.0)), (("disk", 1.0),)]
TIMEOUT_S = 2.0
ENDS = [OutcomeKind.FINISHED, OutcomeKind.FINISHED, OutcomeKind.FAILED]


def names_of(item: wc.Item) -> set[str]:
    return {name for name, _ in item.shape}


class Machine:
    """An executor as the worker sees it: it is given attempts in order, and works on the first."""

    def __init__(self) -> None:
        self.ready = self.killed = self.actor = False
        self.given: list[wc.Item] = []


class WorkerAgainstPromises(RuleBasedStateMachine):
    """Random histories of one worker: every attempt ends once, resources return, nothing is told less often than needed."""

    def __init__(self) -> None:
        super().__init__()
        self.core = wc.WorkerCore(CAPACITY, 2)
        self.now, self.count = 0.0, 0
        self.machines: dict[int, Machine] = {}
        self.open: dict[tuple[str, int], wc.Item] = {}
        """Attempts that were received and have not ended."""
        self.ended: dict[tuple[str, int], OutcomeKind] = {}
        self.may_end: dict[tuple[str, int], set[OutcomeKind]] = {}
        """How attempts may end whose end is near."""
        self.due: dict[tuple[str, int], tuple[float, str]] = {}
        """When attempts must be interrupted or killed, if they have not ended."""
        self.untold: set[tuple[str, int]] = set()
        """Ends that the controller has not acknowledged."""
        self.unsaved: dict[tuple[str, int], int] = {}
        """Ends that it has, and in which report."""
        self.directs: Counter[tuple[str, int]] = Counter()
        self.waiting: set[tuple[str, int]] = set()
        self.short: set[str] = set()
        self.ranks: dict[tuple[str, int], tuple[int, int, int]] = {}
        """Who begins first among those alike."""
        self.reclaimed: set[str] = set()
        """Asked for while an executor has them; they go back if that gives them back."""
        self.overcommitted = False
        self.reports: list[wc.Report] = []

    # --- feeding

    def take(self, effects: Iterable[wc.Effect]) -> None:
        """Carry out effects, each of which must be allowed; then look at everything."""
        for effect in effects:
            match effect:
                case wc.Spawn(number):
                    assert number not in self.machines, "an executor's number was used before"
                    self.machines[number] = Machine()
                case wc.Give(number, items):
                    self.give(self.machines[number], items)
                case wc.Kill(number):
                    assert not self.machines[number].killed, "an executor is ended twice"
                    self.machines[number].killed = True
                case wc.Interrupt(number, task):
                    item = next(item for item in self.machines[number].given if item.task == task)
                    self.due[item.task, item.attempt] = (self.now + wc.KILL_GRACE_S, "kill")
                case wc.Recall(number):
                    assert len(self.machines[number].given) > 1, "nothing is there to be called back"
        self.look()

    def give(self, machine: Machine, items: list[wc.Item]) -> None:
        assert machine.ready and not machine.killed and not machine.actor, "an executor is given what it cannot take"
        for item in items:
            key = (item.task, item.attempt)
            assert key in self.open, f"{key} is run, though it is not here"
            assert all(item not in other.given for other in self.machines.values()), f"{key} is run twice"
            assert not self.core.draining, f"{key} begins while the worker drains"
            if item.timeout is not None:
                self.due[key] = (self.now + item.timeout, "interrupt")
            if item.actor:
                machine.actor = True
            machine.given.append(item)
            for other in self.waiting_items():
                alike = (other.priority, other.actor) == (item.priority, item.actor)
                earlier = self.ranks[other.task, other.attempt] < self.ranks[key]
                lacked = {name for one in self.waiting_items() for name in self.lacking(one)}
                passes = bool(lacked & names_of(other) - names_of(item))
                assert passes or not (alike and earlier), f"{key} begins before {other.task}, which was first"
        first, *rest = machine.given
        for item in rest:
            same = (item.shape, item.priority) == (first.shape, first.priority)
            assert same and item.function_id in self.short, f"{item.task} is behind {first.task} and should not be"
            assert not any(one.alone or one.actor or one.timeout is not None for one in (first, item)), (
                f"{item.task} is not alone"
            )

    def look(self) -> None:
        self.collect()
        self.check_executors()
        self.check_room()
        self.check_waiting_for_nothing()

    def collect(self) -> None:
        """Take note of what has ended; each once, in a way that is allowed."""
        outcomes = [outcome for outcome, _ in self.core.report(10_000).outcomes]
        told = [(outcome.task, outcome.attempt) for outcome in outcomes]
        assert len(set(told)) == len(told), f"told twice: {told}"
        for outcome in outcomes:
            key = (outcome.task, outcome.attempt)
            if key in self.ended:
                assert self.ended[key] is outcome.kind and key in self.untold, f"{key} ended before"
            else:
                assert key in self.open and not self.open[key].direct, f"{key} is told to the controller"
                self.end(key, outcome.kind)
                self.untold.add(key)
        assert set(told) == self.untold, "an end was forgotten before it was acknowledged"
        for outcome in self.core.direct_outcomes:
            key = (outcome.task, outcome.attempt)
            self.directs[key] += 1
            assert self.open[key].direct, f"{key} is the controller's"
            self.end(key, outcome.kind)
        self.core.direct_outcomes.clear()
        assert {(item.task, item.attempt) for item in self.core.items.values()} == self.open.keys(), "what is here"
        held = {key for key, item in self.open.items() if not item.direct} | self.untold
        assert set(self.core.held()) == held and set(self.core.told()) == self.unsaved.keys()

    def end(self, key: tuple[str, int], kind: OutcomeKind) -> None:
        assert key in self.open, f"{key} has ended and was not here"
        assert kind in self.may_end.get(key, set()), f"{key} ended as {kind}, not as {self.may_end.get(key)}"
        self.ended[key] = kind
        del self.open[key]
        for gone in (self.may_end, self.due):
            gone.pop(key, None)
        self.waiting.discard(key)
        for machine in self.machines.values():
            machine.given = [item for item in machine.given if (item.task, item.attempt) != key]

    def check_executors(self) -> None:
        for number, machine in self.machines.items():
            seen = [item.task for item in self.core.executors[number].items.values()]
            assert seen == [item.task for item in machine.given], f"executor {number} has {machine.given}, not {seen}"

    def check_room(self) -> None:
        used: Counter[str] = Counter()
        for machine in self.machines.values():
            if machine.given and (machine.given[0].task, machine.given[0].attempt) not in self.waiting:
                for name, amount in machine.given[0].shape:
                    used[name] += amount  # type: ignore[assignment]
        assert all(abs(self.core.used.get(name, 0.0) - used[name]) < EPS for name in CAPACITY), f"{self.core.used}, not {used}"
        within = all(used[name] <= CAPACITY[name] + EPS for name in CAPACITY)
        assert within or self.overcommitted, f"{used} is in use of {CAPACITY}"
        self.overcommitted = not within

    def check_waiting_for_nothing(self) -> None:
        """If one fits, and needs nothing that those who do not fit need, it begins, or an executor is on its way."""
        waits = self.waiting_items()
        others = {name for item in waits if self.lacking(item) for name in names_of(item)}
        if self.core.draining:
            assert not waits, "what had not begun was not handed back"
        elif any(not self.lacking(item) and not names_of(item) & others for item in waits):
            if any(len(machine.given) > 1 for machine in self.machines.values()):
                return  # the head may have gone into a batch; the next one is looked at when that has advanced
            living = [machine for machine in self.machines.values() if not machine.killed]
            assert not any(machine.ready and not machine.given for machine in living), "an executor idles"
            assert any(not machine.ready for machine in self.machines.values()), "no executor is on its way"

    def lacking(self, item: wc.Item) -> set[str]:
        """Return what an attempt needs and is not free."""
        return {name for name, amount in item.shape if CAPACITY[name] - self.core.used.get(name, 0.0) < amount - EPS}

    def waiting_items(self) -> list[wc.Item]:
        """Return what is here, not ended, and with no executor."""
        given = {item.task for machine in self.machines.values() for item in machine.given}
        return [item for item in self.open.values() if item.task in self.core.items and item.task not in given]

    def some_machine(self, index: int, with_work: bool) -> int | None:
        found = [
            n for n, machine in self.machines.items() if bool(machine.given) == with_work and machine.ready != (not with_work)
        ]
        return found[index % len(found)] if found else None

    # --- what happens

    @initialize()
    def begin(self) -> None:
        self.take(self.core.start())
        for number in list(self.machines):
            self.start_executor(number)
        self.receive(1, "short", WORKER_SHAPES[0], 0, "")
        self.executor_answers(0, 1, OutcomeKind.FINISHED)

    def start_executor(self, number: int) -> None:
        self.machines[number].ready = True
        self.take(self.core.executor_ready(self.now, number))

    @can(
        4,
        count=st.integers(1, 9),
        function=st.sampled_from(["short", "short", "short", "long"]),
        shape=st.sampled_from(WORKER_SHAPES),
        priority=st.sampled_from([0, 0, 0, 1]),
        kind=st.sampled_from(["", "", "", "timeout", "actor", "direct"]),
    )
    def receive(self, count: int, function: str, shape: Any, priority: int, kind: str) -> None:
        items = []
        for _ in range(count):
            self.count += 1
            name = f"{kind or 'task'}-{self.count}"
            timeout = TIMEOUT_S if kind == "timeout" else None
            item = wc.Item(name, 1, function, shape, timeout, None, priority=priority, direct=kind == "direct")  # type: ignore[arg-type]
            item.actor = item.alone = kind == "actor"
            items.append(item)
        self.accept(items)

    def accept(self, items: Sequence[wc.Item]) -> None:
        self.count += 1
        for place, item in enumerate(items):
            self.open[item.task, item.attempt] = item
            self.ranks[item.task, item.attempt] = (1, self.count, place)
            if self.core.draining:
                self.may_end[item.task, item.attempt] = {OutcomeKind.RETURNED}
        self.take(self.core.receive(self.now, items))

    @can(index=st.integers(0, 1000))
    def receive_again(self, index: int) -> None:
        """The same attempt comes once more, and is not run once more."""
        if self.open:
            item = list(self.open.values())[index % len(self.open)]
            again = wc.Item(item.task, item.attempt, item.function_id, item.shape, item.timeout, None)
            self.take(self.core.receive(self.now, [again]))

    @can(index=st.integers(0, 1000))
    def receive_newer(self, index: int) -> None:
        """A newer attempt of a task that is here: the controller has given the older one up."""
        ours = [item for item in self.open.values() if not item.direct]
        if ours:
            item = ours[index % len(ours)]
            self.count += 1
            newer = wc.Item(item.task, self.count + 1, item.function_id, item.shape, item.timeout, None)
            self.open[newer.task, newer.attempt] = newer
            self.may_end[newer.task, newer.attempt] = {OutcomeKind.RETURNED}
            self.may_end.setdefault((item.task, item.attempt), set()).add(OutcomeKind.CANCELLED)
            self.take(self.core.receive(self.now, [newer]))

    @can(3, index=st.integers(0, 1000))
    def executor_starts(self, index: int) -> None:
        starting = [number for number, machine in self.machines.items() if not machine.ready]
        if starting:
            self.start_executor(starting[index % len(starting)])

    @can(4, index=st.integers(0, 1000), count=st.integers(1, 3), kind=st.sampled_from(ENDS))
    def executor_answers(self, index: int, count: int, kind: OutcomeKind) -> None:
        """An executor has done the first of what it was given, perhaps more."""
        number = self.some_machine(index, True)
        if number is None:
            return
        machine = self.machines[number]
        outcomes = []
        if self.waiting & {(item.task, item.attempt) for item in machine.given[:1]}:
            self.go_on(machine.given[0])
        for item in machine.given[:count]:
            end = OutcomeKind.CRASHED if item.actor else kind
            outcomes.append(Outcome(item.task, 0, end, run_s=RUN_S[item.function_id] / 10))
            if item.stopping is None or end is OutcomeKind.FINISHED:
                self.may_end[item.task, item.attempt] = {end}
                self.short |= {item.function_id} if item.function_id == "short" else set()
            else:
                self.may_end[item.task, item.attempt] = {item.stopping}
        machine.given = machine.given[count:]
        self.take(self.core.outcomes(self.now, number, outcomes))

    @can(index=st.integers(0, 1000))
    def executor_gives_back(self, index: int) -> None:
        """An executor returns what it has not begun."""
        number = self.some_machine(index, True)
        if number is None or len(self.machines[number].given) < 2:
            return
        back = self.machines[number].given[1:]
        self.machines[number].given = self.machines[number].given[:1]
        self.put_back(back)
        for item in back:
            if item.task in self.reclaimed and item.stopping is None:
                self.may_end[item.task, item.attempt] = {OutcomeKind.RETURNED}
        self.take(self.core.returned(self.now, number, [item.task for item in back]))

    def put_back(self, items: Iterable[wc.Item]) -> None:
        """Let attempts go to the front of the queue, in their order."""
        self.count += 1
        for place, item in enumerate(items):
            key = (item.task, item.attempt)
            self.ranks[key] = (0, -self.count, place)
            self.due.pop(key, None)
            self.waiting.discard(key)
            if item.stopping is not None:
                self.may_end[key] = {item.stopping}
            elif self.core.draining:
                self.may_end[key] = {OutcomeKind.RETURNED}

    @can(2, index=st.integers(0, 1000), wanted=st.booleans())
    def executor_dies(self, index: int, wanted: bool) -> None:
        """An executor ends: one that was ordered to, or any."""
        numbers = [number for number, machine in self.machines.items() if machine.killed or not wanted]
        numbers.sort(key=lambda number: -len(self.machines[number].given))
        if numbers:
            self.die(numbers[index % min(2, len(numbers))])

    def die(self, number: int) -> None:
        machine = self.machines.pop(number)
        self.reclaimed -= {item.task for item in machine.given}
        was_broken = self.core.broken
        if len(machine.given) == 1 and (machine.given[0].stopping is not None or not machine.killed):
            item = machine.given[0]
            self.may_end[item.task, item.attempt] = {item.stopping or OutcomeKind.CRASHED}
        else:
            self.put_back(machine.given)
        if not machine.ready:
            for item in self.open.values():  # the third in a row lets the worker drain
                self.may_end.setdefault((item.task, item.attempt), set()).add(OutcomeKind.RETURNED)
        effects = self.core.executor_died(self.now, number, "killed")
        assert machine.ready or self.core.broken or not was_broken
        self.take(effects)
        assert all(item.alone for item in machine.given if len(machine.given) > 1), "a batch that died is not tried one by one"
        if not machine.ready and not self.core.draining:
            for ends in self.may_end.values():
                ends.discard(OutcomeKind.RETURNED)

    @can(3, index=st.integers(0, 1000))
    def stop(self, index: int) -> None:
        if self.open:
            task, attempt = list(self.open)[index % len(self.open)]
            self.may_end.setdefault((task, attempt), set()).add(OutcomeKind.CANCELLED)
            self.take(self.core.stop(self.now, task, attempt))  # type: ignore[arg-type]

    @can(index=st.integers(0, 1000))
    def hand_back(self, index: int) -> None:
        if self.open:
            task, attempt = list(self.open)[index % len(self.open)]
            begun = any(item.task == task for machine in self.machines.values() for item in machine.given)
            if not begun:
                self.may_end[task, attempt] = {OutcomeKind.RETURNED}
            elif not any(machine.given and machine.given[0].task == task for machine in self.machines.values()):
                self.reclaimed.add(task)
            self.core.hand_back(task, attempt)  # type: ignore[arg-type]
            self.collect()
            self.take(self.core.time_passed(self.now))
            assert begun or (task, attempt) in self.ended

    @can(3, index=st.integers(0, 1000), waits=st.booleans())
    def wait(self, index: int, waits: bool) -> None:
        """The first attempt of an executor waits for other tasks, or goes on."""
        number = self.some_machine(index, True)
        if number is None or self.machines[number].killed:
            return
        item = self.machines[number].given[0]
        key = (item.task, item.attempt)
        if waits:
            self.waiting.add(key)
            self.take(self.core.blocked(self.now, item.task))
        else:
            self.go_on(item)

    def go_on(self, item: wc.Item) -> None:
        self.overcommitted = True
        self.waiting.discard((item.task, item.attempt))
        self.take(self.core.unblocked(self.now, item.task))

    @can(chance=st.integers(0, 9))
    def drain(self, chance: int) -> None:
        if chance == 0:
            begun = {item.task for machine in self.machines.values() for item in machine.given}
            for key, item in self.open.items():
                if item.task not in begun:
                    self.may_end[key] = {OutcomeKind.RETURNED}
            self.core.drain()
            self.look()

    # --- telling

    @can(3, limit=st.integers(1, 5), answered=st.booleans())
    def report(self, limit: int, answered: bool) -> None:
        """Report; the answer may be lost, or come late."""
        report = self.core.report(limit)
        waits = {key for key in self.waiting if not self.open[key].direct}
        assert set(report.blocked) == waits, "a report does not tell all that wait"
        self.reports.append(report)
        if answered:
            self.answer(len(self.reports) - 1)

    @can(index=st.integers(0, 1000))
    def answer(self, index: int) -> None:
        if not self.reports:
            return
        report = self.reports.pop(index % len(self.reports))
        for outcome, _ in report.outcomes:
            key = (outcome.task, outcome.attempt)
            if key in self.untold:
                self.untold.discard(key)
                self.unsaved[key] = report.number
        self.core.acknowledge(report)
        self.look()

    @can(index=st.integers(0, 1000))
    def saved(self, index: int) -> None:
        """The controller has saved what was told up to some report."""
        numbers = sorted(self.unsaved.values())
        upto = numbers[index % len(numbers)] if numbers else 0
        for key, number in list(self.unsaved.items()):
            if number > upto:
                break
            del self.unsaved[key]
        self.core.forget(upto)
        self.look()

    @can()
    def tell_again(self) -> None:
        """The controller was restarted: what it had not saved is told once more."""
        self.untold |= self.unsaved.keys()
        self.unsaved.clear()
        self.core.tell_again()
        self.look()

    @can(3, seconds=st.sampled_from([0.001, 0.06, 0.5, 1.1]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass as the agent does; what is out of time is interrupted, then killed, when it is and not before."""
        until = self.now + seconds
        while True:
            when = self.core.next_deadline()
            due = min((when for when, _ in self.due.values()), default=None)
            assert due is None or (when is not None and when <= due + EPS), f"looks again at {when}; {due} is due before"
            if when is None or when > until:
                break
            assert when >= self.now - EPS, "the timer fires again and again"
            self.now = max(when, self.now)
            self.fire()
        self.now = until
        self.fire()

    def fire(self) -> None:
        late = {key: what for key, (when, what) in self.due.items() if when <= self.now}
        for key in late:
            self.may_end.setdefault(key, set()).add(OutcomeKind.TIMEOUT)
            del self.due[key]
        effects = self.core.time_passed(self.now)
        interrupted = {effect.task for effect in effects if isinstance(effect, wc.Interrupt)}
        assert interrupted == {task for (task, _), what in late.items() if what == "interrupt"} - self.actors(), "time-outs"
        killed = {effect.executor for effect in effects if isinstance(effect, wc.Kill)}
        self.take(effects)
        for (task, _), what in late.items():
            if what == "kill":
                where = [n for n, machine in self.machines.items() if any(item.task == task for item in machine.given)]
                assert all(self.machines[number].killed for number in where), f"{task} does not stop and is not killed"
        idle = {number for number in killed if not self.machines[number].given}
        needed = {n for n in killed for item in self.machines[n].given if late.get((item.task, item.attempt)) == "kill"}
        assert killed == idle | needed, "an executor is killed for nothing"

    def actors(self) -> set[str]:
        return {item.task for item in self.open.values() if item.actor}

    @rule(step=steps(locals()))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        name, draws = step
        getattr(self, name)(**draws)

    def teardown(self) -> None:
        """Let everything come to an end: nothing is left."""
        if sys.exc_info()[0] is not None:
            return  # it has failed before
        for _ in range(400):
            for number in [number for number, machine in self.machines.items() if machine.killed]:
                self.die(number)
            for number in [number for number, machine in self.machines.items() if not machine.ready]:
                self.start_executor(number)
            busy = [number for number, machine in self.machines.items() if machine.given]
            for place in range(len(busy)):
                self.executor_answers(place, 1, OutcomeKind.FINISHED)
            if not self.open:
                break
        assert not self.open, f"does not come to rest: {self.open}"
        report = self.core.report(10_000)
        self.core.acknowledge(report)
        self.core.forget(report.number)
        assert self.core.idle() and self.core.held() == [] and not any(self.core.used.values())
        assert all(count == 1 for count in self.directs.values())


def profile(examples: int, steps: int) -> settings:
    """Return how much is tried: always the same, unless a long run is asked for; that also makes a failure short."""
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    )


TestControllerAgainstReference = AgainstReference.TestCase
TestControllerAgainstReference.settings = profile(110, 50)

TestControllerThatIsRestarted = Replayed.TestCase
TestControllerThatIsRestarted.settings = profile(40, 50)

TestWorkerAgainstPromises = WorkerAgainstPromises.TestCase
TestWorkerAgainstPromises.settings = profile(80, 50)
