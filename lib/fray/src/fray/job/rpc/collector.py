"""Garbage collection of processes that serve."""

from __future__ import annotations

import gc


def tune_collector() -> None:
    """Let the garbage collector look rarely: tasks are many, live long and free themselves by their counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
