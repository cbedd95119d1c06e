"""What has changed since the state was saved last: the core notes who, the saver takes it as rows.

Between two saves a task may come, change many times and be forgotten; what counts is how it is when the rows are taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fray.types import Incarnation, SessionId

if TYPE_CHECKING:
    from fray.job.rpc.controller.core.model import Session, Task, Worker


@dataclass(slots=True)
class Changes:
    """Tasks by number, sessions and workers by id; each is either to be written or to be removed."""

    new_tasks: dict[int, Task] = field(default_factory=dict)
    """Not saved yet, in the order in which they were accepted."""
    tasks: dict[int, Task] = field(default_factory=dict)
    """Saved, and changed since."""
    gone_tasks: list[int] = field(default_factory=list)
    """Saved, and forgotten since."""
    sessions: dict[SessionId, Session | None] = field(default_factory=dict)
    """Changed; None for those that are gone."""
    workers: dict[Incarnation, Worker | None] = field(default_factory=dict)
    """Changed; None for those that are gone."""

    def add_task(self, task: Task) -> None:
        """Note a task that was accepted."""
        self.new_tasks[task.seq] = task

    def change_task(self, task: Task) -> None:
        """Note that something of a task has changed that must survive."""
        if task.seq not in self.new_tasks:
            self.tasks[task.seq] = task

    def drop_task(self, task: Task) -> None:
        """Note that a task is forgotten."""
        if self.new_tasks.pop(task.seq, None) is None:
            self.tasks.pop(task.seq, None)
            self.gone_tasks.append(task.seq)

    def change_session(self, session: Session) -> None:
        """Note a session that is new, or has changed."""
        self.sessions[session.id] = session

    def drop_session(self, session: SessionId) -> None:
        """Note that a session is over."""
        self.sessions[session] = None

    def change_worker(self, worker: Worker) -> None:
        """Note a worker's life that is new, or has changed."""
        self.workers[worker.incarnation] = worker

    def drop_worker(self, incarnation: Incarnation) -> None:
        """Note that a worker's life is over."""
        self.workers[incarnation] = None

    def __bool__(self) -> bool:
        return bool(self.new_tasks or self.tasks or self.gone_tasks or self.sessions or self.workers)


class NoChanges(Changes):
    """Notes nothing: for a state that is never saved."""

    def add_task(self, task: Task) -> None:
        pass

    def change_task(self, task: Task) -> None:
        pass

    def drop_task(self, task: Task) -> None:
        pass

    def change_session(self, session: Session) -> None:
        pass

    def drop_session(self, session: SessionId) -> None:
        pass

    def change_worker(self, worker: Worker) -> None:
        pass

    def drop_worker(self, incarnation: Incarnation) -> None:
        pass
