"""What ``zephyr run`` decides for the runs of a script that do not decide it themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from zephyr.plan.values import PhysicalPlan


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults of ``Backend.execute`` and ``Backend.iterate``."""

    max_parallelism: int | None = None
    """Tasks under way at a time; None for Zephyr's own default."""
    storage_path: str | None = None
    """Where intermediate data goes; None for what the environment says."""
    dry_run: bool = False
    """Show plans instead of carrying them out, whatever a run asks for."""
    show: Callable[[PhysicalPlan], None] = print
    """How a plan is shown."""


_NONE = Defaults()
_current: ContextVar[Defaults] = ContextVar("zephyr_defaults", default=_NONE)


def current_defaults() -> Defaults:
    """Return the defaults of this context."""
    return _current.get()


@contextmanager
def use_defaults(defaults: Defaults) -> Iterator[None]:
    """Let runs within the body use these defaults."""
    token = _current.set(defaults)
    try:
        yield
    finally:
        _current.reset(token)
