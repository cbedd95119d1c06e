"""What waits to be pushed down the open streams: commands for a worker, logs and notices for a session.

A stream takes everything that has gathered while it was sending: batches form by themselves, without timers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from fray.job.rpc.controller.core.model import Task
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import BATCH_BYTES, STREAM_PULSE_S
from fray.types import TaskId

MAX_LOG_BYTES = 4 * 1024 * 1024
"""Output that waits for a slow client; older output is dropped and the loss is told."""

MESSAGE_BYTES = 500
"""What a message of output takes besides its text."""

Attempt = tuple[TaskId, int]


class Channel:
    """Wakes the one stream that reads it. A newer stream replaces an older one."""

    def __init__(self) -> None:
        self._wakeup = asyncio.Event()
        self._reader = 0
        self._closed = False

    def wake(self) -> None:
        """Let the stream look."""
        self._wakeup.set()

    def close(self) -> None:
        """End the stream for good."""
        self._closed = True
        self._wakeup.set()

    def claim(self) -> int:
        """Become the reader; the one before ends."""
        self._reader += 1
        self._wakeup.set()
        return self._reader

    def is_reader(self, reader: int) -> bool:
        """Whether a claim is the latest."""
        return self._reader == reader

    async def wakeups(self, reader: int) -> AsyncIterator[None]:
        """Yield when there may be something to send, and every ``STREAM_PULSE_S``; end when closed or replaced."""
        loop = asyncio.get_running_loop()
        pulse = loop.call_later(STREAM_PULSE_S, self._wakeup.set)
        try:
            while not self._closed and self._reader == reader:
                self._wakeup.clear()
                yield
                if not self._wakeup.is_set():
                    pulse.cancel()
                    pulse = loop.call_later(STREAM_PULSE_S, self._wakeup.set)
                    await self._wakeup.wait()
        finally:
            pulse.cancel()


class SavedNumbers:
    """Numbers that somebody gave to what it sent, and which of them are on the disk."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()
        self._saved = 0

    def add(self, number: int, mark: int) -> None:
        """Note that what was sent under a number is saved with a cut."""
        self._marks.append((mark, number))

    def latest(self, is_saved: Callable[[int], bool]) -> int:
        """Return the latest number that is saved."""
        while self._marks and is_saved(self._marks[0][0]):
            self._saved = max(self._saved, self._marks.popleft()[1])
        return self._saved


class WorkerChannel(Channel):
    """Commands for one life of a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.reports = SavedNumbers()
        self.last_report = self.last_attachment = 0
        """Numbers of the latest that came: earlier ones are out of date."""
        self.known_functions: set[str] = set()
        """Code this worker has been sent by its present stream."""
        self._start: deque[tuple[Task, int]] = deque()
        self._stop: list[Attempt] = []
        self._reclaim: list[Attempt] = []
        self._forget: list[str] = []
        self._calls: deque[pb.ActorCalls] = deque()
        self._ended_sessions: list[str] = []

    def start(self, attempts: Iterable[tuple[Task, int]]) -> None:
        """Order attempts to be started."""
        self._start.extend(attempts)
        self.wake()

    def stop(self, attempts: Iterable[Attempt]) -> None:
        """Order attempts to be stopped."""
        self._stop.extend(attempts)
        self.wake()

    def reclaim(self, attempts: Iterable[Attempt]) -> None:
        """Ask for attempts back."""
        self._reclaim.extend(attempts)
        self.wake()

    def forget(self, functions: Iterable[str]) -> None:
        """Let the worker drop code that nobody uses."""
        gone = list(functions)
        self.known_functions.difference_update(gone)
        self._forget.extend(gone)
        self.wake()

    def call(self, calls: pb.ActorCalls) -> None:
        """Pass on calls of actors."""
        self._calls.append(calls)
        self.wake()

    def end_session(self, session: str) -> None:
        """Let the worker forget a caller of actors."""
        self._ended_sessions.append(session)
        self.wake()

    def take_ended_sessions(self) -> list[str]:
        """Return the callers to forget."""
        ended, self._ended_sessions = self._ended_sessions, []
        return ended

    def discard_unsent(self) -> None:
        """Forget orders of an earlier stream: attaching settles what the worker has, and callers send again."""
        self._start.clear()
        self._stop.clear()
        self._reclaim.clear()
        self._calls.clear()
        self.known_functions.clear()  # what was sent may not have arrived

    def take_calls(self) -> list[pb.ActorCalls]:
        """Return the next calls, as many as one message should hold; the stream looks again when there are more."""
        taken: list[pb.ActorCalls] = []
        size = 0
        while self._calls and size < BATCH_BYTES:
            taken.append(self._calls.popleft())
            size += sum(len(call.payload) for call in taken[-1].calls)
        if self._calls:
            self.wake()
        return taken

    def take_start(self) -> Task | None:
        """Return the next attempt to start that still belongs to the worker; the stream looks again when there are more."""
        while self._start:
            task, attempt = self._start.popleft()
            if task.attempt == attempt and task.worker is not None:
                if self._start:
                    self.wake()
                return task
        return None

    def take_rest(self) -> tuple[list[pb.AttemptRef], list[pb.AttemptRef], list[str]]:
        """Return the orders to stop, to hand back, and to forget; none while starts are left, which they may be about."""
        if self._start:
            return [], [], []
        rest = (_refs(self._stop), _refs(self._reclaim), self._forget)
        self._stop, self._reclaim, self._forget = [], [], []
        return rest


class SessionChannel(Channel):
    """What a client gets besides results."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = SavedNumbers()
        self._logs: deque[pb.LogLines] = deque()
        self._log_bytes = 0
        self._dropped_bytes = 0
        self._notices: list[str] = []
        self._answers: deque[pb.ActorAnswers] = deque()
        self._actors: dict[str, pb.ActorInfo] = {}

    def answer(self, answers: pb.ActorAnswers) -> None:
        """Pass on answers of an actor."""
        self._answers.append(answers)
        self.wake()

    def tell_actor(self, info: pb.ActorInfo) -> None:
        """Tell how an actor is; only the latest counts."""
        self._actors.pop(info.actor_id, None)
        self._actors[info.actor_id] = info
        self.wake()

    def take_actors(self) -> tuple[list[pb.ActorAnswers], list[pb.ActorInfo]]:
        """Return answers, as many as one message should hold, and changes of actors; answers go before changes."""
        answers: list[pb.ActorAnswers] = []
        size = 0
        while self._answers and size < BATCH_BYTES:
            answers.append(self._answers.popleft())
            size += sum(len(answer.payload) for answer in answers[-1].answers)
        if self._answers:
            self.wake()
            return answers, []
        actors, self._actors = list(self._actors.values()), {}
        return answers, actors

    def notify(self, text: str) -> None:
        """Tell the person at the client something."""
        self._notices.append(text)
        self.wake()

    def add_logs(self, lines: pb.LogLines) -> None:
        """Pass on output of a task."""
        self._logs.append(lines)
        self._log_bytes += len(lines.text) + MESSAGE_BYTES
        while self._log_bytes > MAX_LOG_BYTES:
            dropped = len(self._logs.popleft().text)
            self._log_bytes -= dropped + MESSAGE_BYTES
            self._dropped_bytes += dropped
        self.wake()

    def take(self) -> tuple[list[pb.LogLines], list[str]]:
        """Return the output and notices that wait."""
        logs, notices = list(self._logs), self._notices
        if self._dropped_bytes:
            notices = [*notices, f"{self._dropped_bytes} characters of task output were dropped: this client reads too slowly"]
        self._logs.clear()
        self._log_bytes = self._dropped_bytes = 0
        self._notices = []
        return logs, notices


def _refs(attempts: Iterable[Attempt]) -> list[pb.AttemptRef]:
    return [pb.AttemptRef(task_id=task_id, attempt=attempt) for task_id, attempt in attempts]
