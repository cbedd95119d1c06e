"""``fray tasks``: what the controller knows of tasks."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from fray.cli.link import ask
from fray.cli.options import AsJson, ControllerUrl
from fray.cli.output import describe_duration, print_json, print_table


class Status(enum.Enum):
    """What ``--status`` takes."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


def list_tasks(
    controller: ControllerUrl = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Show at most so many, the latest first.")] = 20,
    status: Annotated[Status | None, typer.Option(case_sensitive=False, help="Show only tasks in this status.")] = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, the latest first.

    JSON keys: total (matching tasks, also beyond the limit), tasks (each with task_id, name, status, session_id, worker_id,
    attempt, age_s, reason, error).
    """
    from fray.cli.records import task_record
    from fray.job.rpc.proto import fray_pb as pb

    wanted = pb.TaskStatus[status.value] if status is not None else pb.TaskStatus.UNSPECIFIED
    answer: pb.TaskList = ask(controller, "list_tasks", pb.ListTasksRequest(limit=limit, status=wanted))
    records = [task_record(task) for task in answer.tasks]
    if as_json:
        print_json({"total": answer.total, "tasks": records})
        return
    if not records:
        print(f"no task is {status.value}" if status is not None else "no tasks yet")
        return
    print_table(("task", "name", "status", "age", "attempt", "worker", "why"), [_row(record) for record in records])
    if answer.total > len(records):
        print(f"... and {answer.total - len(records)} more; show them with --limit {answer.total}")


def _row(record: dict[str, Any]) -> list[str]:
    return [
        record["task_id"],
        record["name"],
        record["status"],
        describe_duration(record["age_s"]),
        str(record["attempt"]) if record["attempt"] else "-",
        record["worker_id"] or "-",
        (record["reason"] or record["error"] or "").partition("\n")[0],
    ]
