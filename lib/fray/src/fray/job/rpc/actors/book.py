"""The calls of one process to one actor: in which order they go, and what becomes of them when the actor dies.

Pure: no lock, no clock, no network. Calls wait until they are ready and the actor is alive, are numbered for the incarnation
they are sent to, and stay in the book until they are answered. When a connection broke, the same calls are sent again under the
same numbers to the same incarnation, which knows them. When the incarnation is over, a call that was sent may have been carried
out: it is made again only if it may be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Call:
    """One call."""

    future: Any
    """Whom the answer is for; opaque here."""
    method: str
    payload: bytes = b""
    """The arguments; there once the call is ready."""
    chain: tuple[str, ...] = ()
    """The actor calls that wait for it."""
    retries_left: int = 0
    """How often it may be made again when the actor died under it; -1 for ever."""
    ready: bool = True
    """Whether its arguments are there."""
    waits_since: float = 0.0
    """When it began to wait for the actor to be alive."""
    handle: int = 0
    """Names the handle it was made with: a call that is not ready holds back those after it of the same handle."""
    was_begun: bool = False
    """Whether an incarnation that has died may have carried it out."""
    is_over: bool = False
    """Whether it has left the book."""
    is_doubtful: bool = False
    """Whether it was sent more than once to this incarnation, or on a way that may deliver twice."""
    order: int = 0
    """Its place among all calls that were ever sent, from 1."""


@dataclass(slots=True)
class CallBook:
    """The state; every method returns what is to be done with calls that leave it."""

    incarnation: int = 0
    """The latest that is known; 0 for none."""
    is_alive: bool = False
    """Whether that one takes calls."""
    waiting: deque[Call] = field(default_factory=deque)
    """Calls that were not sent to this incarnation, in order."""
    sent: dict[int, Call] = field(default_factory=dict)
    """Calls that were, and are not answered, by number."""
    next_seq: int = 1
    """The number of the next call to this incarnation."""
    acked_seq: int = 0
    """The latest acknowledgement that was sent."""
    count: int = 0
    """Calls that were ever sent."""
    is_retiring: bool = False
    """Whether this incarnation has said that it begins no more calls."""

    def take_batch(self, limit: int, max_bytes: int) -> list[tuple[int, Call]]:
        """Return the next calls to send, numbered: those that are ready and not held back."""
        batch: list[tuple[int, Call]] = []
        held: list[Call] = []
        size = 0
        while self.is_alive and not self.is_retiring and self.waiting and len(batch) < limit and size < max_bytes:
            call = self.waiting.popleft()
            if not call.ready or any(earlier.handle == call.handle for earlier in held):
                held.append(call)
                continue
            if not call.order:
                self.count += 1
                call.order = self.count
            self.sent[self.next_seq] = call
            batch.append((self.next_seq, call))
            self.next_seq += 1
            size += len(call.payload)
        self.waiting.extendleft(reversed(held))
        return batch

    def find_acked_seq(self) -> int:
        """Return up to which number all calls are answered."""
        return next(iter(self.sent)) - 1 if self.sent else self.next_seq - 1

    def answered(self, incarnation: int, seq: int) -> Call | None:
        """Take an answer; return whose it is, or None if nobody waits for it: the incarnation is over, or it came twice."""
        return self.sent.pop(seq, None) if incarnation == self.incarnation else None

    def not_begun(self, incarnation: int, seqs: Iterable[int], now: float) -> None:
        """Take back calls that the incarnation has refused to begin: they wait for the next one."""
        if incarnation != self.incarnation:
            return
        self._stop_waiting_for_others(now)
        self.is_retiring = True
        back = [call for call in (self.sent.pop(seq, None) for seq in seqs) if call is not None]
        for call in back:
            call.is_doubtful = False
        self._put_back(back, now)

    def find_certain(self, seqs: Iterable[int]) -> list[int]:
        """Return those calls of which a worker that says that it did not take them must be right: they came there once."""
        return [seq for seq in seqs if seq in self.sent and not self.sent[seq].is_doubtful]

    def began(self, incarnation: int, now: float) -> list[Call]:
        """Note that an incarnation takes calls; return those that died with the one before it."""
        lost = self.ended(incarnation - 1, now) if incarnation > self.incarnation else []
        if incarnation > self.incarnation:
            self.incarnation, self.next_seq, self.acked_seq, self.is_retiring = incarnation, 1, 0, False
        if incarnation == self.incarnation:
            self.is_alive = True
        return lost

    def ended(self, incarnation: int, now: float) -> list[Call]:
        """Note that an incarnation, and all before it, are over; return the calls that died with it."""
        if incarnation < self.incarnation:
            return []
        self._stop_waiting_for_others(now)
        self.is_alive = False
        lost, again = [], []
        for call in self.sent.values():
            if call.retries_left == 0:
                lost.append(call)
                continue
            call.retries_left -= call.retries_left > 0
            call.was_begun, call.is_doubtful = True, False
            again.append(call)
        self.sent.clear()
        self._put_back(again, now)
        return lost

    def _stop_waiting_for_others(self, now: float) -> None:
        """Calls that waited for their arguments, or behind others, wait for the actor from now on."""
        if self.is_alive and not self.is_retiring:
            for call in self.waiting:
                call.waits_since = now

    def _put_back(self, calls: list[Call], now: float) -> None:
        """Let calls wait again, each in its place: before those that were never sent."""
        for call in calls:
            call.waits_since = now
        while self.waiting and self.waiting[0].order:
            calls.append(self.waiting.popleft())
        self.waiting.extendleft(sorted(calls, key=lambda call: -call.order))

    def drop(self, future: Any) -> Call | int | None:
        """Forget and return a call that waits; return the number of one that was sent: it stays until it is answered."""
        for call in self.waiting:
            if call.future is future:
                self.waiting.remove(call)
                call.is_over = True
                return call
        for seq, call in self.sent.items():
            if call.future is future:
                call.retries_left = 0
                return seq
        return None

    def expire(self, now: float, timeout_s: float) -> list[Call]:
        """Return the calls that have waited too long for the actor to be alive; they are forgotten."""
        if self.is_alive and not self.is_retiring:
            return []
        expired = [call for call in self.waiting if call.waits_since + timeout_s <= now]
        for call in expired:
            self.waiting.remove(call)
            call.is_over = True
        return expired

    def clear(self) -> list[Call]:
        """Forget and return all calls: the actor is over for good."""
        calls = [*self.sent.values(), *self.waiting]
        for call in calls:
            call.is_over = True
        self.sent.clear()
        self.waiting.clear()
        self.is_alive = False
        return calls
