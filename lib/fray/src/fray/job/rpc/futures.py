"""Futures of tasks on a controller: the value is decoded where it is asked for, not where it arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fray import errors
from fray.job.futures import JobFuture
from fray.job.rpc.proto import fray_pb as pb
from fray.serialization import decode_failure
from fray.types import TaskId

_NOTHING = object()


class FrayFuture(JobFuture[Any]):
    """A task's future; holds the result as the payload that came from the controller until somebody reads it."""

    def __init__(
        self,
        task_id: TaskId,
        name: str,
        size_bytes: int,
        read: Callable[[bytes], Any],
        on_cancel: Callable[[JobFuture[Any]], None],
    ) -> None:
        super().__init__(name, on_cancel)
        self.task_id = task_id
        """The task, for ``fray why``."""
        self.size_bytes = size_bytes
        """Bytes of arguments that the controller holds for the task."""
        self.payload: bytes | None = None
        """The value as it came, once it is here; guarded by the session's lock until the future is done."""
        self.settled = False
        """Whether the end of the task has arrived; guarded by the session's lock."""
        self._read = read
        self._value: Any = _NOTHING

    def result(self, timeout: float | None = None) -> Any:
        super().result(timeout)
        return self._decoded()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = super().exception(timeout)
        if error is None:
            try:
                self._decoded()
            except errors.FrayError as unreadable:
                return unreadable
        return error

    def _decoded(self) -> Any:
        if self._value is _NOTHING:
            value = self._read(self.payload or b"")
            with self._condition:  # of two threads that read at once, the first decides
                if self._value is _NOTHING:
                    self._value = value
        return self._value


class ActorFuture(FrayFuture):
    """The future of an actor's call: no task of the controller's, though its value travels like one's."""

    def __init__(self, name: str, read: Callable[[bytes], Any], on_cancel: Callable[[JobFuture[Any]], None]) -> None:
        super().__init__(TaskId(""), name, 0, read, on_cancel)


def to_exception(result: pb.TaskResult, name: str) -> BaseException:
    """Return what the future of a task without a value raises."""
    kind = result.error_kind
    if kind == pb.ErrorKind.USER and result.result_data:
        error = decode_failure(result.result_data)
        error.add_note(f"raised in the Fray task {name} ({result.task_id})")
        return error
    text = f"{name} ({result.task_id}): {result.error}"
    found: BaseException
    if kind == pb.ErrorKind.TIMEOUT:
        found = errors.TaskTimeout(text)
    elif kind == pb.ErrorKind.CRASHED:
        found = errors.TaskCrashed(text)
    elif kind == pb.ErrorKind.LOST:
        found = errors.TaskLost(text)
    elif kind == pb.ErrorKind.CANCELLED:
        found = errors.TaskCancelled(text)
    elif kind == pb.ErrorKind.EXPIRED:
        found = errors.ResultExpired(text)
    else:
        found = errors.TaskFailed(text)
    if result.story:
        found.add_note("What happened to the task:\n  " + "\n  ".join(result.story))
    return found
