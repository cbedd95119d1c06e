"""What a plan is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from zephyr.errors import PlanError
from zephyr.ops import PhysicalOp

DEFAULT_CHUNK_SIZE = 100_000
MIN_MEMORY_BYTES = 8 * 1024 * 1024
"""Less than this holds no frame of each run that is merged."""


@dataclass(frozen=True, slots=True)
class ExecutionHint:
    """How to carry out a plan; changes no result."""

    chunk_size: int = DEFAULT_CHUNK_SIZE
    """Items per chunk; -1 for one chunk a shard."""
    memory_bytes: int | None = None
    """What a task may hold of the data it shuffles, sorts or gathers for a file, beside what the user's functions hold; None
    for a quarter of the worker's memory per CPU, at most 512 MiB."""

    def __post_init__(self) -> None:
        if self.chunk_size != -1 and self.chunk_size < 1:
            raise PlanError(f"chunk_size={self.chunk_size} must be at least 1, or -1 for one chunk a shard")
        if self.memory_bytes is not None and self.memory_bytes < MIN_MEMORY_BYTES:
            raise PlanError(f"memory_bytes={self.memory_bytes} must be at least {MIN_MEMORY_BYTES} (8 MiB)")


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
class SourcePart:
    """What one task of the first stage may read at the least: a whole source item, or part of a large file."""

    shard: int
    """The shard it belongs to; parts are in order of shard, then of position."""
    item: Any
    """The item, or a ``FileSplit``."""
    size_bytes: int | None
    """Size of the file or the part; None when the items are no files."""


@dataclass(frozen=True, slots=True)
class PhysicalPlan:
    """Source and stages."""

    source_items: tuple[Any, ...]
    """One per shard."""
    stages: tuple[PhysicalStage, ...]
    """In order; shards pass from one to the next as references."""
    source_parts: tuple[SourcePart, ...] = ()
    """What the first stage reads."""
    source_sizes_bytes: tuple[int, ...] | None = None
    """Sizes of the source's files; None if it has none."""
    source_versions: tuple[str, ...] | None = None
    """What changes when a file of the source does; None if it has none."""
    hints: ExecutionHint = ExecutionHint()
    """How to carry it out."""

    @property
    def num_shards(self) -> int:
        """Number of shards of the source."""
        return len(self.source_items)

    @property
    def output_shards(self) -> int:
        """Number of shards of the result."""
        return self.stages[-1].output_shards if self.stages else self.num_shards

    def __str__(self) -> str:
        from zephyr.plan.explain import explain  # which imports this module

        return explain(self)
