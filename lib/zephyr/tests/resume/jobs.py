"""Run jobs, each in a process forked from this one, which has imported all that they need and runs no threads.

Reads an order as a line of JSON, answers with the process's id, and then with how it has stopped or ended. A job notes in its
ledger which user functions start, and sends itself a signal at the call, or before the change of a storage, that its order
names: no test needs to hit a moment by waiting for it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fray import create_job_ctx
from zephyr import Backend, Dataset, counters

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
REMOVALS = {"os.remove", "os.rmdir"}
MAX_NOTED = 400
REMOTE_CHANGES = ("put_object", "copy_object", "delete_object", "create_multipart", "upload_part", "complete_multipart")


@dataclass(frozen=True, slots=True)
class Halt:
    """When a job sends itself a signal."""

    at: Literal["call", "change"]
    """What is counted: starts of user functions, or changes of a storage."""
    number: int
    """Which one, from 1."""
    signal: int = int(signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Order:
    """What a process does."""

    job: Literal["shuffle", "flat", "items"]
    """Both steps and JSON lines, one step and Parquet, or both steps and no output."""
    inputs: str
    out: str
    storage: str
    log: str
    """Where stderr goes."""
    ledger: str
    """Where user functions are noted; its last line tells what came out, and which changes there were."""
    name: str | None = "job"
    halt: Halt | None = None
    signed: bool = False
    """Whether records tell which process has made them."""
    changed: bool = False
    """Whether it is another plan, with another result."""
    max_parallelism: int = 2
    fails_at: str | None = None
    """A call that raises."""
    padding_bytes: int = 0
    """What is added to each record; it does not compress well."""
    file_limit_bytes: int | None = None
    """The size that no file can exceed."""
    env: dict[str, str] = field(default_factory=dict)


class Spy:
    """Counts calls and changes, and sends the signal. No plain value, so what it holds is no part of a plan."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self._calls: list[str] = []
        self._changes: list[str] = []
        self._lock = threading.Lock()  # guards both, and nothing else may happen while it is held
        self._roots: tuple[str, ...] = ()

    def start(self, order: Order) -> None:
        self.order, self._roots = order, (order.out, order.storage)
        sys.addaudithook(self._audit)
        logging.getLogger("s3fs").setLevel(logging.DEBUG)
        logging.getLogger("s3fs").propagate = False
        logging.getLogger("s3fs").addHandler(_Requests(self))

    def call(self, name: str) -> None:
        assert self.order is not None
        with Path(self.order.ledger).open("a") as file:
            file.write(f"{name}\n")
        self._note("call", self._calls, name)
        if name == self.order.fails_at:
            raise RuntimeError(f"{name} fails")

    def change(self, what: str) -> None:
        self._note("change", self._changes, what)

    def _note(self, kind: str, noted: list[str], what: str) -> None:
        with self._lock:
            noted.append(what)
            number = len(noted)
        halt = self.order.halt if self.order is not None else None
        if halt is not None and (halt.at, halt.number) == (kind, number):
            os.kill(os.getpid(), halt.signal)

    def signature(self) -> int:
        return os.getpid() if self.order is not None and self.order.signed else 0

    def padding(self, record: dict[str, Any]) -> str:
        size = self.order.padding_bytes // 2 if self.order is not None else 0
        return hashlib.shake_256(f"{record['file']} {record['n']}".encode()).hexdigest(size)

    def end(self, items: list[Any]) -> None:
        assert self.order is not None
        with Path(self.order.ledger).open("a") as file:
            file.write(json.dumps({"changes": self._changes, "items": items}) + "\n")

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa")):
            path = os.fspath(args[0]) if isinstance(args[0], (str, os.PathLike)) else ""
            in_tree = event in REMOVALS and args[1] != -1  # a removal of a whole tree gives names within its directories
            if in_tree or path.startswith(self._roots):
                self.change(f"{event} {path}")


class _Requests(logging.Handler):
    """Sees what s3fs is about to ask for."""

    def __init__(self, spy: Spy) -> None:
        super().__init__()
        self._spy = spy

    def emit(self, record: logging.LogRecord) -> None:
        request = record.getMessage().removeprefix("CALL: ")
        if request.startswith(REMOTE_CHANGES):
            self._spy.change(request[:MAX_NOTED])


SPY = Spy()


def mark(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    first = next(records)
    SPY.call(f"map {first['file']}")
    for record in itertools.chain([first], records):
        counters.increment("seen")
        kind = record["key"] in {"key-00", "key-01", "key-02"}
        yield {**record, "kind": kind, "by": SPY.signature(), "padding": SPY.padding(record)}


def mark_otherwise(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for record in mark(records):
        yield {**record, "n": -record["n"]}


def key_of(record: dict[str, Any]) -> str:
    key: str = record["key"]
    return key


def summarise(key: str, records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    SPY.call(f"reduce {key}")
    found = [[record["file"], record["n"], record["kind"]] for record in records]
    return {"key": key, "found": found, "by": SPY.signature()}


def dataset(order: Order) -> Dataset[Any]:
    loaded = Dataset.from_files(f"{order.inputs}/*.jsonl").load_jsonl()
    marked = loaded.map_shard(mark_otherwise if order.changed else mark)
    if order.job == "flat":
        return marked.write_parquet(f"{order.out}/{{basename}}.parquet")
    grouped = marked.group_by(key_of, summarise, num_output_shards=8)
    if order.job == "items":
        return grouped
    return grouped.write_jsonl(f"{order.out}/part-{{shard:02d}}-of-{{total:02d}}.jsonl.gz")


def carry_out(order: Order) -> None:
    os.environ.update(order.env)
    with Path(order.log).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.WARNING)
    if order.file_limit_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_limit_bytes, order.file_limit_bytes))
    SPY.start(order)
    with create_job_ctx("threadpool", max_workers=2) as context:
        items = Backend.execute(
            dataset(order),
            context,
            max_parallelism=order.max_parallelism,
            storage_path=order.storage,
            spill_threshold_bytes=0,
            name=order.name,
            resume=True,
            progress=False,
        )
    SPY.end(items)


def read_order(line: str) -> Order:
    fields = json.loads(line)
    return Order(**{**fields, "halt": fields["halt"] and Halt(**fields["halt"])})


def fork(line: str) -> int:
    """Start a process for an order and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        carry_out(read_order(line))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve(lines: Iterator[str]) -> None:
    for line in lines:
        pid = fork(line)
        print(pid, flush=True)
        ended = False
        while not ended:
            _, status = os.waitpid(pid, os.WUNTRACED)
            ended = not os.WIFSTOPPED(status)
            print(os.waitstatus_to_exitcode(status) if ended else "stopped", flush=True)


def main(args: Sequence[str]) -> None:
    if args:
        carry_out(read_order(args[0]))
        return
    with suppress(ImportError):
        import pyarrow.parquet  # noqa: F401
        import s3fs  # noqa: F401
    serve(iter(sys.stdin))


if __name__ == "__main__":
    main(sys.argv[1:])
