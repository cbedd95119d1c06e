"""``fray why``: what happened to a task, and what it waits for."""

from __future__ import annotations

from typing import Annotated

import typer

from fray.cli.link import ask
from fray.cli.options import AsJson, ControllerUrl
from fray.cli.output import clean, describe_duration, print_fields, print_json


def explain_task(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's id, as 'fray tasks' shows it.", show_default=False)],
    controller: ControllerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell why a task is where it is.

    Shows its status, what it waits for, and its story: what happened to it since it was submitted.

    JSON keys: those of a task in 'fray tasks', and story (a list of lines).
    """
    from fray.cli.records import task_record
    from fray.job.rpc.proto import fray_pb as pb

    answer: pb.Explanation = ask(controller, "explain_task", pb.TaskHandle(task_id=task))
    record = task_record(answer.task or pb.TaskHandle(task_id=task))
    if as_json:
        print_json({**record, "story": list(answer.story)})
        return
    print_fields(
        [
            ("task", record["task_id"]),
            ("name", record["name"]),
            ("status", record["status"]),
            ("why", record["reason"] or ""),
            ("error", record["error"] or ""),
            ("attempt", str(record["attempt"]) if record["attempt"] else "none yet"),
            ("worker", record["worker_id"] or ""),
            ("session", record["session_id"]),
            ("submitted", f"{describe_duration(record['age_s'])} ago"),
        ]
    )
    print("\nstory (seconds since it was submitted)")
    for line in answer.story:
        print("  " + clean(line).replace("\n", "\n    "))
