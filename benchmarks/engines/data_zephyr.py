"""Zephyr: datasets of rows on a local controller with two executor slots, through public names only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from data_protocol import FILES, GZIP_LEVEL, SLOTS, DataEngine, note_begun
from protocol import serve

FASTEST_LEVEL = 0
"""Of isal."""
PLACE = "{shard:05d}-of-{total:05d}"


def with_length(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record and the length of its text."""
    return record | {"len": len(record["text"])}


def count_words(records: Iterator[dict[str, Any]]) -> Counter[str]:
    """Count the words of a shard."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record["text"].split(" "))
    return counts


def add_counts(parts: Iterator[Counter[str]]) -> Counter[str]:
    """Add up the counts of shards."""
    return sum(parts, Counter())


def as_rows(counts: Counter[str]) -> list[dict[str, Any]]:
    """Return a row for each word."""
    return [{"word": word, "count": count} for word, count in counts.items()]


def with_rank(_bucket: int, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Number the rows of a bucket, which come in order."""
    for rank, row in enumerate(rows):
        yield row | {"rank": rank}


def note_shard(items: Iterator[Any], begun: str, what: str) -> Iterable[Any]:
    """Pass a shard on, once its beginning is written down."""
    note_begun(begun, what)
    return items


class ZephyrEngine(DataEngine):
    """Zephyr on Fray."""

    packages = ("fray", "zephyr", "msgspec", "isal", "pyarrow")

    def start(self) -> None:
        from fray import create_job_ctx
        from zephyr import Backend, Dataset, ExecutionHint, col

        self._dataset, self._backend, self._col = Dataset, Backend, col
        # the hint is for a task's data: half of the whole, shared by the slots, leaves as much for code and records in flight
        limit = None if self.memory_bytes is None else self.memory_bytes // (2 * SLOTS)
        self._hints = ExecutionHint(memory_bytes=limit)
        self._ctx = create_job_ctx("fray", controller_address="local[2]")

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        records = self._load(source).filter(lambda record: record["n"] % 10 != 0).map(with_length)
        level = FASTEST_LEVEL if fastest else GZIP_LEVEL
        self._run(records.write_jsonl(f"{target}/{PLACE}.jsonl.gz", level=level))

    def to_parquet(self, source: str, target: str) -> None:
        self._run(self._load(source).write_parquet(f"{target}/{PLACE}.parquet"))

    def read_ids(self, source: str) -> list[str]:
        records = self._dataset.from_files(f"{source}/*.parquet").load_parquet().filter(self._col("n") < 1000).select("id")
        return [record["id"] for record in self._run(records)]

    def count_words(self, source: str, target: str) -> None:
        rows = self._load(source).reduce(count_words, add_counts).flat_map(as_rows)
        self._run(rows.write_parquet(f"{target}/{PLACE}.parquet"))

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        records = self._load(source)
        if begun:
            records = records.map_shard(partial(note_shard, begun=begun, what="read"))
        first = records.deduplicate(lambda record: record["text"], num_output_shards=FILES)
        if begun:
            first = first.map_shard(partial(note_shard, begun=begun, what="write"))
        resume = {"storage_path": state, "resume": True, "name": "w6"} if begun else {}
        self._run(first.write_jsonl(f"{target}/{PLACE}.jsonl.gz"), **resume)

    def sort_groups(self, source: str, target: str) -> None:
        rows = self._load(source, "*.jsonl")
        ranked = rows.group_by(lambda row: row["bucket"], with_rank, num_output_shards=FILES, sort_by=lambda row: row["n"])
        self._run(ranked.write_jsonl(f"{target}/{PLACE}.jsonl"))

    def stop(self) -> None:
        self._ctx.close()

    def _load(self, source: str, pattern: str = "*.jsonl.gz") -> Any:
        return self._dataset.from_files(f"{source}/{pattern}").load_jsonl()

    def _run(self, dataset: Any, **options: Any) -> list[Any]:
        result: list[Any] = self._backend.execute(dataset, self._ctx, self._hints, progress=False, **options)
        return result


if __name__ == "__main__":
    serve(ZephyrEngine())
