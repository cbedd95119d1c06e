"""Messages to the core's values and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from sys import intern

from fray.errors import ConfigurationError, InternalError
from fray.job.rpc.controller.core.model import (
    STABLE,
    ActorSpec,
    ActorState,
    ErrorKind,
    Outcome,
    OutcomeKind,
    Shape,
    State,
    Task,
    TaskSpec,
    TaskState,
    Worker,
)
from fray.job.rpc.controller.core.story import explain_actor, explain_pending, tell_story
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

ACTOR_STATE_TO_WIRE = {state: pb.ActorState[state.name] for state in ActorState}
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
    function_id = intern(spec.function_id)  # as names, one string for all tasks that share it: millions may wait
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
        intern(spec.name) or function_id,
        payload,
        tuple(TaskId(dependency) for dependency in spec.dependencies) if spec.dependencies else (),
        shape_of(spec.resources) if spec.resources else DEFAULT_SHAPE,
        spec.priority,
        spec.max_retries,
        spec.retry_delay_s,
        tuple(spec.retry_on) if spec.retry_on else (),
        spec.timeout_s or None,
        spec.deadline_s or None,
        tuple(spec.chain) if spec.chain else (),
    )


def actor_from_wire(spec: TaskSpec, settings: pb.ActorSettings) -> TaskSpec:
    """Return the core's spec of an actor: that of its task, with what is the actor's own.

    Raises:
        ConfigurationError: for a name that makes no sense, or numbers out of range.
    """
    if len(settings.name) > MAX_NAME_CHARS or not settings.name.isprintable():
        raise ConfigurationError(f"actor: the name must be printable and at most {MAX_NAME_CHARS} characters")
    if settings.max_restarts < -1 or settings.max_concurrency < 0 or settings.checkpoint_every < 0:
        raise ConfigurationError(
            "actor: max_restarts, max_concurrency and checkpoint_every must not be negative (restarts: -1)"
        )
    actor = ActorSpec(
        settings.name,
        settings.max_restarts,
        settings.detached,
        settings.not_preemptible,
        settings.max_task_retries,
        settings.max_concurrency,
        settings.checkpoint_every,
        settings.pending_timeout_s,
    )
    shape = tuple(sorted((*spec.shape, (STABLE, 1.0)))) if actor.not_preemptible else spec.shape
    return replace(spec, actor=actor, shape=shape)


def settings_to_wire(actor: ActorSpec) -> pb.ActorSettings:
    """Return what is an actor's own."""
    return pb.ActorSettings(
        name=actor.name,
        max_restarts=actor.max_restarts,
        max_task_retries=actor.max_task_retries,
        max_concurrency=actor.max_concurrency,
        checkpoint_every=actor.checkpoint_every,
        pending_timeout_s=actor.pending_timeout_s,
        detached=actor.detached,
        not_preemptible=actor.not_preemptible,
    )


def actor_to_wire(state: State, task: Task, now: float) -> pb.ActorInfo:
    """Return how an actor is."""
    actor = task.actor
    if actor is None:
        raise InternalError(f"{task.spec.id} is no actor")
    worker = state.workers.get(task.worker) if task.worker is not None else None
    never_lived = actor.state is ActorState.DEAD and not actor.was_constructed and task.error_kind is not None
    return pb.ActorInfo(
        actor_id=task.spec.id,
        state=ACTOR_STATE_TO_WIRE[actor.state],
        incarnation=task.attempt,
        version=actor.version,
        worker_id=worker.id if worker is not None else "",
        lane_address=worker.lane_address if worker is not None else "",
        reason=explain_actor(state, task, now),
        error_kind=ERROR_TO_WIRE[task.error_kind] if never_lived and task.error_kind else pb.ErrorKind.UNSPECIFIED,
        failure=task.result if never_lived else b"",
        settings=settings_to_wire(actor.spec),
        class_name=task.spec.name,
        session_id=task.spec.session,
        restarts=actor.restarts,
        resources={name: amount for name, amount in task.spec.shape if name != STABLE},
        age_s=now - task.submitted_at,
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
    shape = tuple((name, amount) for name, amount in spec.shape if name != STABLE) if spec.actor is not None else spec.shape
    return pb.StartTask(
        task_id=spec.id,
        attempt=task.attempt,
        session_id=spec.session,
        function_id=spec.function_id,
        name=spec.name,
        payload=spec.payload,
        dependency_values=dependency_values,
        resources={} if shape == DEFAULT_SHAPE else (dict(shape) or {"cpu": 0.0}),
        timeout_s=spec.timeout or 0.0,
        retry_on=list(spec.retry_on),
        logs=logs,
        priority=spec.priority,
        actor=settings_to_wire(spec.actor) if spec.actor is not None else None,
        chain=list(spec.chain),
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
        resources={name: amount for name, amount in worker.capacity.items() if name != STABLE},
        tags=dict(worker.tags),
        incarnation=worker.incarnation,
        running=sum(1 for task in worker.assigned.values() if task.holding and task.actor is None),
        draining=worker.draining,
        last_seen_s=max(0.0, now - worker.last_seen),
        used={name: amount for name, amount in worker.used.items() if amount > 0 and name != STABLE},
        attached=worker.attached,
        lane_address=worker.lane_address,
        actors=worker.actors,
    )
