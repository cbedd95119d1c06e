"""Run jobs, each in a process forked from this one, which has imported all that they need and runs no threads.

Reads an order as a line of JSON, answers with the process's id, and then with how it has stopped or ended. A job notes in its
ledger which user functions start, and sends itself a signal at the call, or before the change of a storage, that its order
names: no test needs to hit a moment by waiting for it.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fray import create_job_ctx
from zephyr import Backend, Dataset, counters

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
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

    job: Literal["shuffle", "flat"]
    inputs: str
    out: str
    storage: str
    log: str
    """Where stderr goes."""
    ledger: str
    """Where user functions are noted; its last line tells how many changes there were."""
    name: str | None = "job"
    halt: Halt | None = None
    signed: bool = False
    """Whether records tell which process has made them."""
    max_parallelism: int = 2
    fails_at: str | None = None
    """A call that raises."""
    env: dict[str, str] = field(default_factory=dict)


class Spy:
    """Counts calls and changes, and sends the signal. No plain value, so what it holds is no part of a plan."""

    def __init__(self) -> None:
        self.order: Order | None = None
        self._counts = {"call": itertools.count(1), "change": itertools.count(1)}
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
        self.note("call")
        if name == self.order.fails_at:
            raise RuntimeError(f"{name} fails")

    def note(self, kind: Literal["call", "change"]) -> None:
        number = next(self._counts[kind])
        halt = self.order.halt if self.order is not None else None
        if halt is not None and (halt.at, halt.number) == (kind, number):
            os.kill(os.getpid(), halt.signal)

    def signature(self) -> int:
        return os.getpid() if self.order is not None and self.order.signed else 0

    def end(self) -> None:
        assert self.order is not None
        with Path(self.order.ledger).open("a") as file:
            file.write(f"changes {next(self._counts['change']) - 1}\n")

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wxa"))
        if changes and isinstance(args[0], (str, os.PathLike)) and os.fspath(args[0]).startswith(self._roots):
            self.note("change")


class _Requests(logging.Handler):
    """Sees what s3fs is about to ask for."""

    def __init__(self, spy: Spy) -> None:
        super().__init__()
        self._spy = spy

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().removeprefix("CALL: ").startswith(REMOTE_CHANGES):
            self._spy.note("change")


SPY = Spy()


def mark(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    first = next(records)
    SPY.call(f"map {first['file']}")
    for record in itertools.chain([first], records):
        counters.increment("seen")
        yield {**record, "kind": record["key"] in {"key-00", "key-01", "key-02"}, "by": SPY.signature()}


def key_of(record: dict[str, Any]) -> str:
    key: str = record["key"]
    return key


def summarise(key: str, records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    SPY.call(f"reduce {key}")
    found = [[record["file"], record["n"], record["kind"]] for record in records]
    return {"key": key, "found": found, "by": SPY.signature()}


def dataset(order: Order) -> Dataset[str]:
    marked = Dataset.from_files(f"{order.inputs}/*.jsonl").load_jsonl().map_shard(mark)
    if order.job == "flat":
        return marked.write_parquet(f"{order.out}/{{basename}}.parquet")
    grouped = marked.group_by(key_of, summarise, num_output_shards=8)
    return grouped.write_jsonl(f"{order.out}/part-{{shard:02d}}-of-{{total:02d}}.jsonl.gz")


def carry_out(order: Order) -> None:
    os.environ.update(order.env)
    with Path(order.log).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.WARNING)
    SPY.start(order)
    with create_job_ctx("threadpool", max_workers=2) as context:
        Backend.execute(
            dataset(order),
            context,
            max_parallelism=order.max_parallelism,
            storage_path=order.storage,
            spill_threshold_bytes=0,
            name=order.name,
            resume=True,
            progress=False,
        )
    SPY.end()


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
