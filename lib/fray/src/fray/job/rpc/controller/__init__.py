"""The controller: a pure core, a driver that owns its state, an RPC service and a server around it."""

from fray.job.rpc.controller.core.model import Limits
from fray.job.rpc.controller.server import FrayControllerServer

__all__ = ["FrayControllerServer", "Limits"]
