"""Polars: lazy frames and expressions, its streaming engine on two threads. No rows in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data_protocol import GZIP_LEVEL, SLOTS, DataEngine
from protocol import serve

FASTEST_LEVEL = 1


class PolarsEngine(DataEngine):
    """Polars in this process; it takes no memory limit."""

    packages = ("polars",)

    def start(self) -> None:
        os.environ["POLARS_MAX_THREADS"] = str(SLOTS)
        import polars

        self._polars = polars

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        pl = self._polars
        longer = [
            pl.scan_ndjson(path).filter(pl.col("n") % 10 != 0).with_columns(len=pl.col("text").str.len_chars())
            for path in sorted(Path(source).iterdir())
        ]
        level = FASTEST_LEVEL if fastest else GZIP_LEVEL
        pl.collect_all(
            [
                frame.sink_ndjson(
                    f"{target}/{i:05d}.jsonl.gz", compression="gzip", compression_level=level, mkdir=True, lazy=True
                )
                for i, frame in enumerate(longer)
            ]
        )

    def to_parquet(self, source: str, target: str) -> None:
        pl = self._polars
        pl.collect_all(
            [
                pl.scan_ndjson(path).sink_parquet(f"{target}/{path.name}.parquet", compression="zstd", mkdir=True, lazy=True)
                for path in sorted(Path(source).iterdir())
            ]
        )

    def read_ids(self, source: str) -> list[str]:
        pl = self._polars
        found = pl.scan_parquet(f"{source}/*.parquet").filter(pl.col("n") < 1000).select("id").collect(engine="streaming")
        ids: list[str] = found["id"].to_list()
        return ids

    def count_words(self, source: str, target: str) -> None:
        pl = self._polars
        words = self._scan(source).select(word=pl.col("text").str.split(" ")).explode("word")
        counts = words.group_by("word").agg(count=pl.len())
        counts.sink_parquet(f"{target}/words.parquet", compression="zstd", mkdir=True)

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        pl = self._polars
        first = self._scan(source, include_file_paths="path").unique("text", keep="first", maintain_order=True)
        files = pl.PartitionBy(
            target,
            key="path",
            include_key=False,
            file_path_provider=lambda args: Path(args.partition_keys["path"][0]).name,
            approximate_bytes_per_file=None,
        )
        first.sink_ndjson(files, compression="gzip", compression_level=FASTEST_LEVEL, mkdir=True)

    def sort_groups(self, source: str, target: str) -> None:
        pl = self._polars
        rows = self._scan(source).sort("bucket", "n")
        ranked = rows.with_columns(rank=pl.int_range(pl.len()).over("bucket"))
        ranked.sink_ndjson(f"{target}/rows.jsonl", mkdir=True)

    def stop(self) -> None:
        pass

    def _scan(self, source: str, **options: Any) -> Any:
        return self._polars.scan_ndjson(sorted(Path(source).iterdir()), **options)


if __name__ == "__main__":
    serve(PolarsEngine())
