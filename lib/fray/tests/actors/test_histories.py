"""Random histories of calls, kills, pauses, drains and restarts keep the rules; and the rules can be broken.

``FRAY_HISTORIES=N`` runs N seeds instead of a few; see also ``python histories.py --help``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from histories import run_history
from model import Kind, find_broken
from witness import Line, chain_digest

SEEDS = int(os.environ.get("FRAY_HISTORIES", "2"))
SECONDS = 5.0

KINDS = {
    "plain": Kind("shared"),
    "retrier": Kind("", -1, 2),
    "keeper": Kind("", -1, 0, 2),
}
Edit = Callable[[list[Line]], list[Line]]


@pytest.mark.integration
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_history_keeps_the_rules(seed: int, tmp_path: Path) -> None:
    verdict = run_history(seed, SECONDS, tmp_path)
    assert not verdict.problems, str(verdict)


# --- the checker


class Script:
    """Writes down a history in which everything goes well, one line every second."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._states: dict[str, tuple[str, int, str]] = {}

    def tell(self, line: Line) -> None:
        self.lines.append(replace(line, at=float(len(self.lines))))

    def be_born(self, actor: str, life: str, count: int = 0, digest: str = "") -> None:
        self._states[life] = (actor, count, digest)
        self.tell(Line("born", actor, life, count=count, digest=digest))

    def begin(self, life: str, number: int, caller: str = "c") -> None:
        actor, count, digest = self._states[life]
        self.tell(Line("begin", actor, life, caller, number, count, digest))

    def call(self, life: str, number: int, caller: str = "c", is_answered: bool = True) -> None:
        actor, count, digest = self._states[life]
        self.tell(Line("made", actor.partition(".")[0], caller=caller, number=number))
        self.begin(life, number, caller)
        digest = chain_digest(digest, caller, number)
        self._states[life] = (actor, count + 1, digest)
        self.tell(Line("end", actor, life, caller, number, count + 1, digest))
        if is_answered:
            self.tell(Line("answered", actor, life, caller, number, count + 1, digest))
        else:
            self.tell(Line("failed", caller=caller, number=number, error="ActorDied"))

    def restore(self, life: str, after: str) -> None:
        actor, count, digest = self._states[after]
        self.be_born(actor, life, count, digest)


def _good() -> list[Line]:
    script = Script()
    script.be_born("plain.a", "a1")
    script.call("a1", 1)
    script.call("a1", 2)
    script.be_born("keeper.k", "k1")
    script.call("k1", 3)
    script.call("k1", 4)
    script.restore("k2", after="k1")
    script.call("k2", 5, is_answered=False)
    script.be_born("plain.b", "b1")
    script.call("b1", 6)
    script.be_born("retrier.r", "r1")
    script.call("r1", 7)
    script.tell(Line("refused", "plain.c", caller="c"))
    script.tell(Line("left", caller="c"))
    return script.lines


def _find(lines: list[Line], what: str, number: int) -> int:
    return next(at for at, line in enumerate(lines) if (line.what, line.number) == (what, number))


def _change(what: str, number: int, **fields: object) -> Edit:
    """Return an edit of one line of a call."""

    def edit(lines: list[Line]) -> list[Line]:
        at = _find(lines, what, number)
        return [*lines[:at], replace(lines[at], **fields), *lines[at + 1 :]]  # type: ignore[arg-type]

    return edit


def _add(line: Line) -> Edit:
    return lambda lines: [*lines, line]


def _drop(what: str, number: int) -> Edit:
    return lambda lines: [line for line in lines if (line.what, line.number) != (what, number)]


def _repeat(what: str, number: int, life: str, times: int = 1) -> Edit:
    """Return an edit that begins a call again, on another life."""
    return lambda lines: [*lines, *[replace(lines[_find(lines, what, number)], life=life)] * times]


def _swap_calls(lines: list[Line]) -> list[Line]:
    """Let the plain actor carry out the second call first, with states that fit."""
    script = Script()
    script.tell(Line("made", "plain", caller="c", number=1))
    script.be_born("plain.a", "a1")
    script.call("a1", 2)
    script.begin("a1", 1)
    return script.lines


def _rebear(life: str, **fields: object) -> Edit:
    """Return an edit of a life's first line."""
    return lambda lines: [
        replace(line, **fields) if (line.what, line.life) == ("born", life) else line  # type: ignore[arg-type]
        for line in lines
    ]


@pytest.mark.unit
def test_a_history_in_which_all_goes_well_breaks_no_rule() -> None:
    assert not find_broken(_good(), KINDS)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("order", _swap_calls),
        ("order", _change("end", 2, digest="other")),
        ("order", _drop("end", 1)),
        ("answers", _change("answered", 2, count=7)),
        ("answers", _change("answered", 2, life="k1")),
        ("answers", _drop("end", 2)),
        ("answers", _add(Line("failed", caller="c", number=1, error="ActorDied"))),
        ("one life", _rebear("k2", at=13.0)),
        ("at most once", _repeat("begin", 5, "k1")),
        ("at most once", _repeat("begin", 7, "k1", times=3)),
        ("at most once", _change("failed", 5, error="ActorUnavailable")),
        ("names", _rebear("b1", at=3.0)),
        ("names", _add(Line("born", "plain.c", "c1"))),
        ("checkpoints", _rebear("k2", digest="other")),
        ("checkpoints", _rebear("k2", count=0, digest="")),
        ("ends", _drop("answered", 6)),
        ("ends", _change("failed", 5, error="TimeoutError")),
    ],
)
def test_a_doctored_history_breaks_the_rule_it_was_doctored_for(rule: str, edit: Edit) -> None:
    assert rule in {broken.rule for broken in find_broken(edit(_good()), KINDS)}


@pytest.mark.unit
def test_a_call_that_may_be_retried_may_begin_once_for_each_try() -> None:
    broken = find_broken(_repeat("begin", 7, "k1", times=2)(_good()), KINDS)
    assert "at most once" not in {each.rule for each in broken}
