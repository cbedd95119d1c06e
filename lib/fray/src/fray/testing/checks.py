"""The list of the contract's rules, and how a rule gets there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fray.job.context import JobContext

CheckFn = Callable[[JobContext, Path], None]

IN_PROCESS = "values are not copied within one process"
RUNS_AT_ONCE = "run() returns when the task is done, and a call when it has been carried out"
NOT_PLACED = "tasks and actors share this process; they are not placed"
ENDS_WITH_ITS_PROCESS = "an actor ends with its process, which is this one"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of the contract."""

    name: str
    """What holds when the check passes."""
    fn: CheckFn
    """Raises AssertionError when it does not hold."""
    exempt: dict[str, str]
    """Context kinds it does not apply to, each with the reason."""


CHECKS: dict[str, Check] = {}


def check(**exempt: str) -> Callable[[CheckFn], CheckFn]:
    """Add a rule to ``CHECKS``; the arguments are the exempt kinds, each with the reason."""

    def register(fn: CheckFn) -> CheckFn:
        if fn.__name__ in CHECKS:
            raise ValueError(f"there is a rule {fn.__name__} already")
        CHECKS[fn.__name__] = Check(fn.__name__, fn, exempt)
        return fn

    return register


def raises(kind: type[BaseException] | tuple[type[BaseException], ...], fn: Callable[[], Any]) -> BaseException:
    """Return the expected exception that ``fn`` raises; anything else is an AssertionError."""
    try:
        value = fn()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}, got the value {value!r}")
