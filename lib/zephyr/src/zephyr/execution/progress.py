"""One line per stage that shows how far it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from tqdm import tqdm

from zephyr.plan.explain import format_bytes

Progress = Literal["auto"] | bool
"""Whether to show progress; ``auto`` does on a terminal."""
MAX_SHOWN_COUNTERS = 4


class _Bar(tqdm):  # type: ignore[misc]
    monitor_interval = 0  # no thread of its own


class StageProgress:
    """The progress of one stage, on stderr. Use it in a ``with`` statement."""

    def __init__(self, progress: Progress, title: str, num_shards: int) -> None:
        shown = sys.stderr.isatty() if progress == "auto" else progress
        self._bar = _Bar(total=num_shards, desc=title, unit="shard", disable=not shown, file=sys.stderr)

    def show(self, shards: int, rows: int, size_bytes: int, counters: Mapping[str, int]) -> None:
        """Show how many shards are done, and what they have made so far."""
        counted = "".join(f", {name} {n:,}" for name, n in list(counters.items())[:MAX_SHOWN_COUNTERS])
        self._bar.set_postfix_str(f"{rows:,} rows, {format_bytes(size_bytes)}{counted}", refresh=False)
        self._bar.update(shards - self._bar.n)

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()
