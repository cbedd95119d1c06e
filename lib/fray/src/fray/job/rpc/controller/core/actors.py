"""The life of actors, as far as it differs from that of tasks: asked for, constructed, watched."""

from __future__ import annotations

from fray.job.rpc.controller.core import tasks
from fray.job.rpc.controller.core.announce import announce
from fray.job.rpc.controller.core.effects import Effect, TellActor
from fray.job.rpc.controller.core.events import ActorRequested, ActorWatched
from fray.job.rpc.controller.core.model import ActorState, Session, State, Task
from fray.types import TaskId


def request(state: State, event: ActorRequested, out: list[Effect]) -> None:
    """Reserve the name and accept the actor in one step; if the name is taken, nothing changes."""
    spec, session = event.spec, state.sessions.get(event.session)
    if session is None or session.closed or spec.actor is None:
        state.stats["submissions refused: no session"] += 1
        return
    if find(state, spec.id) is not None:
        state.stats["tasks repeated"] += 1
        return
    if spec.actor.name:
        if spec.actor.name in state.actor_names:
            return
        state.actor_names[spec.actor.name] = spec.id
    if spec.actor.detached:
        state.sessions[spec.session] = Session(spec.session, name=f"actor {spec.name}", detached=True)
        state.changes.change_session(state.sessions[spec.session])
    state.stats["actors accepted"] += 1
    tasks.accept(state, state.sessions[spec.session], spec, event.now, out, watcher=event.session)


def watch(state: State, event: ActorWatched, out: list[Effect]) -> None:
    """Tell a session how an actor is, now and whenever that changes."""
    task = find(state, event.actor)
    if task is not None and task.actor is not None and event.session in state.sessions:
        task.actor.watchers.add(event.session)
        out.append(TellActor(event.session, task))


def note_constructed(state: State, task: Task, now: float, out: list[Effect]) -> None:
    """Take a worker's word that an actor's constructor has returned; again is no change."""
    actor = task.actor
    if actor is None or actor.state is ActorState.ALIVE:
        return
    actor.was_constructed, actor.alive_since = True, now
    task.tell(now, "constructed")
    announce(state, task, actor, ActorState.ALIVE, out)


def find(state: State, actor: TaskId) -> Task | None:
    """Return an actor that lives, or ended not long ago."""
    task = state.tasks.get(actor)
    return task if task is not None and task.actor is not None else state.dead_actors.get(actor)


def find_named(state: State, name: str) -> Task | None:
    """Return the actor that has a name now."""
    actor = state.actor_names.get(name)
    return state.tasks.get(actor) if actor is not None else None


def list_all(state: State) -> list[Task]:
    """Return all actors that live or ended not long ago, in the order of their creation."""
    living = [task for task in state.tasks.values() if task.actor is not None and task.spec.id not in state.dead_actors]
    return sorted([*state.dead_actors.values(), *living], key=lambda task: task.submitted_at)


def is_ready(task: Task | None, incarnation: int) -> bool:
    """Whether an incarnation takes calls now."""
    return (
        task is not None
        and task.actor is not None
        and task.actor.state is ActorState.ALIVE
        and task.attempt == incarnation
        and task.worker is not None
    )
