"""The direct lane of a simulation: connections between callers and workers, and the other way, with a worker's reports.

A connection keeps its order until it breaks. What was on its way then is lost, and each end learns of it in its own time.
"""

from __future__ import annotations

from collections.abc import Callable

from fray.job.rpc.proto import fray_pb as pb
from fray.testing.simulation.world import World


class Wire:
    """One direction of a connection."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken = False
        self._last = 0.0

    def carry(self, what: Callable[[], None]) -> None:
        """Let something happen at the other end, after what was sent before; never, if the connection breaks first."""
        world = self._world
        self._last = max(self._last, world.now + world.delay())

        def arrive() -> None:
            if not self.broken:
                what()

        world.at(self._last - world.now, arrive)


class Back:
    """The worker's end: the way back to a caller."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def send(self, answers: pb.ActorAnswers) -> None:
        """Send answers; into the void when the connection is broken."""
        self._line.answer(answers)


class Line:
    """One connection of a caller to a worker's desk."""

    def __init__(
        self,
        world: World,
        address: str,
        on_calls: Callable[[pb.ActorCalls, Back], None],
        on_answers: Callable[[pb.ActorAnswers], None],
        on_break: Callable[[Line], None],
    ) -> None:
        self.address = address
        self._world = world
        self._on_calls, self._on_answers, self._on_break = on_calls, on_answers, on_break
        self._there, self._here = Wire(world), Wire(world)
        self._back = Back(self)
        self._noticed = False

    @property
    def delivers_once(self) -> bool:
        """Its messages arrive once, or not at all."""
        return True

    @property
    def is_cut(self) -> bool:
        """Whether nothing goes along it any more."""
        return self._there.broken

    @property
    def is_broken(self) -> bool:
        """Whether its caller has noticed that it leads nowhere any more."""
        return self._noticed

    def send(self, calls: pb.ActorCalls) -> None:
        """Send calls."""
        self._there.carry(lambda: self._on_calls(calls, self._back))

    def answer(self, answers: pb.ActorAnswers) -> None:
        """Send answers back."""
        self._here.carry(lambda: self._on_answers(answers))

    def cut(self) -> None:
        """Break it; the caller notices after a while. Idempotent."""
        if self._there.broken:
            return
        self._there.broken = self._here.broken = True
        self._world.at(self._world.rng.uniform(0.0, 1.5), self._notice)

    def _notice(self) -> None:
        self._noticed = True
        self._on_break(self)
