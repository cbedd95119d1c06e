"""Exit codes, and which error has which."""

from __future__ import annotations

from fray import FrayError

from zephyr.errors import PlanError, ZephyrError

FAILED = 1
"""The operation failed."""
USAGE = 2
"""An argument, a setting or the plan of a dataset is wrong."""
UNREACHABLE = 3
"""The controller cannot be reached."""
UNAUTHORISED = 4
"""The token is wrong."""
INTERRUPTED = 130
"""Ctrl-C."""

HELP = (
    "Exit codes: 0 done; 1 the operation failed; 2 an argument, a setting or the plan is wrong; 3 the controller cannot be "
    "reached; 4 not authorised; 130 interrupted."
)
"""The same for ``zephyr --help``."""

_OF_FRAY = {
    "configuration_error": USAGE,
    "auth_error": UNAUTHORISED,
    "unavailable": UNREACHABLE,
    "deadline_exceeded": UNREACHABLE,
}


def find_exit_code(error: ZephyrError | FrayError) -> int:
    """Return the exit code that tells scripts what kind of error it was."""
    if isinstance(error, PlanError):
        return USAGE
    return _OF_FRAY.get(error.code, FAILED) if isinstance(error, FrayError) else FAILED
