"""``FrayExecutor``: any context as a ``concurrent.futures.Executor``."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

from fray.job.context import JobContext, get_default_job_ctx
from fray.job.futures import JobFuture


class FrayExecutor(concurrent.futures.Executor):
    """Runs what libraries submit to an executor on a context. Thread-safe.

    ``shutdown`` leaves the context open: it belongs to whoever made it.
    """

    def __init__(self, ctx: JobContext | None = None) -> None:
        """Use ``ctx``, or the default context when None."""
        self._ctx = ctx if ctx is not None else get_default_job_ctx()
        self._lock = threading.Lock()  # guards _open and _live
        self._open = True
        self._live: set[concurrent.futures.Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Run ``fn`` as a task; RuntimeError after ``shutdown``."""
        with self._lock:
            if not self._open:
                raise RuntimeError("cannot schedule new futures after shutdown")
        future = self._ctx.run(fn, *args, **kwargs)
        with self._lock:
            self._live.add(future)
        future.add_done_callback(self._forget)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; cancel what is not done if asked; block until all is done unless ``wait`` is false."""
        with self._lock:
            self._open = False
            live = list(self._live)
        if cancel_futures:
            for future in live:
                future.cancel()
        if wait:
            concurrent.futures.wait(live)

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._live.discard(future)
