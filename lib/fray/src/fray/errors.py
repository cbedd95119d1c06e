"""Every error that Fray raises on purpose, as one tree.

    FrayError
    ├── ConfigurationError (also ValueError)   a setting is missing, malformed or contradictory
    ├── ContextClosed (also RuntimeError)      the context was closed
    ├── TaskError
    │   ├── TaskFailed                         user code raised something that cannot be rebuilt here
    │   │   └── TaskCrashed                    user code ended its process (signal, os._exit, out of memory)
    │   ├── TaskLost                           workers or the controller went away too often
    │   ├── TaskCancelled                      cancelled by somebody (also concurrent.futures.CancelledError)
    │   ├── TaskTimeout                        out of time (also TimeoutError)
    │   └── ResultExpired                      the result is no longer kept
    ├── ActorError
    │   ├── ActorNotFound                      no actor has that name
    │   ├── ActorNameTaken                     the name is in use
    │   ├── ActorDied                          the actor is gone
    │   └── ActorUnavailable                   the actor did not run in time for the call
    ├── SchedulingError                        the request can never be placed as it stands
    ├── StateError                             the controller's saved state is damaged, in use, or of another version
    ├── SerializationError
    │   ├── EncodeError                        an object cannot be turned into bytes (also TypeError)
    │   └── DecodeError                        bytes cannot be turned back into an object
    ├── TransportError
    │   ├── Unavailable                        nobody answers there (also ConnectionError)
    │   ├── DeadlineExceeded                   no answer in time (also TimeoutError)
    │   ├── AuthError                          the token is missing or wrong (also PermissionError)
    │   └── VersionMismatch                    the two sides speak different protocol versions
    └── InternalError
        ├── InvalidTransition                  Fray's own bug: an illegal move of a task
        └── InvariantViolation                 Fray's own bug: the state contradicts itself

A user's own exception is raised as itself wherever it can be rebuilt; the remote traceback is its cause.
"""

from __future__ import annotations

import concurrent.futures


class FrayError(Exception):
    """Base of all errors raised by Fray."""

    retryable = False
    """Whether doing the same again later may succeed."""

    @property
    def code(self) -> str:
        """A stable name for logs and programs, such as ``task_timeout``."""
        name = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class ConfigurationError(FrayError, ValueError):
    """A setting is missing, malformed or contradicts another."""


class ContextClosed(FrayError, RuntimeError):
    """The context was closed; create a new one."""


class TaskError(FrayError):
    """Something ended a task other than its own return."""


class TaskFailed(TaskError):
    """The task raised, and the exception itself cannot be rebuilt in this process.

    Its type name, text and traceback are kept as text.
    """

    def __init__(self, message: str, type_name: str = "", traceback_text: str = "") -> None:
        super().__init__(message, type_name, traceback_text)
        self.message = message
        self.type_name = type_name
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.message}\n\n{self.traceback_text}".rstrip() if self.traceback_text else self.message


class TaskCrashed(TaskFailed):
    """The task ended the process it ran in, as often as a task may."""


class TaskLost(TaskError):
    """The machines around the task went away more often than its budget allows; run it again."""

    retryable = True


class TaskCancelled(TaskError, concurrent.futures.CancelledError):
    """The task was cancelled."""


class TaskTimeout(TaskError, TimeoutError):
    """The task did not end within its ``timeout`` or ``deadline``."""


class ResultExpired(TaskError):
    """The task is not known any more: its result was acknowledged, or kept for its time to live."""


class ActorError(FrayError):
    """Something is wrong with an actor."""


class ActorNotFound(ActorError):
    """No live actor has that name."""


class ActorNameTaken(ActorError, ValueError):
    """Another live actor has that name; pass ``get_if_exists=True`` to use it."""


class ActorDied(ActorError):
    """The actor is gone, and the call was not carried out or not answered."""


class ActorUnavailable(ActorError):
    """The actor was being placed or restarted for longer than the call may wait; the call was not carried out."""

    retryable = True


class SchedulingError(FrayError):
    """The demand can never be met as it stands."""


class StateError(FrayError):
    """The controller cannot use the file that holds its state: damaged, used by another one, or of another version."""


class SerializationError(FrayError):
    """Bytes and objects do not map to each other."""


class EncodeError(SerializationError, TypeError):
    """An object cannot be pickled."""


class DecodeError(SerializationError):
    """A payload cannot be turned back into an object: damaged, or its code is missing here."""


class TransportError(FrayError):
    """A call to another process did not work."""


class Unavailable(TransportError, ConnectionError):
    """Nobody answers at the address."""

    retryable = True


class DeadlineExceeded(TransportError, TimeoutError):
    """No answer came in time."""

    retryable = True


class AuthError(TransportError, PermissionError):
    """The token is missing or wrong."""


class VersionMismatch(TransportError):
    """The two sides speak different versions of the protocol."""


class InternalError(FrayError):
    """A bug in Fray: please report it with the text of the error."""


class InvalidTransition(InternalError):
    """A task was asked to make a move that its life cycle does not have."""


class InvariantViolation(InternalError):
    """The controller's state contradicts itself."""


class RemoteTraceback(Exception):
    """Carries a traceback of another process as the ``__cause__`` of the rebuilt exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"
