"""Dask: bags of rows on a local cluster of two worker processes with one thread each, without dashboard.

isal is installed beside it, which makes fsspec, and so ``read_text`` and ``to_textfiles``, use it; JSON goes through orjson.
Parquet goes through dask.dataframe, which is where ``to_dataframe`` leads. Grouping is ``Bag.groupby`` through
files, which takes half of the time and memory of the default.

It is not told of memory limits, though it takes them: near a worker's limit it pauses and restarts the worker, which made W4
five times slower, and lost rows of W5 without an error.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from data_protocol import FILES, GZIP_LEVEL, SLOTS, DataEngine
from protocol import serve

COLUMNS = {"id": str, "url": str, "text": str, "score": float, "n": int, "lang": str, "tags": object}


def with_length(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record and the length of its text."""
    return record | {"len": len(record["text"])}


def encode(record: dict[str, Any]) -> str:
    """Return a line of JSON."""
    return orjson.dumps(record).decode()


def write_file(lines: Any, path: str) -> None:
    """Write a partition by zlib."""
    with gzip.open(path, "wt", GZIP_LEVEL) as file:
        file.writelines(f"{line}\n" for line in lines)


def count_partition(records: Iterable[dict[str, Any]]) -> Counter[str]:
    """Count the words of a partition."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record["text"].split(" "))
    return counts


def list_counts(parts: Iterable[Counter[str]]) -> list[tuple[str, int]]:
    """Add up the counts of partitions."""
    return list(sum(parts, Counter()).items())


def with_ranks(group: tuple[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Sort and number the rows of a bucket."""
    return [row | {"rank": rank} for rank, row in enumerate(sorted(group[1], key=lambda row: row["n"]))]


class DaskEngine(DataEngine):
    """Dask's bags on its distributed client."""

    packages = ("dask", "distributed", "orjson", "isal", "pandas", "pyarrow")

    def start(self) -> None:
        from distributed import Client, LocalCluster

        self._cluster = LocalCluster(n_workers=SLOTS, threads_per_worker=1, processes=True, dashboard_address=None)
        self._client = Client(self._cluster)

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        records = self._load(source).filter(lambda record: record["n"] % 10 != 0).map(with_length).map(encode)
        self._write(records, target) if fastest else self._write_slowly(records, target)

    def to_parquet(self, source: str, target: str) -> None:
        import pyarrow as pa

        frame = self._load(source).to_dataframe(meta=COLUMNS)
        types = {str: pa.string(), float: pa.float64(), int: pa.int64(), object: pa.list_(pa.string())}
        schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        frame.to_parquet(target, compression="zstd", write_index=False, schema=schema)

    def read_ids(self, source: str) -> list[str]:
        from dask import dataframe

        # filters= drops row groups only in some versions; the mask makes sure
        frame = dataframe.read_parquet(source, columns=["id", "n"], filters=[("n", "<", 1000)])
        ids: list[str] = frame[frame["n"] < 1000]["id"].compute().tolist()
        return ids

    def count_words(self, source: str, target: str) -> None:
        from dask.bag import Bag

        counts = self._load(source).reduction(count_partition, list_counts, split_every=FILES, out_type=Bag)
        rows = counts.to_dataframe(meta={"word": str, "count": int})
        rows.to_parquet(target, compression="zstd", write_index=False)

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        first = self._load(source).distinct(key=lambda record: record["text"])
        self._write(first.repartition(FILES).map(encode), target)

    def sort_groups(self, source: str, target: str) -> None:
        groups = self._load(source).groupby(lambda row: row["bucket"], npartitions=FILES, shuffle="disk")
        groups.map(with_ranks).flatten().map(encode).to_textfiles(f"{target}/*.jsonl")

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    @staticmethod
    def _load(source: str) -> Any:
        from dask import bag

        return bag.read_text(f"{source}/*").map(orjson.loads)

    @staticmethod
    def _write(lines: Any, target: str) -> None:
        lines.to_textfiles(f"{target}/*.jsonl.gz")

    @staticmethod
    def _write_slowly(lines: Any, target: str) -> None:
        import dask

        Path(target).mkdir()
        parts = enumerate(lines.to_delayed())
        dask.compute(*[dask.delayed(write_file)(part, f"{target}/{i:05d}.jsonl.gz") for i, part in parts])


if __name__ == "__main__":
    serve(DaskEngine())
