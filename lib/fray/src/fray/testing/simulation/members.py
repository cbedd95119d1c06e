"""What is common to the processes around the controller: they freeze and go on, end, and begin another life.

Everything a member does later belongs to one life; when that is over, it does not happen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fray.testing.simulation.world import World


class Member:
    """A process: may freeze and go on, or end; what was to happen in a life that is over does not happen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.life = 0
        self.frozen = False
        self._backlog: list[tuple[int, Callable[[], None]]] = []

    def start(self) -> None:
        """Begin."""
        raise NotImplementedError

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something later, in this life only, and not while frozen."""
        life = self.life
        self.world.at(delay_s, lambda: self._enter(life, what))

    def mine(self, what: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback that belongs to this life."""
        life = self.life
        return lambda value: self._enter(life, lambda: what(value))

    def freeze(self, seconds: float) -> None:
        """Stop for a while, without anybody noticing."""
        self.frozen = True
        self.world.at(seconds, self.thaw)

    def thaw(self) -> None:
        """Go on, with everything that has gathered."""
        self.frozen = False
        while self._backlog and not self.frozen:
            life, what = self._backlog.pop(0)
            self._enter(life, what)

    def _enter(self, life: int, what: Callable[[], None]) -> None:
        if life != self.life:
            return
        if self.frozen:
            self._backlog.append((life, what))
        else:
            what()
