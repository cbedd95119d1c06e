"""A controller's client for a worker on the same event loop: the same calls without a network between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fray.job.rpc.controller.service import ControllerService
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.errors import ConnectError, to_fray_error


class DirectClient:
    """Calls the service itself. Messages are handed over, not copied: whoever sends one is done with it."""

    def __init__(self, service: ControllerService, address: str) -> None:
        self.address = address
        self._service = service

    async def call(self, method: str, request: Any, timeout_s: float = 0.0) -> Any:
        """Make one unary call; no time-out applies. Raises as ``AsyncControllerClient.call`` does."""
        try:
            return await getattr(self._service, method)(request, None)
        except ConnectError as error:
            raise to_fray_error(error, self.address) from error

    async def attach(self, request: pb.AttachRequest) -> AsyncIterator[pb.Commands]:
        """Stream a worker's commands; raises as ``call`` does."""
        try:
            async for commands in self._service.attach(request, None):
                yield commands
        except ConnectError as error:
            raise to_fray_error(error, self.address) from error

    async def close(self) -> None:
        """Do nothing: there is no connection."""
