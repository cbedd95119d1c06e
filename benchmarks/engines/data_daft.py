"""Daft: its native runner in this process, expressions only. It writes no compressed JSON, so W1 and W4 are left out."""

from __future__ import annotations

import os
from typing import Any

from data_protocol import SLOTS, DataEngine
from protocol import serve


class DaftEngine(DataEngine):
    """Daft's DataFrames; it takes no memory limit."""

    packages = ("daft", "pyarrow")

    def start(self) -> None:
        os.environ["DAFT_ANALYTICS_ENABLED"] = os.environ["DAFT_PROGRESS_BAR"] = "0"
        import daft

        daft.set_runner_native(num_threads=SLOTS)
        self._daft = daft

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        raise NotImplementedError("Daft writes no compressed JSON")

    def to_parquet(self, source: str, target: str) -> None:
        self._load(source).write_parquet(target, compression="zstd")

    def read_ids(self, source: str) -> list[str]:
        found = self._daft.read_parquet(f"{source}/*.parquet").where(self._daft.col("n") < 1000).select("id")
        ids: list[str] = found.to_pydict()["id"]
        return ids

    def count_words(self, source: str, target: str) -> None:
        col = self._daft.col
        words = self._load(source).select(col("text").split(" ").alias("word")).explode("word")
        words.groupby("word").agg(col("word").count().alias("count")).write_parquet(target, compression="zstd")

    def sort_groups(self, source: str, target: str) -> None:
        from daft.functions import row_number

        col = self._daft.col
        by_bucket = self._daft.Window().partition_by("bucket").order_by("n")
        ranked = self._load(source).with_column("rank", row_number().over(by_bucket) - 1)
        ranked.sort([col("bucket"), col("rank")]).write_json(target)

    def stop(self) -> None:
        pass

    def _load(self, source: str) -> Any:
        return self._daft.read_json(f"{source}/*")


if __name__ == "__main__":
    serve(DaftEngine())
