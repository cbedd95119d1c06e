"""The attempts of a worker that wait for a place, in the order in which they begin. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fray.job.rpc.controller.core.model import Shape
from fray.job.rpc.controller.core.shapes import find_startable

if TYPE_CHECKING:
    from fray.job.rpc.worker.core import Item


class AttemptQueue:
    """Actors first, then by priority, then as they came."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._shapes: Counter[Shape] = Counter()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, at: int) -> Item:
        return self._items[at]

    def add(self, item: Item) -> None:
        """Let one wait behind all that go before it."""
        at = len(self._items)
        while at and (self._items[at - 1].actor, self._items[at - 1].priority) < (item.actor, item.priority):
            at -= 1
        self._items.insert(at, item)
        self._shapes[item.shape] += 1

    def add_first(self, item: Item) -> None:
        """Let one wait before all others: it was on its way already."""
        self._items.appendleft(item)
        self._shapes[item.shape] += 1

    def remove(self, item: Item) -> None:
        """Take one out, which must be there."""
        self._items.remove(item)
        self._forget(item)

    def pop(self, at: int) -> Item:
        """Take out the one at a place."""
        item = self._items[at]
        del self._items[at]
        self._forget(item)
        return item

    def clear(self) -> None:
        """Take out all."""
        self._items.clear()
        self._shapes.clear()

    def find(self, lacking: Callable[[Shape], Sequence[str]]) -> int | None:
        """Return the place of the one that begins next, or None; ``lacking`` tells what a shape needs and is not free."""
        return find_startable((item.shape for item in self._items), len(self._shapes), lacking)

    def count_first(self) -> int:
        """Return how many have the priority of the first: those that all executors share before others begin."""
        if not self._items or self._items[0].priority == self._items[-1].priority:
            return len(self._items)
        return sum(1 for item in self._items if item.priority == self._items[0].priority)

    def _forget(self, item: Item) -> None:
        self._shapes[item.shape] -= 1
        if not self._shapes[item.shape]:
            del self._shapes[item.shape]
