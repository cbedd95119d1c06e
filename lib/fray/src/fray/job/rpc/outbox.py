"""What a client sends to its controller: composed in order, kept until the controller has saved it. Not thread-safe.

Requests are numbered and go one at a time, so that they arrive in order; each is sent again until it is answered. When the
controller was restarted, those that it had not saved go again, before anything new.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS


@dataclass(slots=True)
class Entry:
    """A task that waits to be sent."""

    task_id: str
    """Chosen by the client."""
    spec: Any
    """As it travels."""
    size_bytes: int
    """Of its arguments."""
    function_id: str
    """Names its code."""
    code: bytes
    """Sent along the first time."""
    received_seq: int
    """Results that had arrived when the task was queued: those behind may be among its dependencies."""


@dataclass(slots=True, eq=False)
class Request:
    """One request; ``batch`` numbers it."""

    batch: int
    tasks: list[Any]
    functions: dict[str, bytes]
    cancels: list[str]
    calls: list[Any]
    acked_seq: int
    """Results up to here have arrived, and nothing that is sent later may depend on them."""
    safe_seq: int
    """The same, should this request have to wait too."""
    generation: int
    """Life of the controller whose numbers these are."""
    is_sent: bool = False
    """Whether it was answered."""


@dataclass(slots=True)
class Outbox:
    """Everything on its way from a client to its controller."""

    batch_items: int = BATCH_ITEMS
    """Tasks in one request, at most."""
    generation: int = 0
    """The controller's present life."""
    received_seq: int = 0
    """Results that have arrived, as this life numbers them."""
    acked_seq: int = 0
    """Results that the controller knows to have arrived."""
    batch: int = 0
    """Number of the latest request."""
    entries: deque[Entry] = field(default_factory=deque)
    cancels: list[str] = field(default_factory=list)
    calls: deque[Any] = field(default_factory=deque)
    known_functions: set[str] = field(default_factory=set)
    kept: deque[Request] = field(default_factory=deque)
    """Requests that are not saved yet, in order; those that are not sent come last."""

    def has_news(self) -> bool:
        """Whether something other than acknowledgements is to be sent."""
        return bool(self.entries or self.calls or self.cancels or self.has_unsent())

    def has_unsent(self) -> bool:
        """Whether a request must be sent, or sent again."""
        return bool(self.kept) and not self.kept[-1].is_sent

    def next(self) -> Request:
        """Return the request to send: the first that was not answered, else a new one."""
        for request in self.kept:
            if not request.is_sent:
                return request
        self.kept.append(self._compose())
        return self.kept[-1]

    def sent(self, request: Request, generation: int, saved: bool) -> None:
        """Note that a request was answered by a life of the controller, and whether all up to it is saved."""
        if generation != self.generation:
            return  # that life is over: the request is sent again
        request.is_sent = True
        self.acked_seq = max(self.acked_seq, request.acked_seq)
        if saved:
            self.forget(request.batch)

    def forget(self, batch: int) -> None:
        """Drop requests that the controller has saved."""
        while self.kept and self.kept[0].batch <= batch and self.kept[0].is_sent:
            self.kept.popleft()

    def begin_generation(self, generation: int) -> bool:
        """Begin anew with a later life of the controller; return whether it is one."""
        if generation <= self.generation:
            return False
        self.generation = generation
        self.received_seq = self.acked_seq = 0
        for entry in self.entries:
            entry.received_seq = 0
        for request in self.kept:
            request.is_sent, request.generation = False, generation
            request.acked_seq = request.safe_seq = 0
        return True

    def make_room(self, refused: Request) -> Request:
        """Return a request for a controller that has no room for another one: what need not wait, and may make some.

        What other requests hold goes with them once more, which changes nothing.
        """
        waiting = [request for request in self.kept if not request.is_sent]
        calls = [call for request in waiting if request is not refused for call in request.calls] + list(self.calls)
        self.calls.clear()
        cancels = [task for request in waiting for task in request.cancels] + self.cancels
        return Request(0, [], {}, cancels, calls, refused.safe_seq, refused.safe_seq, self.generation)

    def put_back(self, request: Request) -> None:
        """Take back what was to make room and was not answered."""
        self.calls.extendleft(reversed(request.calls))

    def _compose(self) -> Request:
        tasks: list[Any] = []
        functions: dict[str, bytes] = {}
        size = 0
        first_seq = self.entries[0].received_seq if self.entries else self.received_seq
        while self.entries and len(tasks) < self.batch_items and size < BATCH_BYTES:
            entry = self.entries.popleft()
            tasks.append(entry.spec)
            size += entry.size_bytes
            if entry.function_id not in self.known_functions:
                functions[entry.function_id] = entry.code
                size += len(entry.code)
        self.known_functions.update(functions)
        calls = []
        while self.calls and size < BATCH_BYTES:
            calls.append(self.calls.popleft())
            size += sum(len(call.payload) for call in calls[-1].calls)
        later = {entry.task_id for entry in self.entries} if self.cancels else set()
        cancels = [task for task in self.cancels if task not in later]  # a task must arrive before its cancellation
        self.cancels = [task for task in self.cancels if task in later]
        self.batch += 1
        acked_seq = self.entries[0].received_seq if self.entries else self.received_seq
        return Request(self.batch, tasks, functions, cancels, calls, acked_seq, first_seq, self.generation)
