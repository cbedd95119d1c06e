"""What histories of actors must be like: the rules, each a function from a history to the places where it is broken."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from witness import Line, chain_digest


@dataclass(frozen=True, slots=True)
class Kind:
    """How the actors of a slot were created."""

    name: str = ""
    """Empty for none."""
    max_restarts: int = 0
    max_task_retries: int = 0
    checkpoint_every: int | None = None
    pending_timeout: float = 60.0


@dataclass(slots=True)
class Life:
    """One instance of an actor."""

    born: Line
    steps: list[Line] = field(default_factory=list)
    """Begins and ends of calls, in order."""

    @property
    def ends(self) -> list[Line]:
        return [line for line in self.steps if line.what == "end"]


@dataclass(slots=True)
class CallStory:
    """One call."""

    made: Line
    outcomes: list[Line] = field(default_factory=list)
    begins: list[Line] = field(default_factory=list)
    ends: list[Line] = field(default_factory=list)

    @property
    def answer(self) -> Line | None:
        return next((line for line in self.outcomes if line.what == "answered"), None)


class History:
    """The lines of a ledger, sorted."""

    def __init__(self, lines: Iterable[Line], kinds: dict[str, Kind]) -> None:
        self.lines = list(lines)
        self.kinds = kinds
        self.calls = {(line.caller, line.number): CallStory(line) for line in self.lines if line.what == "made"}
        self.lives: dict[str, Life] = {line.life: Life(line) for line in self.lines if line.what == "born"}
        for line in self.lines:
            self._sort(line)

    def kind_of(self, actor: str) -> Kind:
        """Return how an actor, or the actors of a slot, were created."""
        return self.kinds[actor.partition(".")[0]]

    def by_actor(self) -> dict[str, list[Life]]:
        """Return the lives of each actor that began a call, in order."""
        found: dict[str, list[Life]] = defaultdict(list)
        for life in sorted(self.lives.values(), key=lambda life: life.born.at):
            if life.steps:  # one that was paused while it was made may tell of its birth at any time
                found[life.born.actor].append(life)
        return found

    def is_acknowledged(self, end: Line) -> bool:
        """Whether the answer of a carried out call reached its caller."""
        call = self.calls.get((end.caller, end.number))
        answer = call.answer if call is not None else None
        return answer is not None and answer.life == end.life

    def acknowledged_at(self, lives: Iterable[Life]) -> tuple[float, Line | None]:
        """Return when the last acknowledged call of some lives ended, and its line."""
        ends = [end for life in lives for end in life.ends if self.is_acknowledged(end)]
        last = max(ends, key=lambda end: end.at, default=None)
        return (last.at if last is not None else float("-inf")), last

    def _sort(self, line: Line) -> None:
        call = self.calls.get((line.caller, line.number))
        if line.what in ("begin", "end"):
            self.lives[line.life].steps.append(line)
            if call is not None:
                (call.begins if line.what == "begin" else call.ends).append(line)
        elif line.what in ("answered", "failed") and call is not None:
            call.outcomes.append(line)


@dataclass(frozen=True, slots=True)
class Broken:
    """A place where a rule is broken."""

    rule: str
    text: str
    lines: tuple[Line, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.text}", *(f"    {line}" for line in self.lines)])


def order(history: History) -> Iterable[Broken]:
    """A life carries out calls one by one, those of a caller in their order, and each sees the state that the last one left."""
    for life in history.lives.values():
        latest: dict[str, Line] = {}
        state = life.born
        running: Line | None = None
        for line in life.steps:
            if line.what == "begin":
                before = latest.get(line.caller)
                if before is not None and before.number >= line.number:
                    yield Broken("order", f"{line.caller}'s calls are out of order", (before, line))
                if running is not None:
                    yield Broken("order", "a call began within another", (running, line))
                latest[line.caller] = running = line
                continue
            wanted = chain_digest(state.digest, line.caller, line.number)
            if (line.count, line.digest) != (state.count + 1, wanted):
                yield Broken("order", "a call saw a state that the one before did not leave", (state, line))
            state, running = line, None


def answers(history: History) -> Iterable[Broken]:
    """What a caller was told is what was carried out."""
    for call in history.calls.values():
        if len(call.outcomes) > 1:
            yield Broken("answers", "a call was answered twice", tuple(call.outcomes))
        answer = call.answer
        if answer is None:
            continue
        same = [(end.life, end.count, end.digest) for end in call.ends]
        if same.count((answer.life, answer.count, answer.digest)) != 1:
            yield Broken("answers", "an answer is not that of one call that was carried out", (answer, *call.ends))


def one_life(history: History) -> Iterable[Broken]:
    """No life acknowledges a call after the next one was made."""
    for lives in history.by_actor().values():
        for number, life in enumerate(lives[1:], 1):
            at, last = history.acknowledged_at(lives[:number])
            if last is not None and at >= life.born.at:
                yield Broken("one life", "a call was acknowledged after the next life had begun", (last, life.born))


def at_most_once(history: History) -> Iterable[Broken]:
    """A call is begun as often as it may be, and not at all if its caller was told so."""
    for call in history.calls.values():
        retries = history.kind_of(call.made.actor).max_task_retries
        if retries >= 0 and len(call.begins) > retries + 1:
            yield Broken("at most once", f"begun {len(call.begins)} times, with {retries} retries", tuple(call.begins))
        denied = next((line for line in call.outcomes if line.error == "ActorUnavailable"), None)
        if denied is not None and call.begins:
            yield Broken("at most once", "told as not carried out, and begun", (denied, *call.begins))


def names(history: History) -> Iterable[Broken]:
    """Actors of one name follow each other; one that was refused its name is never made."""
    named: dict[str, list[tuple[float, float, Line]]] = defaultdict(list)
    for lives in history.by_actor().values():
        name = history.kind_of(lives[0].born.actor).name
        at, _ = history.acknowledged_at(lives)
        if name:
            named[name].append((lives[0].born.at, at, lives[0].born))
    for spans in named.values():
        spans.sort(key=lambda span: span[0])
        for number, (began, _, born) in enumerate(spans[1:], 1):
            earlier = max(spans[:number], key=lambda span: span[1])
            if earlier[1] >= began:
                yield Broken("names", "two actors of one name lived at the same time", (earlier[2], born))
    refused = {line.actor: line for line in history.lines if line.what == "refused"}
    for life in history.lives.values():
        if life.born.actor in refused:
            yield Broken("names", "an actor was refused its name, and made", (refused[life.born.actor], life.born))


def checkpoints(history: History) -> Iterable[Broken]:
    """A life begins with the state after some call of the life before, no earlier than its last acknowledged checkpoint."""
    for lives in history.by_actor().values():
        every = history.kind_of(lives[0].born.actor).checkpoint_every
        for before, life in itertools.pairwise(lives):
            states = {(line.count, line.digest) for line in (before.born, *before.ends)}
            if every is None:
                states = {(0, "")}
            if (life.born.count, life.born.digest) not in states:
                yield Broken("checkpoints", "a life began with a state that the one before never had", (before.born, life.born))
            saved = [end for end in (before.ends[every - 1 :: every] if every else []) if history.is_acknowledged(end)]
            if saved and life.born.count < saved[-1].count:
                yield Broken("checkpoints", "an acknowledged checkpoint was lost", (saved[-1], life.born))


def ends(history: History) -> Iterable[Broken]:
    """Every call of a client that was not killed ends, as an actor's calls may end."""
    left = {line.caller for line in history.lines if line.what == "left"}
    for call in history.calls.values():
        if call.made.caller in left and not call.outcomes:
            yield Broken("ends", "a call never ended", (call.made, *call.begins, *call.ends))
        for line in call.outcomes:
            if line.what == "failed" and line.error not in ("ActorDied", "ActorUnavailable"):
                yield Broken("ends", "a call failed as it should not", (call.made, line))


RULES: tuple[Callable[[History], Iterable[Broken]], ...] = (
    order,
    answers,
    one_life,
    at_most_once,
    names,
    checkpoints,
    ends,
)


def find_broken(lines: Iterable[Line], kinds: dict[str, Kind]) -> list[Broken]:
    """Return all places where a history breaks a rule."""
    history = History(lines, kinds)
    return [broken for rule in RULES for broken in rule(history)]
