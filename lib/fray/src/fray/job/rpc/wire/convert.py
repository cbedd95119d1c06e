"""Messages to the core's values and back."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fray.errors import ConfigurationError
from fray.job.rpc.controller.core.model import ErrorKind, Outcome, OutcomeKind, Shape, State, Task, TaskSpec, TaskState, Worker
from fray.job.rpc.controller.core.story import explain_pending, tell_story
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.settings import MAX_DEPENDENCIES, MAX_NAME_CHARS, MAX_TASK_BYTES
from fray.serialization.callables import ENTRYPOINT_PREFIX
from fray.types import SessionId, TaskId, TaskOptions

DEFAULT_SHAPE: Shape = (("cpu", 1.0),)

STATUS_OF_STATE = {
    TaskState.WAITING: pb.TaskStatus.PENDING,
    TaskState.DELAYED: pb.TaskStatus.PENDING,
    TaskState.QUEUED: pb.TaskStatus.PENDING,
    TaskState.ASSIGNED: pb.TaskStatus.IN_PROGRESS,
    TaskState.FINISHED: pb.TaskStatus.FINISHED,
    TaskState.FAILED: pb.TaskStatus.FAILED,
    TaskState.CANCELLED: pb.TaskStatus.CANCELLED,
}

ERROR_TO_WIRE = {kind: pb.ErrorKind[kind.name] for kind in ErrorKind}
ERROR_FROM_WIRE = {wire: kind for kind, wire in ERROR_TO_WIRE.items()}
OUTCOME_TO_WIRE = {kind: pb.OutcomeKind[kind.name] for kind in OutcomeKind}
OUTCOME_FROM_WIRE = {wire: kind for kind, wire in OUTCOME_TO_WIRE.items()}


def shape_of(resources: Mapping[str, float]) -> Shape:
    """Return a demand as the core's key; empty means one CPU, an amount of 0 asks for nothing.

    Raises:
        ConfigurationError: for amounts or names that make no sense.
    """
    if not resources:
        return DEFAULT_SHAPE
    TaskOptions(resources=dict(resources))
    return tuple(sorted((name, float(amount)) for name, amount in resources.items() if amount > 0))


def spec_from_wire(spec: pb.TaskSpec, session: SessionId, task_id: str) -> TaskSpec:
    """Return the core's spec of a submitted task.

    Raises:
        ConfigurationError: for fields that are missing, too long or make no sense; names the field.
    """
    function_id = spec.function_id
    payload = spec.serialized_data
    if spec.entrypoint:
        function_id = ENTRYPOINT_PREFIX + spec.entrypoint
    if spec.json_args:
        payload = b"J" + spec.json_args.encode()
    elif spec.entrypoint and not payload:
        payload = b"J[]"
    if not function_id:
        raise ConfigurationError("task: give function_id, or entrypoint as module:function")
    for field, text in (("task_id", task_id), ("function_id", function_id), ("name", spec.name)):
        if len(text) > MAX_NAME_CHARS or not text.isprintable():
            raise ConfigurationError(f"task: {field} must be printable and at most {MAX_NAME_CHARS} characters")
    if len(payload) > MAX_TASK_BYTES:
        raise ConfigurationError(f"task {task_id}: {len(payload)} bytes inline; put more than {MAX_TASK_BYTES} on storage")
    if spec.max_retries < -1 or not all(0 <= s < math.inf for s in (spec.timeout_s, spec.deadline_s, spec.retry_delay_s)):
        raise ConfigurationError(
            f"task {task_id}: max_retries, timeout_s, deadline_s and retry_delay_s must be finite and not negative"
        )
    if len(spec.dependencies) > MAX_DEPENDENCIES:
        raise ConfigurationError(f"task {task_id}: {len(spec.dependencies)} dependencies; the limit is {MAX_DEPENDENCIES}")
    return TaskSpec(
        TaskId(task_id),
        session,
        function_id,
        spec.name or function_id,
        payload,
        tuple(TaskId(dependency) for dependency in spec.dependencies) if spec.dependencies else (),
        shape_of(spec.resources) if spec.resources else DEFAULT_SHAPE,
        spec.priority,
        spec.max_retries,
        spec.retry_delay_s,
        tuple(spec.retry_on) if spec.retry_on else (),
        spec.timeout_s or None,
        spec.deadline_s or None,
    )


def outcome_from_wire(outcome: pb.AttemptOutcome) -> Outcome:
    """Return the core's value of a reported outcome."""
    return Outcome(
        TaskId(outcome.task_id),
        outcome.attempt,
        OUTCOME_FROM_WIRE.get(outcome.kind, OutcomeKind.FAILED),
        outcome.payload,
        outcome.message,
        outcome.retryable,
        outcome.run_s,
    )


def start_to_wire(task: Task, dependency_values: list[bytes], logs: bool) -> pb.StartTask:
    """Return the order to start a task's current attempt."""
    spec = task.spec
    return pb.StartTask(
        task_id=spec.id,
        attempt=task.attempt,
        session_id=spec.session,
        function_id=spec.function_id,
        name=spec.name,
        payload=spec.payload,
        dependency_values=dependency_values,
        resources={} if spec.shape == DEFAULT_SHAPE else (dict(spec.shape) or {"cpu": 0.0}),
        timeout_s=spec.timeout or 0.0,
        retry_on=list(spec.retry_on),
        logs=logs,
        priority=spec.priority,
    )


def result_to_wire(task: Task) -> pb.TaskResult:
    """Return an ended task's result for its client."""
    if task.error_kind is None:
        return pb.TaskResult(task_id=task.spec.id, status=pb.TaskStatus.FINISHED, result_data=task.result)
    return pb.TaskResult(
        task_id=task.spec.id,
        status=STATUS_OF_STATE[task.state],
        result_data=task.result,
        error=task.message,
        error_kind=ERROR_TO_WIRE[task.error_kind],
        story=tell_story(task),
    )


def handle_to_wire(state: State, task: Task, now: float) -> pb.TaskHandle:
    """Return a task's status for people and programs."""
    worker = state.workers.get(task.worker) if task.worker is not None else None
    return pb.TaskHandle(
        task_id=task.spec.id,
        status=STATUS_OF_STATE[task.state],
        worker_id=worker.id if worker is not None else "",
        error=task.message if task.error_kind is not None else "",
        reason=explain_pending(state, task, now),
        name=task.spec.name,
        session_id=task.spec.session,
        attempt=task.attempt,
        age_s=now - task.submitted_at,
    )


def worker_to_wire(worker: Worker, now: float) -> pb.WorkerInfo:
    """Return a worker's status for people and programs."""
    return pb.WorkerInfo(
        worker_id=worker.id,
        address=worker.address,
        cpu_cores=int(worker.capacity.get("cpu", 0)),
        memory_bytes=int(worker.capacity.get("memory", 0)),
        resources=dict(worker.capacity),
        tags=dict(worker.tags),
        incarnation=worker.incarnation,
        running=sum(1 for task in worker.assigned.values() if task.holding),
        draining=worker.draining,
        last_seen_s=max(0.0, now - worker.last_seen),
        used={name: amount for name, amount in worker.used.items() if amount > 0},
        attached=worker.attached,
    )
