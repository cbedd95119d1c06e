"""What happened, written down outside of Fray: one file for each process, one line for each fact, only ever appended to.

A process that is killed leaves at most its own last line unfinished; that line is passed over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from witness import Ledger as ActorLedger
from witness import Line


@dataclass(frozen=True, slots=True)
class Fact:
    """One line. Which fields it has depends on ``what``."""

    what: str
    """Of a client: submitted, seen, failed, changed, hung, left. Of a task: began, ended. Of the run: fault, published."""
    key: str = ""
    """``CLIENT/NUMBER`` of a task, the name of a client or file, or what a fault hit."""
    nonce: str = ""
    """Names one execution of a task."""
    value: str = ""
    """The result that is expected, or that came."""
    inputs: dict[str, str] | None = None
    """Of ``began``: the executions by key whose results it was given."""
    text: str = ""
    """Words for people."""
    pid: int = 0
    """Who wrote it."""
    at: float = 0.0
    """Seconds on the machine's monotonic clock."""


@dataclass(frozen=True, slots=True)
class Book:
    """A directory of facts. Thread-safe, also among processes."""

    folder: str

    def write(self, what: str, key: str = "", **fields: Any) -> None:
        """Append a fact."""
        pid = os.getpid()
        values = asdict(Fact(what, key, pid=pid, at=time.monotonic(), **fields))
        line = json.dumps({name: value for name, value in values.items() if value})
        _append(Path(self.folder) / f"{pid}.facts", line)

    def read(self) -> list[Fact]:
        """Return all facts so far, in the order of time."""
        found = [Fact(**values) for path in Path(self.folder).glob("*.facts") for values in _read(path)]
        return sorted(found, key=lambda fact: fact.at)

    def actors(self) -> CallBook:
        """Return the part in which actors and their callers write."""
        return CallBook(f"{self.folder}/calls")


class CallBook(ActorLedger):
    """The ledger of the tests of actors, with a file for each process."""

    __slots__ = ()

    def write(self, what: str, **fields: Any) -> None:
        ActorLedger(f"{self.path}.{os.getpid()}").write(what, **fields)

    def read(self) -> list[Line]:
        path = Path(self.path)
        found = [Line(**values) for part in path.parent.glob(f"{path.name}.*") for values in _read(part)]
        return sorted(found, key=lambda line: line.at)


def _append(path: Path, line: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n")[:-1]:  # what has no end of line was not finished
        yield json.loads(line)
