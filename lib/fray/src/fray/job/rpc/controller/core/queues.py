"""The order in which tasks of one shape get a place: priority, then fair share between sessions, then first come.

Fair share is stride scheduling (Waldspurger and Weihl, 1995): each session has a virtual time that advances by the estimated
run time of each task it gets placed; the session that is furthest behind is next.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Mapping

from fray.job.rpc.controller.core.model import EPSILON, Shape, Task, TaskState, Worker
from fray.types import Incarnation, SessionId

MIN_COST_S = 0.001
"""What placing a task costs its session at least."""


class FairQueue:
    """Tasks of one priority."""

    __slots__ = ("_heap", "_lanes", "_passes", "_stalled", "_time")

    def __init__(self) -> None:
        self._lanes: dict[SessionId, deque[Task]] = {}
        self._heap: list[tuple[float, int, SessionId]] = []
        self._passes: dict[SessionId, float] = {}
        self._stalled: set[SessionId] = set()
        self._time = 0.0

    def push(self, task: Task, front: bool) -> None:
        session = task.spec.session
        lane = self._lanes.get(session)
        if lane is None:
            lane = self._lanes[session] = deque()
            virtual = max(self._time, self._passes.get(session, 0.0))
            self._passes[session] = virtual
            heapq.heappush(self._heap, (virtual, task.seq, session))
        lane.appendleft(task) if front else lane.append(task)

    def head(self, stalled: Collection[SessionId]) -> Task | None:
        """Return the next task of a session that is not stalled, dropping those that were cancelled while queued."""
        while self._heap:
            _, _, session = self._heap[0]
            lane = self._lanes[session]
            if session in stalled:
                self._stalled.add(session)
                heapq.heappop(self._heap)
                continue
            while lane:
                if lane[0].state is TaskState.QUEUED:
                    return lane[0]
                lane.popleft()
            heapq.heappop(self._heap)
            del self._lanes[session]
        if not self._stalled:
            self._passes.clear()
        return None

    def resume(self, session: SessionId) -> None:
        """Take a session's tasks into account again."""
        if session in self._stalled:
            self._stalled.remove(session)
            virtual = self._passes[session] = max(self._time, self._passes[session])
            heapq.heappush(self._heap, (virtual, self._lanes[session][0].seq, session))

    def is_empty(self) -> bool:
        """Whether nothing is queued, of whatever session."""
        return self.head(()) is None and not self._stalled

    def take(self, cost_s: float) -> Task:
        """Remove and return what ``head`` returned."""
        virtual, _, session = self._heap[0]
        lane = self._lanes[session]
        task = lane.popleft()
        self._time = virtual
        virtual += max(cost_s, MIN_COST_S)
        self._passes[session] = virtual
        if lane:
            heapq.heapreplace(self._heap, (virtual, lane[0].seq, session))
        else:
            heapq.heappop(self._heap)
            del self._lanes[session]
        return task


class ShapeQueue:
    """Tasks of one shape that wait for a place, and the workers that may have one."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.length = 0
        """Queued tasks; kept right by whoever queues, takes or cancels."""
        self.stuck_since: float | None = None
        """Since when the head finds no place, though other shapes do."""
        self.feasible = True
        """Whether some worker could ever run the shape; False once its sessions were told."""
        self._levels: dict[int, FairQueue] = {}
        self._order: list[int] = []
        self._candidates: list[tuple[float, int, Incarnation]] = []
        self._tickets: dict[Incarnation, int] = {}

    def push(self, task: Task, front: bool = False) -> None:
        level = self._levels.get(task.spec.priority)
        if level is None:
            level = self._levels[task.spec.priority] = FairQueue()
            self._order = sorted(self._levels, reverse=True)
        level.push(task, front)
        if self.length == 0:
            self.feasible = True  # whoever was told otherwise waits no more
            self.stuck_since = None
        self.length += 1

    def head(self, stalled: Collection[SessionId] = ()) -> Task | None:
        """Return the next task to place, of a session that is not stalled."""
        if self.length == 0:
            return None
        for priority in self._order:
            task = self._levels[priority].head(stalled)
            if task is not None:
                return task
        return None

    def take(self, task: Task, cost_s: float) -> None:
        """Remove the head."""
        level = self._levels[task.spec.priority]
        level.take(cost_s)
        self.length -= 1
        if len(self._order) > 1 and level.is_empty():
            del self._levels[task.spec.priority]
            self._order = sorted(self._levels, reverse=True)

    def resume(self, session: SessionId) -> None:
        """Take the tasks of a session that was stalled into account again."""
        for level in self._levels.values():
            level.resume(session)

    def offer(self, worker: Worker, ticket: int) -> None:
        """Note that a worker may have room, with its load now; earlier notes of it are void."""
        if not worker.could_fit(self.shape):
            return
        self._tickets[worker.incarnation] = ticket
        heapq.heappush(self._candidates, (worker.load(), ticket, worker.incarnation))
        if len(self._candidates) > 64 + 4 * len(self._tickets):
            self._candidates = [c for c in self._candidates if self._tickets.get(c[2]) == c[1]]
            heapq.heapify(self._candidates)

    def best(self, workers: Mapping[Incarnation, Worker]) -> Incarnation | None:
        """Return the candidate with the least load; what other queues have given it meanwhile counts."""
        while self._candidates:
            noted, ticket, incarnation = self._candidates[0]
            if self._tickets.get(incarnation) != ticket:
                heapq.heappop(self._candidates)
                continue
            worker = workers.get(incarnation)
            load = worker.load() if worker is not None else noted
            if load <= noted + EPSILON:
                return incarnation
            heapq.heapreplace(self._candidates, (load, ticket, incarnation))
        return None

    def drop_best(self) -> None:
        """Forget the best candidate until it is offered again."""
        _, _, incarnation = heapq.heappop(self._candidates)
        self._tickets.pop(incarnation, None)

    def reorder_best(self, worker: Worker, ticket: int) -> None:
        """Put the best candidate where its new load belongs."""
        self._tickets[worker.incarnation] = ticket
        heapq.heapreplace(self._candidates, (worker.load(), ticket, worker.incarnation))
