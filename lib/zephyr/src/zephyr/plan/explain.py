"""A plan as text for people: a line for the source, a block for each stage, a line for each operation."""

from __future__ import annotations

from collections.abc import Iterator

from zephyr.ops import Join, Map, Union
from zephyr.plan.values import PhysicalPlan, PhysicalStage

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def explain(plan: PhysicalPlan) -> str:
    """Return the plan as text."""
    return "\n".join(_lines(plan))


def _lines(plan: PhysicalPlan) -> Iterator[str]:
    yield f"source: {_source(plan)}"
    shards = plan.num_shards
    for number, stage in enumerate(plan.stages, 1):
        yield f"stage {number} ({stage.stage_type.value}), {shards} -> {_count(stage.output_shards, 'shard')}"
        yield from (f"  {line}" for line in _stage_lines(stage))
        shards = stage.output_shards


def _source(plan: PhysicalPlan) -> str:
    if plan.source_sizes_bytes is None:
        return _count(plan.num_shards, "item")
    parts = "" if len(plan.source_parts) == plan.num_shards else f", read in {len(plan.source_parts)} parts"
    return f"{_count(plan.num_shards, 'file')}, {format_bytes(sum(plan.source_sizes_bytes))}{parts}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _stage_lines(stage: PhysicalStage) -> Iterator[str]:
    for op in stage.operations:
        if isinstance(op, Map):
            yield "Map"
            yield from (f"  {narrow!r}" for narrow in op.operations)
            continue
        yield repr(op)
        others = op.others if isinstance(op, Union) else (op.right,) if isinstance(op, Join) else ()
        for other in others:
            yield from (f"  | {line}" for line in _lines(other))


def format_bytes(size: float) -> str:
    """Return a size with three digits and a decimal unit."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
