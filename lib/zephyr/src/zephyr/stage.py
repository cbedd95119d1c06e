"""Run the operations of one stage on shards: the only code that runs on workers."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from zephyr.bad_records import FAIL, BadRecords, ErrorPolicy, Place
from zephyr.collector import relaxed_collector
from zephyr.config import default_memory_bytes
from zephyr.counters import counting
from zephyr.errors import StageError
from zephyr.io.columnar import ColumnBatches
from zephyr.io.publish import Output, publish_output, write_draft
from zephyr.ops import Fold, Join, Map, PhysicalOp, Reduce, Sample, Scatter, Write
from zephyr.pipeline import Pipeline
from zephyr.plan.paths import format_path
from zephyr.shard import Shard
from zephyr.shuffle.join import join_runs, join_sorted
from zephyr.shuffle.merge import Merging, reduce_runs
from zephyr.shuffle.order import Sampler
from zephyr.shuffle.runs import FRAME_BYTES
from zephyr.shuffle.scatter import Scatterer
from zephyr.storage import DEFAULT_SPILL_THRESHOLD_BYTES, ChunkRef, ChunkWriter
from zephyr.storage.codec import TARGET_FRAME_BYTES
from zephyr.storage.manager import chunk_path
from zephyr.storage.table import ChunkTable


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What the driver needs to know of a chunk."""

    shard_idx: int
    """The shard of the next stage it belongs to."""
    count: int
    """Number of items."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """One shard of a stage, and where its results go."""

    shard: Shard
    """The input."""
    shard_idx: int
    """Its number, from 0."""
    total_shards: int
    """Number of shards of the stage."""
    chunk_size: int
    """Items per chunk of the output; -1 for one chunk."""
    storage_path: str
    """The directory for chunks that are spilled."""
    spill_threshold_bytes: float = DEFAULT_SPILL_THRESHOLD_BYTES
    """Encoded size from which a chunk is spilled."""
    aux_shards: tuple[Shard, ...] = ()
    """The shards of other datasets that belong to this one: the right side of a join."""
    stage_name: str = "stage"
    """For messages."""
    stage_text: str = ""
    """Its operations, for messages."""
    memory_bytes: int | None = None
    """See ``ExecutionHint``."""
    errors: ErrorPolicy = FAIL
    """What becomes of bad records."""
    output_path: str | None = None
    """Where a write puts the shard; None to take it from the pattern."""
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What the names of all drafts of a run contain."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task tells the driver: references and numbers, no data beyond chunks that are small."""

    chunks: ChunkTable
    """By shard of the next stage."""
    outputs: tuple[Output, ...] = ()
    """Drafts to be published."""
    counters: dict[str, int] = field(default_factory=dict)
    """What user functions counted."""
    bad_records: int = 0
    """Records that were left out."""
    dead_letters: tuple[ChunkRef, ...] = ()
    """Those records, if they are kept."""
    samples: tuple[Any, ...] = ()
    """Keys of some of the items, for a sort."""
    last_error: str = ""
    """What was wrong with the last of the bad records, and where it is."""


def run_stage(ctx: StageContext, ops: Sequence[PhysicalOp]) -> list[tuple[ChunkHeader, ChunkRef]]:
    """Run ``ops`` on a shard, publish what they write, and return the chunks they made. Blocks.

    An exception of the user's is raised as it is, with notes that name stage, shard, file and record.
    """
    result = run_task([ctx], ops)
    for output in result.outputs:
        publish_output(output)
    return [(ChunkHeader(shard, ref.count), ref) for shard, ref in result.chunks]


def run_task(contexts: Sequence[StageContext], ops: Sequence[PhysicalOp]) -> TaskResult:
    """Run ``ops`` on some consecutive shards, or parts of shards, as one task; see ``run_stage``."""
    with counting() as counters, relaxed_collector(), closing(_Task(contexts[0])) as task:
        last = ops[-1] if ops else None
        chunks = task.scatter(contexts, ops[:-1], last) if isinstance(last, Scatter) else list(task.run(contexts, ops))
        bad = task.bad
        return TaskResult(
            ChunkTable.pack(chunks),
            tuple(task.outputs),
            dict(counters),
            bad.count,
            bad.finish(),
            tuple(task.samples),
            bad.last,
        )


class _Task:
    """The run of one task: what its shards have in common."""

    def __init__(self, ctx: StageContext) -> None:
        self._first = ctx
        self._attempt = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._memory_bytes = ctx.memory_bytes or default_memory_bytes()
        self.bad = BadRecords(ctx.errors, lambda: self._create_writer("bad"))
        self.outputs: list[Output] = []
        self.samples: list[Any] = []

    def close(self) -> None:
        self.bad.abort()

    def run(self, contexts: Sequence[StageContext], ops: Sequence[PhysicalOp]) -> Iterator[tuple[int, ChunkRef]]:
        for ctx in contexts:
            place = _place_of(ctx)
            with _noted(place):
                for ref in self._write_chunks(ctx, self._apply(ctx, place, ops)):
                    yield ctx.shard_idx, ref

    def scatter(self, contexts: Sequence[StageContext], ops: Sequence[PhysicalOp], op: Scatter) -> list[tuple[int, ChunkRef]]:
        ctx = contexts[0]
        path = chunk_path(ctx.storage_path, ctx.shard_idx, 0, self._attempt)
        place = _place_of(ctx)

        def on_bad(item: Any, error: Exception) -> None:
            with place.at():  # a whole block has been read
                self.bad.add(place, repr(op), item, error)

        scatterer = Scatterer(op, self._memory_bytes, path, ctx.spill_threshold_bytes, on_bad)
        with closing(scatterer):
            for each in contexts:
                place = _place_of(each)
                with _noted(place):
                    scatterer.add(self._apply(each, place, ops))
            with _noted(_place_of(contexts[-1])):
                return scatterer.finish()

    def _apply(self, ctx: StageContext, place: Place, ops: Sequence[PhysicalOp]) -> Iterable[Any]:
        pipeline = Pipeline(place, self.bad)
        items: Iterable[Any] = ctx.shard.stream()
        if ctx.shard.count > 1 and not isinstance(items, ColumnBatches):
            items = pipeline.counted(items)
        for op in ops:
            items = self._apply_one(ctx, pipeline, op, items)
        return items

    def _apply_one(self, ctx: StageContext, pipeline: Pipeline, op: PhysicalOp, items: Iterable[Any]) -> Iterable[Any]:
        if isinstance(op, Map):
            return pipeline.apply(op.operations, items)
        if isinstance(op, Reduce):
            return reduce_runs(ctx.shard.chunks, op.reducer, op.sort_by, self._merging())
        if isinstance(op, Join):
            (right,) = ctx.aux_shards
            if op.op.sorted:
                return join_sorted(items, right, op.op, self._merging())
            return join_runs(ctx.shard.chunks, right.chunks, op.op, self._merging())
        if isinstance(op, Fold):
            return pipeline.unplaced(_call(op.fn, items))
        if isinstance(op, Sample):
            return self._sample(op, pipeline, items, Sampler(ctx.total_shards))
        if isinstance(op, Write):
            return self._write(ctx, op, items, pipeline.add_unwritten(repr(op)))
        raise TypeError(f"{op!r} cannot run in the middle of a worker's stage")

    def _write(
        self, ctx: StageContext, op: Write, items: Iterable[Any], on_bad: Callable[[int | None, Any, Exception], None]
    ) -> Iterator[str]:
        path = ctx.output_path or format_path(op.pattern, ctx.shard_idx, ctx.total_shards, None)
        writer = op.writer if ctx.memory_bytes is None else op.writer.within(ctx.memory_bytes)
        self.outputs.append(write_draft(ctx.shard_idx, path, ctx.marker, writer, items, on_bad))
        yield path

    def _sample(self, op: Sample, pipeline: Pipeline, items: Iterable[Any], sampler: Sampler) -> Iterator[Any]:
        for item in items:
            try:
                sampler.add(op.key(item))
            except Exception as error:
                pipeline.add_bad(repr(op), item, error)
                continue
            yield item
        self.samples += sampler.keys

    def _write_chunks(self, ctx: StageContext, items: Iterable[Any]) -> Iterator[ChunkRef]:
        if isinstance(items, ColumnBatches):
            yield from self._write_columns(ctx, items)
            return
        iterator, count = iter(items), ctx.chunk_size
        while count == ctx.chunk_size:
            with closing(_Chunk(self._create_writer(f"{ctx.shard_idx}"))) as chunk:
                for item in iterator if ctx.chunk_size < 0 else itertools.islice(iterator, ctx.chunk_size):
                    chunk.writer.write(item)
                count = chunk.writer.count
                if count:
                    yield chunk.writer.finish()

    def _write_columns(self, ctx: StageContext, items: ColumnBatches) -> Iterator[ChunkRef]:
        with closing(_Chunk(self._create_writer(f"{ctx.shard_idx}"))) as chunk:
            for batch in items.iter_batches():
                if batch.num_rows:
                    chunk.writer.write_batch(batch)
            if chunk.writer.count:
                yield chunk.writer.finish()

    def _merging(self) -> Merging:
        return Merging(self._memory_bytes, lambda: self._create_writer("merge", FRAME_BYTES))

    def _create_writer(self, purpose: str, frame_bytes: int = TARGET_FRAME_BYTES) -> ChunkWriter:
        ctx = self._first
        path = chunk_path(ctx.storage_path, ctx.shard_idx, next(self._numbers), f"{self._attempt}-{purpose}")
        return ChunkWriter(path, ctx.spill_threshold_bytes, frame_bytes)


class _Chunk:
    """A writer that is released whatever happens."""

    def __init__(self, writer: ChunkWriter) -> None:
        self.writer = writer

    def close(self) -> None:
        self.writer.abort()


def _call(fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    yield fn(items if isinstance(items, ColumnBatches) and fn is count_items else iter(items))


def count_items(items: Iterable[Any]) -> int:
    """Return the number of items; of record batches without making records."""
    if isinstance(items, ColumnBatches):
        return sum(batch.num_rows for batch in items.iter_batches())
    return sum(1 for _ in items)


def _place_of(ctx: StageContext) -> Place:
    return Place(ctx.stage_name, ctx.stage_text, ctx.shard_idx, ctx.total_shards, ctx.shard.label)


@contextmanager
def _noted(place: Place) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, StageError):  # of an item among others that were encoded with it
            place.position = None
        add_note(error, str(place))
        raise


def add_note(error: BaseException, note: str) -> None:
    """Add to an exception where it happened, unless it says so already."""
    begin = note.partition(", shard")[0]
    if not any(known.startswith(begin) for known in getattr(error, "__notes__", ())):
        error.add_note(note)
