"""``fray why``: what happened to a task or an actor, and what it waits for."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fray.cli.actors import find_actor
from fray.cli.link import ask
from fray.cli.options import AsJson, ControllerUrl
from fray.cli.output import clean, describe_duration, print_fields, print_json
from fray.errors import ActorNotFound, FrayError

if TYPE_CHECKING:
    from fray.job.rpc.proto import fray_pb as pb


def explain(
    who: Annotated[
        str,
        typer.Argument(
            metavar="TASK_OR_ACTOR",
            help="A task's id, as 'fray tasks' shows it, or an actor's id or name, as 'fray actors' does.",
            show_default=False,
        ),
    ],
    controller: ControllerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell why a task or an actor is where it is.

    Shows its status, what it waits for, and its story: what happened to it since it was submitted. A name means the latest
    actor that has, or had, it; what is also a task's id means the actor.

    JSON keys: those of a task in 'fray tasks' or of an actor in 'fray actors', and story (a list of lines).
    """
    from fray.cli.records import actor_record, task_record
    from fray.job.rpc.proto import fray_pb as pb

    explanation, actor = _find(controller, who)
    record = actor_record(actor) if actor is not None else task_record(explanation.task or pb.TaskHandle(task_id=who))
    if as_json:
        print_json({**record, "story": list(explanation.story)})
        return
    print_fields(_task_fields(record) if actor is None else _actor_fields(record))
    print("\nstory (seconds since it was submitted)")
    for line in explanation.story:
        print("  " + clean(line).replace("\n", "\n    "))


def _find(controller: str | None, who: str) -> tuple[pb.Explanation, pb.ActorInfo | None]:
    from fray.job.rpc.proto import fray_pb as pb
    from fray.job.rpc.wire.errors import NotKnown

    actor = None
    with contextlib.suppress(ActorNotFound):
        actor = find_actor(controller, who)
    try:
        return ask(controller, "explain_task", pb.TaskHandle(task_id=actor.actor_id if actor is not None else who)), actor
    except NotKnown as error:
        raise FrayError(
            f"no task has the id {who!r} and no actor that id or name: it never was, or ended long ago; "
            "`fray tasks` and `fray actors --all` list the known"
        ) from error


def _task_fields(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [
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


def _actor_fields(record: dict[str, Any]) -> list[tuple[str, str]]:
    restarts = f", restarted {record['restarts']} times" if record["restarts"] else ""
    return [
        ("actor", record["actor_id"]),
        ("name", record["name"] or ""),
        ("class", record["class_name"]),
        ("state", record["state"]),
        ("why", record["reason"] or ""),
        ("life", f"{record['incarnation'] or 'none yet'}{restarts}"),
        ("worker", record["worker_id"] or ""),
        ("session", "detached" if record["detached"] else record["session_id"]),
        ("submitted", f"{describe_duration(record['age_s'])} ago"),
    ]
