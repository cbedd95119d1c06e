"""Why a task is where it is, in words: pending reasons, stories, and what is missing for a demand."""

from __future__ import annotations

from fray.job.rpc.controller.core.model import STABLE, ActorState, EndedTask, Shape, State, Task, TaskState


def describe_shape(shape: Shape) -> str:
    """Return a demand in words, such as ``cpu: 2, gpu: 1``."""
    return ", ".join(name if name == STABLE else f"{name}: {amount:g}" for name, amount in shape) or "nothing"


def describe_shortfall(state: State, shape: Shape) -> str:
    """Return what the largest worker lacks for a demand."""
    lacking = []
    for name, amount in shape:
        if name == STABLE:
            if not any(name in worker.capacity for worker in state.workers.values()):
                lacking.append("all workers are preemptible")
            continue
        largest = max((worker.capacity.get(name, 0.0) for worker in state.workers.values()), default=0.0)
        if largest < amount:
            lacking.append(f"the most {name} on one worker is {largest:g} of {amount:g}")
    return "; ".join(lacking) or "no single worker has all of it together"


def explain_pending(state: State, task: Task, now: float) -> str:
    """Return why a task does not run yet; empty for one that has ended or is with a worker."""
    if task.state is TaskState.WAITING:
        return f"waits for {task.missing} task(s) it depends on"
    if task.state is TaskState.DELAYED:
        return f"backs off before attempt {task.attempt + 1}, for another {max(0.0, task.delayed_until - now):.1f} s"
    if task.state is not TaskState.QUEUED:
        return ""
    if state.awaited:
        names = sorted(state.workers[incarnation].id for incarnation in state.awaited)
        return f"waits until workers of before the controller's restart are back or given up: {', '.join(names[:5])}"
    shape = task.spec.shape
    live = [worker for worker in state.workers.values() if worker.attached]
    if not live:
        return "no worker is connected; start one: fray worker --controller URL"
    if not any(worker.could_fit(shape) for worker in live):
        return f"needs {describe_shape(shape)}, which no worker has: {describe_shortfall(state, shape)}"
    if all(worker.draining for worker in live if worker.could_fit(shape)):
        return f"all workers with {describe_shape(shape)} are draining"
    if task.spec.session in state.stalled:
        return "waits until its client has read the results that are here: they take as many bytes as a session may have"
    queue = state.queues.get(shape)
    ahead = queue.length - 1 if queue is not None else 0
    return f"waits for {describe_shape(shape)}; all is in use ({ahead} other tasks wait for the same)"


def explain_actor(state: State, task: Task, now: float) -> str:
    """Return why an actor is not ALIVE; empty for one that is."""
    actor = task.actor
    if actor is None or actor.state is ActorState.ALIVE:
        return ""
    if actor.state is ActorState.DEAD:
        return task.message or "it was killed"
    pending = explain_pending(state, task, now) or "its constructor runs"
    return f"{actor.last_death}; {pending}" if actor.last_death else pending


def tell_story(task: Task | EndedTask) -> list[str]:
    """Return what happened to a task, one line each, with seconds since its submission."""
    later = [f"+{when - task.submitted_at:.3f} s  {text}" for when, text in task.story or ()]
    return ["+0.000 s  submitted", *later]
