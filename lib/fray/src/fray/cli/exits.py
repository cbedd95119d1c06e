"""Exit codes, and which error has which."""

from __future__ import annotations

from fray.errors import AuthError, ConfigurationError, DeadlineExceeded, FrayError, Unavailable

FAILED = 1
"""The operation failed."""
USAGE = 2
"""An argument or setting is wrong."""
UNREACHABLE = 3
"""The controller cannot be reached."""
UNAUTHORISED = 4
"""The token is wrong."""
INTERRUPTED = 130
"""Ctrl-C."""
SIGNAL_BASE = 128
"""Plus the number of the signal that ended a process, as shells count."""

HELP = (
    "Exit codes: 0 done; 1 the operation failed; 2 an argument or setting is wrong; 3 the controller cannot be reached; "
    "4 not authorised; 130 interrupted. 'fray run' ends with its script's exit code."
)
"""The same for ``fray --help``."""


def find_exit_code(error: FrayError) -> int:
    """Return the exit code that tells scripts what kind of error it was."""
    if isinstance(error, ConfigurationError):
        return USAGE
    if isinstance(error, AuthError):
        return UNAUTHORISED
    if isinstance(error, (Unavailable, DeadlineExceeded)):
        return UNREACHABLE
    return FAILED
