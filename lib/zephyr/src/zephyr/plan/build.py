"""``compute_plan``: cut the operations of a dataset into stages.

Narrow operations between two boundaries become one ``Map``; a stage ends where items must meet items of other shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zephyr.errors import PlanError
from zephyr.ops import (
    Fold,
    GroupByOp,
    Join,
    JoinOp,
    LoadOp,
    LogicalOp,
    Map,
    NarrowOp,
    PhysicalOp,
    Ranges,
    Reduce,
    ReduceOp,
    Reshard,
    ReshardOp,
    Sample,
    Scatter,
    SortOp,
    Union,
    UnionOp,
    Write,
    WriteOp,
)
from zephyr.plan.paths import basename_of, compute_paths
from zephyr.plan.pushdown import push_down
from zephyr.plan.splits import split_source
from zephyr.plan.values import ExecutionHint, PhysicalPlan, PhysicalStage, StageType

if TYPE_CHECKING:
    from zephyr.dataset import Dataset

MAX_DEFAULT_OUTPUT_SHARDS = 64
"""Shards of a shuffle that does not say how many it wants, when there are more before it."""


def compute_plan(dataset: Dataset[Any], hints: ExecutionHint | None = None) -> PhysicalPlan:
    """Return the plan of a dataset.

    Raises:
        PlanError: if it cannot be carried out as written; the text names the operation and says what to change.
    """
    return _plan(dataset, hints or ExecutionHint())


def _plan(dataset: Dataset[Any], hints: ExecutionHint, then: Scatter | None = None) -> PhysicalPlan:
    source = dataset.source
    names = None if source.sizes_bytes is None else [basename_of(path) for path in source.items]
    builder = _Builder(len(source.items), names, hints)
    for op in dataset.operations:
        builder.add(op)
    if then is not None:
        builder.scatter(then)
    parts, stages = split_source(source.items, source.sizes_bytes, builder.build())
    return PhysicalPlan(source.items, stages, parts, source.sizes_bytes, source.versions, hints)


class _Builder:
    """Cuts operations into stages; keeps track of the number of shards and of their files' names."""

    def __init__(self, shards: int, basenames: list[str] | None, hints: ExecutionHint) -> None:
        self._shards = shards
        self._basenames = basenames
        self._hints = hints
        self._stages: list[PhysicalStage] = []
        self._narrow: list[NarrowOp] = []
        self._current: list[PhysicalOp] = []
        self._written: WriteOp | None = None

    def build(self) -> tuple[PhysicalStage, ...]:
        self._cut()
        return tuple(self._stages)

    def add(self, op: LogicalOp) -> None:
        if self._written is not None:
            if not isinstance(op, LoadOp):
                raise PlanError(
                    f"{op!r} comes after {self._written!r}: only a load may follow a write. Start a new dataset from its files"
                )
            self._cut()  # a file is there when its stage has ended
        self._written = op if isinstance(op, WriteOp) else None
        if isinstance(op, NarrowOp):
            self._narrow.append(op)
        elif isinstance(op, GroupByOp):
            self.scatter(Scatter(op.key, self._count(op.num_output_shards, self._shards), op.combiner, op.sort_by))
            self._append(Reduce(op.reducer, op.sort_by))
        elif isinstance(op, SortOp):
            self._sort(op)
        elif isinstance(op, JoinOp):
            self._join(op)
        elif isinstance(op, ReduceOp):
            self._append(Fold(op.local))
            self._reshard(1)
            self._append(Fold(op.global_))
        elif isinstance(op, ReshardOp):
            self._reshard(op.num_shards)
        elif isinstance(op, UnionOp):
            self._union(op)
        else:
            compute_paths(op.pattern, self._shards, self._basenames, op.writer)
            self._append(Write(op.pattern, op.writer, op.skip_existing))

    def scatter(self, op: Scatter) -> None:
        """End the stage with a scatter."""
        self._append(op)
        self._shards, self._basenames = op.num_shards, None
        self._cut()

    def _sort(self, op: SortOp) -> None:
        shards = self._count(op.num_output_shards, self._shards)
        if shards > 1:
            self._append(Sample(op.key))
            self._cut()
        self.scatter(Scatter(op.key, shards, ranges=Ranges(op.reverse)))
        self._append(Reduce(all_values))

    def _join(self, op: JoinOp) -> None:
        right = _plan(op.right, self._hints)
        if op.sorted:
            if right.output_shards != self._shards:
                raise PlanError(
                    f"Sorted merge join requires equal shard counts. Left has {self._shards}, right has "
                    f"{right.output_shards}: reshard one of them, or use join()"
                )
            self._append(Join(right, op))
            return
        shards = self._count(op.num_output_shards, max(self._shards, right.output_shards))
        self.scatter(Scatter(op.left_key, shards))
        self._append(Join(_plan(op.right, self._hints, Scatter(op.right_key, shards)), op))

    def _union(self, op: UnionOp) -> None:
        self._cut()
        others = tuple(_plan(other, self._hints) for other in op.others)
        self._shards += sum(other.output_shards for other in others)
        self._basenames = None
        self._stages.append(PhysicalStage((Union(others),), StageType.RESHARD, self._shards))

    def _reshard(self, shards: int) -> None:
        self._cut()
        self._shards, self._basenames = self._count(shards, self._shards), None
        self._stages.append(PhysicalStage((Reshard(shards),), StageType.RESHARD, self._shards))

    def _append(self, op: PhysicalOp) -> None:
        self._flush()
        self._current.append(op)

    def _flush(self) -> None:
        if self._narrow:
            self._current.append(Map(push_down(self._narrow)))
            self._narrow.clear()

    def _cut(self) -> None:
        self._flush()
        if self._current:
            self._stages.append(PhysicalStage(tuple(self._current), StageType.WORKER, self._shards))
            self._current = []

    @staticmethod
    def _count(wanted: int | None, before: int) -> int:
        """Return a number of shards; no shards stay no shards."""
        if not before:
            return 0
        return min(before, MAX_DEFAULT_OUTPUT_SHARDS) if wanted is None else wanted


def all_values(_: Any, values: Iterator[Any]) -> Iterator[Any]:
    """Yield the values of a key: the reducer of a sort."""
    yield from values
