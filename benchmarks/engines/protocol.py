"""What all engine scripts share: the verbs, the stopwatch, the check of every answer. Standard library only.

An engine script is a process of its own. It reads commands, one JSON object a line, from standard input and answers each
with one JSON object a line. All offer ``versions``, ``start`` and ``stop``; those for tasks ``check``, ``many``, ``one_by_one``
and ``sleeps`` too, and for actors ``actors``, ``actor_calls`` and ``actor_one_by_one``; those for data are in
``data_protocol``. What tasks or libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from typing import Any


class WrongAnswer(AssertionError):
    """An engine returned something else than the tasks did; none of its numbers may be shown."""


class Script(ABC):
    """What every engine script can do."""

    packages: tuple[str, ...] = ()
    """Distributions whose versions are published with the numbers."""

    @abstractmethod
    def start(self) -> None:
        """Import the library and start a local cluster with two slots."""

    @abstractmethod
    def stop(self) -> None:
        """End the cluster."""

    def verb_versions(self) -> dict[str, Any]:
        """Name Python and the libraries."""
        return {"python": platform.python_version(), **{name: version(name) for name in self.packages}}

    def verb_start(self) -> dict[str, Any]:
        """Start the cluster."""
        began = time.perf_counter()
        self.start()
        return {"wall_s": time.perf_counter() - began}

    def verb_stop(self) -> dict[str, Any]:
        """End the cluster."""
        self.stop()
        return {}


class Engine(Script):
    """An engine for tasks and actors. Subclasses say how it starts, submits, gathers and stops.

    Its actors are of a class ``Counter`` with one method, which returns how often it has been called.
    """

    noop: Callable[..., Any]
    """Does nothing and returns None."""
    square: Callable[[int], int]
    """Returns the square of its argument."""
    sleep_for: Callable[[int, float], int]
    """Sleeps for its second argument, in seconds, and returns its first."""
    keeps_order: bool = True
    """Whether calls to an actor are carried out in the order in which they were made."""
    actors: list[Any]
    """Those that ``actors`` created last."""
    counted: int
    """How often the first of them has been called."""

    @abstractmethod
    def submit(self, fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        """Submit ``fn(*call)`` for every call, in the engine's fastest documented way, and return the futures."""

    @abstractmethod
    def gather(self, futures: list[Any]) -> list[Any]:
        """Return the results in the order of submission."""

    @abstractmethod
    def call(self, fn: Callable[..., Any]) -> Any:
        """Submit ``fn()`` and wait for its result."""

    @abstractmethod
    def create_actor(self) -> Any:
        """Create an actor by the engine's ordinary call, with its default options; blocks as long as that does."""

    @abstractmethod
    def begin_call(self, actor: Any) -> Any:
        """Call the actor's method and return the future."""

    @abstractmethod
    def call_actor(self, actor: Any) -> Any:
        """Call the actor's method and wait for the answer."""

    def gather_calls(self, futures: list[Any]) -> list[Any]:
        """Return the answers of calls to actors in the order of the calls."""
        return self.gather(futures)

    def verb_check(self, n: int) -> dict[str, Any]:
        """Compute squares: warms all slots and shows that tasks really run."""
        self._expect(self.gather(self.submit(self.square, [(i,) for i in range(n)])), [i * i for i in range(n)])
        return {"n": n}

    def verb_many(self, n: int) -> dict[str, Any]:
        """Submit ``n`` no-op tasks at once, then gather."""
        calls: list[tuple[Any, ...]] = [()] * n
        began = time.perf_counter()
        futures = self.submit(self.noop, calls)
        submitted = time.perf_counter()
        answers = self.gather(futures)
        ended = time.perf_counter()
        self._expect(answers, [None] * n)
        return {"n": n, "wall_s": ended - began, "submit_s": submitted - began}

    def verb_one_by_one(self, n: int) -> dict[str, Any]:
        """Run ``n`` no-op tasks, each after the result of the one before."""
        laps = []
        for _ in range(n):
            began = time.perf_counter()
            answer = self.call(self.noop)
            laps.append(time.perf_counter() - began)
            self._expect(answer, None)
        return summarize(laps)

    def verb_sleeps(self, n: int, sleep_s: float) -> dict[str, Any]:
        """Submit ``n`` sleeping tasks at once, then gather."""
        calls = [(i, sleep_s) for i in range(n)]
        began = time.perf_counter()
        answers = self.gather(self.submit(self.sleep_for, calls))
        wall_s = time.perf_counter() - began
        self._expect(answers, list(range(n)))
        return {"n": n, "wall_s": wall_s}

    def verb_actors(self, n: int) -> dict[str, Any]:
        """Create ``n`` actors one after another, call each once and wait for all answers. The actors stay."""
        began = time.perf_counter()
        self.actors = [self.create_actor() for _ in range(n)]
        created = time.perf_counter()
        answers = self.gather_calls([self.begin_call(actor) for actor in self.actors])
        ended = time.perf_counter()
        self._expect(answers, [1] * n)
        self.counted = 1
        return {"n": n, "wall_s": ended - began, "create_s": created - began}

    def verb_actor_calls(self, n: int) -> dict[str, Any]:
        """Call the first actor ``n`` times at once, then gather."""
        actor = self.actors[0]
        began = time.perf_counter()
        futures = [self.begin_call(actor) for _ in range(n)]
        submitted = time.perf_counter()
        answers = self.gather_calls(futures)
        ended = time.perf_counter()
        wanted = list(range(self.counted + 1, self.counted + n + 1))
        self._expect(answers if self.keeps_order else sorted(answers), wanted)
        self.counted += n
        return {"n": n, "wall_s": ended - began, "submit_s": submitted - began}

    def verb_actor_one_by_one(self, n: int) -> dict[str, Any]:
        """Call the first actor ``n`` times, each after the answer of the call before."""
        actor = self.actors[0]
        laps = []
        for _ in range(n):
            began = time.perf_counter()
            answer = self.call_actor(actor)
            laps.append(time.perf_counter() - began)
            self.counted += 1
            self._expect(answer, self.counted)
        return summarize(laps)

    @staticmethod
    def _expect(answer: Any, wanted: Any) -> None:
        if answer != wanted:
            raise WrongAnswer(f"expected {str(wanted)[:80]}, got {str(answer)[:80]}")


def summarize(laps: list[float]) -> dict[str, Any]:
    """Return the sum of round trips given in seconds and, of more than one, the median and the 99th percentile."""
    found = {"n": len(laps), "wall_s": sum(laps)}
    if len(laps) < 2:
        return found
    cuts = statistics.quantiles(laps, n=100)
    return found | {"p50_us": 1e6 * cuts[49], "p99_us": 1e6 * cuts[98]}


def serve(engine: Script) -> None:
    """Answer commands until ``stop`` or the end of the input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        verb = command.pop("do")
        try:
            answer = getattr(engine, f"verb_{verb}")(**command)
        except Exception as error:  # whatever an engine raises is a lost round, with its reason
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if verb == "stop":
            return
