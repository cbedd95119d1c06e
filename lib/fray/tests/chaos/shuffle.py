"""What the client of Zephyr does: one shuffle after the other, over the same files, each to outputs of its own.

The driver may be killed: the next client of the same name goes on with the round that has not ended.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fray import JobContext
from zephyr import Backend, Dataset

from chaos import jobs
from chaos.ledger import Book

FILES, LINES, KEYS, SHARDS = 6, 150, 23, 3
NAP_S = 0.03


def write_inputs(folder: Path, seed: int) -> str:
    """Write the inputs and return what a shuffle over them must give, computed without either package."""
    chance = random.Random(seed)
    totals: Counter[str] = Counter()
    folder.mkdir(parents=True)
    for number in range(FILES):
        records = [{"key": f"k{chance.randrange(KEYS)}", "n": chance.randrange(1000)} for _ in range(LINES)]
        for record in records:
            totals[str(record["key"])] += int(str(record["n"]))
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return summarise([{"key": key, "total": total} for key, total in totals.items()])


def summarise(records: Iterable[dict[str, Any]]) -> str:
    """Return a digest of records that does not depend on their order."""
    return jobs.compute_value(*sorted(f"{record['key']}={record['total']}" for record in records))


def read_outputs(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a round's outputs."""
    return [json.loads(line) for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]


class ShuffleClient:
    """Runs one round after the other until a file says to stop."""

    def __init__(self, ctx: JobContext, book: Book, name: str, seed: str, stop: Path) -> None:
        self._ctx, self._book, self._name, self._stop = ctx, book, name, stop
        self._folder = stop.parent

    def run(self, workload: str) -> None:
        """Run rounds. Blocks."""
        done = self._folder / "rounds"
        done.mkdir(exist_ok=True)
        number = len(list(done.iterdir()))
        while not self._stop.exists():
            self._run_round(number)
            (done / str(number)).touch()
            number += 1

    def _run_round(self, number: int) -> None:
        key = f"shuffle/{number}"
        outputs = self._folder / "outputs" / str(number)
        self._book.write("submitted", key, value=(self._folder / "expected").read_text())
        try:
            Backend.execute(
                _make_dataset(self._book, key, self._folder / "inputs", outputs),
                self._ctx,
                storage_path=str(self._folder / "intermediate"),
                name=f"round-{number}",
                resume=True,
                progress=False,
            )
        except Exception as error:
            self._book.write("failed", key, value=type(error).__name__, text=str(error)[:600])
            return
        self._book.write("seen", key, value=summarise(read_outputs(outputs)), nonce="outputs")


def _make_dataset(book: Book, key: str, inputs: Path, outputs: Path) -> Dataset[str]:
    folder = book.folder

    def read_slowly(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        from chaos import jobs
        from chaos.ledger import Book

        first = next(records)
        with jobs.execution(Book(folder), f"{key}/{first['key']}-{first['n']}"):
            jobs.rest(NAP_S)
            yield first
            yield from records

    def total(group: str, records: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return {"key": group, "total": sum(record["n"] for record in records)}

    files = Dataset.from_files(f"{inputs}/*.jsonl").load_jsonl().map_shard(read_slowly)
    groups = files.group_by(lambda record: record["key"], total, num_output_shards=SHARDS)
    return groups.write_jsonl(f"{outputs}/part-{{shard:05d}}.jsonl")
