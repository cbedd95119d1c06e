"""The disk of a simulation's controller: what survives its end, written behind its work, all of a cut or nothing.

As the real journal and saver, without files and threads: writing takes virtual time, and a crash may come before or after a
cut under way has reached the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fray.job.rpc.controller.core.model import State
from fray.job.rpc.controller.core.records import Cut, Rows, SessionRow, TaskRow, WorkerRow, take
from fray.testing.simulation.world import Plant, World


@dataclass(slots=True)
class Disk:
    """Rows by their keys."""

    tasks: dict[int, TaskRow] = field(default_factory=dict)
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    workers: dict[str, WorkerRow] = field(default_factory=dict)

    def write(self, cut: Cut) -> None:
        """Take a whole cut."""
        for row in (*cut.new_tasks, *cut.tasks):
            self.tasks[row.seq] = row
        for seq in cut.gone_tasks:
            del self.tasks[seq]
        self.sessions.update({row.id: row for row in cut.sessions})
        self.workers.update({row.incarnation: row for row in cut.workers})
        for name in cut.gone_sessions:
            self.sessions.pop(name, None)
        for name in cut.gone_workers:
            self.workers.pop(name, None)

    def read(self) -> Rows:
        """Return all there is."""
        return Rows([self.tasks[seq] for seq in sorted(self.tasks)], [*self.sessions.values()], [*self.workers.values()])


class Saver:
    """Saves the state of one life of the controller; without a disk everything counts as saved."""

    def __init__(self, world: World, disk: Disk | None, state: State, offset_s: float) -> None:
        self._world, self._disk, self._state, self._offset_s = world, disk, state, offset_s
        self._taken = self._saved = 0
        self._writing: Cut | None = None
        self._actions: deque[tuple[int, Callable[[], None], Callable[[], None]]] = deque()
        self._crashed = False

    def mark(self) -> int:
        """Return the number of the cut that holds, or will hold, all that has happened so far."""
        return self._taken + 1 if self._disk is not None and self._state.changes else self._taken

    def is_saved(self, mark: int) -> bool:
        """Whether a cut is on the disk."""
        return mark <= self._saved or Plant.EARLY_ACKNOWLEDGEMENTS in self._world.plants

    def step(self) -> None:
        """Begin to write what has changed, unless a cut is under way."""
        if self._disk is None or self._writing is not None or self._crashed or not self._state.changes:
            return
        self._taken += 1
        cut = self._writing = take(self._state.changes, self._offset_s)
        rng = self._world.disk_rng
        slow = self._world.faulty and not self._world.calm and rng.random() < 0.1
        self._world.at(rng.uniform(0.1, 1.0) if slow else rng.uniform(0.0002, 0.005), lambda: self._written(cut))

    def when_saved(self, action: Callable[[], None], dropped: Callable[[], None] = lambda: None) -> None:
        """Do something when all that has happened so far is on the disk; ``dropped`` is called if a crash comes before."""
        mark = self.mark()
        if self.is_saved(mark) and not self._actions:
            action()
        else:
            self._actions.append((mark, action, dropped))

    def crash(self) -> None:
        """End with the controller."""
        self._crashed = True
        if self._writing is not None and self._disk is not None and self._world.disk_rng.random() < 0.5:
            self._disk.write(self._writing)  # it had arrived; only nobody was told
        actions, self._actions = self._actions, deque()
        for _, _, dropped in actions:
            dropped()

    def _written(self, cut: Cut) -> None:
        if self._crashed or self._disk is None:
            return
        self._disk.write(cut)
        self._saved, self._writing = self._taken, None
        while self._actions and self.is_saved(self._actions[0][0]):
            self._actions.popleft()[1]()
        self.step()
