"""What must be true of the state after every event; checked in tests and simulations."""

from __future__ import annotations

from collections import Counter

from fray.errors import InvariantViolation
from fray.job.rpc.controller.core.model import EPSILON, ActorState, State, Task, TaskState, Worker


def check(state: State) -> None:
    """Check everything; costs time in proportion to the state.

    Raises:
        InvariantViolation: names what does not hold and of whom.
    """
    queued: Counter[object] = Counter()
    for task in state.tasks.values():
        _check_task(state, task)
        if task.state is TaskState.QUEUED:
            queued[task.spec.shape] += 1
    for shape, queue in state.queues.items():
        _require(queue.length == queued[shape], f"queue {shape} counts {queue.length} tasks, there are {queued[shape]}")
        _require(
            (queue.head() is None) == (queue.length == 0), f"queue {shape} of length {queue.length} disagrees with its head"
        )
    for worker in state.workers.values():
        _check_worker(worker)
    for name, actor_id in state.actor_names.items():
        named = state.tasks.get(actor_id)
        _require(named is not None and not named.state.is_final, f"the name {name} belongs to {actor_id}, which has ended")
    for session in state.sessions.values():
        live = [task for task in session.live.values() if not task.state.is_final]
        _require(len(live) == len(session.live), f"session {session.id} counts an ended task as live")
        _require(
            set(session.outbox) == set(range(session.acked_seq + 1, session.last_seq + 1)) or session.closed,
            f"session {session.id}: its results are not numbered without a gap",
        )
        held = sum(len(task.spec.payload) for task in session.live.values()) + sum(
            len(t.result) for t in session.outbox.values()
        )
        _require(
            session.closed or held == session.held_bytes, f"session {session.id} counts {session.held_bytes} bytes of {held}"
        )
        _require(session.watchers >= 0, f"session {session.id} has {session.watchers} watchers")


def _check_task(state: State, task: Task) -> None:
    who = f"task {task.spec.id} ({task.state.value})"
    _require((task.state is TaskState.ASSIGNED) == (task.worker is not None), f"{who}: owner is {task.worker}")
    if task.worker is not None:
        worker = state.workers.get(task.worker)
        _require(worker is not None and worker.assigned.get(task.spec.id) is task, f"{who}: its owner does not have it")
    _require((task.state is TaskState.WAITING) == (task.missing > 0) or task.state.is_final, f"{who}: misses {task.missing}")
    _require(not (task.holding and task.state is not TaskState.ASSIGNED), f"{who}: holds resources")
    actor = task.actor
    if actor is not None:
        _require(actor.state is not ActorState.ALIVE or task.worker is not None, f"{who}: is alive on no worker")
        _require((actor.state is ActorState.DEAD) == task.state.is_final, f"{who}: is {actor.state.value} as an actor")
        has_name = state.actor_names.get(actor.spec.name) == task.spec.id
        _require(task.state.is_final or not actor.spec.name or has_name, f"{who}: has lost its name {actor.spec.name}")
    session = state.sessions.get(task.spec.session)
    if not task.state.is_final:
        _require(session is not None and task.spec.id in session.live, f"{who}: its session does not know it")
    elif session is not None and not session.closed and not task.acknowledged:
        _require(any(t is task for t in session.outbox.values()), f"{who}: its result is neither published nor acknowledged")


def _check_worker(worker: Worker) -> None:
    who = f"worker {worker.id}"
    holding: Counter[str] = Counter()
    for task in worker.assigned.values():
        _require(task.worker == worker.incarnation, f"{who} has {task.spec.id}, which belongs to {task.worker}")
        states = (task.holding, task.blocked, task.spec.id in worker.prefetched)
        _require(sum(states) == 1, f"{who}: {task.spec.id} must be one of holding, waiting, queued ahead: {states}")
        if task.holding:
            for name, amount in task.spec.shape:
                holding[name] += amount  # type: ignore[assignment]
    actors = sum(1 for task in worker.assigned.values() if task.actor is not None)
    _require(actors == worker.actors, f"{who} counts {worker.actors} actors, there are {actors}")
    for name, used in worker.used.items():
        _require(abs(used - holding[name]) < 1e3 * EPSILON, f"{who} counts {used} of {name} in use; it is {holding[name]}")
    _require(worker.prefetched.keys() <= worker.assigned.keys(), f"{who} has prefetched what is not assigned to it")


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise InvariantViolation(text)
