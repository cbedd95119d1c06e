"""What all contexts do alike: option views, ``get``, ``wait``, and the ``with`` statement."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from fray.job.futures import JobFuture, Ref, get_values, wait_futures
from fray.types import ActorOptions, TaskOptions, change_options


class ContextBase:
    """Base of the contexts; see ``fray.job.context.JobContext`` for the meaning of the methods."""

    def __init__(self) -> None:
        self._options = TaskOptions()
        self._actor_options = ActorOptions()
        self._names_resources = False
        """Whether ``options`` was given resources: without, a task takes a CPU and an actor nothing."""

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def options(self, **changes: Any) -> Self:
        view = copy.copy(self)
        view._options, view._actor_options = change_options(self._options, self._actor_options, changes)
        view._names_resources = self._names_resources or "resources" in changes
        return view

    def get(self, refs: Any, timeout: float | None = None) -> Any:
        return get_values(refs, timeout, self._read_ref)

    def wait(
        self, futures: Iterable[JobFuture[Any]], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[JobFuture[Any]], list[JobFuture[Any]]]:
        return wait_futures(futures, num_returns, timeout)

    def _read_ref(self, ref: Ref[Any]) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
