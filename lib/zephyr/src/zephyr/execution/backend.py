"""``Backend``: drives the stages of a plan on a context. Holds references to data, never the data itself."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fray import JobContext, get_default_job_ctx

from zephyr.dataset import Dataset
from zephyr.errors import PlanError
from zephyr.execution.groups import compute_groups
from zephyr.execution.progress import Progress, StageProgress
from zephyr.execution.tasks import run_all
from zephyr.ops import Reshard
from zephyr.plan import ExecutionHint, PhysicalPlan, PhysicalStage, StageType, compute_plan
from zephyr.shard import Shard, reshard
from zephyr.stage import StageContext, StageResult, note_place, run_shards
from zephyr.storage import ChunkRef, InlineRef, StorageManager
from zephyr.storage.codec import encode_items

T = TypeVar("T")

DEFAULT_MAX_PARALLELISM = 1024


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """How a plan is driven; changes no result."""

    max_parallelism: int = DEFAULT_MAX_PARALLELISM
    """Tasks under way at a time."""
    name: str | None = None
    """A label of the job, for tasks and progress."""
    progress: Progress = "auto"
    """Whether to show progress."""

    def __post_init__(self) -> None:
        if self.max_parallelism < 1:
            raise PlanError(f"max_parallelism={self.max_parallelism} must be at least 1")
        if self.progress not in ("auto", True, False):
            raise PlanError(f"progress={self.progress!r} must be 'auto', True or False")


class Backend:
    """Drives plans on a context; ``Backend.execute(dataset, context)`` is all that most programs need."""

    def __init__(self, context: JobContext, config: BackendConfig, storage: StorageManager) -> None:
        """Keep what is given; the caller closes the context and the storage."""
        self._context = context
        self._config = config
        self._storage = storage

    @staticmethod
    def execute(
        dataset: Dataset[T],
        context: JobContext | None = None,
        hints: ExecutionHint = ExecutionHint(),
        verbose: bool = False,
        max_parallelism: int = DEFAULT_MAX_PARALLELISM,
        dry_run: bool = False,
        storage_path: str | None = None,
        spill_threshold_bytes: float | None = None,
        *,
        name: str | None = None,
        progress: Progress = "auto",
    ) -> list[T]:
        """Carry out a dataset and return its items, in the order of shards. Blocks.

        Args:
            dataset: what to carry out.
            context: where; None for fray's default context.
            hints: how; changes no result.
            verbose: print the plan first.
            max_parallelism: tasks under way at a time.
            dry_run: print the plan, run and write nothing, return ``[]``.
            storage_path: fsspec URL or path for intermediate data that every worker sees; None for ``FRAY_STORAGE``,
                ``MARIN_PREFIX`` or the user's temporary directory. It is removed at the end, failure or not.
            spill_threshold_bytes: encoded size from which a chunk goes there; None for the default.
            name: a label of the job.
            progress: show progress on stderr; ``auto`` does on a terminal.

        Raises:
            PlanError: before anything runs, if the dataset cannot be carried out as written.
            Exception: the user's own, with notes that name stage, shard and file.
        """
        config = BackendConfig(max_parallelism, name, progress)
        plan = _compute_plan(dataset, hints, verbose or dry_run)
        if dry_run:
            return []
        return list(_iterate(plan, context, config, storage_path, spill_threshold_bytes))

    @staticmethod
    def iterate(
        dataset: Dataset[T],
        context: JobContext | None = None,
        hints: ExecutionHint = ExecutionHint(),
        verbose: bool = False,
        max_parallelism: int = DEFAULT_MAX_PARALLELISM,
        dry_run: bool = False,
        storage_path: str | None = None,
        spill_threshold_bytes: float | None = None,
        *,
        name: str | None = None,
        progress: Progress = "auto",
    ) -> Iterator[T]:
        """Carry out a dataset and yield its items with only the current batch in memory; see ``execute``.

        The plan is checked now; stages run at the first ``next``. Intermediate data stays until the iterator ends or is closed.
        """
        config = BackendConfig(max_parallelism, name, progress)
        plan = _compute_plan(dataset, hints, verbose or dry_run)
        return iter(()) if dry_run else _iterate(plan, context, config, storage_path, spill_threshold_bytes)

    def run(self, plan: PhysicalPlan) -> list[Shard]:
        """Carry out a plan and return its shards, readable while the storage is open. Blocks."""
        shards = _source_shards(plan)
        for number, stage in enumerate(plan.stages, 1):
            if stage.stage_type is StageType.RESHARD:
                (operation,) = stage.operations
                assert isinstance(operation, Reshard)
                shards = reshard(shards, stage.output_shards)
            else:
                title = f"stage {number} of {len(plan.stages)}"
                shards = self._run_stage(
                    stage, title, shards, plan.chunk_size, plan.source_sizes_bytes if number == 1 else None
                )
        return shards

    def _run_stage(
        self, stage: PhysicalStage, title: str, shards: list[Shard], chunk_size: int, sizes_bytes: tuple[int, ...] | None
    ) -> list[Shard]:
        path, threshold = self._storage.next_stage(), self._storage.spill_threshold_bytes
        label = f"{self._config.name}: {title}" if self._config.name else title
        context = self._context.options(name=label)
        ops = context.put(stage.operations)
        stage_name = f"{label} ({stage})"
        groups = compute_groups(len(shards), sizes_bytes)
        calls = [
            (
                [StageContext(shards[i], i, len(shards), chunk_size, path, threshold, stage_name) for i in group],
                ops,
            )
            for group in groups
        ]
        results: dict[int, list[StageResult]] = {}
        with StageProgress(self._config.progress, label, len(shards)) as progress:

            def keep(number: int, result: list[StageResult]) -> None:
                results[number] = result
                progress.advance(len(groups[number]), sum(header.count for chunks in result for header, _ in chunks))

            def explain(number: int, error: BaseException) -> None:
                note_place(error, calls[number][0])

            run_all(context, run_shards, calls, self._config.max_parallelism, keep, explain)
        outputs: list[list[ChunkRef]] = [[] for _ in range(stage.output_shards)]
        for number in range(len(groups)):
            for chunks in results[number]:
                for header, ref in chunks:
                    outputs[header.shard_idx].append(ref)
        return [Shard(tuple(chunks)) for chunks in outputs]


def _compute_plan(dataset: Dataset[Any], hints: ExecutionHint, shown: bool) -> PhysicalPlan:
    plan = compute_plan(dataset, hints)
    if shown:
        print(plan)
    return plan


def _iterate(
    plan: PhysicalPlan,
    context: JobContext | None,
    config: BackendConfig,
    storage_path: str | None,
    spill_threshold_bytes: float | None,
) -> Generator[Any, None, None]:
    with StorageManager(storage_path, spill_threshold_bytes) as storage:
        for shard in Backend(context or get_default_job_ctx(), config, storage).run(plan):
            yield from shard


def _source_shards(plan: PhysicalPlan) -> list[Shard]:
    files = plan.source_sizes_bytes is not None
    return [Shard((InlineRef(encode_items([item]), 1),), item if files else None) for item in plan.source_items]
