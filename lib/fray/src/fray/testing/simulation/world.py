"""Virtual time, chance and the network: what everybody in a simulation shares, and what knows none of them.

There is one source of chance, and things of the same moment happen in the order in which they were asked for, so that a
seed always means the same. Calls and streams are all that connects members with the controller.
"""

from __future__ import annotations

import contextlib
import enum
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Any

from fray.testing.simulation.ledger import Ledger
from fray.testing.simulation.report import SimulationReport, Violation
from fray.testing.simulation.scripts import Script
from fray.types import TaskId

LOG_LINES = 80
"""Events shown when a seed fails."""


class Rejected(Exception):
    """The controller answered that it does not know somebody, or has no room."""


class Plant(enum.Enum):
    """A bug that is planted on purpose, to show that the simulation notices."""

    NO_LEASE = "workers take calls and answer them without a lease"
    RESTART_AT_ONCE = "actors of lost workers are restarted at once"
    REPEATED_CALLS = "calls that come twice are carried out twice"
    STALE_ANSWERS = "answers of any incarnation are taken for the latest"
    RETRIED_ANYWAY = "calls that must not be made again are"
    EARLY_ACKNOWLEDGEMENTS = "what is accepted is acknowledged before it is saved"
    OLD_NUMBERS = "results of a restarted controller are resumed by the numbers of the one before"
    NOBODY_AWAITED = "a restarted controller does not wait for the workers that were there"
    EARLY_NEWS = "news of an actor that overtake the answer to its creation are lost"


class World:
    """Time, chance, the network, and what everybody may know."""

    def __init__(self, seed: int, faulty_s: float, plants: Collection[Plant] = ()) -> None:
        self.rng = random.Random(seed)
        self.actor_rng = random.Random(f"actors of {seed}")
        """Decides what actors there are; apart, so that a seed without actors means what it meant before there were any."""
        self.disk_rng = random.Random(f"disk of {seed}")
        """Decides how long writing takes, and when the controller crashes; apart for the same reason."""
        self.is_durable = self.disk_rng.random() < 0.8
        """Whether the controller has a disk: then it may crash."""
        self.plants = frozenset(plants)
        self.report = SimulationReport(seed)
        self.ledger = Ledger(self.report)
        self.now = 0.0
        self.faulty = faulty_s > 0
        """Whether faults still happen."""
        self.is_undisturbed = not self.faulty
        """Whether no fault ever happens: then nothing is lost without a reason of its own."""
        self.calm = False
        """Whether nothing is lost and nobody dies from the beginning: the plain course of things."""
        self.loss = 0.0
        """The chance that a message is lost."""
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.scripts: dict[TaskId, Script] = {}
        self.runs: Counter[TaskId] = Counter()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = 0

    def draw_odds(self) -> None:
        """Decide how bad the network is. When this is called belongs to what a seed means, as every draw does."""
        self.loss = self.rng.choice([0.0, 0.02, 0.1])
        self.calm = self.rng.random() < 0.1
        self.is_undisturbed = self.is_undisturbed or self.calm

    def note(self, text: str) -> None:
        """Remember a line for those who look for what went wrong."""
        self.log.append(f"{self.now:9.4f}    {text}")

    def at(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later."""
        self._ticket += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._ticket, what))

    def advance(self) -> Callable[[], None] | None:
        """Let time pass until something is to be done, and return it; None when nothing is left."""
        if not self._heap:
            return None
        when, _, what = heapq.heappop(self._heap)
        self.now = max(self.now, when)
        return what

    def delay(self) -> float:
        """Return how long a message travels."""
        if self.faulty and not self.calm and self.rng.random() < 0.05:
            return self.rng.uniform(0.1, 3.0)
        return self.rng.uniform(0.0002, 0.02)

    def happens(self, chance: float, what: str) -> bool:
        """Decide on a fault."""
        if not self.faulty or self.calm or self.rng.random() >= chance:
            return False
        self.report.faults[what] += 1
        return True

    def call(
        self,
        handler: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
        held_s: float = 0.0,
        when_saved: Callable[[Callable[[], None], Callable[[], None]], None] | None = None,
    ) -> None:
        """Make a unary call: its request or its answer may get lost, and a request may come twice.

        With ``when_saved``, the answer goes out when what the call has changed is saved.
        """
        if self.happens(self.loss, "request lost"):
            self.at(self.rng.uniform(0.3, 2.0), lambda: failed("lost"))
            return

        def deliver() -> None:
            try:
                answer = handler()
            except Rejected as rejected:
                text = str(rejected)
                self.at(self.delay(), lambda: failed(text))
                return
            if when_saved is None:
                reply(answer)
            else:
                when_saved(lambda: reply(answer), lambda: self.at(self.delay(), lambda: failed("lost")))

        def reply(answer: Any) -> None:
            if self.happens(self.loss, "answer lost"):
                self.at(self.rng.uniform(0.3, 2.0), lambda: failed("lost"))
            else:
                self.at(self.delay(), lambda: done(answer))

        def deliver_again() -> None:
            with contextlib.suppress(Rejected):  # nobody listens to the answer
                handler()

        wait_s = held_s + self.delay()
        self.at(wait_s, deliver)
        if self.happens(self.loss / 2, "request repeated"):
            self.at(wait_s + self.rng.uniform(0.0, 4.0), deliver_again)

    def require(self, holds: bool, text: str, task: TaskId | None = None) -> None:
        """Fail the seed unless something holds.

        Raises:
            Violation: it does not; ``simulate`` adds the seed and the stories.
        """
        if not holds:
            raise Violation(text, task)


class Stream:
    """Messages from the controller to a member, in order, until it breaks. Each end learns of that in its own time."""

    def __init__(self, world: World, take: Callable[[Any], None], ended: Callable[[str], None]) -> None:
        self._world, self._take, self._ended = world, take, ended
        self.lost_by_server: Callable[[], None] = lambda: None
        self.broken = False
        self._last = 0.0

    def send(self, message: Any) -> None:
        """Push a message; into the void, when the stream has broken and the controller does not know yet."""
        self._deliver(lambda: self._take(message))

    def finish(self, why: str = "ended") -> None:
        """End it from the controller's side."""
        self._deliver(lambda: self._break(why))

    def cut(self) -> None:
        """Break it."""
        if self.broken:
            return
        self.broken = True
        rng = self._world.rng
        self._world.at(rng.uniform(0.0, 1.5), lambda: self._ended("broken"))
        self._world.at(rng.uniform(0.0, 1.5), self.lost_by_server)

    def _break(self, why: str) -> None:
        self.broken = True
        self._ended(why)

    def _deliver(self, what: Callable[[], None]) -> None:
        world = self._world
        self._last = max(self._last, world.now + world.delay())

        def arrive() -> None:
            if not self.broken:
                what()

        world.at(self._last - world.now, arrive)
