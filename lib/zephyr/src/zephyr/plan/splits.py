"""Divide large files, so that one of them keeps more than one worker busy. Parts keep the shard and the order of their file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from zephyr.io.formats import FileSplit
from zephyr.ops import ItemOp, LoadOp, Map, Sample, Scatter
from zephyr.plan.values import PhysicalStage, SourcePart, StageType

PART_BYTES = 64 * 1024 * 1024
"""Size of a part; files below one and a half of it stay whole."""
SKEW = 4
"""A file is large beside the others if it has more than one in this many of all bytes."""


def split_source(
    items: Sequence[Any], sizes_bytes: Sequence[int] | None, stages: Sequence[PhysicalStage]
) -> tuple[tuple[SourcePart, ...], tuple[PhysicalStage, ...]]:
    """Return what the first stage reads, and the stages.

    If operations of the first stage need a whole shard, large files are divided only where one of them would keep the rest
    waiting, and the stage is cut in two before those operations.
    """
    whole = tuple(
        SourcePart(shard, item, None if sizes_bytes is None else sizes_bytes[shard]) for shard, item in enumerate(items)
    )
    load = _find_load(stages)
    if sizes_bytes is None or load is None:
        return whole, tuple(stages)
    parts = tuple(part for each in whole for part in _split(each, load))
    if len(parts) == len(whole):
        return whole, tuple(stages)
    first, rest = _cut(stages[0], len(items))
    if rest is None:
        return parts, tuple(stages)
    if max(sizes_bytes) * SKEW <= sum(sizes_bytes):
        return whole, tuple(stages)
    return parts, (first, rest, *stages[1:])


def _find_load(stages: Sequence[PhysicalStage]) -> LoadOp | None:
    operation = stages[0].operations[0] if stages and stages[0].operations else None
    first = operation.operations[0] if isinstance(operation, Map) else None
    return first if isinstance(first, LoadOp) else None


def _split(part: SourcePart, load: LoadOp) -> list[SourcePart]:
    size = part.size_bytes or 0
    count = round(size / PART_BYTES)
    if count < 2 or not load.reader.can_split(part.item):
        return [part]
    bounds = [size * number // count for number in range(count + 1)]
    return [SourcePart(part.shard, FileSplit(part.item, start, end), end - start) for start, end in pairwise(bounds)]


def _cut(stage: PhysicalStage, shards: int) -> tuple[PhysicalStage, PhysicalStage | None]:
    """Return what can be done part by part, and what needs a whole shard, if anything does."""
    head, *tail = stage.operations
    assert isinstance(head, Map)
    local = next((at for at, op in enumerate(head.operations) if not isinstance(op, ItemOp)), len(head.operations))
    if local == len(head.operations) and all(isinstance(op, (Scatter, Sample)) for op in tail):
        return stage, None
    rest = [Map(head.operations[local:])] if local < len(head.operations) else []
    first = PhysicalStage((Map(head.operations[:local]),), StageType.WORKER, shards)
    return first, PhysicalStage((*rest, *tail), StageType.WORKER, stage.output_shards)
