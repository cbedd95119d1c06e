"""What may begin on a worker, in which order: the same rule for the worker and for the controller's books. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from fray.job.rpc.controller.core.model import Shape


def find_startable(shapes: Iterable[Shape], kinds: int, lacking: Callable[[Shape], Sequence[str]]) -> int | None:
    """Return which of some attempts begins next, given their shapes in order, or None.

    The first that fits does. One that does not fit lets those behind it pass only if they take nothing of what it lacks: it
    waits for no more than it must, and they do not wait for what they do not need. ``kinds`` is how many different shapes
    there are; ``lacking`` tells what a shape needs and is not free.
    """
    kept: set[str] = set()
    seen: set[Shape] = set()
    for index, shape in enumerate(shapes):
        if shape in seen:
            continue
        missing = lacking(shape)
        if not missing and not takes(shape, kept):
            return index
        seen.add(shape)
        kept.update(missing)
        if len(seen) == kinds:
            return None
    return None


def takes(shape: Shape, names: Collection[str]) -> bool:
    """Whether a shape needs any of some resources."""
    return bool(names) and any(name in names for name, _ in shape)
