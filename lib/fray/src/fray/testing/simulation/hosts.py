"""An actor in its executor, in a simulation: constructs or restores it, carries out its calls one after another, saves it.

It speaks with the real desk in the frames of the real executors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fray.job.rpc.controller.core.model import ErrorKind, Outcome, OutcomeKind
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker import frames
from fray.serialization import capture_failure, encode_failure
from fray.testing.simulation.world import World
from fray.types import TaskId

FAILURE = encode_failure(capture_failure(ValueError("the call raised")))
"""What a call that raises is answered with."""


class Process(Protocol):
    """What an actor needs of its executor."""

    world: World

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, unless the process has ended."""

    def die(self, why: str) -> None:
        """End the process."""

    def tell_created(self) -> None:
        """Tell the worker that the constructor has returned."""

    def tell_answers(self, task: TaskId, answers: list[Any]) -> None:
        """Send answers to the worker."""

    def tell_done(self, outcome: Outcome) -> None:
        """Tell the worker how the actor ended."""


class Host:
    """One incarnation of one actor."""

    def __init__(self, process: Process, item: wc.Item) -> None:
        self._process, self._task, self._incarnation = process, item.task, item.attempt
        self._world = process.world
        self._ledger = self._world.ledger
        record = self._ledger.find(item.task)
        self._script = record.script
        record.constructions += 1
        self._construction = record.constructions
        self._queue: deque[tuple[str, int, str]] = deque()
        self._dropped: set[tuple[str, int]] = set()
        self._answers: list[tuple[str, int, str, bytes, str]] = []
        self._alive = self._running = self._retiring = False
        self._unsaved = 0
        self._saves = False
        process.later(self._script.construct_s, self._construct)

    def receive(self, frame: frames.Frame) -> None:
        """Take a frame from the worker."""
        if frame[0] == frames.CALL:
            self._queue.extend((caller, seq, payload.decode()) for caller, seq, _, payload, _ in frame[1])
        elif frame[0] == frames.FORGET:
            self._dropped.update((frame[1], seq) for seq in frame[2])
        elif frame[0] == frames.RETIRE:
            self._retiring = True
        self._go_on()

    # --- the state

    def _construct(self) -> None:
        script = self._script
        if self._construction <= script.crashes + script.failures:
            self._ledger.excuse(self._task)
        if self._construction <= script.crashes:
            self._process.die("its constructor crashed")
            return
        if self._construction <= script.crashes + script.failures:
            self._process.tell_done(Outcome(self._task, 0, OutcomeKind.FAILED, b"", "its constructor raised"))
            return
        restored = self._ledger.construct(self._task, self._incarnation)
        if restored or (script.checkpoint_every and self._incarnation > 1):
            self._save()  # what an earlier life that is not quite dead still writes must come before
        self._alive = True
        self._process.tell_created()
        self._go_on()

    def _save(self) -> None:
        self._ledger.save(self._task, self._incarnation)
        self._unsaved, self._saves = 0, True

    def _retire(self) -> None:
        self._alive = False
        kind, message = OutcomeKind.CRASHED, "its worker was drained"
        if self._saves or self._script.checkpoint_every:
            if self._unsaved:
                self._save()
            if self._saves:
                self._ledger.retire(self._task, self._incarnation)
            kind, message = OutcomeKind.RETURNED, "moves with its state"
        self._answers += [(caller, seq, ErrorKind.LOST.value, b"", "not begun") for caller, seq, _ in self._queue]
        self._flush()
        self._process.tell_done(Outcome(self._task, 0, kind, b"", message, True))

    # --- calls

    def _go_on(self) -> None:
        """Begin the next call, or retire, if nothing runs."""
        if self._running or not self._alive:
            return
        if self._retiring:
            self._retire()
        elif self._queue:
            caller, seq, name = self._queue.popleft()
            if (caller, seq) in self._dropped:
                self._answer(caller, seq, ErrorKind.CANCELLED.value, b"", "cancelled before it began")
                self._process.later(0.0, self._go_on)
                return
            self._running = True
            times = self._ledger.begin(self._task, self._incarnation, name)
            call = self._ledger.find_call(name)
            self._process.later(call.script.duration_s, lambda: self._end(caller, seq, name, times))

    def _end(self, caller: str, seq: int, name: str, times: int) -> None:
        self._running = False
        script = self._ledger.find_call(name).script
        length = self._ledger.carry_out(self._task, self._incarnation, name)
        self._unsaved += 1
        if self._script.checkpoint_every and self._unsaved >= self._script.checkpoint_every:
            self._save()
        if script.crashes and times == 1:
            self._ledger.excuse(self._task)
            self._process.die("a call crashed")
            return
        if script.raises:
            self._answer(caller, seq, ErrorKind.USER.value, FAILURE, "ValueError: the call raised")
        else:
            self._answer(caller, seq, "", f"{name}/{self._incarnation}/{length}".encode(), "")
        self._go_on()

    def _answer(self, caller: str, seq: int, kind: str, payload: bytes, message: str) -> None:
        """Keep an answer; send those that wait unless others follow soon."""
        self._answers.append((caller, seq, kind, payload, message))
        if not self._queue or self._world.rng.random() < 0.3:
            self._flush()
        else:
            self._process.later(0.002, self._flush)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            self._process.tell_answers(self._task, answers)
