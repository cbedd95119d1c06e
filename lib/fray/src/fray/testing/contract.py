"""What every ``JobContext`` must do: one suite for all of them.

Each check takes a fresh context with two slots and a scratch directory. A context kind may be exempt from a check only
by being named in the check's own declaration, with the reason.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from fray.job.context import JobContext
from fray.testing import (
    actor_checks,
    actor_crash_checks,
    actor_crowd_checks,
    actor_life_checks,
    actor_waiting_checks,
    task_checks,
)
from fray.testing.checks import CHECKS

_ROOMS = (task_checks, actor_checks, actor_waiting_checks, actor_crowd_checks, actor_life_checks, actor_crash_checks)
"""The modules with the rules, the simple ones first: to import them is to fill ``CHECKS``."""

_in_order = sorted(CHECKS.values(), key=lambda rule: [room.__name__ for room in _ROOMS].index(rule.fn.__module__))
CHECKS.clear()
CHECKS.update({rule.name: rule for rule in _in_order})

Kind = Literal["sync", "threadpool", "ray", "fray"]

_KINDS: dict[str, Kind] = {
    "fray.job.sync_ctx": "sync",
    "fray.job.threadpool_ctx": "threadpool",
    "fray.job.ray_ctx": "ray",
    "fray.job.rpc.context": "fray",
}
"""Fray's own contexts by the module of their class."""


def check_context(
    make_ctx: Callable[[], JobContext], kind: Kind | None = None, names: Iterable[str] | None = None
) -> list[str]:
    """Run the contract on contexts made by ``make_ctx``, each with two slots; return the names of the checks that ran.

    Blocks. The contexts are closed. ``kind`` decides which exemptions apply: that of the context itself when None, and none
    for a context that is not Fray's own.

    Raises:
        AssertionError: naming the first rule that does not hold.
    """
    ran = []
    for name in names if names is not None else CHECKS:
        with tempfile.TemporaryDirectory() as scratch, make_ctx() as ctx:
            if (kind or _KINDS.get(type(ctx).__module__)) in CHECKS[name].exempt:
                continue
            try:
                CHECKS[name].fn(ctx, Path(scratch))
            except Exception as error:
                raise AssertionError(f"the {kind} context breaks the rule {name}: {type(error).__name__}: {error}") from error
        ran.append(name)
    return ran
