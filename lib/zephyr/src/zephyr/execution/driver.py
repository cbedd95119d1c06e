"""``PlanRun``: drives the stages of a plan one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fray import JobContext

from zephyr.execution.dead_letters import write_dead_letters
from zephyr.execution.manifest import FileEntry, Totals, ensure_success, entries_of, file_entry, find_files, write_manifest
from zephyr.execution.stage_run import Settings, StageJob, StageRun, Unit
from zephyr.io.formats import FileSplit
from zephyr.ops import Fold, Join, Map, MapShardOp, PhysicalOp, Reshard, Sample, Scatter, Union, Write, name_of
from zephyr.plan.fingerprint import fingerprint, operation_fingerprint, source_fingerprint
from zephyr.plan.paths import basename_of, common_directory, compute_paths
from zephyr.plan.values import PhysicalPlan, PhysicalStage, StageType
from zephyr.shard import Shard, reshard
from zephyr.shuffle.order import compute_bounds
from zephyr.storage import InlineRef, StorageManager
from zephyr.storage.codec import encode_items
from zephyr.storage.commit import remove_drafts
from zephyr.storage.manager import slug

Shards = Sequence[Shard]


class RunTotals:
    """What is counted over all stages of a run, other datasets of joins and unions included."""

    def __init__(self, by_stage: dict[str, dict[str, int]]) -> None:
        self.counters: Counter[str] = Counter()
        self.by_stage = by_stage
        """Counters and ``bad_records``, by the name of the stage."""
        self.bad_records = 0

    def add(self, name: str, run: StageRun) -> None:
        """Add what a stage has counted."""
        self.counters.update(run.counters)
        self.bad_records += run.bad_records
        counted = dict(run.counters)
        if run.bad_records:
            counted["bad_records"] = run.bad_records
        if counted:
            self.by_stage[name] = counted


@dataclass(frozen=True, slots=True)
class _Written:
    """What the first write of a plan need not write, so what the stages before need not make."""

    stage: int
    """The number of its stage."""
    kept: dict[int, FileEntry]
    """By shard, the files that stay."""


class PlanRun:
    """One plan on one context."""

    def __init__(
        self,
        context: JobContext,
        plan: PhysicalPlan,
        storage: StorageManager,
        settings: Settings,
        totals: RunTotals,
        label: str | None = None,
        prefix: str = "",
    ) -> None:
        """Keep what is given.

        Args:
            context: where tasks run.
            plan: what to carry out.
            storage: the place of chunks.
            settings: how.
            totals: where to count.
            label: the name of the run.
            prefix: begins the names of stages, for plans within plans.
        """
        self._context = context
        self._plan = plan
        self._storage = storage
        self._settings = settings
        self._totals = totals
        self._label = label
        self._prefix = prefix
        self._writes = any(_write_of(stage) is not None for stage in plan.stages)  # else no manifest asks for fingerprints
        self._pieces: list[str] = []  # fingerprints of the operations so far
        self._local = True  # whether each shard still depends on its source item alone
        self._named = True  # whether each shard is still called after its source item

    def run(self) -> Shards:
        """Carry out the plan and return its shards. Blocks."""
        stages = list(self._plan.stages)
        kept = self._find_result(stages)
        if kept is not None:
            return kept
        shards: Shards = _source_shards(self._plan)
        written = self._find_written(stages)
        for number, stage in enumerate(stages, 1):
            if stage.stage_type is StageType.RESHARD:
                shards = self._rearrange(stage, shards, number)
                self._note_operations(stage)
                continue
            shards, run = self._run_stage(stage, shards, number, written)
            last = stage.operations[-1] if stage.operations else None
            if isinstance(last, Sample) and number < len(stages):
                stages[number] = _with_bounds(stages[number], run.samples, f"in {self._prefix}stage {number} of {len(stages)}")
        return shards

    def _rearrange(self, stage: PhysicalStage, shards: Shards, number: int) -> Shards:
        (op,) = stage.operations
        if not isinstance(op, Union):
            return reshard(shards, stage.output_shards)
        result = list(shards)
        for other, plan in enumerate(op.others, 1):
            result += self._nested(plan, f"{self._prefix}stage {number}, dataset {other}, ").run()
        return result

    def _nested(self, plan: PhysicalPlan, prefix: str) -> PlanRun:
        return PlanRun(self._context, plan, self._storage, self._settings, self._totals, self._label, prefix)

    def _run_stage(
        self, stage: PhysicalStage, shards: Shards, number: int, written: _Written | None
    ) -> tuple[Shards, StageRun]:
        name = f"{self._prefix}stage {number}"
        aux = [self._nested(op.right, f"{name}, right side, ").run() for op in stage.operations if isinstance(op, Join)]
        self._note_operations(stage)
        write = _write_of(stage)
        paths = self._paths(write, len(shards))
        kept: dict[int, FileEntry] = {}
        if written is not None and number == written.stage:
            kept = written.kept  # as it was when the stages before left them out
        elif write is not None and write.skip_existing:
            kept = self._find_kept(write, paths)
        skipped = written.kept.keys() if written is not None and number <= written.stage else kept.keys()
        units = [unit for unit in self._units(number, shards, aux) if unit.shard_idx not in skipped]
        job = self._job(stage, f"{name} of {len(self._plan.stages)}", len(shards), units, paths, kept)
        run = StageRun(self._context, job, self._settings, self._totals.bad_records)
        try:
            output = run.run()
        finally:
            self._totals.add(name, run)
            if self._settings.errors.on_error == "dead_letter":
                path = f"{self._dead_letter_directory()}/{slug(name)}.jsonl"
                write_dead_letters(path, run.iter_dead_letters(), skipped)
        if write is not None:
            self._write_manifests(write, job, run, kept)
        return output, run

    def _job(
        self,
        stage: PhysicalStage,
        title: str,
        total_shards: int,
        units: Sequence[Unit],
        paths: Sequence[str],
        kept: dict[int, FileEntry],
    ) -> StageJob:
        return StageJob(
            stage,
            f"{self._label}: {title}" if self._label else title,
            self._storage.next_stage(),
            tuple(units),
            total_shards,
            self._storage.threshold_bytes(len(units)),
            self._plan.hints,
            self._storage.job_id,
            tuple(paths),
            {shard: paths[shard] for shard in kept},
            self._fingerprints_by_path(stage, paths),
        )

    def _fingerprints_by_path(self, stage: PhysicalStage, paths: Sequence[str]) -> dict[str, str]:
        write = _write_of(stage)
        if write is None:
            return {}
        return {paths[shard]: found for shard, found in self._fingerprints(write, len(paths)).items()}

    def _units(self, number: int, shards: Shards, aux: Sequence[Shards]) -> list[Unit]:
        if number == 1:
            files = self._plan.source_sizes_bytes is not None
            return [
                Unit(index, part.shard, _source_loader(part.item, files), part.size_bytes, _aux(aux, part.shard))
                for index, part in enumerate(self._plan.source_parts)
            ]
        return [Unit(shard, shard, _loader(shards, shard), None, _aux(aux, shard)) for shard in range(len(shards))]

    def _basenames(self) -> list[str] | None:
        sizes = self._plan.source_sizes_bytes
        return None if sizes is None or not self._named else [basename_of(path) for path in self._plan.source_items]

    def _paths(self, write: Write | None, shards: int) -> list[str]:
        return [] if write is None else compute_paths(write.pattern, shards, self._basenames(), write.writer)

    # What is there already, and what is left behind.

    def _note_operations(self, stage: PhysicalStage) -> None:
        for op in stage.operations:
            if isinstance(op, Write):
                continue  # where and whether, not what
            if self._writes:
                self._pieces += map(fingerprint, op.operations) if isinstance(op, Map) else [operation_fingerprint(op)]
            self._local &= isinstance(op, (Map, Fold, Sample))
            self._named &= not isinstance(op, (Scatter, Reshard, Union))

    def _fingerprints(self, write: Write, shards: int) -> dict[int, str]:
        """Return what stands for the operations and the input of each shard's file."""
        plan = self._plan
        work = (self._pieces, fingerprint(write.writer))
        if not self._local:
            source = source_fingerprint(plan)
            return {shard: fingerprint((work, source, shard, shards)) for shard in range(shards)}
        numbered = any(
            isinstance(narrow, MapShardOp) and narrow.numbered
            for stage in plan.stages
            for op in stage.operations
            if isinstance(op, Map)
            for narrow in op.operations
        )
        sizes, versions = plan.source_sizes_bytes, plan.source_versions
        return {
            shard: fingerprint(
                (
                    work,
                    plan.source_items[shard],
                    None if sizes is None else sizes[shard],
                    None if versions is None else versions[shard],
                    shard if numbered else None,
                )
            )
            for shard in range(shards)
        }

    def _find_kept(self, write: Write, paths: Sequence[str]) -> dict[int, FileEntry]:
        fingerprints = self._fingerprints(write, len(paths))
        known = find_files(paths)
        return {
            shard: known[path]
            for shard, path in enumerate(paths)
            if path in known and known[path].fingerprint == fingerprints[shard]
        }

    def _find_result(self, stages: Sequence[PhysicalStage]) -> Shards | None:
        """Return the result if the last stage writes files that are all there, without running anything."""
        write = _write_of(stages[-1]) if stages else None
        if write is None or not (write.skip_existing or self._settings.record is not None):
            return None
        for stage in stages:
            self._note_operations(stage)
        paths = self._paths(write, stages[-1].output_shards)
        kept = self._find_kept(write, paths)
        self._forget_operations()
        if len(kept) < len(paths):
            return None
        ensure_success(paths, self._storage.job_id)
        for directory in sorted({path.rpartition("/")[0] for path in paths}):
            remove_drafts(directory, self._storage.job_id)
        return [Shard((InlineRef(encode_items([path]), 1),)) for path in paths]

    def _find_written(self, stages: Sequence[PhysicalStage]) -> _Written | None:
        """Return the files of the first write that are there, if each shard up to it depends on its source item alone."""
        first = next((write for stage in stages if (write := _write_of(stage)) is not None), None)
        if first is None or not first.skip_existing:
            return None
        found = None
        for number, stage in enumerate(stages, 1):
            self._note_operations(stage)
            write = _write_of(stage)
            if self._local and write is not None:
                found = _Written(number, self._find_kept(write, self._paths(write, self._plan.num_shards)))
            if not self._local or write is not None:
                break
        self._forget_operations()
        return found

    def _forget_operations(self) -> None:
        self._pieces, self._local, self._named = [], True, True

    def _write_manifests(self, write: Write, job: StageJob, run: StageRun, kept: dict[int, FileEntry]) -> None:
        whole = fingerprint((self._pieces, source_fingerprint(self._plan)))
        totals = Totals(whole, self._totals.counters, self._totals.bad_records)
        files = {output.path: file_entry(output, job.fingerprints[output.path]) for output in run.outputs}
        files.update((job.output_paths[shard], entry) for shard, entry in kept.items())
        pattern = write.pattern if isinstance(write.pattern, str) else name_of(write.pattern)
        if self._settings.record is not None:
            self._settings.record.check()
        entries = entries_of(files, totals)
        for directory, entry in entries.items():
            write_manifest(directory, pattern, entry, self._storage.job_id)
        for directory in entries:
            remove_drafts(directory, self._storage.job_id)

    def _dead_letter_directory(self) -> str:
        write = next((found for stage in reversed(self._plan.stages) if (found := _write_of(stage)) is not None), None)
        if write is None:
            return f"{self._storage.base_path}/dead-letters/{slug(self._label) if self._label else self._storage.job_id}"
        return f"{common_directory(write.pattern)}/_dead_letters"


def _write_of(stage: PhysicalStage) -> Write | None:
    last = stage.operations[-1] if stage.operations else None
    return last if isinstance(last, Write) else None


def _with_bounds(stage: PhysicalStage, samples: Sequence[Any], where: str) -> PhysicalStage:
    """Return the stage with the ranges of a sort filled in; keys that cannot be compared raise a note of where."""

    def fill(op: PhysicalOp) -> PhysicalOp:
        if not isinstance(op, Scatter) or op.ranges is None:
            return op
        try:
            bounds = compute_bounds(samples, op.num_shards, op.ranges.reverse)
        except Exception as error:
            error.add_note(f"{where}, comparing keys of {op!r}")
            raise
        return replace(op, ranges=replace(op.ranges, bounds=bounds))

    return replace(stage, operations=tuple(map(fill, stage.operations)))


def _source_shards(plan: PhysicalPlan) -> list[Shard]:
    files = plan.source_sizes_bytes is not None
    return [_source_loader(item, files)() for item in plan.source_items]


def _source_loader(item: Any, files: bool) -> Callable[[], Shard]:
    label = None if not files else item.path if isinstance(item, FileSplit) else item
    return lambda: Shard((InlineRef(encode_items([item]), 1),), label)


def _loader(shards: Shards, shard: int) -> Callable[[], Shard]:
    return lambda: shards[shard]


def _aux(aux: Sequence[Shards], shard: int) -> Callable[[], tuple[Shard, ...]]:
    return lambda: tuple(shards[shard] for shards in aux)
