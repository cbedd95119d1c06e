"""What clients of tasks do: single tasks, tasks that start tasks, and tasks that depend on tasks."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fray import JobContext, JobFuture

from chaos import jobs
from chaos.ledger import Book

WINDOW = 16
"""Tasks that a client has under way."""
SETTLE_S = 120.0
"""Within this all futures must have ended when nothing disturbs them any more."""


@dataclass(frozen=True, slots=True)
class Given:
    """A task that was submitted, and what must come of it."""

    key: str
    value: str
    future: JobFuture[Any]


class TaskClient:
    """Submits tasks until a file says to stop, and writes down what came of each."""

    def __init__(self, ctx: JobContext, book: Book, name: str, seed: str, stop: Path) -> None:
        self._ctx, self._book, self._name, self._stop = ctx, book, name, stop
        self._chance = random.Random(seed)
        self._numbers = itertools.count(1)
        self._room = threading.Semaphore(WINDOW)
        self._given: list[Given] = []

    def run(self, workload: str) -> None:
        """Submit tasks of one workload, then wait for all and look at each once more. Blocks."""
        deed: Callable[[], None] = {"flat": self._flat, "nested": self._nested, "dependencies": self._dependencies}[workload]
        while not self._stop.exists():
            deed()
        self._settle()

    def _flat(self) -> None:
        kind = self._chance.choices(["nap", "long", "large", "raise", "child"], [20, 1, 1, 2, 2])[0]
        seconds = self._chance.uniform(0.8, 1.5) if kind in ("long", "child") else self._chance.choice([0.0, 0.005, 0.03, 0.1])
        word = f"{self._name} {kind}"
        if kind == "raise":
            self._submit(word, jobs.raise_word, word, seconds)
        elif kind == "child":
            self._submit(jobs.compute_value(word), jobs.start_child, word, seconds)
        else:
            padding = jobs.LARGE_BYTES if kind == "large" else 0
            self._submit(jobs.compute_value(word), jobs.nap, word, seconds, padding)

    def _nested(self) -> None:
        width = self._chance.randint(1, 4)
        word = f"{self._name} {width}"
        self._submit(jobs.split_value(word, width), jobs.split, word, self._chance.choice([0.005, 0.05, 0.2]), width)

    def _dependencies(self) -> None:
        if self._chance.random() < 0.5:
            link = self._combine()
            for _ in range(self._chance.randint(2, 5)):
                link = self._combine(link)
        else:
            top = self._combine()
            self._combine(*[self._combine(top) for _ in range(self._chance.randint(2, 4))])

    def _combine(self, *inputs: Given) -> Given:
        word = f"{self._name} {self._chance.random():.3f}"
        value = jobs.compute_value(word, *(each.value for each in inputs))
        seconds = self._chance.choice([0.0, 0.01, 0.05, 0.3])
        return self._submit(value, jobs.combine, word, seconds, *(each.future for each in inputs))

    def _submit(self, value: str, job: Callable[..., Any], *args: Any) -> Given:
        self._room.acquire()
        key = f"{self._name}/{next(self._numbers)}"
        future = self._ctx.run(job, self._book, key, *args)
        self._book.write("submitted", key, value=value)
        given = Given(key, value, future)
        self._given.append(given)
        future.add_done_callback(lambda _: self._note(given))
        return given

    def _note(self, given: Given) -> None:
        self._room.release()
        what, fields = _describe(given)
        self._book.write(what, given.key, **fields)

    def _settle(self) -> None:
        for given in self._given:
            try:
                given.future.exception(SETTLE_S)
            except TimeoutError:
                self._book.write("hung", given.key, text=str(getattr(given.future, "task_id", "")))
                continue
            self._book.write("again", given.key, **_describe(given)[1])


def _describe(given: Given) -> tuple[str, dict[str, str]]:
    """Return what came of a task that has ended."""
    try:
        _, value, nonce, _ = given.future.result()
    except ValueError as error:
        return "seen", {"value": str(error), "nonce": "raised"}
    except BaseException as error:
        return "failed", {"value": type(error).__name__, "text": str(error)[:600]}
    return "seen", {"value": value, "nonce": nonce}
