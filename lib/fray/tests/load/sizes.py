"""Which scenarios there are, and how much of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from load import misbehaviour, scenarios
from load.figures import MB, Report
from load.scenarios import INLINE_BYTES


@dataclass(frozen=True, slots=True)
class Load:
    """A scenario in two sizes."""

    name: str
    """Of the test, and for the command line."""
    run: Callable[..., Report]
    """What to do."""
    small: dict[str, float] = field(default_factory=dict)
    """For every day: seconds."""
    full: dict[str, float] = field(default_factory=dict)
    """For figures: minutes."""
    is_everyday: bool = True
    """Whether the small size runs every day; else what it shows is shown by others too."""


LOADS = (
    Load("queued", scenarios.queue_many, {"tasks": 10_000}, {"tasks": 1_000_000}),
    Load(
        "stored-arguments",
        scenarios.feed_large,
        {"tasks": 100, "size_bytes": MB, "session_bytes": 64 * MB, "task_s": 0.02},
        {"tasks": 10_000, "size_bytes": MB, "session_bytes": 512 * MB, "task_s": 0.03},
    ),
    Load(
        "inline-arguments",
        scenarios.feed_large,
        {"tasks": 600, "size_bytes": INLINE_BYTES, "session_bytes": 16 * MB, "task_s": 0.002},
        {"tasks": 10_000, "size_bytes": INLINE_BYTES, "session_bytes": 512 * MB, "task_s": 0.01},
    ),
    Load("clients", scenarios.crowd, {"clients": 20, "tasks": 10}, {"clients": 500, "tasks": 20}),
    Load(
        "results-unread",
        misbehaviour.ignore_results,
        {"tasks": 1000, "result_bytes": 10_000, "session_tasks": 300},
        {"tasks": 20_000, "result_bytes": 100_000, "session_tasks": 5_000},
    ),
    Load(
        "results-read-late",
        misbehaviour.read_late,
        {"tasks": 3000, "result_bytes": 50_000, "session_bytes": 4 * MB},
        {"tasks": 10_000, "result_bytes": 200_000, "session_bytes": 256 * MB},
    ),
    Load("output-unread", misbehaviour.print_to_nobody, {"tasks": 100, "lines": 20}, {"tasks": 5000, "lines": 200}, False),
    Load("short-lines", misbehaviour.print_short_lines, {"messages": 60_000}, {"messages": 1_000_000}),
    Load("mute-worker", misbehaviour.stay_mute, {"tasks": 100, "silence_s": 1.0}, {"tasks": 10_000, "silence_s": 10.0}, False),
    Load(
        "worker-without-rest",
        misbehaviour.register_again_and_again,
        {"tasks": 100, "lives": 60},
        {"tasks": 10_000, "lives": 2000},
    ),
    Load(
        "reconnecting-clients",
        misbehaviour.reconnect,
        {"clients": 40, "rounds": 3, "tasks": 500, "grace_s": 1.0},
        {"clients": 500, "rounds": 20, "tasks": 100_000, "grace_s": 60.0},
    ),
    Load(
        "reconnecting-workers",
        misbehaviour.reattach,
        {"workers": 30, "rounds": 3, "tasks": 500},
        {"workers": 300, "rounds": 20, "tasks": 20_000},
    ),
)
