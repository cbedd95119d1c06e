"""An actor that tells a file all it does, and callers that tell the same file what they asked for and what they heard.

Every line is one append to one file, so the order of the lines of one process is the order of what they tell of. A *life* is a
random word that an instance gives itself when it is made, be it by its constructor or from a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Mark = tuple[str, str, int, str]
"""What a call answers: actor, life, count and digest after the call."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file. Which fields it has depends on ``what``."""

    what: str
    """Of an actor: born, begin, end. Of a caller: made, answered, failed, created, refused, kill."""
    actor: str = ""
    """``SLOT.WORD``: every creation has a word of its own."""
    life: str = ""
    """Which instance of it."""
    caller: str = ""
    """Whose calls are numbered by ``number``."""
    number: int = 0
    """Which call of the caller's."""
    count: int = 0
    """Calls that the state has seen."""
    digest: str = ""
    """Of these calls, in order."""
    error: str = ""
    """Type of the failure."""
    text: str = ""
    """Its words."""
    pid: int = 0
    """The process of the instance."""
    at: float = 0.0
    """Seconds on the machine's monotonic clock."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The file."""

    path: str

    def write(self, what: str, **fields: Any) -> None:
        """Append a line. Thread-safe, also among processes."""
        line = {key: value for key, value in asdict(Line(what, at=time.monotonic(), **fields)).items() if value}
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, json.dumps(line).encode() + b"\n")
        finally:
            os.close(fd)

    def read(self) -> list[Line]:
        """Return all lines so far."""
        path = Path(self.path)
        return [Line(**json.loads(text)) for text in path.read_text().splitlines()] if path.exists() else []


def chain_digest(digest: str, caller: str, number: int) -> str:
    """Return the digest of a state after one more call."""
    return hashlib.blake2b(f"{digest}/{caller}/{number}".encode(), digest_size=6).hexdigest()


class Witness:
    """The actor: counts its calls."""

    def __init__(self, ledger: Ledger, actor: str) -> None:
        self._live(ledger, actor, 0, "")

    def __getstate__(self) -> tuple[Ledger, str, int, str]:
        return self._ledger, self._actor, self._count, self._digest

    def __setstate__(self, state: tuple[Ledger, str, int, str]) -> None:
        self._live(*state)

    def add(self, caller: str, number: int, nap_s: float = 0.0) -> Mark:
        """Carry out a call."""
        self._tell("begin", caller, number)
        if nap_s:
            threading.Event().wait(nap_s)
        return self._take(caller, number)

    def pass_on(self, other: Any, slot: str, caller: str, number: int) -> Mark:
        """Carry out a call that calls another actor, under a caller's name made from this call."""
        self._tell("begin", caller, number)
        inner = Caller(self._ledger, f"{caller}+{number}+{self._life}")
        inner.wait(inner.call(other, slot))
        return self._take(caller, number)

    def _live(self, ledger: Ledger, actor: str, count: int, digest: str) -> None:
        self._ledger, self._actor, self._count, self._digest = ledger, actor, count, digest
        self._life = secrets.token_hex(4)
        self._tell("born")

    def _take(self, caller: str, number: int) -> Mark:
        self._count += 1
        self._digest = chain_digest(self._digest, caller, number)
        self._tell("end", caller, number)
        return self._actor, self._life, self._count, self._digest

    def _tell(self, what: str, caller: str = "", number: int = 0) -> None:
        self._ledger.write(
            what,
            actor=self._actor,
            life=self._life,
            caller=caller,
            number=number,
            count=self._count,
            digest=self._digest,
            pid=os.getpid(),
        )


class Caller:
    """One sequence of calls. Thread-safe: the numbers are in the order in which the calls are made."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.name = name
        self._ledger = ledger
        self._lock = threading.Lock()  # guards _number, and the order of what is called
        self._number = 0

    def call(self, handle: Any, slot: str, nap_s: float = 0.0) -> Any:
        """Make a call and return its future; what becomes of it is written down when it is done."""
        return self._make(slot, lambda number: handle.add.remote(self.name, number, nap_s))

    def call_through(self, handle: Any, slot: str, other: Any, other_slot: str) -> Any:
        """The same; the actor calls another one on the way."""
        return self._make(slot, lambda number: handle.pass_on.remote(other, other_slot, self.name, number))

    def wait(self, future: Any, timeout_s: float = 60.0) -> bool:
        """Wait for a call; tell whether it was answered."""
        return future.exception(timeout_s) is None

    def _make(self, slot: str, make: Any) -> Any:
        with self._lock:
            self._number += 1
            number = self._number
            self._ledger.write("made", actor=slot, caller=self.name, number=number)
            future = make(number)
        future.add_done_callback(lambda _: self._note(future, number))
        return future

    def _note(self, future: Any, number: int) -> None:
        if future.cancelled():
            self._ledger.write("failed", caller=self.name, number=number, error="Cancelled")
            return
        error = future.exception()
        if error is None:
            actor, life, count, digest = future.result()
            fields = {"actor": actor, "life": life, "count": count, "digest": digest}
            self._ledger.write("answered", caller=self.name, number=number, **fields)
        else:
            self._ledger.write("failed", caller=self.name, number=number, error=type(error).__name__, text=str(error)[:300])


def use_in_task(ledger: Ledger, handles: dict[str, Any], name: str, count: int) -> None:
    """A task that calls actors whose handles came inside an argument."""
    caller = Caller(ledger, f"{name}/{secrets.token_hex(3)}")  # a task may run again
    futures = [caller.call(handle, slot) for _ in range(count) for slot, handle in handles.items()]
    for future in futures:
        caller.wait(future)
