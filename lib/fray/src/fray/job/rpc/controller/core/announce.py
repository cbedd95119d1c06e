"""Who is told what becomes of an actor."""

from __future__ import annotations

from dataclasses import replace

from fray.job.rpc.controller.core.effects import Effect, EndActor, TellActor
from fray.job.rpc.controller.core.model import HISTORY_LIMIT, Actor, ActorState, State, Task


def announce(state: State, task: Task, actor: Actor, to: ActorState, out: list[Effect]) -> None:
    """Change an actor's state, and tell all that watch it."""
    actor.state = to
    actor.version += 1
    state.changes.change_task(task)
    actor.watchers &= state.sessions.keys()
    out.extend(TellActor(session, task) for session in sorted(actor.watchers))


def bury(state: State, task: Task, actor: Actor, out: list[Effect]) -> None:
    """Take an actor's end: its name is free, its watchers are told, its story is kept for a while."""
    if state.actor_names.get(actor.spec.name) == task.spec.id:
        del state.actor_names[actor.spec.name]
    task.spec = replace(task.spec, payload=b"")
    while len(state.dead_actors) >= HISTORY_LIMIT:
        state.changes.drop_task(state.dead_actors.pop(next(iter(state.dead_actors))))
    state.dead_actors[task.spec.id] = task
    state.stats["actors ended"] += 1
    announce(state, task, actor, ActorState.DEAD, out)
    out.append(EndActor(task))
