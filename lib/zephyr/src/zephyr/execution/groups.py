"""Which parts of the input share a task. Pure, and independent of the context, so that results are too."""

from __future__ import annotations

from collections.abc import Sequence

MIN_TASKS = 64
"""Up to this many parts, each is a task of its own, however small."""
MAX_GROUP_BYTES = 1024 * 1024
"""Files of a task with more than one; larger files are alone."""


def compute_groups(sizes_bytes: Sequence[int | None]) -> list[range]:
    """Return ranges of consecutive parts, one per task: thousands of tiny files need not be thousands of tasks.

    A size of None, for what is no file, is alone.
    """
    most = len(sizes_bytes) // MIN_TASKS
    if most < 2:
        return [range(part, part + 1) for part in range(len(sizes_bytes))]
    groups = []
    start, held_bytes = 0, 0
    for part, known in enumerate(sizes_bytes):
        size = MAX_GROUP_BYTES if known is None else known
        if part > start and (part - start == most or held_bytes + size > MAX_GROUP_BYTES):
            groups.append(range(start, part))
            start, held_bytes = part, 0
        held_bytes += size
    return [*groups, range(start, len(sizes_bytes))]
