"""Spark: ``local[2]`` in one JVM, DataFrames and built-in functions, so that no row reaches Python. Needs Java 17.

Files are packed one to a partition, so that 16 come out where 16 went in. Gzip is Hadoop's, whose level is a setting.
"""

from __future__ import annotations

import logging
from typing import Any

from data_protocol import FILES, SLOTS, DataEngine
from protocol import serve

MIN_HEAP_BYTES = 512 * 1024 * 1024
"""Spark does not start with much less."""
DOCUMENT = "id string, url string, text string, score double, n long, lang string, tags array<string>"
ROW = "bucket long, n long, payload string"


class SparkEngine(DataEngine):
    """Spark's DataFrames."""

    packages = ("pyspark",)

    def start(self) -> None:
        from pyspark.sql import SparkSession, Window, functions

        logging.getLogger("py4j").setLevel(logging.ERROR)
        builder = SparkSession.builder.master(f"local[{SLOTS}]").appName("benchmark")
        settings = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.shuffle.partitions": str(FILES),
            "spark.sql.files.openCostInBytes": str(128 * 1024 * 1024),
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
        }
        if self.memory_bytes is not None:
            settings["spark.driver.memory"] = str(max(MIN_HEAP_BYTES, self.memory_bytes * 6 // 10))
        for key, value in settings.items():
            builder = builder.config(key, value)
        self._spark, self._window, self._f = builder.getOrCreate(), Window, functions
        self._spark.sparkContext.setLogLevel("ERROR")

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        self._spark.sparkContext._jsc.hadoopConfiguration().set("zlib.compress.level", "BEST_SPEED" if fastest else "SIX")
        f = self._f
        kept = self._load(source, DOCUMENT).where(f.col("n") % 10 != 0).withColumn("len", f.length("text"))
        kept.write.json(target, compression="gzip")

    def to_parquet(self, source: str, target: str) -> None:
        self._load(source, DOCUMENT).write.parquet(target, compression="zstd")

    def read_ids(self, source: str) -> list[str]:
        found = self._spark.read.parquet(source).where(self._f.col("n") < 1000).select("id")
        return [row.id for row in found.collect()]

    def count_words(self, source: str, target: str) -> None:
        f = self._f
        words = self._load(source, DOCUMENT).select(f.explode(f.split("text", " ")).alias("word"))
        words.groupBy("word").count().write.parquet(target, compression="zstd")

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        self._spark.sparkContext._jsc.hadoopConfiguration().set("zlib.compress.level", "BEST_SPEED")
        # adaptive execution would write fewer files than partitions
        self._spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
        self._load(source, DOCUMENT).dropDuplicates(["text"]).write.json(target, compression="gzip")

    def sort_groups(self, source: str, target: str) -> None:
        f = self._f
        by_bucket = self._window.partitionBy("bucket").orderBy("n")
        self._load(source, ROW).withColumn("rank", f.row_number().over(by_bucket) - 1).write.json(target)

    def stop(self) -> None:
        self._spark.stop()

    def _load(self, source: str, schema: str) -> Any:
        return self._spark.read.schema(schema).json(source)


if __name__ == "__main__":
    serve(SparkEngine())
