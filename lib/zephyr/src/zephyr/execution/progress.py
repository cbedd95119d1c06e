"""One line per stage that shows how far it is."""

from __future__ import annotations

import sys
from typing import Any, Literal

from tqdm import tqdm

Progress = Literal["auto"] | bool
"""Whether to show progress; ``auto`` does on a terminal."""


class _Bar(tqdm):  # type: ignore[misc]
    monitor_interval = 0  # no thread of its own


class StageProgress:
    """The progress of one stage, on stderr. Use it in a ``with`` statement."""

    def __init__(self, progress: Progress, title: str, num_shards: int) -> None:
        shown = sys.stderr.isatty() if progress == "auto" else progress
        self._rows = 0
        self._bar = _Bar(total=num_shards, desc=title, unit="shard", disable=not shown, file=sys.stderr)

    def advance(self, shards: int, rows: int) -> None:
        """Count shards that are done, and the rows they made."""
        self._rows += rows
        self._bar.set_postfix_str(f"{self._rows:,} rows", refresh=False)
        self._bar.update(shards)

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()
