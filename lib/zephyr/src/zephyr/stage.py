"""Run the operations of one stage on shards: the only code that runs on workers."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zephyr.io.jsonl import write_jsonl
from zephyr.ops import FilterOp, Fold, Map, MapOp, MapShardOp, NarrowOp, PhysicalOp, Reduce, Scatter, Write
from zephyr.plan import format_path
from zephyr.shard import Shard
from zephyr.shuffle.merge import reduce_runs
from zephyr.shuffle.scatter import Scatterer
from zephyr.storage import DEFAULT_SPILL_THRESHOLD_BYTES, ChunkRef, ChunkWriter
from zephyr.storage.manager import chunk_path


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What the driver needs to know of a chunk."""

    shard_idx: int
    """The shard of the next stage it belongs to."""
    count: int
    """Number of items."""


StageResult = list[tuple[ChunkHeader, ChunkRef]]
"""The chunks of a shard, in order."""


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
    stage_name: str = "stage"
    """For messages."""


def run_stage(ctx: StageContext, ops: Sequence[PhysicalOp]) -> StageResult:
    """Run ``ops`` on a shard and return the chunks they made. Blocks; spills to files of this attempt's own.

    An exception of the user's is raised as it is, with a note that names stage, shard and file.
    """
    return run_shards([ctx], ops)[0]


def run_shards(contexts: Sequence[StageContext], ops: Sequence[PhysicalOp]) -> list[StageResult]:
    """Run ``ops`` on consecutive shards, as ``run_stage`` does on one, and return the chunks of each.

    A scatter combines the shards: its chunks are all in the first result.
    """
    if ops and isinstance(ops[-1], Scatter):
        return [_scatter(contexts, ops[:-1], ops[-1]), *([] for _ in contexts[1:])]
    results = []
    for ctx in contexts:
        with _place([ctx]):
            results.append(_write_chunks(ctx, _apply(ctx, ops)))
    return results


def _apply(ctx: StageContext, ops: Sequence[PhysicalOp]) -> Iterator[Any]:
    items: Iterable[Any] = ctx.shard
    for op in ops:
        if isinstance(op, Map):
            for narrow in op.operations:
                items = _apply_narrow(narrow, items)
        elif isinstance(op, Reduce):
            items = reduce_runs(ctx.shard.chunks, op.reducer, op.sort_by, _merge_writers(ctx))
        elif isinstance(op, Fold):
            items = _call(op.fn, items)
        elif isinstance(op, Write):
            items = _write(ctx, op, items)
        else:
            raise TypeError(f"{op!r} cannot run in the middle of a worker's stage")
    return iter(items)


def _apply_narrow(op: NarrowOp, items: Iterable[Any]) -> Iterable[Any]:
    # Generators, not map() and filter(): those take a StopIteration that leaks from user code for the end of the data.
    fn = op.fn
    if isinstance(op, MapOp):
        return (fn(item) for item in items)
    if isinstance(op, FilterOp):
        return (item for item in items if fn(item))
    if isinstance(op, MapShardOp):
        return itertools.chain.from_iterable(_call(fn, items))
    return itertools.chain.from_iterable(fn(item) for item in items)


def _merge_writers(ctx: StageContext) -> Callable[[], ChunkWriter]:
    attempt, numbers = f"{uuid.uuid4().hex}-merge", itertools.count()
    return lambda: ChunkWriter(chunk_path(ctx.storage_path, ctx.shard_idx, next(numbers), attempt), ctx.spill_threshold_bytes)


def _call(fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    yield fn(iter(items))


def _write(ctx: StageContext, op: Write, items: Iterable[Any]) -> Iterator[str]:
    path = format_path(op.pattern, ctx.shard_idx, ctx.total_shards)
    write_jsonl(path, items)
    yield path


def note_place(error: BaseException, contexts: Sequence[StageContext]) -> None:
    """Add to an exception where it happened, unless it says so already."""
    first, last = contexts[0], contexts[-1]
    begin = f"in {first.stage_name}, "
    if any(note.startswith(begin) for note in getattr(error, "__notes__", ())):
        return
    shards = f"shard {first.shard_idx}" if first is last else f"shards {first.shard_idx} to {last.shard_idx}"
    files = dict.fromkeys(ctx.shard.label for ctx in (first, last) if ctx.shard.label is not None)
    where = f", {'file' if len(files) == 1 else 'files'} {' to '.join(files)}" if files else ""
    error.add_note(f"{begin}{shards} of {first.total_shards}{where}")


@contextmanager
def _place(contexts: Sequence[StageContext]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        note_place(error, contexts)
        raise


def _write_chunks(ctx: StageContext, items: Iterator[Any]) -> StageResult:
    attempt = uuid.uuid4().hex
    result: StageResult = []
    while True:
        writer = ChunkWriter(chunk_path(ctx.storage_path, ctx.shard_idx, len(result), attempt), ctx.spill_threshold_bytes)
        try:
            for item in items if ctx.chunk_size < 0 else itertools.islice(items, ctx.chunk_size):
                writer.write(item)
            if not writer.count:
                return result
            ref = writer.finish()
        finally:
            writer.abort()
        result.append((ChunkHeader(ctx.shard_idx, ref.count), ref))
        if ctx.chunk_size < 0 or ref.count < ctx.chunk_size:
            return result


def _scatter(contexts: Sequence[StageContext], ops: Sequence[PhysicalOp], scatter: Scatter) -> StageResult:
    ctx = contexts[0]
    path = chunk_path(ctx.storage_path, ctx.shard_idx, 0, uuid.uuid4().hex)
    scatterer = Scatterer(scatter.key, scatter.num_shards, scatter.combiner, path, ctx.spill_threshold_bytes)
    try:
        for each in contexts:
            with _place([each]):
                scatterer.add(_apply(each, ops))
        with _place(contexts):
            return [(ChunkHeader(partition, ref.count), ref) for partition, ref in scatterer.finish()]
    finally:
        scatterer.abort()
