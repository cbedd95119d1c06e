"""A worker: an agent that talks to the controller, and executor processes that run user code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fray.job.rpc.worker.server import FrayWorker

__all__ = ["FrayWorker"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: executors import this package too, and must stay free of the network stack.
    if name == "FrayWorker":
        from fray.job.rpc.worker.server import FrayWorker

        return FrayWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
