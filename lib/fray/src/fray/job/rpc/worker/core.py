"""A worker's decisions as a pure state machine: which attempt runs on which executor, and what is reported.

No clock, no processes, no network: events are method calls that carry the time, and return effects.

Attempts wait in one queue, by priority, then in the order in which they came. The first starts when its resources are free
and an executor is idle; until then others pass it if they take nothing of what it lacks. Attempts of functions that were
measured as very short are given to an executor in batches, so that it need not wait for the agent between two of them; what
it has not begun comes back when its current attempt takes long.
An actor goes before tasks, gets an executor of its own for as long as it lives, and takes that executor with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fray.job.rpc.controller.core.model import Outcome, OutcomeKind, Shape, find_lacking
from fray.job.rpc.controller.core.shapes import takes
from fray.job.rpc.worker.attempts import AttemptQueue
from fray.types import TaskId

BATCH_S = 0.004
"""Estimated work given to one executor ahead."""
BATCH_TASKS = 256
"""Attempts given to one executor ahead, at most."""
RECALL_AFTER_S = 0.05
"""An executor that has not finished its attempts after so long gives back those it has not begun."""
KILL_GRACE_S = 1.0
"""An attempt that was interrupted and does not stop within this is killed with its executor."""
MAX_SPAWN_FAILURES = 3
"""Executors in a row that may end before they are ready; then the worker takes nothing more and hands back what it has."""
MAX_WARM = 8
"""Executors started ahead; more are started as they are needed."""
MAX_LOOK = 64
"""Attempts of the queue that are looked at to know how many executors are needed."""
MAX_DURATIONS = 10_000
"""Functions whose run time is remembered."""


@dataclass(slots=True, eq=False)
class Item:
    """An attempt on this worker."""

    task: TaskId
    """Which task."""
    attempt: int
    """Which attempt of it."""
    function_id: str
    """Names the code."""
    shape: Shape
    """What it occupies."""
    timeout: float | None
    """Seconds it may run."""
    order: Any
    """The controller's order, opaque here."""
    executor: int | None = None
    """Where it runs or is about to."""
    direct: bool = False
    """Whether it came straight from a caller, not from the controller."""
    priority: int = 0
    """Higher begins first."""
    blocked: bool = False
    """Whether it waits for other tasks."""
    alone: bool = False
    """Whether it must not share a batch: it was in one whose executor died, or it is an actor."""
    actor: bool = False
    """Whether it stays."""
    reclaimed: bool = False
    """Whether the controller has asked for it: it goes back if its executor has not begun it."""
    stopping: OutcomeKind | None = None
    """Set once it was interrupted: how it ends."""
    stop_reason: str = ""
    """Why it was interrupted."""


@dataclass(slots=True, eq=False)
class Executor:
    """A child process."""

    number: int
    """Names it; never reused."""
    ready: bool = False
    """Whether it has said that it can run."""
    items: dict[TaskId, Item] = field(default_factory=dict)
    """What it was given and has not answered, in order."""
    occupied: Shape | None = None
    """What it occupies on behalf of its items."""
    busy_since: float = 0.0
    """When it got its current items."""
    recalled: bool = False
    """Whether it was asked to give back what it has not begun."""
    killed: bool = False
    """Whether its end was ordered."""
    dedicated: bool = False
    """Whether it belongs to an actor."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start an executor."""

    executor: int


@dataclass(frozen=True, slots=True)
class Give:
    """Send attempts to an executor."""

    executor: int
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ask an executor to stop one attempt, or to drop it if it has not begun."""

    executor: int
    task: TaskId


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask an executor for the attempts it has not begun."""

    executor: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End an executor at once."""

    executor: int


Effect = Spawn | Give | Interrupt | Recall | Kill


@dataclass(slots=True)
class Report:
    """What the controller is to be told."""

    outcomes: list[tuple[Outcome, int]] = field(default_factory=list)
    """Ended attempts, each with the number that names it until acknowledged."""
    blocked: list[tuple[TaskId, int]] = field(default_factory=list)
    """Attempts that wait for other tasks."""
    unblocked: list[tuple[TaskId, int]] = field(default_factory=list)
    """Attempts that went on."""
    created: list[tuple[TaskId, int]] = field(default_factory=list)
    """Actors whose constructors have returned."""
    number: int = 0
    """1, 2, 3...: names the report to the controller, which tells up to which all is saved."""


class WorkerCore:
    """The state of one worker."""

    def __init__(self, capacity: Mapping[str, float], executors: int) -> None:
        self.capacity = dict(capacity)
        self.pool_size = executors
        self.items: dict[TaskId, Item] = {}
        self.executors: dict[int, Executor] = {}
        self.draining = False
        self.broken = ""
        """Why no executor can be started here, once that is so: the worker drains itself."""
        self.used: dict[str, float] = {}
        """What executors occupy; above capacity for a while when waiting attempts go on."""
        self.direct_outcomes: list[Outcome] = []
        """Ends of attempts that came straight from a caller, to be taken by the agent."""
        self.ended_actors: list[TaskId] = []
        """Actors that have ended, to be taken by the agent."""
        self.lease_until = math.inf
        """While the controller counts on this worker; afterwards nothing new begins, as it may begin elsewhere."""
        self._queue = AttemptQueue()
        self._durations: dict[str, float] = {}
        self._outbox: dict[int, Outcome] = {}  # to be reported
        self._unsaved: dict[int, tuple[int, Outcome]] = {}  # reported, and in which report; kept until that is saved
        self._outbox_count = self._report_count = 0
        self._waits: dict[tuple[TaskId, int], bool] = {}  # attempts whose waiting changed, and whether they wait now
        self._waiting: dict[tuple[TaskId, int], None] = {}  # all that wait now
        self._created: dict[tuple[TaskId, int], bool] = {}  # actors that were constructed, and whether that is acknowledged
        self._next_executor = 0
        self._deadlines: dict[tuple[TaskId, int], tuple[float, str]] = {}
        self._spawn_failures = 0

    # --- events

    def start(self) -> list[Effect]:
        """Begin with some warm executors."""
        out: list[Effect] = []
        for _ in range(min(self.pool_size, MAX_WARM)):
            self._spawn(out)
        return out

    def receive(self, now: float, items: Iterable[Item]) -> list[Effect]:
        """Take attempts; those that are here already change nothing, newer ones of a task that is here come back."""
        out: list[Effect] = []
        for item in items:
            known = self.items.get(item.task)
            if known is not None:
                if known.attempt < item.attempt:  # the controller has given the older one up; both cannot run here
                    self._interrupt(now, known, OutcomeKind.CANCELLED, "a newer attempt came", out)
                    self._publish(Outcome(item.task, item.attempt, OutcomeKind.RETURNED))
                continue
            self.items[item.task] = item
            if self.draining:
                self._end(item, Outcome(item.task, item.attempt, OutcomeKind.RETURNED))
            else:
                self._queue.add(item)
        return out + self._schedule(now)

    def stop(self, now: float, task: TaskId, attempt: int) -> list[Effect]:
        """Stop an attempt, or drop it unstarted; an unknown one changes nothing."""
        item = self.items.get(task)
        if item is None or item.attempt != attempt:
            return []
        out: list[Effect] = []
        self._interrupt(now, item, OutcomeKind.CANCELLED, "cancelled", out)
        return out + self._schedule(now)

    def hand_back(self, task: TaskId, attempt: int) -> None:
        """Return an attempt that has not begun; one that an executor has, when and if that gives it back."""
        item = self.items.get(task)
        if item is None or item.attempt != attempt:
            return
        if item.executor is not None:
            item.reclaimed = True
            return
        self._queue.remove(item)
        self._end(item, Outcome(task, attempt, OutcomeKind.RETURNED))

    def drain(self) -> None:
        """Take nothing more; return what no executor has."""
        self.draining = True
        for item in list(self._queue):
            self.hand_back(item.task, item.attempt)

    def executor_ready(self, now: float, number: int) -> list[Effect]:
        """Note that an executor can run."""
        executor = self.executors.get(number)
        if executor is not None:
            executor.ready = True
            self._spawn_failures = 0
        return self._schedule(now)

    def outcomes(self, now: float, number: int, outcomes: Iterable[Outcome]) -> list[Effect]:
        """Take what an executor says of its attempts."""
        executor = self.executors.get(number)
        if executor is None:
            return []
        for outcome in outcomes:
            item = executor.items.pop(outcome.task, None)
            if item is None:
                continue
            outcome.attempt = item.attempt
            if item.stopping is not None and outcome.kind is not OutcomeKind.FINISHED:
                outcome = Outcome(item.task, item.attempt, item.stopping, b"", item.stop_reason)
            elif outcome.run_s:
                self._measure(item.function_id, outcome.run_s)
            self._end(item, outcome)
        out: list[Effect] = []
        if executor.dedicated and not executor.items:
            self._kill(executor, out)
        return out + self._executor_advanced(now, executor)

    def constructed(self, number: int) -> Item | None:
        """Note that the constructor of an executor's actor has returned; return the actor, if it is still wanted."""
        executor = self.executors.get(number)
        item = next(iter(executor.items.values()), None) if executor is not None else None
        if item is None or not item.actor or item.stopping is not None:
            return None
        self._created[item.task, item.attempt] = False
        return item

    def returned(self, now: float, number: int, tasks: Iterable[TaskId]) -> list[Effect]:
        """Take back attempts that an executor has not begun."""
        executor = self.executors.get(number)
        if executor is None:
            return []
        back = [item for item in (executor.items.pop(task, None) for task in tasks) if item is not None]
        self._requeue(back)
        return self._executor_advanced(now, executor)

    def blocked(self, now: float, task: TaskId, executor: int | None = None) -> list[Effect]:
        """Note that an attempt waits for other tasks: its place is free meanwhile. Given the executor, only if it is there."""
        item = self.items.get(task)
        if item is None or item.blocked or item.executor is None or executor not in (None, item.executor):
            return []
        item.blocked = True
        if not item.direct:
            self._waits[task, item.attempt] = True
            self._waiting[task, item.attempt] = None
        self._vacate(self.executors[item.executor])
        return self._schedule(now)

    def unblocked(self, now: float, task: TaskId, executor: int | None = None) -> list[Effect]:
        """Note that an attempt goes on, beyond capacity if need be. Given the executor, only if it is there."""
        item = self.items.get(task)
        if item is None or not item.blocked or item.executor is None or executor not in (None, item.executor):
            return []
        item.blocked = False
        self._waiting.pop((task, item.attempt), None)
        if not item.direct:
            self._waits[task, item.attempt] = False
        self._occupy(self.executors[item.executor], item.shape)
        return []

    def executor_died(self, now: float, number: int, why: str) -> list[Effect]:
        """Take the end of an executor: the attempt it ran has crashed; those behind it run again, each alone."""
        executor = self.executors.pop(number, None)
        if executor is None:
            return []
        self._vacate(executor)
        items = list(executor.items.values())
        if len(items) == 1 and (items[0].stopping is not None or not executor.killed):
            (item,) = items
            kind = item.stopping or OutcomeKind.CRASHED
            message = item.stop_reason if item.stopping is not None else why
            self._end(item, Outcome(item.task, item.attempt, kind, b"", message))
        else:
            for item in items:
                item.alone, item.reclaimed = True, False  # any of them may have begun
            self._requeue(items)
        out: list[Effect] = []
        if not executor.ready:
            self._spawn_failures += 1
            if self._spawn_failures >= MAX_SPAWN_FAILURES:
                self.broken = why
                self.drain()
        if self._pooled() < self.pool_size and not self.draining:
            self._spawn(out)
        return out + self._schedule(now)

    def exceeded(self, number: int, why: str) -> list[Effect]:
        """End an executor that takes too much: the attempt it runs has crashed by that; of several, each runs again, alone."""
        executor = self.executors.get(number)
        if executor is None:
            return []
        if len(executor.items) == 1:
            (item,) = executor.items.values()
            if item.stopping is None:
                item.stopping, item.stop_reason = OutcomeKind.CRASHED, why
        out: list[Effect] = []
        self._kill(executor, out)
        return out

    def time_passed(self, now: float) -> list[Effect]:
        """Interrupt what is out of time, kill what does not stop, recall what waits behind a long attempt."""
        out: list[Effect] = []
        for key, (when, what) in list(self._deadlines.items()):
            if when > now:
                continue
            del self._deadlines[key]
            item = self.items.get(key[0])
            if item is None or item.attempt != key[1] or item.executor is None:
                continue
            if what == "kill":
                self._kill(self.executors[item.executor], out)
            else:
                text = f"ran longer than its timeout of {item.timeout:g} s"
                self._interrupt(now, item, OutcomeKind.TIMEOUT, text, out)
        for executor in self.executors.values():
            if len(executor.items) > 1 and not executor.recalled and executor.busy_since + RECALL_AFTER_S <= now:
                executor.recalled = True
                out.append(Recall(executor.number))
        return out + self._schedule(now)

    def abandon(self) -> list[Effect]:
        """Forget everything, and end what runs: this life of the worker is over. Direct callers are told."""
        out: list[Effect] = []
        why = "its worker was given up by the controller, and began anew"
        self.direct_outcomes += [
            Outcome(item.task, item.attempt, OutcomeKind.CRASHED, b"", why) for item in self.items.values() if item.direct
        ]
        self.ended_actors += [item.task for item in self.items.values() if item.actor]
        for executor in list(self.executors.values()):
            if executor.items:
                self._kill(executor, out)
                executor.items.clear()
        self.items.clear()
        self._queue.clear()
        self._outbox.clear()
        self._unsaved.clear()
        self._waits.clear()
        self._waiting.clear()
        self._created.clear()
        self._deadlines.clear()
        return out

    # --- questions

    def next_deadline(self) -> float | None:
        """Return when ``time_passed`` should come next."""
        times = [when for when, _ in self._deadlines.values()]
        times += [e.busy_since + RECALL_AFTER_S for e in self.executors.values() if len(e.items) > 1 and not e.recalled]
        return min(times, default=None)

    def held(self) -> list[tuple[TaskId, int]]:
        """Return the attempts that are here, or whose outcome the controller has not been told."""
        running = [(i.task, i.attempt) for i in self.items.values() if not i.direct]
        return running + [(outcome.task, outcome.attempt) for outcome in self._outbox.values()]

    def told(self) -> list[tuple[TaskId, int]]:
        """Return the attempts whose outcome the controller has been told and has not saved: a restarted one knows nothing."""
        return [(outcome.task, outcome.attempt) for _, outcome in self._unsaved.values()]

    def count_items(self, number: int) -> int:
        """Return how many attempts an executor has that it has not answered."""
        executor = self.executors.get(number)
        return len(executor.items) if executor is not None else 0

    def has_news(self) -> bool:
        """Whether there is something to report."""
        return bool(self._outbox or self._waits or not all(self._created.values()))

    def actors(self) -> list[Item]:
        """Return the actors that are constructed, or being so."""
        return [item for item in self.items.values() if item.actor and item.executor is not None]

    def report(self, limit: int) -> Report:
        """Return what is to be reported; outcomes come again until ``acknowledge``."""
        self._report_count += 1
        report = Report(number=self._report_count)
        for number, outcome in self._outbox.items():
            if len(report.outcomes) >= limit:
                break
            report.outcomes.append((outcome, number))
        report.blocked = list(self._waiting)  # all of them each time: a report that was late may have undone one
        report.unblocked = [key for key, is_blocked in self._waits.items() if not is_blocked]
        report.created = [key for key, is_known in self._created.items() if not is_known]
        return report

    def acknowledge(self, report: Report) -> None:
        """Take note that the controller has been told; what has changed since is told again.

        Outcomes are kept until ``forget``: a controller that is restarted may not know of them.
        """
        for outcome, number in report.outcomes:
            if self._outbox.pop(number, None) is not None:
                self._unsaved[number] = (report.number, outcome)
        for key, is_blocked in (dict.fromkeys(report.blocked, True) | dict.fromkeys(report.unblocked, False)).items():
            if self._waits.get(key) is is_blocked:
                del self._waits[key]
        for key in report.created:
            if key in self._created:
                self._created[key] = True

    def forget(self, report_number: int) -> None:
        """Drop what the controller has saved: all that was told up to a report."""
        while self._unsaved:
            first = next(iter(self._unsaved))
            if self._unsaved[first][0] > report_number:
                return
            del self._unsaved[first]

    def tell_again(self) -> None:
        """Report what was not saved once more: the controller was restarted."""
        self._outbox = {number: outcome for number, (_, outcome) in self._unsaved.items()} | self._outbox
        self._unsaved.clear()
        for key in self._created:
            self._created[key] = False

    def idle(self) -> bool:
        """Whether nothing runs or waits, and everything is saved by the controller."""
        return not self.items and not self._outbox and not self._unsaved

    # --- steps

    def _schedule(self, now: float) -> list[Effect]:
        out: list[Effect] = []
        if now >= self.lease_until:
            return out
        while (at := self._queue.find(self._lacking)) is not None:
            executor = next((e for e in self.executors.values() if e.ready and not e.items and not e.killed), None)
            if executor is None:
                starting = sum(1 for e in self.executors.values() if not e.ready)
                if starting == 0 or starting < self._startable():
                    self._spawn(out)
                break
            self._occupy(executor, self._queue[at].shape)
            self._give(now, executor, out, at)
            if executor.dedicated and self._pooled() < min(self.pool_size, MAX_WARM):
                self._spawn(out)
        for executor in self.executors.values():  # keep short ones flowing: top up before the batch is used up
            busy = executor.items and executor.occupied is not None and not executor.recalled and not executor.killed
            if self._queue and busy:
                self._give(now, executor, out, 0)
        self._trim(out)
        return out

    def _startable(self) -> int:
        """Return how many queued attempts could start if there were executors."""
        free = {name: amount - self.used.get(name, 0.0) for name, amount in self.capacity.items()}
        count, kept = 0, set[str]()
        for item in itertools.islice(self._queue, MAX_LOOK):
            missing = find_lacking(item.shape, free, {})
            if missing or takes(item.shape, kept):
                kept.update(missing)
                continue
            for name, amount in item.shape:
                free[name] -= amount
            count += 1
        return count

    def _give(self, now: float, executor: Executor, out: list[Effect], at: int) -> None:
        """Give the attempt at a place of the queue to an executor, and what may follow it in the same batch."""
        batch: list[Item] = []
        planned_s = sum(self._durations.get(item.function_id, BATCH_S) for item in executor.items.values())
        share = -(-self._queue.count_first() // max(1, self.pool_size))
        while at < len(self._queue) and len(executor.items) < BATCH_TASKS:
            item = self._queue[at]
            if executor.items:
                estimate_s = self._durations.get(item.function_id)
                first = next(iter(executor.items.values()))
                mixes = item.alone or first.alone or item.timeout is not None or first.timeout is not None
                mixes = mixes or item.priority != first.priority
                if mixes or first.blocked or estimate_s is None or item.shape != executor.occupied:
                    break
                if planned_s + estimate_s > BATCH_S or len(batch) >= share or now - executor.busy_since > 2 * BATCH_S:
                    break
                planned_s += estimate_s
            else:
                planned_s = self._durations.get(item.function_id, BATCH_S)
                executor.busy_since, executor.recalled = now, False
            self._queue.pop(at)
            item.executor = executor.number
            executor.items[item.task] = item
            executor.dedicated = item.actor
            batch.append(item)
            if item.timeout is not None:
                self._deadlines[item.task, item.attempt] = (now + item.timeout, "timeout")
        if batch:
            out.append(Give(executor.number, batch))

    def _executor_advanced(self, now: float, executor: Executor) -> list[Effect]:
        executor.busy_since = now
        if not executor.items:
            self._vacate(executor)
            executor.recalled = False
        return self._schedule(now)

    def _interrupt(self, now: float, item: Item, kind: OutcomeKind, reason: str, out: list[Effect]) -> None:
        if item.executor is None:
            self._queue.remove(item)
            self._end(item, Outcome(item.task, item.attempt, kind, b"", reason))
        elif item.stopping is None:
            item.stopping, item.stop_reason = kind, reason
            if item.actor:
                self._kill(self.executors[item.executor], out)
                return
            self._deadlines[item.task, item.attempt] = (now + KILL_GRACE_S, "kill")
            out.append(Interrupt(item.executor, item.task))

    def _kill(self, executor: Executor, out: list[Effect]) -> None:
        if not executor.killed:
            executor.killed = True
            out.append(Kill(executor.number))

    def _end(self, item: Item, outcome: Outcome) -> None:
        self.items.pop(item.task, None)
        self._deadlines.pop((item.task, item.attempt), None)
        self._waits.pop((item.task, item.attempt), None)
        self._waiting.pop((item.task, item.attempt), None)
        self._created.pop((item.task, item.attempt), None)
        if item.actor:
            self.ended_actors.append(item.task)
        if item.direct:
            self.direct_outcomes.append(outcome)
            return
        self._publish(outcome)

    def _publish(self, outcome: Outcome) -> None:
        self._outbox_count += 1
        self._outbox[self._outbox_count] = outcome

    def _requeue(self, items: list[Item]) -> None:
        for item in reversed(items):
            item.executor = None
            self._deadlines.pop((item.task, item.attempt), None)
            if item.blocked:  # it waits no more: it starts again
                item.blocked = False
                self._waiting.pop((item.task, item.attempt), None)
                if not item.direct:
                    self._waits[item.task, item.attempt] = False
            if item.stopping is not None:
                self._end(item, Outcome(item.task, item.attempt, item.stopping, b"", item.stop_reason))
            elif self.draining or item.reclaimed:
                self._end(item, Outcome(item.task, item.attempt, OutcomeKind.RETURNED))
            else:
                self._queue.add_first(item)

    def _trim(self, out: list[Effect]) -> None:
        """End idle executors beyond the pool: they were needed while others waited."""
        if self._queue or self._pooled() <= self.pool_size:
            return
        living = [e for e in self.executors.values() if not e.killed and not e.dedicated]
        idle = [e for e in living if e.ready and not e.items]
        for executor in idle[: max(0, len(living) - self.pool_size)]:
            self._kill(executor, out)

    def _pooled(self) -> int:
        """Return how many executors run tasks."""
        return sum(1 for executor in self.executors.values() if not executor.dedicated)

    def _spawn(self, out: list[Effect]) -> None:
        self._next_executor += 1
        self.executors[self._next_executor] = Executor(self._next_executor)
        out.append(Spawn(self._next_executor))

    def _lacking(self, shape: Shape) -> list[str]:
        return find_lacking(shape, self.capacity, self.used)

    def _occupy(self, executor: Executor, shape: Shape) -> None:
        executor.occupied = shape
        for name, amount in shape:
            self.used[name] = self.used.get(name, 0.0) + amount

    def _vacate(self, executor: Executor) -> None:
        for name, amount in executor.occupied or ():
            self.used[name] = max(0.0, self.used[name] - amount)
        executor.occupied = None

    def _measure(self, function_id: str, run_s: float) -> None:
        known = self._durations.get(function_id)
        if known is None and len(self._durations) >= MAX_DURATIONS:
            del self._durations[next(iter(self._durations))]
        self._durations[function_id] = run_s if known is None else known + 0.3 * (run_s - known)
