"""What is told about a seed: the report of one that held, and events and effects in one line each for one that did not.

Only values and words; nothing here takes part in what happens.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fray.job.rpc.controller.core.model import Outcome, Task, TaskSpec
from fray.types import TaskId


class Violation(AssertionError):
    """Something that must hold does not."""

    def __init__(self, text: str, task: TaskId | None = None) -> None:
        super().__init__(text)
        self.task = task
        """Whose story tells more, if it is about one task."""


@dataclass(slots=True)
class SimulationReport:
    """What happened under one seed."""

    seed: int
    """Which."""
    events: int = 0
    """Events the controller took."""
    tasks: int = 0
    """Tasks that clients submitted."""
    calls: int = 0
    """Calls of actors that clients made."""
    virtual_s: float = 0.0
    """Virtual time until everything was at rest."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """What clients saw, by kind."""
    lives: Counter[str] = field(default_factory=Counter)
    """Incarnations of actors: that took calls, that were restored, that retired with their state saved."""
    call_outcomes: Counter[str] = field(default_factory=Counter)
    """How calls of actors ended, by kind."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults injected, by kind."""
    stats: Counter[str] = field(default_factory=Counter)
    """The controller's own counts."""


def describe_event(value: Any) -> str:
    """Return an event or effect in one line, without what is empty."""
    fields = []
    for name in value.__slots__:
        content = getattr(value, name)
        if name == "now" or content in ((), [], "", False, None, {}):
            continue
        if name in ("tasks", "outcomes"):
            content = [_describe_item(item) for item in content]
        elif name in ("spec", "actor"):
            content = _describe_item(content)
        fields.append(f"{name}={content}")
    return f"{type(value).__name__}({', '.join(fields)})"


def _describe_item(item: Any) -> str:
    if isinstance(item, Outcome):
        return f"{item.task}/{item.attempt} {item.kind.value}"
    if isinstance(item, Task):
        return f"{item.spec.id}/{item.attempt}"
    return str(item.id) if isinstance(item, TaskSpec) else str(item)
