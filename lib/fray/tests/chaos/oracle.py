"""What must hold of a run, and its figures, from the facts alone: nothing here asks Fray."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from chaos.faults import Strike
from chaos.ledger import Fact

OUTCOMES = ("seen", "failed")


@dataclass(slots=True)
class TaskStory:
    """All facts about one task."""

    key: str
    submitted: Fact | None = None
    outcomes: list[Fact] = field(default_factory=list)
    again: list[Fact] = field(default_factory=list)
    hung: list[Fact] = field(default_factory=list)
    began: list[Fact] = field(default_factory=list)
    ended: dict[str, Fact] = field(default_factory=dict)
    """By nonce."""
    used: set[str] = field(default_factory=set)
    """Executions whose result other tasks were given."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that is broken, by which task."""

    rule: str
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.key}: {self.text}"


class History:
    """Facts by task, and who has left."""

    def __init__(self, facts: Iterable[Fact], killed_clients: Iterable[str] = ()) -> None:
        self.facts = list(facts)
        self.killed = set(killed_clients)
        self.left = {fact.key for fact in self.facts if fact.what == "left"}
        self.tasks: dict[str, TaskStory] = {}
        for fact in self.facts:
            self._sort(fact)

    def judged(self) -> list[TaskStory]:
        """Return the tasks that were accepted from clients that lived."""
        return [task for task in self.tasks.values() if task.submitted and self._client(task.key) not in self.killed]

    @staticmethod
    def _client(key: str) -> str:
        return key.rpartition("/")[0]

    def _sort(self, fact: Fact) -> None:
        if fact.what not in ("submitted", "again", "hung", "began", "ended", *OUTCOMES):
            return
        task = self.tasks.setdefault(fact.key, TaskStory(fact.key))
        if fact.what == "submitted":
            task.submitted = task.submitted or fact
        elif fact.what == "ended":
            task.ended[fact.nonce] = fact
        else:
            {"again": task.again, "hung": task.hung, "began": task.began}.get(fact.what, task.outcomes).append(fact)
        for key, nonce in (fact.inputs or {}).items():
            self.tasks.setdefault(key, TaskStory(key)).used.add(nonce)


def lost(history: History) -> Iterable[Broken]:
    """Every accepted task of a client that lived has a result."""
    for task in history.judged():
        if task.hung or not task.outcomes:
            yield Broken("lost", task.key, "it never ended" if task.hung else "nothing ever came")
        for fact in task.outcomes:
            if fact.what == "failed":
                yield Broken("lost", task.key, f"{fact.value}: {fact.text}")


def wrong(history: History) -> Iterable[Broken]:
    """Results are the right ones, each comes once, and stays."""
    for task in history.judged():
        assert task.submitted is not None
        for fact in task.outcomes:
            if fact.what == "seen" and fact.value != task.submitted.value:
                yield Broken("wrong", task.key, f"{fact.value!r} came, not {task.submitted.value!r}")
        if len(task.outcomes) > 1 and "shuffle" not in task.key:
            yield Broken("wrong", task.key, f"{len(task.outcomes)} results came")
        if len({(fact.value, fact.nonce) for fact in [*task.outcomes[:1], *task.again]}) > 1:
            yield Broken("wrong", task.key, "the result changed")


def committed_twice(history: History) -> Iterable[Broken]:
    """Whoever was given a task's result was given that of one and the same execution, which ended."""
    for task in history.tasks.values():
        nonces = task.used | {fact.nonce for fact in task.outcomes if fact.nonce not in ("", "raised", "outputs")}
        if len(nonces) > 1:
            yield Broken("committed twice", task.key, f"results of {len(nonces)} executions were given out: {sorted(nonces)}")
        for nonce in nonces - set(task.ended):
            yield Broken("committed twice", task.key, f"a result came from an execution that never ended: {nonce}")


def departures(history: History, clients: Iterable[str] = ()) -> Iterable[Broken]:
    """Every client that was not killed has come to its end."""
    for client in clients:
        if client not in history.left and client not in history.killed:
            yield Broken("departures", client, "it did not come to its end")


def published_twice(history: History) -> Iterable[Broken]:
    """An output file appears once and stays as it is."""
    for path, count in Counter(fact.key for fact in history.facts if fact.what == "published").items():
        if count > 1:
            yield Broken("published twice", path, f"{count} times")


RULES: tuple[Callable[[History], Iterable[Broken]], ...] = (lost, wrong, committed_twice, published_twice)


def find_broken(history: History, clients: Iterable[str] = ()) -> list[Broken]:
    """Return all places where a history breaks a rule."""
    return [broken for rule in RULES for broken in rule(history)] + list(departures(history, clients))


# --- figures


def compute_figures(history: History, broken: Iterable[Broken]) -> dict[str, float]:
    """Return the counts of a run."""
    rules = Counter(each.rule for each in broken)
    executed = sum(len(task.began) for task in history.tasks.values())
    keys = sum(1 for task in history.tasks.values() if task.began)
    return {
        "tasks accepted": sum(1 for task in history.tasks.values() if task.submitted),
        "tasks accepted from clients that lived": len(history.judged()),
        "executions": executed,
        "duplicate executions": executed - keys,
        "duplicate executions, share": round((executed - keys) / executed, 4) if executed else 0.0,
        "lost": rules["lost"],
        "wrong or changed results": rules["wrong"],
        "duplicate commits": rules["committed twice"] + rules["published twice"],
        "hung futures": sum(1 for fact in history.facts if fact.what == "hung"),
    }


def compute_reassignments(history: History, strikes: Iterable[Strike]) -> dict[str, list[float]]:
    """Return, by fault, the seconds from the fault to the beginning elsewhere of each task that it interrupted."""
    runs: dict[int, list[tuple[TaskStory, Fact]]] = defaultdict(list)
    for task in history.tasks.values():
        for fact in task.began:
            runs[fact.pid].append((task, fact))
    found: dict[str, list[float]] = defaultdict(list)
    for strike in strikes:
        for pid in strike.pids:
            for task, began in runs.get(pid, []):
                seconds = _find_delay(task, began, strike.at)
                if seconds is not None:
                    found[f"{strike.kind} {strike.target}"].append(seconds)
    return dict(found)


def _find_delay(task: TaskStory, began: Fact, struck_at: float) -> float | None:
    ended = task.ended.get(began.nonce)
    if began.at > struck_at or (ended is not None and ended.at < struck_at):
        return None
    later = [fact.at for fact in task.began if fact.at > struck_at and fact.pid != began.pid]
    return min(later) - struck_at if later else None


def compute_outages(history: History, strikes: Iterable[Strike]) -> list[float]:
    """Return the seconds from each kill of the controller to the next result that any client saw after its return."""
    seen = sorted(fact.at for fact in history.facts if fact.what == "seen")
    outages = []
    for strike in strikes:
        if strike.deed == ("kill", "controller"):
            later = [at for at in seen if at > strike.ended_at]
            outages += [later[0] - strike.at] if later else []
    return outages


def summarise(values: Iterable[float]) -> dict[str, float]:
    """Return the number of some seconds, the middle one, the ninth decile and the largest."""
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    ninth = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    middle = statistics.median(ordered)
    return {"n": len(ordered), "p50": round(middle, 3), "p90": round(ninth, 3), "max": round(ordered[-1], 3)}
