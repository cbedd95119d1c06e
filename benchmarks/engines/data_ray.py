"""Ray Data: one local node with two CPUs, without dashboard, telemetry, progress and forwarded logs.

User functions get batches, as its documentation advises: Arrow tables where a kernel does the work, pandas frames else. JSON
goes through its own reader, and through a datasink of ours where it is gzip, since ``write_json`` knows no level.
"""

from __future__ import annotations

import gzip
import os
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from data_protocol import FILES, GZIP_LEVEL, SLOTS, DataEngine
from isal import igzip
from protocol import serve

MIN_STORE_BYTES = 80 * 1024 * 1024
"""Ray's smallest object store."""
ISAL_LEVEL = 1


def with_length(table: pa.Table) -> pa.Table:
    """Drop what W1 drops and add the length of the texts."""
    kept = table.filter(pc.not_equal(remainder(table["n"], 10), 0))
    return kept.append_column("len", pc.cast(pc.utf8_length(kept["text"]), pa.int64()))


def remainder(column: Any, by: int) -> Any:
    """Return the remainder of a division, for which Arrow has no kernel."""
    return pc.subtract(column, pc.multiply(pc.divide(column, by), by))


def count_batch(table: pa.Table) -> pa.Table:
    """Count the words of a batch."""
    counts: Counter[str] = Counter()
    for text in table["text"].to_pylist():
        counts.update(text.split(" "))
    return pa.table({"word": list(counts.keys()), "count": pa.array(counts.values(), pa.int64())})


def first_of_each(table: pa.Table) -> pa.Table:
    """Drop rows of a whole partition whose text was there before."""
    number = pa.array(range(len(table)), pa.int64())
    first = table.append_column("#", number).group_by("text").aggregate([("#", "min")])["#_min"]
    return table.take(first)


def with_ranks(rows: Any) -> Any:
    """Sort a whole partition and number the rows of each bucket: a call per bucket takes minutes."""
    rows = rows.sort_values(["bucket", "n"])
    return rows.assign(rank=rows.groupby("bucket").cumcount())


class RayEngine(DataEngine):
    """Ray's datasets."""

    packages = ("ray", "pyarrow", "pandas", "isal")

    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        import ray.data

        store = {} if self.memory_bytes is None else {"object_store_memory": max(MIN_STORE_BYTES, self.memory_bytes // 4)}
        ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **store)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        self._ray, self._data = ray, ray.data

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        kept = self._load(source).map_batches(with_length, batch_format="pyarrow", batch_size=None)
        kept.write_datasink(make_sink(target, ISAL_LEVEL if fastest else None))

    def to_parquet(self, source: str, target: str) -> None:
        self._load(source).write_parquet(target, compression="zstd")

    def read_ids(self, source: str) -> list[str]:
        from ray.data.expressions import col

        found = self._data.read_parquet(source, columns=["id", "n"]).filter(expr=col("n") < 1000)
        return [row["id"] for row in found.take_all()]

    def count_words(self, source: str, target: str) -> None:
        from ray.data.aggregate import Sum

        counts = self._load(source).map_batches(count_batch, batch_format="pyarrow", batch_size=None)
        counts.groupby("word", num_partitions=FILES).aggregate(Sum("count", alias_name="count")).write_parquet(
            target, compression="zstd"
        )

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        parts = self._load(source).repartition(FILES, keys=["text"])
        first = parts.map_batches(first_of_each, batch_format="pyarrow", batch_size=None)
        first.write_datasink(make_sink(target, ISAL_LEVEL))

    def sort_groups(self, source: str, target: str) -> None:
        parts = self._load(source).repartition(FILES, keys=["bucket"])
        parts.map_batches(with_ranks, batch_format="pandas", batch_size=None).write_json(target)

    def stop(self) -> None:
        self._ray.shutdown()

    def _load(self, source: str) -> Any:
        return self._data.read_json(source, override_num_blocks=FILES)


def make_sink(target: str, isal_level: int | None) -> Any:
    """Return a datasink that writes a block to a gzip file: by isal, or by zlib when ``isal_level`` is None."""
    from ray.data.block import BlockAccessor
    from ray.data.datasource import BlockBasedFileDatasink

    class GzipSink(BlockBasedFileDatasink):
        def write_block_to_file(self, block: BlockAccessor, file: Any) -> None:
            frame = block.to_pandas()
            with (
                gzip.GzipFile(fileobj=file, mode="wb", compresslevel=GZIP_LEVEL)
                if isal_level is None
                else igzip.IGzipFile(fileobj=file, mode="wb", compresslevel=isal_level)
            ) as packed:
                frame.to_json(packed, orient="records", lines=True)

    return GzipSink(target, file_format="jsonl.gz", open_stream_args={"compression": None})


if __name__ == "__main__":
    serve(RayEngine())
