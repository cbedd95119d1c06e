"""Which shards share a task. Pure, and independent of the context, so that results are too."""

from __future__ import annotations

from collections.abc import Sequence

MIN_TASKS = 64
"""Up to this many shards, each is a task of its own, however small."""
MAX_GROUP_BYTES = 1024 * 1024
"""Files of a task with more than one; larger files are alone."""


def compute_groups(num_shards: int, sizes_bytes: Sequence[int] | None) -> list[range]:
    """Return ranges of consecutive shards, one per task: thousands of tiny files need not be thousands of tasks."""
    most = num_shards // MIN_TASKS
    if sizes_bytes is None or most < 2:
        return [range(shard, shard + 1) for shard in range(num_shards)]
    groups = []
    start, held_bytes = 0, 0
    for shard, size in enumerate(sizes_bytes):
        if shard > start and (shard - start == most or held_bytes + size > MAX_GROUP_BYTES):
            groups.append(range(start, shard))
            start, held_bytes = shard, 0
        held_bytes += size
    return [*groups, range(start, num_shards)]
