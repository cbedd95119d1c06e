"""Count the words of many files, on threads, on Fray or on Ray.

    python examples/word_count.py
    python examples/word_count.py --context threadpool --input 'texts/**/*.txt' --output out/words
    python examples/word_count.py --context fray --controller http://127.0.0.1:50051

Without arguments it reads the standard library of the running interpreter, on a private Fray cluster of this machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import re
import sysconfig
import time
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from fray import JobContext, create_job_ctx
from zephyr import Backend, Dataset

NUM_OUTPUT_SHARDS = 8

find_words = re.compile("[a-z_]+").findall


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    files = find_files(args.input)
    started = time.perf_counter()
    with create_context(args) as context:
        paths = Backend.execute(count_words(files, args.output), context, name="word count")
    seconds = time.perf_counter() - started

    counts = [(record["count"], record["word"]) for path in paths for record in read_records(path)]
    for count, word in heapq.nlargest(args.top, counts):
        print(f"{count:>10,}  {word}")
    total = sum(count for count, _ in counts)
    print(f"{len(files.source.items):,} files, {total:,} words, {len(counts):,} distinct, {seconds:.1f} s")
    print(f"written to {len(paths)} files in {Path(args.output).absolute()}")
    return 0


def count_words(files: Dataset[str], output: str) -> Dataset[str]:
    """Return the pipeline: paths of text files in, paths of counts out."""
    return (
        files.load_text(errors="replace")
        .flat_map(to_pairs)
        .group_by(itemgetter(0), to_record, NUM_OUTPUT_SHARDS, combiner=add_up)
        .write_jsonl(f"{output}/words-{{shard:05d}}-of-{{total:05d}}.jsonl")
    )


def to_pairs(line: str) -> list[tuple[str, int]]:
    return [(word, 1) for word in find_words(line.lower())]


def add_up(word: str, pairs: Iterator[tuple[str, int]]) -> tuple[str, int]:
    return word, sum([count for _, count in pairs])


def to_record(word: str, pairs: Iterator[tuple[str, int]]) -> dict[str, Any]:
    return {"word": word, "count": sum([count for _, count in pairs])}


def find_files(pattern: str | None) -> Dataset[str]:
    """Return the files of the pattern; without one, the standard library's own, installed packages left out."""
    if pattern is not None:
        return Dataset.from_files(pattern)
    not_site_packages = "{,[!s]*/**/,s[!i]*/**/}"
    return Dataset.from_files(f"{sysconfig.get_path('stdlib')}/{not_site_packages}*.py")


def create_context(args: argparse.Namespace) -> JobContext:
    if args.context != "fray":
        return create_job_ctx(args.context, max_workers=args.workers)
    if args.controller or os.environ.get("FRAY_ADDRESS"):
        return create_job_ctx("fray", controller_address=args.controller)
    return create_job_ctx("fray", max_workers=args.workers, controller_address="local")


def read_records(path: str) -> list[dict[str, Any]]:
    with Path(path).open() as file:
        return [json.loads(line) for line in file]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count the words of many files.")
    parser.add_argument("--context", choices=["sync", "threadpool", "fray", "ray"], default="fray", help="where to run")
    parser.add_argument("--controller", metavar="URL", help="Fray's controller; else FRAY_ADDRESS, else a private cluster")
    parser.add_argument("--workers", type=int, metavar="N", help="tasks at a time; else as many as there are CPUs")
    parser.add_argument("--input", metavar="GLOB", help="files to read; else Python's standard library")
    parser.add_argument("--output", metavar="DIR", default="out/word_count", help="where to write the counts")
    parser.add_argument("--top", type=int, metavar="N", default=20, help="how many words to print")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
