"""What ``--json`` prints of tasks, actors and workers. The keys are stable: programs rely on them."""

from __future__ import annotations

from typing import Any

from fray.job.rpc.proto import fray_pb as pb


def task_record(task: pb.TaskHandle) -> dict[str, Any]:
    """Return a task for programs.

    Keys: ``task_id``, ``name``, ``status`` (PENDING, IN_PROGRESS, FINISHED, FAILED, CANCELLED), ``session_id``,
    ``worker_id`` (null unless an attempt belongs to a worker), ``attempt`` (0 before the first), ``age_s`` (since
    submission), ``reason`` (why it is pending, else null), ``error`` (null unless it ended without a value).
    """
    return {
        "task_id": task.task_id,
        "name": task.name,
        "status": task.status.name,
        "session_id": task.session_id,
        "worker_id": task.worker_id or None,
        "attempt": task.attempt,
        "age_s": round(task.age_s, 3),
        "reason": task.reason or None,
        "error": task.error or None,
    }


def actor_record(actor: pb.ActorInfo) -> dict[str, Any]:
    """Return an actor for programs.

    Keys: ``actor_id``, ``name`` (null if it has none), ``class_name``, ``state`` (PENDING, ALIVE, RESTARTING, DEAD),
    ``incarnation`` (its latest life, 0 before the first), ``restarts`` (lives that were followed by another), ``worker_id``
    (null unless a worker has it), ``session_id`` (that it ends with; its own id if detached), ``detached``, ``resources`` (what
    it occupies), ``age_s`` (since it was asked for), ``reason`` (why it is not ALIVE, else null).
    """
    settings = actor.settings or pb.ActorSettings()
    return {
        "actor_id": actor.actor_id,
        "name": settings.name or None,
        "class_name": actor.class_name,
        "state": actor.state.name,
        "incarnation": actor.incarnation,
        "restarts": actor.restarts,
        "worker_id": actor.worker_id or None,
        "session_id": actor.session_id,
        "detached": settings.detached,
        "resources": dict(actor.resources),
        "age_s": round(actor.age_s, 3),
        "reason": actor.reason or None,
    }


def worker_record(worker: pb.WorkerInfo) -> dict[str, Any]:
    """Return a worker for programs.

    Keys: ``worker_id``, ``incarnation`` (this life of it), ``address``, ``state`` (``ready``, ``draining``, or ``silent``: its
    connection is broken), ``running`` (tasks), ``actors`` (their number), ``last_seen_s`` (seconds ago), ``resources`` (what it
    offers by name), ``used`` (what of it is in use), ``tags``.
    """
    return {
        "worker_id": worker.worker_id,
        "incarnation": worker.incarnation,
        "address": worker.address,
        "state": "draining" if worker.draining else "ready" if worker.attached else "silent",
        "running": worker.running,
        "actors": worker.actors,
        "last_seen_s": round(worker.last_seen_s, 3),
        "resources": dict(worker.resources),
        "used": dict(worker.used),
        "tags": dict(worker.tags),
    }
