"""The controller: a pure core, a driver that owns its state, an RPC service and a server around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fray.job.rpc.controller.core.model import Limits

if TYPE_CHECKING:
    from fray.job.rpc.controller.server import FrayControllerServer

__all__ = ["FrayControllerServer", "Limits"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: executors use the core's words, and must stay free of the network stack.
    if name == "FrayControllerServer":
        from fray.job.rpc.controller.server import FrayControllerServer

        return FrayControllerServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
