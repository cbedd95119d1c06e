"""datatrove: pipelines of documents, 16 tasks on two forked workers, which start anew for every pipeline, as is its way.

isal is installed beside it, which makes fsspec, and so its readers and writers, use it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_protocol import FILES, GZIP_LEVEL, SLOTS, DataEngine, note_begun
from protocol import serve

FINDERS = SLOTS
"""Tasks that look for duplicate hashes."""


def record_of(_writer: Any, document: Any) -> dict[str, Any]:
    """Return the record that a document was made of, without what deduplication adds."""
    record = {"id": document.id, "text": document.text, **document.metadata}
    record.pop("duplicate_count", None)
    return record


def add_length(documents: Iterable[Any], rank: int, world_size: int) -> Iterator[Any]:
    """Put the length of each text into the document."""
    for document in documents:
        document.metadata["len"] = len(document.text)
        yield document


def write_ids(documents: Iterable[Any], rank: int, world_size: int, folder: str) -> None:
    """Write the ids of a task's documents to a file."""
    Path(folder, f"{rank}.json").write_text(json.dumps([document.id for document in documents]))


def note_task(_documents: Any, rank: int, world_size: int, begun: str, what: str) -> None:
    """Write down that a task begins."""
    note_begun(begun, what)


def use_zlib(_documents: Any, rank: int, world_size: int) -> None:
    """Make what this process writes go through zlib at level 6; what it reads stays with isal."""
    from fsspec.compression import compr, register_compression

    fast = compr["gzip"]

    def open_gzip(file: Any, mode: str = "rb", **options: Any) -> Any:
        return gzip.GzipFile(fileobj=file, mode=mode, compresslevel=GZIP_LEVEL) if "w" in mode else fast(file, mode, **options)

    register_compression("gzip", open_gzip, "gz", force=True)


def text_of(document: Any) -> bytes:
    """Return what makes documents equal; its hash function takes bytes."""
    text: bytes = document.text.encode()
    return text


def is_wanted(document: Any) -> bool:
    """Tell whether W1 keeps a document."""
    return bool(document.metadata["n"] % 10)


def is_low(document: Any) -> bool:
    """Tell whether W2 reads a document."""
    return bool(document.metadata["n"] < 1000)


class DatatroveEngine(DataEngine):
    """datatrove's local executor."""

    packages = ("datatrove", "orjson", "isal", "pyarrow", "xxhash")

    def start(self) -> None:
        from datatrove.executor import LocalPipelineExecutor
        from datatrove.pipeline.dedup import exact_dedup
        from datatrove.pipeline.filters import LambdaFilter
        from datatrove.pipeline.readers import JsonlReader, ParquetReader
        from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

        self._executor, self._dedup, self._filter = LocalPipelineExecutor, exact_dedup, LambdaFilter
        self._read_jsonl, self._read_parquet = partial(JsonlReader, add_file_path=False), ParquetReader
        self._write_jsonl = partial(JsonlWriter, output_filename="${rank}.jsonl.gz", adapter=record_of)
        self._write_parquet = partial(ParquetWriter, adapter=record_of)

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        steps = [self._read_jsonl(source), self._filter(is_wanted), add_length, self._write_jsonl(target)]
        self._run(steps if fastest else [use_zlib, *steps])

    def to_parquet(self, source: str, target: str) -> None:
        import pyarrow as pa

        # the first record of a file may have no tags, from which no schema can be guessed
        strings = [(name, pa.string()) for name in ("id", "url", "text", "lang")]
        schema = pa.schema([*strings, ("score", pa.float64()), ("n", pa.int64()), ("tags", pa.list_(pa.string()))])
        self._run([self._read_jsonl(source), self._write_parquet(target, compression="zstd", schema=schema)])

    def read_ids(self, source: str) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            self._run([self._read_parquet(source), self._filter(is_low), partial(write_ids, folder=folder)])
            return [name for path in Path(folder).iterdir() for name in json.loads(path.read_text())]

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        config = self._dedup.ExactDedupConfig(content_getter=text_of)

        def steps(what: str, *of: Any) -> list[Any]:
            return [partial(note_task, begun=begun, what=what), *of] if begun else list(of)

        hashes, found = f"{state}/hashes", f"{state}/found"
        self._run(
            steps("hash", self._read_jsonl(source), self._dedup.ExactDedupSignature(hashes, config, FINDERS)),
            logs=f"{state}/logs/1",
        )
        self._run(steps("find", self._dedup.ExactFindDedups(hashes, found, config)), FINDERS, f"{state}/logs/2")
        self._run(
            steps("write", self._read_jsonl(source), self._dedup.ExactDedupFilter(found, config), self._write_jsonl(target)),
            logs=f"{state}/logs/3",
        )

    def stop(self) -> None:
        pass

    def _run(self, steps: list[Any | Callable[..., Any]], tasks: int = FILES, logs: str | None = None) -> None:
        folder = logs or tempfile.mkdtemp()
        try:
            self._executor(steps, tasks=tasks, workers=SLOTS, logging_dir=folder, start_method="fork").run()
        finally:
            if logs is None:
                shutil.rmtree(folder)


if __name__ == "__main__":
    serve(DatatroveEngine())
