"""Drivers of resumable runs as their tests meet them: processes that are started, stopped, and looked at from outside."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fsspec
import jobs
import pyarrow.parquet as pq
import xxhash
from jobs import Halt, Order

BESIDE = {"_manifest.json", "_SUCCESS"}
SETTINGS = ("AWS_", "FRAY_STORAGE")
KILLED = -signal.SIGKILL


class Names:
    """Names that a test and the functions of its dataset share. No plain value, so what it holds is no part of a plan."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def add(self, name: Any) -> None:
        self.found.append(name)

    def clear(self) -> None:
        self.found.clear()


class Nursery:
    """A process that forks one job at a time."""

    def __enter__(self) -> Self:
        env = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        command = [sys.executable, jobs.__file__]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass

    def start(self, order: Order) -> int:
        """Start a process and return its id. Wait for its end before starting the next."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return int(self.wait())

    def wait(self) -> str:
        """Block until the process has stopped (``stopped``) or ended (its exit code, or minus the signal)."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, order: Order) -> int:
        """Run a process to its end."""
        self.start(order)
        return int(self.wait())


@dataclass(frozen=True, slots=True)
class Result:
    """What a run has left where its outputs are."""

    files: dict[str, bytes]
    """By name, without what is beside them."""
    entries: list[dict[str, Any]]
    """Of the manifest."""
    totals: dict[str, Any]
    """Rows, bytes, counters and bad records of the manifest."""
    others: set[str]
    """Names of all else there."""

    def check_manifest(self) -> None:
        """Make sure that the manifest describes the files that are there."""
        measured = {name: (len(data), xxhash.xxh3_128(data).hexdigest()) for name, data in self.files.items()}
        assert {entry["name"]: (entry["bytes"], entry["checksum"]) for entry in self.entries} == measured
        assert {entry["name"]: entry["rows"] for entry in self.entries} == {
            name: len(read_records(name, data)) for name, data in self.files.items()
        }


def read_records(name: str, data: bytes) -> list[dict[str, Any]]:
    """Return the records of an output."""
    if name.endswith(".parquet"):
        records: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
        return records
    return [json.loads(line) for line in gzip.decompress(data).splitlines()]


class Case:
    """One run and its place: outputs, intermediate data, and a ledger for each process that has worked on it."""

    def __init__(self, nursery: Nursery, inputs: Path, place: str, scratch: Path, storage: str = "local") -> None:
        self._nursery = nursery
        self._scratch = scratch
        self._env = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
        self.place = place
        self.storage = storage
        self.inputs = inputs
        self.ledgers: list[Path] = []

    def order(self, job: str, **changes: Any) -> Order:
        """Return an order with a ledger of its own."""
        ledger = self._scratch / f"ledger-{uuid.uuid4().hex}"
        ledger.touch()
        self.ledgers.append(ledger)
        place, log = self.place, str(self.log)
        fields: dict[str, Any] = {"job": job, "inputs": str(self.inputs), "out": f"{place}/out", "storage": f"{place}/storage"}
        return Order(**fields, log=log, ledger=str(ledger), env=self._env, **changes)

    def run(self, job: str, **changes: Any) -> int:
        """Run a process to its end and return how it has ended."""
        return self._nursery.run(self.order(job, **changes))

    def finish(self, job: str, **changes: Any) -> Result:
        """Run a process that must succeed, and return what there is then."""
        assert self.run(job, **changes) == 0, self.log.read_text()
        return self.result()

    def beside(self, place: str) -> Case:
        """Return a case of another place with the same input."""
        return Case(self._nursery, self.inputs, place, self._scratch, self.storage)

    @property
    def log(self) -> Path:
        """What all processes have printed."""
        return self._scratch / "log"

    def calls(self) -> list[list[str]]:
        """Return the user functions that were started, by process."""
        ledgers = [ledger.read_text().splitlines() for ledger in self.ledgers]
        return [[line for line in lines if not line.startswith("{")] for lines in ledgers]

    def told(self) -> Any:
        """Return what the process that was started last has told at its end: ``changes`` of a storage, and ``items``."""
        return json.loads(self.ledgers[-1].read_text().splitlines()[-1])

    def result(self) -> Result:
        """Return what is where the outputs are."""
        there = dict(self._list("out"))
        (write,) = json.loads(there["_manifest.json"])["writes"].values()
        files = {name: data for name, data in there.items() if name not in BESIDE and not name.startswith(".")}
        totals = {name: write[name] for name in ("rows", "bytes", "counters", "bad_records", "fingerprint")}
        return Result(files, write["files"], totals, there.keys() - files.keys())

    def leftovers(self) -> set[str]:
        """Return the names of the intermediate data that is there."""
        return {name for name, _ in self._list("storage")}

    def _list(self, directory: str) -> Iterator[tuple[str, bytes]]:
        fs, inner = fsspec.url_to_fs(f"{self.place}/{directory}")
        fs.invalidate_cache()
        for path in fs.find(inner):
            yield path.removeprefix(inner).lstrip("/"), fs.cat_file(path)


__all__ = ["BESIDE", "KILLED", "Case", "Halt", "Names", "Nursery", "Order", "Result", "read_records"]
