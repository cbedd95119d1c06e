"""``Backend``: the front door. Runs a dataset on a context and hands out its items."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fray import JobContext, get_default_job_ctx

from zephyr.bad_records import FAIL, ErrorPolicy, OnError
from zephyr.dataset import Dataset
from zephyr.errors import PlanError
from zephyr.execution.commits import RunRecord
from zephyr.execution.defaults import current_defaults
from zephyr.execution.driver import PlanRun, RunTotals
from zephyr.execution.progress import Progress
from zephyr.execution.stage_run import Settings
from zephyr.ops import Write, name_of
from zephyr.plan import ExecutionHint, PhysicalPlan, compute_plan
from zephyr.plan.fingerprint import fingerprint, plan_fingerprints
from zephyr.shard import Shard
from zephyr.storage import StorageManager
from zephyr.storage.manager import slug

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
    errors: ErrorPolicy = FAIL
    """What becomes of bad records."""
    resume: bool = False
    """Whether to go on with what an earlier run of the same plan has left."""
    speculate_after_s: float | None = 30.0
    """A task that takes longer, and three times as long as half of its stage, gets a second attempt on what is idle when no
    other waits any more; the first to end counts. None for never."""

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
        max_parallelism: int | None = None,
        dry_run: bool = False,
        storage_path: str | None = None,
        spill_threshold_bytes: float | None = None,
        *,
        name: str | None = None,
        resume: bool = False,
        on_error: OnError = "fail",
        max_errors: int = 0,
        counters: dict[str, dict[str, int]] | None = None,
        progress: Progress = "auto",
    ) -> list[T]:
        """Carry out a dataset and return its items, in the order of shards. Blocks.

        Args:
            dataset: what to carry out.
            context: where; None for fray's default context.
            hints: how; changes no result.
            verbose: print the plan first.
            max_parallelism: tasks under way at a time; None for 1,024.
            dry_run: print the plan, run and write nothing, return ``[]``.
            storage_path: fsspec URL or path for intermediate data that every worker sees; None for ``FRAY_STORAGE``,
                ``MARIN_PREFIX`` or the user's temporary directory. The run's own directory in it is removed at the end, failure
                or not, unless ``resume`` is set and the run has failed.
            spill_threshold_bytes: encoded size from which a chunk goes there; None for 1 MiB, or less in stages of many tasks.
            name: a label of the run, for tasks, progress, and to find what there is to resume.
            resume: keep intermediate data when the run fails or is killed, and use what an earlier run with the same name (or,
                without a name, the same outputs) has left; only what is missing is done again.
            on_error: what becomes of a record that cannot be read, processed or written: ``fail`` raises, ``skip`` leaves it
                out, ``dead_letter`` also keeps it, in ``_dead_letters`` beside the output (or below the storage path).
            max_errors: more bad records than this fail the run; 0 for no limit.
            counters: is filled with what user functions counted (see ``zephyr.counters``) and ``bad_records``, by stage.
            progress: show progress on stderr; ``auto`` does on a terminal.

        Raises:
            PlanError: before anything runs, if the dataset cannot be carried out as written.
            PlanChanged: if there is a run to resume, but with another plan.
            TooManyBadRecords: if there are more than ``max_errors``.
            Exception: the user's own, with notes that name stage, shard, file and record.
        """
        config = _config(max_parallelism, name, progress, ErrorPolicy(on_error, max_errors), resume)
        plan, shown = _compute_plan(dataset, hints, verbose, dry_run)
        if shown:
            return []
        return list(_iterate(plan, context, config, storage_path, spill_threshold_bytes, counters))

    @staticmethod
    def iterate(
        dataset: Dataset[T],
        context: JobContext | None = None,
        hints: ExecutionHint = ExecutionHint(),
        verbose: bool = False,
        max_parallelism: int | None = None,
        dry_run: bool = False,
        storage_path: str | None = None,
        spill_threshold_bytes: float | None = None,
        *,
        name: str | None = None,
        resume: bool = False,
        on_error: OnError = "fail",
        max_errors: int = 0,
        counters: dict[str, dict[str, int]] | None = None,
        progress: Progress = "auto",
    ) -> Iterator[T]:
        """Carry out a dataset and yield its items with only the current batch in memory; see ``execute``.

        The plan is checked now; stages run at the first ``next``. Intermediate data stays until the iterator ends or is closed.
        """
        config = _config(max_parallelism, name, progress, ErrorPolicy(on_error, max_errors), resume)
        plan, shown = _compute_plan(dataset, hints, verbose, dry_run)
        return iter(()) if shown else _iterate(plan, context, config, storage_path, spill_threshold_bytes, counters)

    def run(self, plan: PhysicalPlan, counters: dict[str, dict[str, int]] | None = None) -> Sequence[Shard]:
        """Carry out a plan and return its shards, readable while the storage is open. Blocks.

        ``counters`` is filled with what was counted, by stage, also when the run fails.
        """
        config = self._config
        totals = RunTotals({} if counters is None else counters)
        record = RunRecord(self._storage.job_path) if config.resume else None
        if record is not None:
            self._storage.begin_run(record.begin(plan))
        settings = Settings(config.max_parallelism, config.speculate_after_s, config.progress, config.errors, record)
        return PlanRun(self._context, plan, self._storage, settings, totals, config.name).run()


def _config(
    max_parallelism: int | None, name: str | None, progress: Progress, errors: ErrorPolicy, resume: bool
) -> BackendConfig:
    parallelism = max_parallelism if max_parallelism is not None else current_defaults().max_parallelism
    return BackendConfig(DEFAULT_MAX_PARALLELISM if parallelism is None else parallelism, name, progress, errors, resume)


def _compute_plan(dataset: Dataset[Any], hints: ExecutionHint, verbose: bool, dry_run: bool) -> tuple[PhysicalPlan, bool]:
    """Return the plan, and whether showing it is all that is wanted."""
    only_shown = dry_run or current_defaults().dry_run
    plan = compute_plan(dataset, hints)
    if verbose or only_shown:
        current_defaults().show(plan)
    return plan, only_shown


def _iterate(
    plan: PhysicalPlan,
    context: JobContext | None,
    config: BackendConfig,
    storage_path: str | None,
    spill_threshold_bytes: float | None,
    counters: dict[str, dict[str, int]] | None,
) -> Generator[Any, None, None]:
    job_id = _job_id(plan, config.name) if config.resume else None
    with StorageManager(storage_path or current_defaults().storage_path, spill_threshold_bytes, job_id) as storage:
        for shard in Backend(context or get_default_job_ctx(), config, storage).run(plan, counters):
            yield from shard


def _job_id(plan: PhysicalPlan, name: str | None) -> str:
    """Return what a run is found by that is to be resumed: its name, what it writes, or else all that it does."""
    if name is not None:
        return f"run-{slug(name)}-{fingerprint(name)[:8]}"
    outputs = [op.pattern for stage in plan.stages for op in stage.operations if isinstance(op, Write)]
    return f"run-{fingerprint([name_of(pattern) for pattern in outputs] or plan_fingerprints(plan))}"
