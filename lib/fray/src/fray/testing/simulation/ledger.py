"""What is known of a simulation's actors from outside: who lived, what was carried out, what was saved, what was answered.

Everybody writes down what he does, and each entry is checked against those before it: one incarnation takes calls, calls are
carried out once and in order, what is restored is what was saved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fray.testing.simulation.report import SimulationReport, Violation
from fray.testing.simulation.scripts import ActorScript, CallScript
from fray.types import SessionId, TaskId

History = tuple[str, ...]
"""Calls in the order in which they changed a state: the state of an actor here."""


@dataclass(slots=True)
class Life:
    """One incarnation, as its executor lives it."""

    base: History
    """The state it began with."""
    done: list[str] = field(default_factory=list)
    """Calls it has carried out since."""
    begun: dict[SessionId, int] = field(default_factory=dict)
    """By caller, the latest call it has begun."""
    saved: list[int] = field(default_factory=list)
    """Lengths of the states it has saved."""
    retired: bool = False
    """Whether it said goodbye with its state saved."""

    def state(self) -> History:
        """Return what it is now."""
        return (*self.base, *self.done)


@dataclass(slots=True)
class ActorRecord:
    """All lives of one actor."""

    script: ActorScript
    """What it is like."""
    name: str
    """Under which others find it; empty for none."""
    lives: dict[int, Life] = field(default_factory=dict)
    """By incarnation."""
    files: dict[tuple[int, int], History] = field(default_factory=dict)
    """Its saved states on storage, by the names under which they are sorted."""
    opened: int = 0
    """The latest incarnation that began to take calls."""
    constructions: int = 0
    """Constructors that were begun."""
    excused: bool = False
    """Whether its calls may be lost without a fault: it was killed, or crashes by itself."""
    acknowledged: int = 0
    """Length of the longest saved state of which a caller has an answer."""


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call as its caller made it."""

    name: str
    """Unique among all."""
    actor: TaskId
    """Whose."""
    caller: SessionId
    """Who made it."""
    number: int
    """Its place among the caller's calls of this actor."""
    retries: int
    """How often it may be made again; -1 for ever."""
    script: CallScript
    """What it does."""


class Ledger:
    """One for all actors. Every method raises Violation if what it is told must not happen."""

    def __init__(self, report: SimulationReport) -> None:
        self._report = report
        self._actors: dict[TaskId, ActorRecord] = {}
        self._calls: dict[str, MadeCall] = {}
        self._named: dict[str, list[TaskId]] = {}
        self._begun: Counter[str] = Counter()
        self._heard: dict[tuple[SessionId, TaskId], int] = {}

    def add(self, actor: TaskId, script: ActorScript, name: str) -> None:
        """Note that a client wants an actor."""
        self._actors[actor] = ActorRecord(script, name)

    def excuse(self, actor: TaskId) -> None:
        """Note a reason for which calls of an actor may be lost, without any fault."""
        self._actors[actor].excused = True

    def find(self, actor: TaskId) -> ActorRecord:
        """Return what is known of an actor."""
        return self._actors[actor]

    def make_call(self, call: MadeCall) -> None:
        """Note that a client makes a call."""
        self._calls[call.name] = call
        self._report.calls += 1

    def find_call(self, name: str) -> MadeCall:
        """Return a call by its name."""
        return self._calls[name]

    # --- executors

    def construct(self, actor: TaskId, incarnation: int) -> bool:
        """Begin a life from what is saved, or from nothing; return whether it was restored."""
        record = self._actors[actor]
        latest = max(record.files) if record.files and incarnation > 1 else None
        base = record.files[latest] if latest is not None else ()
        before = max(record.lives, default=incarnation)
        if before < incarnation:  # else a worker that was given up constructs it late: nobody will hear of that
            self._check_restored(actor, record.lives[before], base, record)
        record.lives[incarnation] = Life(base)
        self._report.lives["restored"] += latest is not None
        return latest is not None

    def begin(self, actor: TaskId, incarnation: int, name: str) -> int:
        """Note that an incarnation begins a call; return how often it has begun, by whichever."""
        call, life = self._calls[name], self._actors[actor].lives[incarnation]
        latest = life.begun.get(call.caller, 0)
        self._require(call.number != latest, f"{name} was carried out twice by incarnation {incarnation}", actor)
        self._require(call.number > latest, f"{name} was carried out after call {latest} of its caller", actor)
        life.begun[call.caller] = call.number
        self._begun[name] += 1
        allowed = self._begun[name] <= 1 + call.retries or call.retries < 0
        self._require(allowed, f"{name} was begun {self._begun[name]} times; it may be made again {call.retries} times", actor)
        return self._begun[name]

    def carry_out(self, actor: TaskId, incarnation: int, name: str) -> int:
        """Note that a call has changed the state; return the state's length."""
        life = self._actors[actor].lives[incarnation]
        life.done.append(name)
        return len(life.base) + len(life.done)

    def save(self, actor: TaskId, incarnation: int) -> None:
        """Note that an incarnation's state is on storage."""
        record = self._actors[actor]
        life = record.lives[incarnation]
        state = life.state()
        record.files[incarnation, len(life.saved)] = state
        life.saved.append(len(state))

    def retire(self, actor: TaskId, incarnation: int) -> None:
        """Note that an incarnation has said goodbye with its state saved."""
        self._actors[actor].lives[incarnation].retired = True
        self._report.lives["retired"] += 1

    # --- workers

    def speak(self, actor: TaskId, incarnation: int, what: str) -> None:
        """Note that an incarnation takes calls, or answers them: no older one may do so from now on."""
        record = self._actors[actor]
        self._require(incarnation >= record.opened, f"{incarnation} {what} though {record.opened} takes calls now", actor)
        self._report.lives["took calls"] += incarnation > record.opened
        record.opened = incarnation
        if record.name:
            was = self._named.setdefault(record.name, [actor])
            self._require(was[-1] == actor or actor not in was, f"{what} though {was[-1]} has its name {record.name}", actor)
            if was[-1] != actor:
                was.append(actor)

    # --- callers

    def hear(self, actor: TaskId, name: str, value: str) -> None:
        """Note that a caller has the value of a call."""
        answered, incarnation_text, length_text = value.split("/")
        incarnation, length = int(incarnation_text), int(length_text)
        self._require(answered == name, f"{name} was answered with the value of {answered}", actor)
        call, record = self._calls[name], self._actors[actor]
        latest = self._heard.get((call.caller, actor), 0)
        self._require(incarnation >= latest, f"{name} was answered by {incarnation} after an answer of {latest}", actor)
        self._heard[call.caller, actor] = incarnation
        life = record.lives[incarnation]
        self._require(life.state()[length - 1] == name, f"{name} is not call {length} of incarnation {incarnation}", actor)
        safe = max((saved for saved in life.saved if saved <= length), default=0)
        record.acknowledged = max(record.acknowledged, safe)
        for number, later in record.lives.items():
            kept = number <= incarnation or len(later.base) >= safe
            self._require(kept, f"incarnation {number} has lost what was saved when {name} was answered", actor)

    def _check_restored(self, actor: TaskId, before: Life, base: History, record: ActorRecord) -> None:
        state = before.state()
        self._require(state[: len(base)] == base, f"restored {list(base)}, which the life before never was: {state}", actor)
        least = len(state) if before.retired else record.acknowledged
        self._require(len(base) >= least, f"restored {len(base)} calls of {len(state)}; {least} were saved for sure", actor)

    def _require(self, holds: bool, text: str, actor: TaskId) -> None:
        if not holds:
            raise Violation(f"actor {actor}: {text}", actor)
