"""``fray kill``: end an actor."""

from __future__ import annotations

from typing import Annotated

import typer

from fray.cli.actors import find_actor
from fray.cli.link import ask
from fray.cli.options import ControllerUrl
from fray.cli.output import clean

WAIT_S = 15.0
"""How long one question for the actor's end may stay unanswered."""


def kill_actor(
    actor: Annotated[
        str, typer.Argument(metavar="NAME_OR_ID", help="An actor, as 'fray actors' shows it.", show_default=False)
    ],
    controller: ControllerUrl = None,
) -> None:
    """End an actor for good, and wait until it has ended.

    What it carries out is not finished, and it is not restarted: its callers get ActorDied. One that has ended stays as it is.
    """
    from fray.job.rpc.proto import fray_pb as pb

    found = find_actor(controller, actor)
    label = clean(f"{found.class_name} {found.actor_id}")
    if found.state == pb.ActorState.DEAD:
        print(f"{label} had ended already")
        return
    ask(controller, "kill_actor", pb.ActorRef(actor_id=found.actor_id))
    ended = False
    while not ended:
        answer: pb.TaskResult = ask(controller, "get_task_result", pb.TaskHandle(task_id=found.actor_id, wait_s=WAIT_S))
        ended = answer.status not in (pb.TaskStatus.PENDING, pb.TaskStatus.IN_PROGRESS)
    print(f"killed {label}")
