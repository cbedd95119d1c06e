"""The RPCs that a worker answers itself: a health check, and the execution of one task for a direct caller."""

from __future__ import annotations

import secrets
from typing import Any

from fray.errors import ConfigurationError
from fray.job.rpc.controller.core.model import OutcomeKind
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.proto.fray_connect import FrayWorker as WorkerProtocol
from fray.job.rpc.wire import convert
from fray.job.rpc.wire.errors import Code, ConnectError
from fray.job.rpc.worker.agent import Agent
from fray.types import SessionId

_KINDS = {
    OutcomeKind.FAILED: pb.ErrorKind.USER,
    OutcomeKind.TIMEOUT: pb.ErrorKind.TIMEOUT,
    OutcomeKind.CRASHED: pb.ErrorKind.CRASHED,
    OutcomeKind.CANCELLED: pb.ErrorKind.CANCELLED,
    OutcomeKind.RETURNED: pb.ErrorKind.CANCELLED,
}


class WorkerService(WorkerProtocol):
    """Implements the ``FrayWorker`` service."""

    def __init__(self) -> None:
        self.agent: Agent | None = None

    async def execute_task(self, request: pb.TaskSpec, ctx: Any, /) -> pb.TaskResult:
        """Run one task here and now, past the controller; stopped if the caller goes away."""
        if self.agent is None:
            raise ConnectError(Code.UNAVAILABLE, "the worker is starting")
        task_id = request.task_id or f"direct-{secrets.token_hex(8)}"
        try:
            spec = convert.spec_from_wire(request, SessionId(request.session_id or "direct"), task_id)
        except ConfigurationError as error:
            raise ConnectError(Code.INVALID_ARGUMENT, str(error)) from error
        order = pb.StartTask(
            task_id=task_id,
            attempt=1,
            session_id=spec.session,
            function_id=spec.function_id,
            name=spec.name,
            payload=spec.payload,
            resources=dict(request.resources),
            timeout_s=request.timeout_s,
        )
        outcome = await self.agent.execute(order)
        if outcome.kind is not OutcomeKind.FINISHED:
            return pb.TaskResult(
                task_id=task_id,
                status=pb.TaskStatus.CANCELLED if outcome.kind is OutcomeKind.CANCELLED else pb.TaskStatus.FAILED,
                result_data=outcome.payload,
                error=outcome.message,
                error_kind=_KINDS[outcome.kind],
            )
        result = pb.TaskResult(task_id=task_id, status=pb.TaskStatus.FINISHED, result_data=outcome.payload)
        if outcome.payload[:1] == b"J":
            result.result_json = outcome.payload[1:].decode()
        return result

    async def health_check(self, request: pb.Empty, ctx: Any, /) -> pb.Empty:
        """Answer."""
        return pb.Empty()
