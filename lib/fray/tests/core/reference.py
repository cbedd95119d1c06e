"""What the controller promises, in the simplest terms: a dictionary of jobs, one of sessions, one of workers, and no queues.

Written from docs/guarantees.md, docs/architecture.md, docs/wire.md and docs/actors.md, not from the core: of it, only the
values that go in and out are used. Each event is told to a ``Reference``, then what the core made of it. What the promises
leave open (which worker, when within a back-off) is taken from the core and must be allowed; the rest must be equal.

Not modelled: fair shares between sessions, the words of stories and messages, who is told of demands that cannot be met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import ErrorKind, Limits, Outcome, OutcomeKind, Shape, TaskSpec

FINISHED = "finished"
NEVER = float("inf")
EPS = 1e-6
"""Times and amounts that differ by less are equal."""
SHORT_S = 0.1
"""Functions that run no longer may be given to a worker ahead of a free place."""
AHEAD_S = 0.05
"""Work that may be ahead, for each place."""
STUCK_S = 1.0
"""A shape that has found no place for so long gets a worker kept free."""
LONG_LIFE_S = 60.0
"""An actor that lived for longer begins its back-off anew."""
LOST_S = 0.3
"""The back-off after the second loss; doubles."""

End = tuple[str, bytes]
"""How a job ended, ``finished`` or a kind of error, and its value or failure."""


@dataclass(eq=False)
class Job:
    """A task, or an actor: a task that stays."""

    spec: TaskSpec
    accepted_at: float
    rank: tuple[int, int, str, int] = (0, 0, "", 0)
    """Who is first among those of one session, shape and priority: see ``goes_before``."""
    phase: str = "waiting"
    """waiting, delayed, queued, assigned or ended."""
    attempt: int = 0
    worker: str = ""
    placed: int = 0
    failures: int = 0
    losses: int = 0
    kills: int = 0
    restarts: int = 0
    short_lives: int = 0
    stopping: str = ""
    """How it will end when its worker has stopped it."""
    late: bool = False
    """Whether its deadline is over."""
    lent: bool = False
    """Whether it waits for others, and has lent its place."""
    between: tuple[float, float] = (0.0, 0.0)
    """When its back-off ends, at the earliest and at the latest."""
    safe_at: float = 0.0
    """When the worker that it was lost with has surely noticed, and its name can be free."""
    doom: str = ""
    """How it ends when the back-off does: an actor whose name is not free yet."""
    constructed: bool = False
    alive_since: float = NEVER
    watchers: set[str] = field(default_factory=set)
    ends: set[End] = field(default_factory=set)
    """The ends that are allowed; more than one where the promises do not say."""
    seq: int = 0
    """The number of its result, from 1; 0 for none."""

    def fits(self, room: Mapping[str, float]) -> bool:
        return all(room.get(name, 0.0) >= amount - EPS for name, amount in self.spec.shape)

    def trouble(self) -> int:
        """Return how much of its budgets is used."""
        return self.failures + self.losses + self.kills + self.restarts

    def life(self) -> str:
        """Return what the actor tells of itself."""
        if self.phase == "ended":
            return "dead"
        if self.alive_since != NEVER:
            return "alive"
        return "restarting" if self.constructed else "pending"


@dataclass(eq=False)
class Lease:
    """A session."""

    parent: str = ""
    anonymous: bool = False
    detached: bool = False
    streams: int = 0
    away_since: float = 0.0
    closed: bool = False
    last_batch: int = 0
    results: list[str] = field(default_factory=list)
    acked: int = 0


@dataclass(eq=False)
class Host:
    """One life of a worker."""

    id: str
    capacity: dict[str, float]
    last_seen: float
    attached: bool = False
    broken_at: float = NEVER
    draining: bool = False


@dataclass
class View:
    """What the core shows, in the same words."""

    jobs: dict[str, dict[str, Any]]
    sessions: dict[str, tuple[bool, int, list[str]]]
    """Whether it is closing, the latest batch, and the results that are not acknowledged, in order."""
    names: dict[str, str]
    used: dict[str, dict[str, float]]
    hosts: dict[str, tuple[str, bool, bool]]
    reserved: dict[str, Shape]
    running: set[str]
    """Jobs that occupy what they asked for."""


@dataclass
class Orders:
    """What must be ordered, and told, because of one event."""

    stop: set[tuple[str, str, int]] = field(default_factory=set)
    over_sessions: set[str] = field(default_factory=set)
    over_hosts: set[str] = field(default_factory=set)
    over_actors: set[str] = field(default_factory=set)
    woken: set[str] = field(default_factory=set)
    told: set[tuple[str, str]] = field(default_factory=set)
    started: list[Job] = field(default_factory=list)


def goes_before(one: Job, other: Job) -> bool:
    """Whether the order of places is promised between two jobs, and so."""
    if one.rank[:2] != other.rank[:2]:
        return one.rank[:2] < other.rank[:2]
    return one.rank[2] == other.rank[2] and one.rank[3] < other.rank[3]


class Reference:
    """The whole model."""

    def __init__(self, limits: Limits, run_s: Mapping[str, float]) -> None:
        self.limits, self.run_s = limits, run_s
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, Lease] = {}
        self.hosts: dict[str, Host] = {}
        self.past: set[str] = set()
        """Lives of workers that are over, and stay so."""
        self.measured: set[str] = set()
        self.stuck: dict[Shape, float] = {}
        self.shapes: set[Shape] = set()
        self.ran: dict[str, set[str]] = {}
        """What occupied its place on which worker before the event."""
        self.were_ahead: dict[str, set[tuple[str, int]]] = {}
        """What had been given to which worker ahead of a free place before the event."""
        self.kept: dict[str, Shape] = {}
        """For whom workers were kept free before the event."""
        self.count = 0
        self.orders = Orders()

    # --- events

    def apply(self, event: ev.Event) -> None:
        """Do what must follow from an event; ``placed`` and ``compare`` come next."""
        self.count += 1
        self.orders = Orders()
        getattr(self, type(event).__name__)(event)
        self._forget()

    def SessionOpened(self, event: ev.SessionOpened) -> None:
        parent = self.sessions.get(event.parent or "")
        if event.session in self.sessions or (event.parent and (parent is None or parent.closed)):
            return
        self.sessions[event.session] = Lease(event.parent or "", event.anonymous, away_since=event.now)

    def SessionWatched(self, event: ev.SessionWatched) -> None:
        if event.session in self.sessions:
            self.sessions[event.session].streams += 1

    def SessionUnwatched(self, event: ev.SessionUnwatched) -> None:
        lease = self.sessions.get(event.session)
        if lease is not None and lease.streams:
            lease.streams -= 1
            lease.away_since = event.now

    def SessionClosed(self, event: ev.SessionClosed) -> None:
        self._close(event.session, event.now)

    def TasksSubmitted(self, event: ev.TasksSubmitted) -> None:
        lease = self.sessions.get(event.session)
        if lease is None or lease.closed or 0 < event.batch <= lease.last_batch:
            return
        lease.last_batch = event.batch or lease.last_batch
        for spec in event.tasks:
            if spec.id not in self.jobs:
                self._accept(spec, event.now)

    def ActorRequested(self, event: ev.ActorRequested) -> None:
        lease, spec = self.sessions.get(event.session), event.spec
        if lease is None or lease.closed or spec.id in self.jobs or spec.actor is None:
            return
        if spec.actor.name and spec.actor.name in self.names():
            return
        if spec.actor.detached:
            self.sessions[spec.session] = Lease(detached=True)
        self._accept(spec, event.now).watchers.add(event.session)

    def ActorWatched(self, event: ev.ActorWatched) -> None:
        if event.actor in self.jobs and event.session in self.sessions:
            self.jobs[event.actor].watchers.add(event.session)
            self.orders.told.add((event.session, event.actor))

    def ResultsAcknowledged(self, event: ev.ResultsAcknowledged) -> None:
        lease = self.sessions.get(event.session)
        if lease is not None and not lease.closed:
            lease.acked = max(lease.acked, min(event.seq, len(lease.results)))

    def CancelRequested(self, event: ev.CancelRequested) -> None:
        for task in event.tasks:
            if task in self.jobs:
                self._stop(self.jobs[task], "cancelled", event.now)

    def WorkerRegistered(self, event: ev.WorkerRegistered) -> None:
        if event.incarnation in self.hosts or event.incarnation in self.past:
            return
        for other in [name for name, host in self.hosts.items() if host.id == event.worker]:
            self._lose(other, event.now)
        self.hosts[event.incarnation] = Host(event.worker, dict(event.capacity), event.now)

    def WorkerAttached(self, event: ev.WorkerAttached) -> None:
        host = self.hosts.get(event.incarnation)
        if host is None:
            self.orders.over_hosts.add(event.incarnation)
            return
        host.attached, host.last_seen, host.broken_at = True, event.now, NEVER
        held = set(event.held)
        for job in reversed(self.jobs_of(event.incarnation)):
            if (job.spec.id, job.attempt) not in held:
                self._judge(job, Outcome(job.spec.id, job.attempt, OutcomeKind.RETURNED), event.now)
            elif job.stopping:
                self.orders.stop.add((event.incarnation, job.spec.id, job.attempt))
        here = {(job.spec.id, job.attempt) for job in self.jobs_of(event.incarnation)}
        self.orders.stop |= {(event.incarnation, *attempt) for attempt in held - here}

    def WorkerDetached(self, event: ev.WorkerDetached) -> None:
        host = self.hosts.get(event.incarnation)
        if host is not None and host.attached:
            host.attached, host.broken_at = False, event.now

    def WorkerReported(self, event: ev.WorkerReported) -> None:
        host = self.hosts.get(event.incarnation)
        if host is None:
            return
        host.last_seen = event.now
        for task, attempt in event.created:
            job = self.current(event.incarnation, task, attempt)
            if job is not None and job.spec.actor is not None and job.alive_since == NEVER:
                job.constructed, job.alive_since = True, event.now
                self._tell(job)
        for index, outcome in enumerate(event.outcomes):
            job = self.current(event.incarnation, outcome.task, outcome.attempt)
            if job is not None:
                self._judge(job, outcome, event.now)
                if job.phase == "queued":  # at the front of its queue, in the order of the report
                    job.rank = (*job.rank[:3], index)
        for told, lent in ((event.blocked, True), (event.unblocked, False)):
            for task, attempt in told:
                job = self.current(event.incarnation, task, attempt)
                if job is not None:
                    job.lent = lent
        host.draining = host.draining or event.draining

    def WorkerLeft(self, event: ev.WorkerLeft) -> None:
        if event.incarnation in self.hosts:
            self._lose(event.incarnation, event.now, own_word=True)

    def TimePassed(self, event: ev.TimePassed) -> None:
        while True:
            when, what, whom = min(self.due(), default=(NEVER, "", ""))
            if when > event.now:
                return
            if what == "deadline":
                self.jobs[whom].late = True
                self._stop(self.jobs[whom], "timeout", event.now)
            elif what == "session":
                self._close(whom, event.now)
            elif what == "worker":
                self._lose(whom, event.now)
            elif what == "result":
                self.sessions[whom].acked += 1
                self._forget()
            else:
                self._end_backoff(self.jobs[whom], event.now)

    def due(self) -> Iterable[tuple[float, str, str]]:
        """Yield what must happen with time: when, what, to whom."""
        for name, host in self.hosts.items():
            broken = host.broken_at + self.limits.reattach_grace_s
            yield min(host.last_seen + self.limits.silence_s, broken), "worker", name
        for name, lease in self.sessions.items():
            if lease.anonymous and not lease.closed and lease.acked < len(lease.results):
                yield self.jobs[lease.results[lease.acked]].between[1] + self.limits.result_ttl_s, "result", name
            elif not (lease.streams or lease.closed or lease.detached or lease.anonymous):
                yield lease.away_since + self.limits.session_grace_s, "session", name
        for name, job in self.jobs.items():
            if job.phase == "delayed":
                yield job.between[1], "back-off", name
            waits = job.phase != "ended" and not job.late
            if waits and not job.constructed and job.spec.deadline_s is not None:
                yield job.accepted_at + job.spec.deadline_s, "deadline", name

    # --- what follows

    def current(self, worker: str, task: str, attempt: int) -> Job | None:
        """Return the job if this attempt on this worker is its current one."""
        job = self.jobs.get(task)
        return job if job is not None and (job.phase, job.worker, job.attempt) == ("assigned", worker, attempt) else None

    def jobs_of(self, worker: str) -> list[Job]:
        """Return what is on a worker, in the order in which it came there."""
        here = [job for job in self.jobs.values() if job.phase == "assigned" and job.worker == worker]
        return sorted(here, key=lambda job: job.placed)

    def names(self) -> dict[str, str]:
        """Return who has which name."""
        living = [job for job in self.jobs.values() if job.spec.actor is not None and job.phase != "ended"]
        return {job.spec.actor.name: job.spec.id for job in living if job.spec.actor and job.spec.actor.name}

    def _accept(self, spec: TaskSpec, now: float) -> Job:
        job = self.jobs[spec.id] = Job(spec, now)
        known = [self.jobs[name] for name in spec.dependencies if name in self.jobs and name != spec.id]
        bad = [end for other in known for end in other.ends if end[0] != FINISHED]
        if len(known) < len(spec.dependencies):
            bad.append(("expired", b""))
        if bad:
            self._end(job, bad, now)
        elif all(other.phase == "ended" for other in known):
            self._ready(job, now, "")
        return job

    def _ready(self, job: Job, now: float, whose: str, front: bool = False) -> None:
        job.phase = "queued"
        order = job.placed if front else len(self.jobs)
        job.rank = (0, -self.count, job.worker, order) if front else (1, self.count, whose, order)
        job.worker, job.lent = "", False
        self.shapes.add(job.spec.shape)

    def _stop(self, job: Job, kind: str, now: float) -> None:
        if job.phase == "assigned" and not job.stopping:
            job.stopping = kind
            self.orders.stop.add((job.worker, job.spec.id, job.attempt))
        elif job.phase == "delayed" and job.spec.actor is not None and job.spec.actor.name and now < job.safe_at:
            if not job.stopping:
                job.stopping = job.doom = kind
                job.between = job.safe_at, job.safe_at
        elif job.phase not in ("assigned", "ended"):
            self._end(job, [(kind, b""), *([(job.stopping, b"")] if job.stopping else [])], now)

    def _judge(self, job: Job, outcome: Outcome, now: float) -> None:
        kind, actor = outcome.kind, job.spec.actor
        job.lent = False
        if kind in (OutcomeKind.FINISHED, OutcomeKind.FAILED) and outcome.run_s:
            self.measured.add(job.spec.function_id)
        if job.stopping:
            self._end(job, [(job.stopping, b"")], now)
        elif kind in (OutcomeKind.RETURNED, OutcomeKind.CANCELLED):  # nobody wanted it stopped: see WorkerAttached
            self._again(job, now)
        elif kind is OutcomeKind.FINISHED:
            self._end(job, [(FINISHED, outcome.payload)], now)
        elif actor is not None and kind is OutcomeKind.FAILED and not job.constructed:
            self._end(job, [("user", outcome.payload)], now)
        elif actor is not None:
            self._die(job, "crashed", now, now)
        elif kind is OutcomeKind.CRASHED:
            job.kills += 1
            self._again(job, now) if job.kills < self.limits.max_kills else self._end(job, [("crashed", b"")], now)
        else:
            self._fail(job, outcome, now)

    def _again(self, job: Job, now: float) -> None:
        if job.spec.actor is not None:
            job.alive_since = NEVER
            self._tell(job)
        self._ready(job, now, "", front=True)

    def _fail(self, job: Job, outcome: Outcome, now: float) -> None:
        job.failures += 1
        timed_out = outcome.kind is OutcomeKind.TIMEOUT
        if (timed_out or outcome.retryable) and (job.spec.max_retries < 0 or job.failures <= job.spec.max_retries):
            self._back_off(job, job.spec.retry_delay_s, job.failures, now, now)
        else:
            self._end(job, [("timeout", b"") if timed_out else ("user", outcome.payload)], now)

    def _back_off(self, job: Job, first_s: float, nth: int, now: float, earliest: float) -> None:
        whole_s = min(60.0, first_s * 2.0 ** (nth - 1))
        job.phase, job.worker, job.lent = "delayed", "", False
        job.between = max(earliest, now + whole_s / 2), max(earliest, now + whole_s)

    def _lose(self, worker: str, now: float, own_word: bool = False) -> None:
        """End a worker's life; its actors may still take calls until it has surely noticed."""
        safe_at = now if own_word else self.hosts[worker].last_seen + self.limits.silence_s
        self.orders.over_hosts.add(worker)
        for job in reversed(self.jobs_of(worker)):
            job.lent = False
            if job.spec.actor is not None:
                self._die(job, "lost", now, safe_at)
                continue
            job.losses += 1
            if job.stopping:
                self._end(job, [(job.stopping, b"")], now)
            elif job.losses >= self.limits.max_losses:
                self._end(job, [("lost", b"")], now)
            elif job.losses > 1:
                self._back_off(job, 0.3, job.losses - 1, now, now)
            else:
                self._ready(job, now, "", front=True)
        del self.hosts[worker]
        self.past.add(worker)

    def _die(self, job: Job, how: str, now: float, safe_at: float) -> None:
        """End a life of an actor: another one follows if it may, but not before the old one has surely ended."""
        actor = job.spec.actor
        assert actor is not None
        lived_long = job.alive_since != NEVER and now - job.alive_since > LONG_LIFE_S
        job.alive_since, job.safe_at = NEVER, safe_at
        if not job.stopping and (actor.max_restarts < 0 or job.restarts < actor.max_restarts):
            job.restarts, job.short_lives = job.restarts + 1, 1 if lived_long else job.short_lives + 1
            self._back_off(job, 0.1, job.short_lives, now, safe_at)
            self._tell(job)
        elif actor.name and safe_at > now:  # the name is its own until then
            job.doom = job.stopping or how
            self._back_off(job, 0.0, 1, now, safe_at)
            self._tell(job)
        else:
            self._end(job, [(job.stopping or how, b"")], now)

    def _end_backoff(self, job: Job, now: float) -> None:
        if job.doom:
            self._end(job, [(job.doom, b"")], now)
        else:
            self._ready(job, now, job.spec.id)

    def _end(self, job: Job, ends: Iterable[End], now: float) -> None:
        job.phase, job.ends, job.worker, job.between = "ended", set(ends), "", (now, now)
        if job.spec.actor is not None:
            job.alive_since = NEVER
            self.orders.over_actors.add(job.spec.id)
            self._tell(job)
        lease = self.sessions[job.spec.session]
        if lease.detached and str(job.spec.session) == str(job.spec.id):
            self._close(job.spec.session, now)
        if not lease.closed:
            lease.results.append(job.spec.id)
            job.seq = len(lease.results)
            self.orders.woken.add(job.spec.session)
        for other in list(self.jobs.values()):
            if other.phase == "waiting" and job.spec.id in other.spec.dependencies:
                if FINISHED not in {end for end, _ in job.ends}:
                    self._end(other, job.ends, now)
                elif all(self.jobs[name].phase == "ended" for name in other.spec.dependencies):
                    self._ready(other, now, other.spec.id)
        self._leave(job.spec.session)

    def _close(self, session: str, now: float) -> None:
        lease = self.sessions.get(session)
        if lease is None or lease.closed:
            return
        lease.closed = True
        for child in [name for name, other in self.sessions.items() if other.parent == session]:
            self._close(child, now)
        for job in list(self.jobs.values()):
            if job.spec.session == session:
                self._stop(job, "cancelled", now)
        self._leave(session)

    def _leave(self, session: str) -> None:
        """End a closing session when nothing of it is left."""
        lease = self.sessions.get(session)
        live = any(job.spec.session == session and job.phase != "ended" for job in self.jobs.values())
        if lease is not None and lease.closed and not live:
            del self.sessions[session]
            self.orders.over_sessions.add(session)

    def _tell(self, job: Job) -> None:
        self.orders.told |= {(session, job.spec.id) for session in job.watchers & self.sessions.keys()}

    def _forget(self) -> None:
        """Forget what has ended, is acknowledged, and is read by nobody; actors that have ended are kept for people."""
        read = {name for job in self.jobs.values() if job.phase != "ended" for name in job.spec.dependencies}
        for name, job in list(self.jobs.items()):
            lease = self.sessions.get(job.spec.session)
            open_ = lease is not None and not lease.closed and job.seq > lease.acked
            if job.phase == "ended" and not open_ and name not in read and job.spec.actor is None:
                del self.jobs[name]

    # --- what the core made of it

    def placed(self, worker: str, task: str, attempt: int) -> None:
        """Take an order to start an attempt, which must be a legal one."""
        job, host = self.jobs[task], self.hosts.get(worker)
        assert job.phase == "queued", f"{task} is started while {job.phase}"
        assert attempt == job.attempt + 1, f"{task}: attempt {attempt} follows attempt {job.attempt}"
        assert host is not None and host.attached and not host.draining, f"{task} goes to {worker}, which takes nothing"
        job.phase, job.worker, job.attempt = "assigned", worker, attempt
        self.count += 1
        job.placed = self.count
        self.orders.started.append(job)

    def resolve(self, now: float, view: View) -> None:
        """Take the core's word for back-offs that may have ended."""
        for name, job in self.jobs.items():
            moved = name not in view.jobs or view.jobs[name]["phase"] != "delayed"
            if job.phase == "delayed" and moved and job.between[0] - EPS <= now:
                self._end_backoff(job, now)

    def check(self, now: float, view: View, effects: Iterable[fx.Effect], idle: bool) -> None:
        """Compare; ``idle`` says that the event is one after which nothing can have become placeable."""
        self._check_jobs(view)
        self._check_orders(list(effects))
        sessions = {name: (lease.closed, lease.last_batch) for name, lease in self.sessions.items()}
        assert {name: seen[:2] for name, seen in view.sessions.items()} == sessions
        for name, lease in self.sessions.items():
            assert view.sessions[name][2] == self._results(name, lease, view), f"results of {name}"
        assert view.names == self.names()
        assert view.hosts == {name: (host.id, host.attached, host.draining) for name, host in self.hosts.items()}
        self._check_room(view)
        self._check_order_of_places()
        self._check_reservations(now, view, idle)
        self._check_work_conservation(view)

    def _results(self, name: str, lease: Lease, view: View) -> list[str]:
        """Return the results that are not acknowledged; within one event their order is the core's."""
        if lease.closed:
            return []
        mine, seen = lease.results[lease.acked :], view.sessions[name][2]
        if mine != seen and sorted(mine) == sorted(seen):
            for at, task in enumerate(seen):
                assert self.jobs[task].between == self.jobs[mine[at]].between, f"{name}: order of results {seen}, not {mine}"
            lease.results[lease.acked :] = mine = list(seen)
            for at, task in enumerate(lease.results[lease.acked :], lease.acked + 1):
                self.jobs[task].seq = at
        return mine

    def _check_jobs(self, view: View) -> None:
        kept, lost = view.jobs.keys() - self.jobs.keys(), self.jobs.keys() - view.jobs.keys()
        assert not kept and not lost, f"kept though nobody needs them: {kept}; forgotten: {lost}"
        for name, job in self.jobs.items():
            seen = view.jobs[name]
            mine = {"phase": job.phase, "attempt": job.attempt, "worker": job.worker, "stopping": job.stopping}
            mine |= {"failures": job.failures, "losses": job.losses, "kills": job.kills, "lent": job.lent}
            if job.phase == "ended":
                assert seen["end"] in job.ends, f"{name} ended {seen['end']}, allowed is {job.ends}"
                job.ends = {seen["end"]}
                mine = {"phase": "ended"} | {key: mine[key] for key in ("attempt", "failures", "kills")}
            if job.spec.actor is not None:
                mine |= {"life": job.life(), "restarts": job.restarts}
            assert {key: seen[key] for key in mine} == mine, f"{name}: {seen} is not {mine}"

    def _check_orders(self, effects: list[fx.Effect]) -> None:
        orders = self.orders
        stops = [(fx_.worker, *attempt) for fx_ in effects if isinstance(fx_, fx.StopTasks) for attempt in fx_.tasks]
        needed = {(worker, task, attempt) for worker, task, attempt in orders.stop if self.current(worker, task, attempt)}
        assert needed <= set(stops) <= orders.stop, f"stopped {stops}, to be stopped {orders.stop}"
        over = [effect.session for effect in effects if isinstance(effect, fx.EndSession)]
        assert sorted(over) == sorted(orders.over_sessions), "sessions ended"
        assert {effect.worker for effect in effects if isinstance(effect, fx.DisconnectWorker)} == orders.over_hosts
        buried = [effect.actor.spec.id for effect in effects if isinstance(effect, fx.EndActor)]
        assert sorted(buried) == sorted(orders.over_actors), "actors ended"
        assert {
            effect.session for effect in effects if isinstance(effect, fx.WakeSession)
        } >= orders.woken & self.sessions.keys()
        told = {(effect.session, effect.actor.spec.id) for effect in effects if isinstance(effect, fx.TellActor)}
        still = {(session, actor) for session, actor in orders.told if session in self.sessions}
        assert told >= still, f"not told: {still - told}"
        assert all(actor in self.jobs and session in self.jobs[actor].watchers for session, actor in told)
        for reclaim in [effect for effect in effects if isinstance(effect, fx.ReclaimTasks)]:
            assert all(self.current(reclaim.worker, *attempt) is not None for attempt in reclaim.tasks), f"{reclaim}"

    def free(self, worker: str, view: View) -> dict[str, float]:
        """Return what is not occupied on a worker."""
        return {name: amount - view.used[worker].get(name, 0.0) for name, amount in self.hosts[worker].capacity.items()}

    def ahead(self, worker: str, view: View) -> list[Job]:
        """Return what was given to a worker ahead of a free place."""
        return [job for job in self.jobs_of(worker) if job.spec.id not in view.running and not job.lent]

    def _check_room(self, view: View) -> None:
        for name, host in self.hosts.items():
            running = [job for job in self.jobs_of(name) if job.spec.id in view.running]
            sums: dict[str, float] = {}
            for job in running:
                assert not job.lent, f"{job.spec.id} has lent its place and occupies it"
                for what, amount in job.spec.shape:
                    sums[what] = sums.get(what, 0.0) + amount
            used = {what: amount for what, amount in view.used[name].items() if abs(amount) > EPS}
            assert used == {what: amount for what, amount in sums.items() if amount > EPS}, f"{name} counts {used}, not {sums}"
            fresh = [job for job in running if job in self.orders.started]
            within = all(amount <= host.capacity.get(what, 0.0) + EPS for what, amount in sums.items())
            assert within or not any(job.spec.shape for job in fresh), f"{name} was given more than it has"
            self._check_ahead(name, view)
            self.ran[name] = {job.spec.id for job in running}

    def _check_ahead(self, worker: str, view: View) -> None:
        ahead = self.ahead(worker, view)
        for job in ahead:
            run_s = self.run_s[job.spec.function_id]
            assert job.spec.function_id in self.measured and run_s <= SHORT_S, f"{job.spec.id} is given ahead"
            alike = [
                other for other in ahead if other.spec.priority == job.spec.priority and other.spec.shape == job.spec.shape
            ]
            slots = min((self.hosts[worker].capacity.get(what, 0.0) // amount for what, amount in job.spec.shape), default=1)
            ahead_s = sum(self.run_s[other.spec.function_id] for other in alike)
            assert ahead_s <= max(AHEAD_S, run_s) * max(1, slots) + EPS, f"{worker} has {ahead_s} s ahead"
        left = self.ran.get(worker, set()) - view.running
        here = {(job.spec.id, job.attempt) for job in self.jobs_of(worker) if not job.lent}
        dropped = self.were_ahead.get(worker, set()) - here  # those behind them may count as ahead a little longer
        if ahead and left and not dropped:
            top = max(job.spec.priority for job in ahead)
            first = next(job for job in ahead if job.spec.priority == top)
            assert not first.fits(self.free(worker, view)), f"{first.spec.id} could run on {worker}, and counts as ahead"
        self.were_ahead[worker] = {(job.spec.id, job.attempt) for job in ahead}

    def _check_order_of_places(self) -> None:
        waiting = [job for job in self.jobs.values() if job.phase == "queued"]
        for job in self.orders.started:
            for other in waiting:
                if other.spec.shape != job.spec.shape:
                    continue
                text = f"{job.spec.id} got a place before {other.spec.id}"
                assert other.spec.priority <= job.spec.priority, f"{text} of higher priority"
                alike = (other.spec.session, other.spec.priority) == (job.spec.session, job.spec.priority)
                assert not (alike and goes_before(other, job)), f"{text}, which was first"

    def _check_reservations(self, now: float, view: View, idle: bool) -> None:
        waiting = {job.spec.shape for job in self.jobs.values() if job.phase == "queued"}
        moved = {job.spec.shape for job in self.orders.started}
        self.stuck = {shape: when for shape, when in self.stuck.items() if shape in waiting and shape not in moved}
        for worker, shape in view.reserved.items():
            old = self.kept.get(worker) == shape
            assert shape in waiting | moved or (idle and old), f"{worker} is kept free for {shape}, which nobody waits for"
            assert old or shape in moved or now - self.stuck.get(shape, now) >= STUCK_S - EPS, (
                f"{worker} is kept free for {shape} too early"
            )
        for job in self.orders.started:
            kept = view.reserved.get(job.worker)
            since_before = kept is not None and self.kept.get(job.worker) == kept
            assert not since_before or job.spec.shape in (kept, ()), f"{job.spec.id} got {job.worker}, kept free for {kept}"
        released = self.kept.keys() - view.reserved.keys()
        self.kept = dict(view.reserved)
        if idle:
            return
        for shape, since in self.stuck.items():
            job = next(job for job in self.jobs.values() if job.phase == "queued" and job.spec.shape == shape)
            late = now - since > STUCK_S + EPS and shape not in view.reserved.values()
            free = [name for name in self.usable() if name not in view.reserved and name not in released]
            could = [name for name in free if job.fits(self.hosts[name].capacity)]
            assert not (late and could and len(self.shapes) > 1), f"nothing is kept free for {shape}, stuck since {since}"
        self.stuck |= dict.fromkeys(waiting - self.stuck.keys(), now)

    def usable(self) -> list[str]:
        """Return the workers that take tasks."""
        return [name for name, host in self.hosts.items() if host.attached and not host.draining]

    def _check_work_conservation(self, view: View) -> None:
        waiting = [job for job in self.jobs.values() if job.phase == "queued"]
        if not waiting:
            return
        for name in self.usable():
            free = self.free(name, view)
            if self.ahead(name, view):
                continue
            for job in waiting:
                kept = view.reserved.get(name, job.spec.shape) != job.spec.shape and bool(job.spec.shape)
                assert kept or not job.fits(free), f"{job.spec.id} waits, {name} has room: {free}"


def end_of(error: ErrorKind | None, payload: bytes) -> End:
    """Return how the core says that a job ended."""
    return (error.value if error is not None else FINISHED, payload)
