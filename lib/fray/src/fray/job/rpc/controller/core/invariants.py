"""What must be true of the state after every event; checked in tests and simulations."""

from __future__ import annotations

from collections import Counter

from fray.errors import InvariantViolation
from fray.job.rpc.controller.core.model import (
    EPSILON,
    FINAL_STATES,
    Actor,
    ActorState,
    Session,
    State,
    Task,
    TaskState,
    Worker,
)


def check(state: State) -> None:
    """Check everything; costs time in proportion to the state.

    Raises:
        InvariantViolation: names what does not hold and of whom.
    """
    # Conditions come before words: this runs after every event of a simulation.
    queued: Counter[object] = Counter()
    unread: Counter[str] = Counter()
    for task in state.tasks.values():
        _check_task(state, task)
        if task.state is TaskState.QUEUED:
            queued[task.spec.shape] += 1
        elif task.state in FINAL_STATES and not task.acknowledged:
            unread[task.spec.session] += 1
    for shape, queue in state.queues.items():
        if queue.length != queued[shape]:
            raise InvariantViolation(f"queue {shape} counts {queue.length} tasks, there are {queued[shape]}")
        if not state.stalled and (queue.head() is None) != (queue.length == 0):
            raise InvariantViolation(f"queue {shape} of length {queue.length} disagrees with its head")
    for worker in state.workers.values():
        _check_worker(worker)
    for incarnation in state.awaited:
        if incarnation not in state.workers or state.workers[incarnation].attached:
            raise InvariantViolation(f"worker {incarnation} is awaited, though it is here or given up")
    for task_id, orphan in state.orphans.items():
        if task_id in state.tasks or orphan.worker not in state.workers:
            raise InvariantViolation(f"{task_id} counts as unknown, and is known or belongs to nobody")
    for name, actor_id in state.actor_names.items():
        named = state.tasks.get(actor_id)
        if named is None or named.state.is_final:
            raise InvariantViolation(f"the name {name} belongs to {actor_id}, which has ended")
    for session in state.sessions.values():
        _check_session(session, unread[session.id])
    if not state.stalled <= state.sessions.keys():
        raise InvariantViolation(f"sessions are stalled that are over: {state.stalled}")


def _check_session(session: Session, unread: int) -> None:
    who = session.id
    held = 0
    for task in session.live.values():
        held += len(task.spec.payload)
        if task.state.is_final:
            raise InvariantViolation(f"session {who} counts an ended task as live: {task.spec.id}")
    if session.watchers < 0:
        raise InvariantViolation(f"session {who} has {session.watchers} watchers")
    if session.closed:
        return
    if list(session.outbox) != list(range(session.acked_seq + 1, session.last_seq + 1)):
        raise InvariantViolation(f"session {who}: its results are not numbered without a gap")
    if len(session.outbox) != unread:
        raise InvariantViolation(f"session {who} has published {len(session.outbox)} of {unread} results")
    if held != session.held_bytes:
        raise InvariantViolation(f"session {who} counts {session.held_bytes} bytes of {held}")
    unread_bytes = sum(len(task.result) for task in session.outbox.values())
    if unread_bytes != session.unread_bytes:
        raise InvariantViolation(f"session {who} counts {session.unread_bytes} unread bytes of {unread_bytes}")


def _check_task(state: State, task: Task) -> None:
    where, worker_id, actor = task.state, task.worker, task.actor
    session = state.sessions.get(task.spec.session)
    if (where is TaskState.ASSIGNED) != (worker_id is not None):
        raise _of(task, f"owner is {worker_id}")
    if worker_id is not None:
        worker = state.workers.get(worker_id)
        if worker is None or worker.assigned.get(task.spec.id) is not task:
            raise _of(task, "its owner does not have it")
    is_final = where in FINAL_STATES
    if not is_final and (where is TaskState.WAITING) != (task.missing > 0):
        raise _of(task, f"misses {task.missing}")
    if task.holding and where is not TaskState.ASSIGNED:
        raise _of(task, "holds resources")
    if actor is not None:
        _check_actor(state, task, actor)
    if not is_final and (session is None or session.live.get(task.spec.id) is not task):
        raise _of(task, "its session does not know it")


def _check_actor(state: State, task: Task, actor: Actor) -> None:
    if actor.state is ActorState.ALIVE and task.worker is None:
        raise _of(task, "is alive on no worker")
    if (actor.state is ActorState.DEAD) != task.state.is_final:
        raise _of(task, f"is {actor.state.value} as an actor")
    name = actor.spec.name
    if name and not task.state.is_final and state.actor_names.get(name) != task.spec.id:
        raise _of(task, f"has lost its name {name}")


def _of(task: Task, text: str) -> InvariantViolation:
    return InvariantViolation(f"task {task.spec.id} ({task.state.value}): {text}")


def _check_worker(worker: Worker) -> None:
    who = worker.id
    holding: Counter[str] = Counter()
    actors = 0
    for task in worker.assigned.values():
        if task.worker != worker.incarnation:
            raise InvariantViolation(f"worker {who} has {task.spec.id}, which belongs to {task.worker}")
        states = (task.holding, task.blocked, task.spec.id in worker.prefetched)
        if sum(states) != 1:
            text = f"worker {who}: {task.spec.id} must be one of holding, waiting, queued ahead: {states}"
            raise InvariantViolation(text)
        actors += task.actor is not None
        if task.holding:
            for name, amount in task.spec.shape:
                holding[name] += amount  # type: ignore[assignment]
    if actors != worker.actors:
        raise InvariantViolation(f"worker {who} counts {worker.actors} actors, there are {actors}")
    for name, used in worker.used.items():
        if abs(used - holding[name]) >= 1e3 * EPSILON:
            raise InvariantViolation(f"worker {who} counts {used} of {name} in use; it is {holding[name]}")
    running = Counter(task.spec.shape for task in worker.assigned.values() if task.holding and task.actor is None)
    if running != worker.running:
        raise InvariantViolation(f"worker {who} counts {worker.running} running, there are {running}")
    ahead = Counter(task.spec.shape for task in worker.prefetched.values())
    if ahead != worker.ahead:
        raise InvariantViolation(f"worker {who} counts {worker.ahead} queued ahead, there are {ahead}")
    if not worker.prefetched.keys() <= worker.assigned.keys():
        raise InvariantViolation(f"worker {who} has prefetched what is not assigned to it")
