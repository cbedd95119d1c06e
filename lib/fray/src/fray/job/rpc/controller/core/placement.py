"""Which worker gets which task, ahead of time for short ones; and what is taken back for an idle worker."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence

from fray.job.rpc.controller.core.effects import Effect, NotifySession, ReclaimTasks, StartTasks
from fray.job.rpc.controller.core.model import Shape, State, Task, TaskState, Worker
from fray.job.rpc.controller.core.queues import ShapeQueue
from fray.job.rpc.controller.core.shapes import find_startable, takes
from fray.job.rpc.controller.core.story import describe_shape, describe_shortfall
from fray.types import Incarnation, SessionId

SHORT_TASK_S = 0.1
"""Only functions measured below this are prefetched."""
PREFETCH_S = 0.05
"""Work queued ahead on each slot of a worker: covers the round trip between an outcome and the next assignment."""
MAX_PREFETCH = 256
"""Tasks queued ahead on each slot, at most."""
RESERVE_AFTER_S = 1.0
"""A shape that found no place for so long gets a worker cleared for it."""
DURATION_WEIGHT = 0.3
"""Weight of the latest run in a function's moving average."""
MAX_DURATIONS = 10_000
"""Functions whose run time is remembered."""
MAX_IDLE_QUEUES = 64
"""Empty queues kept for shapes that come again."""


def ensure_queue(state: State, shape: Shape) -> ShapeQueue:
    """Return the queue of a shape, made with all workers as candidates when new."""
    queue = state.queues.get(shape)
    if queue is None:
        if len(state.queues) >= MAX_IDLE_QUEUES:
            for idle in [s for s, q in state.queues.items() if q.length == 0]:
                del state.queues[idle]
        queue = state.queues[shape] = ShapeQueue(shape)
        for worker in state.workers.values():
            queue.offer(worker, state.next_ticket())
    return queue


def offer(state: State, worker: Worker) -> None:
    """Tell all queues that a worker may have room."""
    for queue in state.queues.values():
        queue.offer(worker, state.next_ticket())


def enqueue(state: State, task: Task, front: bool = False) -> None:
    """Let a task wait for a place."""
    task.move(TaskState.QUEUED)
    ensure_queue(state, task.spec.shape).push(task, front)


def dispatch(state: State, now: float, out: list[Effect]) -> None:
    """Place whatever can be placed; nothing while workers of before a restart are awaited."""
    if state.awaited:
        return
    _drop_reservations(state)
    active = [queue for queue in state.queues.values() if queue.length]
    if not active:
        _reclaim(state, out)
        return
    starts: dict[Incarnation, list[Task]] = {}
    stuck: list[Shape] = []
    while active:
        queue = active[0] if len(active) == 1 else min(active, key=lambda queue: _rank(queue, state.stalled))
        task = queue.head(state.stalled)
        kept = len(state.reservations)
        worker = _find_worker(state, queue, task, stuck) if task is not None else None
        if task is None or worker is None:
            active.remove(queue)
            if task is not None:
                stuck.append(queue.shape)
                _note_stuck(state, queue, now, out)
            continue
        queue.take(task, state.durations.get(task.spec.function_id, 0.0))
        queue.stuck_since = None
        _assign(state, worker, task, now)
        queue.reorder_best(worker, state.next_ticket())
        starts.setdefault(worker.incarnation, []).append(task)
        if queue.length == 0 and queue.shape in state.reservations:  # another worker than the reserved one took its last
            _unreserve(state, queue.shape)
        if len(state.reservations) < kept:  # a worker is there for others again
            active, stuck = [queue for queue in state.queues.values() if queue.length], []
    out.extend(StartTasks(incarnation, tasks) for incarnation, tasks in starts.items())
    _reclaim(state, out)


def release(state: State, task: Task) -> None:
    """Take an attempt away from its worker and give back what it occupied."""
    worker = state.workers.get(task.worker) if task.worker is not None else None
    holding = task.holding
    task.worker, task.holding, task.blocked, task.reclaiming = None, False, False, False
    if worker is None or worker.assigned.pop(task.spec.id, None) is None:
        return
    if task.actor is not None:
        worker.actors -= 1
    if holding:
        vacate(state, worker, task)
    elif task.spec.id in worker.prefetched:
        drop_prefetched(state, worker, task)
    offer(state, worker)


def vacate(state: State, worker: Worker, task: Task) -> None:
    """Free what a task occupies, for those queued ahead first."""
    task.holding = False
    for name, amount in task.spec.shape:
        worker.used[name] = max(0.0, worker.used.get(name, 0.0) - amount)
    if task.actor is None:
        _subtract(worker.running, task.spec.shape)
    _advance(state, worker)


def _advance(state: State, worker: Worker) -> None:
    """Count those queued ahead that begin now as running."""
    while worker.prefetched:
        first = _next_prefetched(worker)
        if first is None:
            return
        _drop_prefetched(state, worker, first)
        occupy(worker, first)


def _next_prefetched(worker: Worker) -> Task | None:
    """Return what the worker begins now: see ``WorkerCore``."""
    tasks: Collection[Task] = worker.prefetched.values()
    if len(worker.backlog_s) > 1:
        tasks = sorted(tasks, key=lambda task: -task.spec.priority)
    index = find_startable((task.spec.shape for task in tasks), len(worker.ahead), worker.lacking)
    return None if index is None else next(itertools.islice(tasks, index, None))


def drop_prefetched(state: State, worker: Worker, task: Task) -> None:
    """Count a task as no longer queued ahead, and no longer before others that are."""
    _drop_prefetched(state, worker, task)
    _advance(state, worker)


def _drop_prefetched(state: State, worker: Worker, task: Task) -> None:
    del worker.prefetched[task.spec.id]
    _subtract(worker.ahead, task.spec.shape)
    priority = task.spec.priority
    worker.backlog_s[priority] = max(0.0, worker.backlog_s[priority] - state.durations.get(task.spec.function_id, 0.0))
    if not worker.prefetched:
        worker.backlog_s.clear()


def occupy(worker: Worker, task: Task) -> None:
    """Count a task as running."""
    task.holding = True
    if task.actor is None:
        worker.running[task.spec.shape] += 1
    for name, amount in task.spec.shape:
        worker.used[name] = worker.used.get(name, 0.0) + amount


def _subtract(counts: Counter[Shape], shape: Shape) -> None:
    counts[shape] -= 1
    if not counts[shape]:
        del counts[shape]


def measure(state: State, function_id: str, run_s: float) -> None:
    """Learn from a run how long a function takes."""
    known = state.durations.get(function_id)
    if known is None:
        if len(state.durations) >= MAX_DURATIONS:
            del state.durations[next(iter(state.durations))]
        state.durations[function_id] = run_s
    else:
        state.durations[function_id] = known + DURATION_WEIGHT * (run_s - known)


def refresh_feasibility(state: State, out: list[Effect]) -> None:
    """Tell sessions about shapes that no worker can ever run, once, and note when that changes."""
    for queue in state.queues.values():
        feasible = any(worker.could_fit(queue.shape) for worker in state.workers.values() if not worker.draining)
        if not feasible and queue.feasible and queue.length and state.workers:
            _report_infeasible(state, queue, out)
        if feasible:
            queue.feasible = True


def _rank(queue: ShapeQueue, stalled: Collection[SessionId]) -> tuple[int, int]:
    task = queue.head(stalled)
    return (0, 0) if task is None else (-task.spec.priority, task.seq)


def _find_worker(state: State, queue: ShapeQueue, task: Task, stuck: Sequence[Shape]) -> Worker | None:
    while (incarnation := queue.best(state.workers)) is not None:
        worker = state.workers.get(incarnation)
        usable = worker is not None and worker.attached and not worker.draining
        if worker is not None and usable and (not queue.shape or worker.reserved_for in (None, queue.shape)):
            if _may_begin(worker, task):
                if worker.reserved_for is not None and worker.reserved_for == queue.shape:
                    _unreserve(state, queue.shape)
                return worker
            if _may_prefetch(state, worker, task, stuck):
                return worker
        queue.drop_best()
    return None


def _may_begin(worker: Worker, task: Task) -> bool:
    """Whether a worker would begin a task at once: it fits, and takes nothing that one queued ahead is waiting for."""
    shape = task.spec.shape
    if not worker.fits(shape):
        return False
    return task.actor is not None or not any(takes(shape, worker.lacking(other)) for other in worker.ahead)


def _may_prefetch(state: State, worker: Worker, task: Task, stuck: Sequence[Shape]) -> bool:
    """Whether to queue a task ahead: behind one of its shape, whose place it gets, and that no older one is waiting for."""
    estimate = state.durations.get(task.spec.function_id) if task.actor is None else None
    if estimate is None or estimate > SHORT_TASK_S or worker.reserved_for is not None:
        return False
    shape = task.spec.shape
    if shape not in worker.running or any(worker.could_fit(o) and takes(shape, worker.lacking(o)) for o in stuck):
        return False
    slots = worker.slots(task.spec.shape)
    ahead_s = sum(seconds for priority, seconds in worker.backlog_s.items() if priority >= task.spec.priority)
    return ahead_s + estimate <= max(PREFETCH_S, estimate) * slots and len(worker.prefetched) < MAX_PREFETCH * slots


def take_over(state: State, worker: Worker, task: Task) -> None:
    """Count a queued task's latest attempt as the worker's; it is already there. The caller has counted it out of its queue."""
    task.move(TaskState.ASSIGNED)
    task.worker = worker.incarnation
    worker.assigned[task.spec.id] = task
    if task.actor is not None:
        worker.actors += 1
    if task.actor is not None or _may_begin(worker, task):
        occupy(worker, task)
    else:
        worker.prefetched[task.spec.id] = task
        worker.ahead[task.spec.shape] += 1
        estimate_s = state.durations.get(task.spec.function_id, 0.0)
        worker.backlog_s[task.spec.priority] = worker.backlog_s.get(task.spec.priority, 0.0) + estimate_s


def _assign(state: State, worker: Worker, task: Task, now: float) -> None:
    task.attempt += 1
    task.assigned_at = now
    take_over(state, worker, task)
    if task.actor is not None:
        task.actor.taken_until = 0.0
        state.changes.change_task(task)
    task.tell(now, f"assigned to {worker.id}" if task.holding else f"queued ahead on {worker.id}")


def _note_stuck(state: State, queue: ShapeQueue, now: float, out: list[Effect]) -> None:
    """A head without a place: reserve a worker for it if it has waited long, tell people if it waits in vain."""
    if queue.stuck_since is None:
        queue.stuck_since = now
    if queue.feasible and state.workers and not any(w.could_fit(queue.shape) for w in state.workers.values()):
        _report_infeasible(state, queue, out)
        return
    if now - queue.stuck_since < RESERVE_AFTER_S or len(state.queues) == 1:
        return
    if queue.shape in state.reservations:
        return
    fitting = [w for w in state.workers.values() if w.attached and not w.draining and w.reserved_for is None]
    fitting = [w for w in fitting if w.could_fit(queue.shape)]
    if fitting:
        chosen = min(fitting, key=Worker.load)
        chosen.reserved_for = queue.shape
        state.reservations[queue.shape] = chosen.incarnation


def _unreserve(state: State, shape: Shape) -> None:
    worker = state.workers.get(state.reservations.pop(shape))
    if worker is not None:
        worker.reserved_for = None
        offer(state, worker)


def _drop_reservations(state: State) -> None:
    """End reservations whose tasks or workers are gone."""
    for shape, incarnation in list(state.reservations.items()):
        queue, worker = state.queues.get(shape), state.workers.get(incarnation)
        if queue is None or queue.length == 0 or worker is None or worker.draining or not worker.attached:
            _unreserve(state, shape)


def _report_infeasible(state: State, queue: ShapeQueue, out: list[Effect]) -> None:
    queue.feasible = False
    head = queue.head(state.stalled)
    if head is not None:
        text = f"{head.spec.name} ({head.spec.id}) waits for {describe_shape(queue.shape)}, which no worker has: "
        told = {head.spec.session} if head.actor is None else head.actor.watchers
        out.extend(NotifySession(session, text + describe_shortfall(state, queue.shape)) for session in sorted(told))


def _reclaim(state: State, out: list[Effect]) -> None:
    """Ask the busiest worker for half of what it has queued ahead, when another one is idle."""
    if len(state.workers) < 2:
        return
    givers = sorted((w for w in state.workers.values() if w.prefetched), key=lambda worker: -len(worker.prefetched))
    if not givers:
        return
    for taker in state.workers.values():
        if taker.prefetched or not taker.attached or taker.draining or taker.reserved_for is not None:
            continue
        for giver in givers:
            waiting = [t for t in giver.prefetched.values() if not t.reclaiming and taker.fits(t.spec.shape)]
            if waiting:
                chosen = waiting[len(waiting) // 2 :]
                for task in chosen:
                    task.reclaiming = True
                out.append(ReclaimTasks(giver.incarnation, [(task.spec.id, task.attempt) for task in chosen]))
                break
