"""One stage: its tasks, what becomes of their results, and the shards that come out. Holds references, never data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fray import JobContext

from zephyr.bad_records import ErrorPolicy
from zephyr.errors import ChunkMissing, StorageError
from zephyr.execution.commits import Commits, RunRecord
from zephyr.execution.groups import compute_groups
from zephyr.execution.manifest import forget_files
from zephyr.execution.progress import Progress, StageProgress
from zephyr.execution.tasks import Calls
from zephyr.io.publish import Output, publish_output
from zephyr.plan.values import ExecutionHint, PhysicalStage
from zephyr.shard import Shard
from zephyr.stage import StageContext, TaskResult, add_note, run_task
from zephyr.storage import InlineRef
from zephyr.storage.codec import encode_items
from zephyr.storage.commit import remove_drafts
from zephyr.storage.files import is_local, locate
from zephyr.storage.table import ChunkTable

_GONE = (OSError, ChunkMissing)
"""What a task ends with whose draft or chunk another driver has removed."""
PUBLISHERS = 16
"""Outputs that are published at a time where each takes a few requests."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What one shard, or part of one, gives a stage to do."""

    index: int
    """Its number among all that the stage has, done already or not."""
    shard_idx: int
    """The shard."""
    load: Callable[[], Shard]
    """Returns the input: made when the task is submitted, not before."""
    size_bytes: int | None = None
    """Size of the file or part, if it is one."""
    aux: Callable[[], tuple[Shard, ...]] = tuple
    """Returns what other datasets have for the shard."""


@dataclass(frozen=True, slots=True)
class StageJob:
    """What a stage does, and with what."""

    stage: PhysicalStage
    """The operations."""
    title: str
    """Its name for people, such as ``words: stage 2 of 3``."""
    path: str
    """The directory of its chunks."""
    units: tuple[Unit, ...]
    """What is to be done."""
    total_shards: int
    """Number of shards that come in."""
    threshold_bytes: float
    """Encoded size from which a chunk is a file."""
    hints: ExecutionHint
    """How it is carried out."""
    marker: str
    """What the names of all drafts of the run contain."""
    output_paths: tuple[str, ...] = ()
    """Where a write puts each shard."""
    kept: dict[int, str] = field(default_factory=dict)
    """Shards whose output is there already."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Path of each output to what stands for the work that makes it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How all stages of a run are driven."""

    max_parallelism: int
    """Tasks under way at a time."""
    speculate_after_s: float | None
    """See ``BackendConfig``."""
    progress: Progress
    """Whether to show progress."""
    errors: ErrorPolicy
    """What becomes of bad records."""
    record: RunRecord | None = None
    """The record of a run that can be resumed: then results are committed, and those that are there are used."""


class StageOutput(Sequence[Shard]):
    """The shards that a stage has made, put together when they are asked for."""

    def __init__(self, tables: Sequence[ChunkTable], count: int, kept: dict[int, str]) -> None:
        self._tables = [(table, table.span) for table in tables]
        self._count = count
        self._kept = kept

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, shard: Any) -> Any:
        if isinstance(shard, slice):
            return [self[number] for number in range(*shard.indices(self._count))]
        if not 0 <= shard < self._count:
            raise IndexError(shard)
        if shard in self._kept:
            return Shard((InlineRef(encode_items([self._kept[shard]]), 1),))
        return Shard(tuple(ref for table, span in self._tables if shard in span for ref in table.of_shard(shard)))


class StageRun:
    """Carries out one stage."""

    def __init__(self, context: JobContext, job: StageJob, settings: Settings, bad_records: int) -> None:
        """Keep what is given; ``bad_records`` is how many earlier stages have left out."""
        self._context = context.options(name=job.title)
        self._job = job
        self._settings = settings
        self._commits = Commits(job.path, settings.record) if settings.record is not None else None
        self._groups = [job.units[group.start : group.stop] for group in compute_groups([u.size_bytes for u in job.units])]
        self._ops = self._context.put(job.stage.operations)
        self._results: dict[int, TaskResult] = {}
        self._bad_before = bad_records
        self._replacing = False  # whether outputs are being published
        self._done = self._rows = self._bytes = 0
        self.counters: Counter[str] = Counter()
        """Sums over the tasks that are done."""
        self.bad_records = 0
        """The same for records that were left out."""
        self._publishing: list[Future[None]] = []

    @property
    def results(self) -> list[TaskResult]:
        """What the tasks have told, in the order of their input."""
        return [self._results[number] for number in range(len(self._groups))]

    @property
    def outputs(self) -> list[Output]:
        """The files that were written."""
        return [output for result in self.results for output in result.outputs]

    def run(self) -> StageOutput:
        """Carry out the stage. Blocks.

        Raises:
            Exception: the user's own, or ``StorageError``, ``TooManyBadRecords``.
        """
        job, settings = self._job, self._settings
        done = self._commits.load() if self._commits is not None else {}
        with (
            StageProgress(settings.progress, job.title, len(job.units)) as self._progress,
            ThreadPoolExecutor(PUBLISHERS, "zephyr-publish") as self._publishers,
        ):
            try:
                self._run_tasks(done)
            except BaseException as error:
                if not self._goes_on():  # else what is committed may have to be published yet
                    self._remove_drafts()
                    if settings.record is not None and isinstance(error, _GONE):  # with the run
                        settings.record.check()
                raise
            self._remove_drafts()
        tables = [result.chunks for result in self.results]
        return StageOutput(tables, job.stage.output_shards, job.kept)

    def _goes_on(self) -> bool:
        """Tell whether this run, failed as it has, can be resumed."""
        record = self._settings.record
        try:
            return record is not None and record.goes_on()
        except StorageError:  # a reason to keep what is there
            return True

    def _run_tasks(self, done: dict[str, TaskResult]) -> None:
        missing = []
        for number in range(len(self._groups)):
            known = done.get(self._name(number))
            if known is None:
                missing.append(number)
            else:
                self._keep(number, known)
        settings = self._settings
        calls = Calls(self._context, run_task, self._arguments, settings.max_parallelism, settings.speculate_after_s)
        calls.run(missing, self._finish, self._explain)
        for published in self._publishing:
            published.result()

    def _arguments(self, number: int) -> tuple[Any, ...]:
        return [self._stage_context(unit) for unit in self._groups[number]], self._ops

    def _stage_context(self, unit: Unit) -> StageContext:
        job = self._job
        return StageContext(
            unit.load(),
            unit.shard_idx,
            job.total_shards,
            job.hints.chunk_size,
            job.path,
            job.threshold_bytes,
            unit.aux(),
            job.title,
            str(job.stage),
            job.hints.memory_bytes,
            self._settings.errors,
            job.output_paths[unit.shard_idx] if job.output_paths else None,
            job.marker,
        )

    def _name(self, number: int) -> str:
        group = self._groups[number]
        return f"{group[0].index:06d}-{group[-1].index:06d}"

    def _finish(self, number: int, result: TaskResult) -> None:
        if self._commits is not None:
            result = self._commits.commit(self._name(number), result)
        self._keep(number, result)

    def _keep(self, number: int, result: TaskResult) -> None:
        self._results[number] = result
        if result.outputs and not self._replacing:
            self._replacing = True
            forget_files(self._job.fingerprints, self._job.marker)
        for output in result.outputs:
            if is_local(locate(output.path)[0]):
                publish_output(output)
            else:
                self._publishing.append(self._publishers.submit(publish_output, output))
        self._count(number, result)

    def _count(self, number: int, result: TaskResult) -> None:
        self.counters.update(result.counters)
        self.bad_records += result.bad_records
        if result.bad_records:
            self._settings.errors.check(self._bad_before + self.bad_records, result.last_error)
        self._done += len(self._groups[number])
        self._rows += sum(output.rows for output in result.outputs) or result.chunks.count
        self._bytes += sum(output.size_bytes for output in result.outputs) or result.chunks.stored_bytes
        self._progress.show(self._done, self._rows, self._bytes, self.counters)

    def _explain(self, number: int, error: BaseException) -> TaskResult | None:
        """Tell where it happened; or return what another driver has committed, if that is why something is gone."""
        if self._commits is not None and isinstance(error, _GONE):
            found = self._commits.find(self._name(number))
            if found is not None:
                return found
        group, job = self._groups[number], self._job
        first, last = group[0].shard_idx, group[-1].shard_idx
        shards = f"shard {first}" if first == last else f"shards {first} to {last}"
        add_note(error, f"in {job.title} ({job.stage}), {shards} of {job.total_shards}")
        return None

    def _remove_drafts(self) -> None:
        for directory in sorted({path.rpartition("/")[0] for path in self._job.output_paths}):
            remove_drafts(directory, self._job.marker)

    def iter_dead_letters(self) -> Iterator[dict[str, Any]]:
        """Yield the records that were left out, in the order of their input, with what is known of them.

        After a failure, those of the tasks that have ended.
        """
        for _, result in sorted(self._results.items()):
            for ref in result.dead_letters:
                yield from ref

    @property
    def samples(self) -> list[Any]:
        """Keys of some of the items, for a sort that comes next."""
        return [key for result in self.results for key in result.samples]
