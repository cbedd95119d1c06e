"""Values that every context understands: what tasks and actors ask for, and how they may be tried again."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NewType

from fray.errors import ConfigurationError

TaskId = NewType("TaskId", str)
SessionId = NewType("SessionId", str)
WorkerId = NewType("WorkerId", str)
Incarnation = NewType("Incarnation", str)

MAX_COUNT = 2**31 - 1
"""Largest priority and number of retries: they travel as 32-bit numbers."""

MAX_SECONDS = 10 * 365 * 86400.0
"""Longest time that an option may name: far below what timers overflow at."""

DEFAULT_TASK_RESOURCES: Mapping[str, float] = {"cpu": 1.0}


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How a task is to be run; the same words mean the same on every context.

    Raises:
        ConfigurationError: when a value makes no sense; it names the option.
    """

    name: str = ""
    """A label for messages and listings; the function's name when empty."""
    resources: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_TASK_RESOURCES))
    """What the task occupies while it runs: ``cpu`` (cores), ``memory`` (bytes), ``gpu``, or any custom name.

    Fractions are allowed. The sync and threadpool contexts run in this process and do not place tasks on machines:
    there every task takes one thread, whatever it asks for."""
    max_retries: int = 0
    """How often a task is tried again after its own exception; -1 for ever. Lost workers have a budget of their own."""
    retry_exceptions: tuple[type[BaseException], ...] = (Exception,)
    """Which exceptions are worth another try."""
    retry_delay_s: float = 0.1
    """Seconds before the first retry; doubles with each, up to a minute, with jitter."""
    timeout: float | None = None
    """Seconds that one attempt may run. An attempt that ran out of time counts as a failure of the task."""
    deadline: float | None = None
    """Seconds from submission within which the task must have ended, queueing and retries included."""
    priority: int = 0
    """Higher runs first among tasks that wait for the same resources."""

    def __post_init__(self) -> None:
        for resource, amount in self.resources.items():
            if not isinstance(resource, str) or not resource.strip():
                raise ConfigurationError(f"resources: {resource!r} is not a resource name; use e.g. 'cpu' or 'gpu'")
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not math.isfinite(amount):
                raise ConfigurationError(f"resources: {resource}={amount!r} is not a finite number")
            if amount < 0:
                raise ConfigurationError(f"resources: {resource}={amount!r} must not be negative")
        for option in ("timeout", "deadline"):
            value = getattr(self, option)
            if value is not None and not (_is_number(value) and 0 < value <= MAX_SECONDS):
                raise ConfigurationError(f"{option}={value!r} must be a positive number of seconds (ten years at most) or None")
        if not isinstance(self.name, str) or not self.name.isprintable():
            raise ConfigurationError(f"name={self.name!r} must be printable text on one line")
        if not _is_number(self.max_retries, int) or not -1 <= self.max_retries <= MAX_COUNT:
            raise ConfigurationError(f"max_retries={self.max_retries!r} must be a whole number, -1 for no limit")
        if not _is_number(self.retry_delay_s) or not 0 <= self.retry_delay_s <= MAX_SECONDS:
            raise ConfigurationError(f"retry_delay_s={self.retry_delay_s!r} must be a finite number, not negative")
        if not _is_number(self.priority, int) or abs(self.priority) > MAX_COUNT:
            raise ConfigurationError(f"priority={self.priority!r} must be a whole number of 32 bits")
        if isinstance(self.retry_exceptions, type):
            object.__setattr__(self, "retry_exceptions", (self.retry_exceptions,))
        for kind in self.retry_exceptions:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ConfigurationError(f"retry_exceptions: {kind!r} is not an exception type")

    def allows_retry(self, failures: int) -> bool:
        """Tell whether another try is allowed after ``failures`` failed ones."""
        return self.max_retries < 0 or failures <= self.max_retries


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """How an actor lives and takes calls; given to ``options(...)`` beside what a task may ask for.

    Raises:
        ConfigurationError: when a value makes no sense; it names the option.
    """

    max_restarts: int = 0
    """How often an actor that died with its process or machine is constructed again; -1 for ever."""
    max_task_retries: int = 0
    """How often a call that was under way when the actor died is made again on its next life; -1 for ever.

    0 is at most once: such a call fails with ``ActorDied``, and may or may not have been carried out."""
    max_concurrency: int | None = None
    """Calls carried out at a time. None: one; for a class with ``async`` methods 1,000 on one event loop."""
    checkpoint_every: int | None = None
    """Calls after which the state is saved to storage, to be restored after a restart; None for never."""
    pending_timeout: float | None = 60.0
    """Seconds that a call waits while the actor is being placed or restarted; then it fails with ``ActorUnavailable``."""

    def __post_init__(self) -> None:
        for option in ("max_restarts", "max_task_retries"):
            value = getattr(self, option)
            if not _is_number(value, int) or not -1 <= value <= MAX_COUNT:
                raise ConfigurationError(f"{option}={value!r} must be a whole number, -1 for no limit")
        for option in ("max_concurrency", "checkpoint_every"):
            value = getattr(self, option)
            if value is not None and (not _is_number(value, int) or not 1 <= value <= MAX_COUNT):
                raise ConfigurationError(f"{option}={value!r} must be a whole number of at least 1, or None")
        timeout = self.pending_timeout
        if timeout is not None and not (_is_number(timeout) and 0 < timeout <= MAX_SECONDS):
            raise ConfigurationError(f"pending_timeout={timeout!r} must be a positive number of seconds or None")


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """What is known of an actor at one moment."""

    actor_id: str
    """Names it for ever."""
    name: str
    """The name it was given; empty if none."""
    class_name: str
    """What it was made of."""
    state: Literal["PENDING", "ALIVE", "RESTARTING", "DEAD"]
    """PENDING and RESTARTING: being placed or constructed, for the first time or again."""
    incarnation: int
    """Number of its latest life, from 1; 0 before the first."""
    restarts: int
    """Lives that ended and were followed by another."""
    worker_id: str
    """Where it lives; empty where there are no workers, or nowhere at the moment."""
    reason: str
    """Why it is not ALIVE, in words."""


def change_options(task: TaskOptions, actor: ActorOptions, changes: Mapping[str, Any]) -> tuple[TaskOptions, ActorOptions]:
    """Return both kinds of options with some replaced.

    Raises:
        ConfigurationError: for an option that does not exist; the message lists those that do.
    """
    of_tasks, of_actors = ({f.name for f in fields(kind)} for kind in (TaskOptions, ActorOptions))
    unknown = sorted(set(changes) - of_tasks - of_actors)
    if unknown:
        known = ", ".join(sorted(of_tasks | of_actors))
        raise ConfigurationError(f"unknown option {', '.join(unknown)}; there are: {known}")
    return (
        replace(task, **{name: value for name, value in changes.items() if name in of_tasks}),
        replace(actor, **{name: value for name, value in changes.items() if name in of_actors}),
    )


def _is_number(value: object, kind: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def compute_retry_delay_s(base_s: float, failures: int, key: str) -> float:
    """Return the seconds to wait before the next try: exponential, capped at a minute, with jitter.

    The jitter takes between half and the whole of the delay and is drawn from ``key``, so that the same history
    always gives the same delay ("equal jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    whole = min(60.0, base_s * 2.0 ** min(failures - 1, 30))
    draw = zlib.crc32(f"{key}/{failures}".encode()) / 0xFFFFFFFF
    return whole * (0.5 + 0.5 * draw)
