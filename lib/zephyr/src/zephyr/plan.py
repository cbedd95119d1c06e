"""Turn a dataset into stages. Pure: the same dataset gives the same plan, and nothing is read or written.

Narrow operations between two boundaries become one ``Map``; a stage ends where items must meet items of other shards.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from zephyr.errors import PlanError
from zephyr.ops import (
    Fold,
    GroupByOp,
    LoadOp,
    Map,
    NarrowOp,
    PathPattern,
    PhysicalOp,
    Reduce,
    ReduceOp,
    Reshard,
    ReshardOp,
    Scatter,
    Write,
    WriteOp,
    name_of,
)

if TYPE_CHECKING:
    from zephyr.dataset import Dataset

DEFAULT_CHUNK_SIZE = 100_000
MAX_DEFAULT_OUTPUT_SHARDS = 64
"""Shards of a ``group_by`` that does not say how many it wants, when there are more before it."""


@dataclass(frozen=True, slots=True)
class ExecutionHint:
    """How to carry out a plan; changes no result."""

    chunk_size: int = DEFAULT_CHUNK_SIZE
    """Items per chunk; -1 for one chunk a shard."""

    def __post_init__(self) -> None:
        if self.chunk_size != -1 and self.chunk_size < 1:
            raise PlanError(f"chunk_size={self.chunk_size} must be at least 1, or -1 for one chunk a shard")


class StageType(Enum):
    """Where a stage is carried out."""

    WORKER = "worker"
    """By tasks."""
    RESHARD = "reshard"
    """By the driver, on references alone."""


@dataclass(frozen=True, slots=True)
class PhysicalStage:
    """What happens to every shard without looking at another."""

    operations: tuple[PhysicalOp, ...]
    """In order."""
    stage_type: StageType
    """Where."""
    output_shards: int
    """Number of shards after it."""

    def __str__(self) -> str:
        return " | ".join(map(repr, self.operations))


@dataclass(frozen=True, slots=True)
class PhysicalPlan:
    """Source and stages."""

    source_items: tuple[Any, ...]
    """One per shard."""
    stages: tuple[PhysicalStage, ...]
    """In order; shards pass from one to the next as references."""
    source_sizes_bytes: tuple[int, ...] | None = None
    """Sizes of the source's files; None if it has none."""
    chunk_size: int = DEFAULT_CHUNK_SIZE
    """See ``ExecutionHint``."""

    @property
    def num_shards(self) -> int:
        """Number of shards of the source."""
        return len(self.source_items)

    def __str__(self) -> str:
        kind = "items" if self.source_sizes_bytes is None else "files"
        lines = [f"source: {self.num_shards} {kind}"]
        shards = self.num_shards
        for number, stage in enumerate(self.stages, 1):
            lines.append(f"stage {number} ({stage.stage_type.value}), {shards} -> {stage.output_shards} shards: {stage}")
            shards = stage.output_shards
        return "\n".join(lines)


def compute_plan(dataset: Dataset[Any], hints: ExecutionHint | None = None) -> PhysicalPlan:
    """Return the plan of a dataset.

    Raises:
        PlanError: if it cannot be carried out as written; the text names the operation and says what to change.
    """
    builder = _Builder(len(dataset.source.items))
    written: WriteOp | None = None
    for op in dataset.operations:
        if written is not None and not isinstance(op, LoadOp):
            raise PlanError(
                f"{op!r} comes after {written!r}: only a load may follow a write. Start a new dataset from its files"
            )
        written = op if isinstance(op, WriteOp) else None
        builder.add(op)
    chunk_size = (hints or ExecutionHint()).chunk_size
    return PhysicalPlan(dataset.source.items, builder.build(), dataset.source.sizes_bytes, chunk_size)


class _Builder:
    """Cuts operations into stages; keeps track of the number of shards."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._stages: list[PhysicalStage] = []
        self._narrow: list[NarrowOp] = []
        self._current: list[PhysicalOp] = []

    def build(self) -> tuple[PhysicalStage, ...]:
        self._cut()
        return tuple(self._stages)

    def add(self, op: Any) -> None:
        if isinstance(op, NarrowOp):
            self._narrow.append(op)
        elif isinstance(op, GroupByOp):
            shards = min(self._shards, MAX_DEFAULT_OUTPUT_SHARDS)
            if self._shards and op.num_output_shards is not None:  # no shards stay no shards
                shards = op.num_output_shards
            self._finish(Scatter(op.key, shards, op.combiner), shards)
            self._append(Reduce(op.reducer, op.sort_by))
        elif isinstance(op, ReduceOp):
            self._append(Fold(op.local))
            self._reshard(1)
            self._append(Fold(op.global_))
        elif isinstance(op, ReshardOp):
            self._reshard(op.num_shards)
        else:
            check_pattern(op.pattern, self._shards)
            self._append(Write(op.pattern))

    def _append(self, op: PhysicalOp) -> None:
        if self._narrow:
            self._current.append(Map(tuple(self._narrow)))
            self._narrow.clear()
        self._current.append(op)

    def _finish(self, op: PhysicalOp, shards: int) -> None:
        self._append(op)
        self._shards = shards
        self._cut()

    def _reshard(self, shards: int) -> None:
        self._cut()
        self._shards = min(self._shards, 1) * shards  # no shards stay no shards
        self._stages.append(PhysicalStage((Reshard(shards),), StageType.RESHARD, self._shards))

    def _cut(self) -> None:
        if self._narrow:
            self._current.append(Map(tuple(self._narrow)))
            self._narrow.clear()
        if self._current:
            self._stages.append(PhysicalStage(tuple(self._current), StageType.WORKER, self._shards))
            self._current = []


def check_pattern(pattern: PathPattern, shards: int) -> None:
    """Make sure that every shard has a path of its own.

    Raises:
        PlanError: naming the pattern, and what is wrong with it.
    """
    if isinstance(pattern, str):
        try:
            named = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
            unknown = sorted(named - {"shard", "total"})
            if unknown:
                raise PlanError(f"the pattern {pattern!r} uses {{{unknown[0]}}}; there are {{shard}} and {{total}}")
            format_path(pattern, 0, max(1, shards))
        except (ValueError, IndexError, KeyError) as error:
            raise (
                error if isinstance(error, PlanError) else PlanError(f"the pattern {pattern!r} is malformed: {error}")
            ) from error
        if shards > 1 and "shard" not in named:
            raise PlanError(f"the pattern {pattern!r} names one file for {shards} shards: put {{shard}} into it, or reshard(1)")
    seen: dict[str, int] = {}
    for shard in range(shards):
        path = format_path(pattern, shard, shards)
        if path in seen:
            raise PlanError(f"{name_of(pattern)} names {path!r} for both shard {seen[path]} and shard {shard} of {shards}")
        seen[path] = shard
    for path in seen:
        for suffix in (".bz2", ".xz", ".lzma", ".zip", ".lz4"):
            if path.endswith(suffix):
                raise PlanError(f"{path!r}: writing {suffix} is not supported; there are .gz and .zst")


def format_path(pattern: PathPattern, shard: int, total: int) -> str:
    """Return the path of a shard."""
    return pattern.format(shard=shard, total=total) if isinstance(pattern, str) else pattern(shard, total)
