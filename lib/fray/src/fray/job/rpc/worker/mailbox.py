"""The calls of one incarnation of an actor, as its worker sees them: each is taken once, in its caller's order.

Pure: no network, no clock. A caller numbers its calls 1, 2, 3... for each incarnation, sends again what is not answered when
a connection broke, and says up to where it has the answers: so a repeated call is known, and its answer is still here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

MAX_GONE = 1000
"""Callers that are gone whose numbers are remembered."""


class Numbered(Protocol):
    """A call or an answer."""

    @property
    def seq(self) -> int:
        """Its number among its caller's."""


C = TypeVar("C", bound=Numbered)
A = TypeVar("A", bound=Numbered)


@dataclass(slots=True)
class _Caller(Generic[C, A]):
    next_seq: int
    """The call to be taken next."""
    early: dict[int, C] = field(default_factory=dict)
    """Calls that overtook others."""
    open: set[int] = field(default_factory=set)
    """Calls that were taken and are not answered."""
    answers: dict[int, A] = field(default_factory=dict)
    """Answers that may still be asked for."""


class Mailbox(Generic[C, A]):
    """All callers of one incarnation."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller[C, A]] = {}
        self._gone: dict[str, int] = {}

    def take(self, name: str, acked_seq: int, calls: Iterable[C]) -> tuple[list[C], list[A]]:
        """Take calls; return those to carry out now, in order, and answers to send again."""
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = _Caller(max(acked_seq + 1, self._gone.pop(name, 0)))
        for seq in [seq for seq in caller.answers if seq <= acked_seq]:
            del caller.answers[seq]
        fresh: list[C] = []
        again: list[A] = []
        for call in calls:
            if call.seq >= caller.next_seq:
                caller.early[call.seq] = call
            elif call.seq in caller.answers:
                again.append(caller.answers[call.seq])
        while (call_now := caller.early.pop(caller.next_seq, None)) is not None:
            caller.next_seq += 1
            caller.open.add(call_now.seq)
            fresh.append(call_now)
        return fresh, again

    def answer(self, name: str, answer: A) -> bool:
        """Keep an answer until it is acknowledged; tell whether the call was waiting for one."""
        caller = self._callers.get(name)
        if caller is None or answer.seq not in caller.open:
            return False
        caller.open.discard(answer.seq)
        caller.answers[answer.seq] = answer
        return True

    def find_open(self, name: str, seqs: Iterable[int]) -> list[int]:
        """Return those calls that are not answered."""
        caller = self._callers.get(name)
        return [seq for seq in seqs if caller is not None and seq in caller.open]

    def unacknowledged(self) -> list[tuple[str, list[A]]]:
        """Return all answers that may still be asked for, by caller."""
        return [(name, list(caller.answers.values())) for name, caller in self._callers.items() if caller.answers]

    def forget(self, name: str) -> None:
        """Forget a caller that is gone for good, but for the number of its next call: some may still be on their way."""
        caller = self._callers.pop(name, None)
        if caller is not None:
            self._gone[name] = caller.next_seq
            if len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]
