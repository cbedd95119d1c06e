"""Errors of the wire as Fray's errors, mapped here once."""

from __future__ import annotations

import re

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from fray import errors

__all__ = [
    "RESTARTED",
    "SESSION_UNKNOWN",
    "Code",
    "ConnectError",
    "NotKnown",
    "Refused",
    "Restarted",
    "SessionUnknown",
    "to_fray_error",
    "unreachable",
]

SESSION_UNKNOWN = "session-unknown"
"""Begins the message of a call for a session that the controller does not have."""


RESTARTED = "generation"
"""Begins the message of a refusal of numbers that an earlier life of the controller gave; the present one's number follows."""


class Restarted(errors.TransportError):
    """The controller was restarted since the numbers in the call were given."""

    retryable = True

    @property
    def generation(self) -> int:
        """Number of the controller's present life."""
        found = re.match(rf"{RESTARTED} (\d+)", str(self))
        return int(found[1]) if found else 0


class SessionUnknown(errors.TransportError):
    """The controller does not know the session: it restarted, or gave the client up."""


class Refused(errors.TransportError):
    """The controller has no room for more right now; try again."""

    retryable = True


class NotKnown(errors.TransportError):
    """The controller does not know what the call names."""


def to_fray_error(error: Exception, address: str) -> errors.FrayError:
    """Return the error to raise for a failed call to ``address``."""
    if isinstance(error, (OverflowError, TypeError, ValueError, AttributeError)):  # the message was never sent
        return errors.InternalError(f"a message to {address} cannot be built: {type(error).__name__}: {error}")
    if not isinstance(error, ConnectError):
        return errors.Unavailable(f"the call to {address} failed: {type(error).__name__}: {error}")
    text = error.message
    code = error.code
    if code is Code.UNAUTHENTICATED:
        return errors.AuthError(
            f"{address} refuses the token: {text}. Set FRAY_TOKEN to the controller's token, or use its token file "
            "(~/.config/fray/token of the user who started it)"
        )
    if code is Code.NOT_FOUND:
        return SessionUnknown(text) if text.startswith(SESSION_UNKNOWN) else NotKnown(text)
    if code is Code.ALREADY_EXISTS:
        return errors.ActorNameTaken(text)
    if code is Code.ABORTED:
        return Restarted(text)
    if code is Code.RESOURCE_EXHAUSTED:
        return Refused(text)
    if code is Code.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded(f"no answer from {address} in time")
    if code is Code.FAILED_PRECONDITION:
        return errors.VersionMismatch(text)
    if code is Code.UNIMPLEMENTED:
        return errors.VersionMismatch(f"{address} is no Fray controller of this version: {text}")
    if code is Code.INVALID_ARGUMENT:
        return errors.ConfigurationError(text)
    if code is Code.INTERNAL:
        return errors.InternalError(f"{address}: {text}")
    return errors.Unavailable(f"{address} does not answer: {text}")


def unreachable(address: str, cause: Exception) -> errors.Unavailable:
    """Return the error for a controller that cannot be reached, with the remedy."""
    port = address.rpartition(":")[2]
    reason = re.sub(r" \(os error \d+\)", "", str(cause).rpartition("error: ")[2]).lower()
    return errors.Unavailable(
        f"no Fray controller answers at {address} ({reason}). Is it running? Start one with: fray controller --port {port} "
        "(and workers with: fray worker --controller URL), or use create_job_ctx('fray', controller_address='local')"
    )
