"""A worker's actors: calls come in, by whichever way, go to the actor's executor once and in order, and answers go back.

A worker that has not heard from its controller for the length of its lease takes no calls and gives no answers: the controller
may have given it up, and another worker may host the actor's next incarnation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fray.job.rpc.controller.core.model import ErrorKind
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.convert import ERROR_TO_WIRE
from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.core import Item
from fray.job.rpc.worker.mailbox import Mailbox
from fray.types import TaskId


class Route(Protocol):
    """The way back to a caller."""

    def send(self, answers: pb.ActorAnswers) -> None:
        """Send answers; if they get lost, the caller asks again."""


@dataclass(slots=True)
class _Hosted:
    task: TaskId
    attempt: int
    executor: int
    mailbox: Mailbox[pb.ActorCall, pb.ActorAnswer] = field(default_factory=Mailbox)
    routes: dict[str, tuple[int, Route]] = field(default_factory=dict)
    """By caller, the latest way that it chose, with its number."""
    retiring: bool = False
    """Whether it takes no new calls: its worker drains."""


class ActorDesk:
    """All actors of one worker. Methods belong to the event loop."""

    def __init__(self, send: Callable[[int, frames.Frame], None], has_lease: Callable[[], bool]) -> None:
        self._send, self._has_lease = send, has_lease
        self._hosted: dict[TaskId, _Hosted] = {}
        self._owes = False
        """Whether answers were kept back for want of a lease."""

    def open(self, item: Item, executor: int) -> None:
        """Take calls for an actor that is constructed."""
        self._hosted[item.task] = _Hosted(item.task, item.attempt, executor)

    def retire(self, item: Item) -> None:
        """Let an actor finish what it carries out, save its state, and end."""
        hosted = self._hosted.get(item.task)
        if hosted is not None:
            hosted.retiring = True
        if item.executor is not None:
            self._send(item.executor, (frames.RETIRE,))

    def close(self, tasks: Iterable[TaskId]) -> None:
        """Take no more calls for these."""
        for task in tasks:
            self._hosted.pop(task, None)

    def take(self, calls: pb.ActorCalls, route: Route) -> None:
        """Take calls; those that were taken before are answered again, if they are answered."""
        hosted = self._hosted.get(TaskId(calls.actor_id))
        caller = calls.caller
        if hosted is None or hosted.attempt != calls.incarnation or not self._has_lease():
            is_over = hosted is None or hosted.attempt != calls.incarnation
            route.send(
                pb.ActorAnswers(
                    actor_id=calls.actor_id,
                    incarnation=calls.incarnation,
                    caller=caller,
                    gone=True,
                    refused=[call.seq for call in calls.calls] if is_over else [],
                )
            )
            return
        if calls.way >= hosted.routes.get(caller, (0, route))[0]:  # else these are late, of a way that is broken
            hosted.routes[caller] = (calls.way, route)
        fresh, again = hosted.mailbox.take(caller, calls.acked_seq, calls.calls)
        if hosted.retiring:
            refusals = [_refusal(call) for call in fresh if not _is_awaited(hosted.task, call)]
            again += [refusal for refusal in refusals if hosted.mailbox.answer(caller, refusal)]
            fresh = [call for call in fresh if _is_awaited(hosted.task, call)]
        if fresh:
            items = [(caller, call.seq, call.method, call.payload, list(call.chain)) for call in fresh]
            self._send(hosted.executor, (frames.CALL, items))
        if again:
            self._answer(hosted, caller, again)
        if calls.cancel:
            unanswered = hosted.mailbox.find_open(caller, calls.cancel)
            self._send(hosted.executor, (frames.FORGET, caller, unanswered))

    def answered(self, task: TaskId, answers: list[tuple[str, int, str, bytes, str]], executor: int | None = None) -> None:
        """Take what an executor says of calls; the one of an earlier life, which is about to end, may still speak."""
        hosted = self._hosted.get(task)
        if hosted is None or executor not in (None, hosted.executor):
            return
        by_caller: dict[str, list[pb.ActorAnswer]] = {}
        for caller, seq, kind, payload, message in answers:
            error = ERROR_TO_WIRE[ErrorKind(kind)] if kind else pb.ErrorKind.UNSPECIFIED
            answer = pb.ActorAnswer(seq=seq, error_kind=error, payload=payload, message=message)
            if hosted.mailbox.answer(caller, answer):
                by_caller.setdefault(caller, []).append(answer)
        if not self._has_lease():
            self._owes = True
            return
        for caller, found in by_caller.items():
            self._answer(hosted, caller, found)

    def renew(self) -> None:
        """Give the answers that were kept back, if the lease is valid again: the news of it may have come too late."""
        if not self._owes or not self._has_lease():
            return
        self._owes = False
        for hosted in self._hosted.values():
            for caller, answers in hosted.mailbox.unacknowledged():
                self._answer(hosted, caller, answers)

    def forget(self, callers: Iterable[str]) -> None:
        """Forget callers that are gone for good."""
        for caller in callers:
            for hosted in self._hosted.values():
                hosted.mailbox.forget(caller)
                hosted.routes.pop(caller, None)

    def _answer(self, hosted: _Hosted, caller: str, answers: list[pb.ActorAnswer]) -> None:
        if caller in hosted.routes:
            _, route = hosted.routes[caller]
            for part in _slices(answers):
                route.send(pb.ActorAnswers(actor_id=hosted.task, incarnation=hosted.attempt, caller=caller, answers=part))


def _slices(answers: list[pb.ActorAnswer]) -> Iterator[list[pb.ActorAnswer]]:
    """Yield answers as many at a time as one message should hold."""
    part: list[pb.ActorAnswer] = []
    size = 0
    for answer in answers:
        part.append(answer)
        size += len(answer.payload)
        if size >= BATCH_BYTES or len(part) >= BATCH_ITEMS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _is_awaited(task: TaskId, call: pb.ActorCall) -> bool:
    """Whether a call that the actor carries out waits for this one: it must not be refused."""
    return any(f"/{task}/" in awaiting for awaiting in call.chain)


def _refusal(call: pb.ActorCall) -> pb.ActorAnswer:
    text = "not begun: its worker drains"
    return pb.ActorAnswer(seq=call.seq, error_kind=pb.ErrorKind.LOST, message=text)
