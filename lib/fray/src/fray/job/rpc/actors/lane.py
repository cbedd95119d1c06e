"""One process's way to one actor: sends its calls, settles their futures, follows the actor from life to life.

Calls go straight to the actor's worker where that can be reached, else through the controller, with the same messages. Either
way the worker knows a call that it is sent twice, so whenever an answer may have been lost, what is not answered is sent again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from fray import errors
from fray.job.futures import JobFuture, lent_slot
from fray.job.rpc.actors.book import Call, CallBook
from fray.job.rpc.futures import ActorFuture, to_exception
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS
from fray.serialization import decode_failure

if TYPE_CHECKING:
    from fray.job.rpc.actors.hub import ActorHub

log = logging.getLogger("fray.client")

MAX_OUTSTANDING_BYTES = 64 * 1024 * 1024
"""Arguments of calls that are not answered; beyond, a caller waits in ``remote()``."""
INLINE_CALLS = 8
"""With so many calls under way, the next ones are sent together by the hub's sender; before, each goes at once."""
RELOCATE_S, MAX_RELOCATE_S = 0.05, 0.4
"""Before asking again where an actor is, when it is not where the controller says; longer from one time to the next."""


class Route(Protocol):
    """A way to a worker."""

    @property
    def is_broken(self) -> bool:
        """Whether it leads nowhere any more."""

    @property
    def delivers_once(self) -> bool:
        """Whether what is sent once arrives once at most."""

    def send(self, calls: pb.ActorCalls) -> None:
        """Send calls; does not block. What gets lost is noticed in time, and sent again."""


class ActorLane:
    """All calls of this process to one actor. Thread-safe."""

    def __init__(self, hub: ActorHub, actor_id: str, label: str) -> None:
        self._hub, self.actor_id, self.label = hub, actor_id, label
        self.created: JobFuture[Any] = JobFuture(f"{label}.__init__")
        """Done when the actor has been constructed, or has ended without."""
        self.ended: JobFuture[Any] = JobFuture(f"the end of {label}")
        """Done when the actor has ended for good."""
        self._changed = threading.Condition()  # guards all fields below
        self._book = CallBook()
        self._info = pb.ActorInfo(actor_id=actor_id)
        self._route: Route | None = None
        self._is_sending = False
        self._sender_told = False
        """Whether the hub's sender is about to call ``pump``."""
        self._cancels: list[int] = []
        self._way = 0
        self._is_locating = False
        """Whether the controller is about to be asked: a worker that takes no calls says so once for each message."""
        self._relocate_s = RELOCATE_S
        self._bytes = 0
        self._death: errors.FrayError | None = None
        self._timer: threading.Timer | None = None

    # --- callers

    def submit(self, call: Call) -> None:
        """Take a call, after those before it. Blocks only while too much is under way."""
        if self._is_full():
            with lent_slot(), self._changed:
                self._changed.wait_for(lambda: not self._is_full())
        with self._changed:
            death = self._death
            if death is None:
                call.waits_since = time.monotonic()
                self._bytes += len(call.payload)
                self._book.waiting.append(call)
                if not self._book.is_alive or self._book.is_retiring:
                    self._watch_time()
            gathers = self._is_sending or len(self._book.sent) >= INLINE_CALLS
            told, self._sender_told = self._sender_told, self._sender_told or gathers
        if death is not None:
            call.future.reject(self._died(call, str(death)))
        elif not gathers:
            self.pump()
        elif not told:
            self._hub.pump_soon(self)

    def _is_full(self) -> bool:
        return self._bytes > MAX_OUTSTANDING_BYTES and self._death is None and self._hub.may_block()

    def make_ready(self, call: Call, payload: bytes) -> None:
        """Give a call its arguments: what it depended on is there."""
        with self._changed:
            if call.is_over:
                return
            call.payload, call.ready = payload, True
            self._bytes += len(payload)
        self.pump()

    def cancel(self, future: Any) -> None:
        """Forget a call: it is not carried out, unless it has begun."""
        with self._changed:
            dropped = self._book.drop(future)
            if isinstance(dropped, Call):
                self._bytes -= len(dropped.payload)
                self._changed.notify_all()
            elif dropped is not None:
                self._cancels.append(dropped)
        self.pump()

    def pump(self) -> None:
        """Send what can be sent; one thread at a time, which also sends what others bring meanwhile."""
        with self._changed:
            self._sender_told = False
            if self._is_sending:
                return
            self._is_sending = True
        try:
            while True:
                with self._changed:
                    route = self._route
                    batch = self._book.take_batch(BATCH_ITEMS, BATCH_BYTES) if route is not None else []
                    if route is None or not (batch or self._cancels):
                        self._is_sending = False
                        return
                    for _, call in batch:
                        call.is_doubtful = not route.delivers_once
                    message = self._compose(batch)
                route.send(message)
        except BaseException:  # an interrupt, maybe: what is lost here is sent again, as the worker waits for its numbers
            self._is_sending = False
            self._hub.locate_later(self, 0.0)
            raise

    def acknowledge(self) -> bool:
        """Tell the worker which answers have come, if nothing else did; whether there was something to tell."""
        with self._changed:
            route = self._route
            due = route is not None and self._book.is_alive and self._book.find_acked_seq() > self._book.acked_seq
            message = self._compose([]) if due else None
        if route is not None and message is not None:
            route.send(message)
        return due

    # --- the worker

    def take_answers(self, message: pb.ActorAnswers) -> None:
        """Settle calls. Answers of an incarnation that is over settle nothing."""
        ended: list[tuple[Call, pb.ActorAnswer]] = []
        with self._changed:
            refused = self._find_refused(message)
            if refused:
                self._book.not_begun(message.incarnation, refused, time.monotonic())
                self._watch_time()
            for answer in message.answers:
                call = self._book.answered(message.incarnation, answer.seq)
                if call is not None:
                    self._bytes -= len(call.payload)
                    ended.append((call, answer))
            if ended:
                self._relocate_s = RELOCATE_S
            delay_s = self._plan_locating(message)
            self._changed.notify_all()
        for call, answer in ended:
            _settle(call, answer)
        if delay_s is not None:
            self._hub.locate_later(self, delay_s)

    def take_info(self, info: pb.ActorInfo) -> None:
        """Follow the actor: to its worker, to its next life, to its end."""
        lost: list[Call] = []
        settled = ""
        with self._changed:
            self._is_locating = False
            if info.version < self._info.version or self._death is not None:
                return
            if info.incarnation != self._book.incarnation:
                self._cancels.clear()  # numbers of a life that is over
            self._info = info
            now = time.monotonic()
            if info.state == pb.ActorState.ALIVE:
                lost = self._book.began(info.incarnation, now)
                settled = "created"
            elif info.state == pb.ActorState.DEAD:
                self._death = errors.ActorDied(info.reason)
                lost = self._book.clear()
                settled = "ended"
            elif self._book.incarnation:
                lost = self._book.ended(info.incarnation, now)
            if info.state != pb.ActorState.ALIVE:
                self._route = None
            self._bytes -= sum(len(call.payload) for call in lost)
            self._watch_time()
            self._changed.notify_all()
        for call in lost:
            call.future.reject(self._died(call, info.reason) if self._death else self._interrupted(call, info.reason))
        if settled == "created":
            self.created.resolve(None)
            self._hub.connect(self, info)
        elif settled == "ended":
            self.created.reject(_creation_error(info, self.label))
            self.ended.resolve(None)
            self._hub.forget(self)

    def take_route(self, route: Route, incarnation: int) -> None:
        """Use a way to the worker; what is not answered goes again, as it may have been lost on another way."""
        with self._changed:
            if incarnation != self._book.incarnation or not self._book.is_alive:
                return
            self._route = route
            self._way += 1
            for call in self._book.sent.values():
                call.is_doubtful = True
            self._cancels.clear()
            messages = [self._compose(batch) for batch in _split(self._book.sent.items())]
            if messages:  # at last: a worker cancels only what it has taken
                messages[-1].cancel = self._find_cancelled()
        for message in messages:
            route.send(message)
        self.pump()
        if route.is_broken:  # it may have broken before anybody knew that this lane uses it
            self.lose_route(route)

    def lose_route(self, route: Route) -> None:
        """Take the end of a connection: the controller knows where the actor is, or what became of it."""
        with self._changed:
            if self._route is not route:
                return
            self._route = None
        self._hub.locate_later(self, 0.0)

    def fail(self, error: errors.FrayError) -> None:
        """Give up: no future may hang."""
        with self._changed:
            if self._death is None:
                self._death = error
            calls = self._book.clear()
            self._route = None
            if self._timer is not None:
                self._timer.cancel()
            self._changed.notify_all()
        for call in calls:
            call.future.reject(self._died(call, str(error)))
        self.created.reject(error)
        self.ended.resolve(None)

    # --- steps

    def _compose(self, batch: list[tuple[int, Call]]) -> pb.ActorCalls:
        """Return a message, with the lock held."""
        cancels, self._cancels = self._cancels, []
        self._book.acked_seq = self._book.find_acked_seq()
        return pb.ActorCalls(
            actor_id=self.actor_id,
            incarnation=self._book.incarnation,
            caller=self._hub.session_id,
            acked_seq=self._book.acked_seq,
            calls=[
                pb.ActorCall(seq=seq, method=call.method, payload=call.payload, chain=list(call.chain)) for seq, call in batch
            ],
            cancel=cancels,
            way=self._way,
        )

    def _find_refused(self, message: pb.ActorAnswers) -> list[int]:
        """Return the calls that surely were not begun, for the next life; not those that nobody wants any more."""
        refused = [answer.seq for answer in message.answers if answer.error_kind == pb.ErrorKind.LOST]
        if message.incarnation == self._book.incarnation:
            refused += self._book.find_certain(message.refused)
        cancelled = set(self._find_cancelled()) if refused else set()
        return [seq for seq in refused if seq not in cancelled]

    def _find_cancelled(self) -> list[int]:
        return [seq for seq, call in self._book.sent.items() if call.future.cancelled()]

    def _plan_locating(self, message: pb.ActorAnswers) -> float | None:
        """Return after how long to ask where the actor is; None if its worker takes calls, or that is under way."""
        is_stale = message.gone and message.incarnation == self._book.incarnation and self._book.is_alive
        if not is_stale or self._is_locating:
            return None
        self._is_locating = True
        delay_s, self._relocate_s = self._relocate_s, min(MAX_RELOCATE_S, 2 * self._relocate_s)
        return delay_s

    def _died(self, call: Call, why: str) -> errors.FrayError:
        return errors.ActorDied(f"{call.future.name}: the actor {self.label} ({self.actor_id}) is gone: {why}")

    def _interrupted(self, call: Call, why: str) -> errors.FrayError:
        text = f"{call.future.name}: the actor {self.label} ({self.actor_id}) died while the call was under way: {why}"
        return errors.ActorDied(f"{text}. The call may or may not have been carried out")

    def _watch_time(self) -> None:
        """Keep a timer while calls wait for the actor to be alive. The lock is held."""
        settings = self._info.settings
        timeout_s = settings.pending_timeout_s if settings is not None else 0.0
        waits = bool(self._book.waiting) and not (self._book.is_alive and not self._book.is_retiring)
        if not waits or not timeout_s:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is None:
            first = min(call.waits_since for call in self._book.waiting)
            self._timer = threading.Timer(max(0.0, first + timeout_s - time.monotonic()), self._expire, [timeout_s])
            self._timer.name, self._timer.daemon = "fray-actor-wait", True
            self._timer.start()

    def _expire(self, timeout_s: float) -> None:
        self._hub.refresh(self)
        with self._changed:
            if self._timer is threading.current_thread():  # else another wait has begun meanwhile
                self._timer = None
            expired = self._book.expire(time.monotonic(), timeout_s)
            self._bytes -= sum(len(call.payload) for call in expired)
            reason = self._info.reason or "it is not known where it is"
            self._watch_time()
            self._changed.notify_all()
        for call in expired:
            text = f"{call.future.name} was not carried out: the actor did not run within {timeout_s:g} s ({reason})"
            call.future.reject(self._interrupted(call, reason) if call.was_begun else errors.ActorUnavailable(text))


def _split(calls: Iterable[tuple[int, Call]]) -> Iterator[list[tuple[int, Call]]]:
    """Yield calls as many at a time as one message should hold."""
    batch: list[tuple[int, Call]] = []
    size = 0
    for seq, call in calls:
        batch.append((seq, call))
        size += len(call.payload)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _settle(call: Call, answer: pb.ActorAnswer) -> None:
    try:
        _tell(call.future, answer)
    except BaseException as error:  # a callback's exit, an exception that cannot be handled: others wait for this thread
        log.exception("the answer of %s was not taken as it should be", call.future.name)
        call.future.reject(error)


def _tell(future: ActorFuture, answer: pb.ActorAnswer) -> None:
    kind = answer.error_kind
    future.settled = True
    if kind == pb.ErrorKind.UNSPECIFIED:
        future.payload = answer.payload
        future.resolve(None)
    elif kind == pb.ErrorKind.USER:
        future.reject(_read_failure(answer.payload, future.name))
    else:
        future.reject(errors.TaskCancelled(f"{future.name}: {answer.message}"))


def _read_failure(payload: bytes, name: str) -> BaseException:
    try:
        error = decode_failure(payload)
    except errors.DecodeError as damaged:
        return damaged
    error.add_note(f"raised in the actor call {name}")
    return error


def _creation_error(info: pb.ActorInfo, label: str) -> BaseException:
    """Return why an actor that has ended was never there."""
    kind = info.error_kind
    if kind in (pb.ErrorKind.USER, pb.ErrorKind.TIMEOUT):
        failed = pb.TaskResult(
            task_id=info.actor_id, result_data=info.failure, error=info.reason, error_kind=kind, status=pb.TaskStatus.FAILED
        )
        return to_exception(failed, f"{label}.__init__")
    return errors.ActorDied(f"the actor {label} ({info.actor_id}) ended before it was constructed: {info.reason}")
