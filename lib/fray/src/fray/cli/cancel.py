"""``fray cancel``: stop tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from fray.cli.link import ask
from fray.cli.options import ControllerUrl


def cancel_tasks(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK", help="Tasks' ids, as 'fray tasks' shows them.")],
    controller: ControllerUrl = None,
) -> None:
    """Cancel tasks.

    Pending ones are dropped, running ones interrupted. Tasks that have ended stay as they are. If the controller does not
    know one of them, none is cancelled.
    """
    from fray.job.rpc.proto import fray_pb as pb

    wanted = list(dict.fromkeys(tasks))
    answer: pb.CancelTasksResponse = ask(controller, "cancel_tasks", pb.CancelTasksRequest(task_ids=wanted))
    ended = len(wanted) - answer.cancelled
    print(f"cancelled {answer.cancelled} of {len(wanted)}" + (f"; {ended} had ended already" if ended else ""))
