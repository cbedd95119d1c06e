"""``fray actors``: which actors there are, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fray.cli.link import ask
from fray.cli.options import AsJson, ControllerUrl
from fray.cli.output import describe_amount, describe_duration, print_json, print_table
from fray.errors import ActorNotFound

if TYPE_CHECKING:
    from fray.job.rpc.proto import fray_pb as pb

TITLES = ("actor", "name", "class", "state", "life", "worker", "detached", "occupies", "age", "why")
EMPTY = "-"


def list_actors(
    controller: ControllerUrl = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show also those that have ended, after the others.")] = False,
    as_json: AsJson = False,
) -> None:
    """List actors, the latest first.

    Those that have ended are only counted, unless --all is given: the controller remembers the latest 1,000 of them. Columns in
    which nothing stands are left out.

    JSON keys: ended (how many have ended, listed or not), actors (each with actor_id, name, class_name, state: PENDING, ALIVE,
    RESTARTING or DEAD, incarnation, restarts, worker_id, session_id, detached, resources, age_s, reason).
    """
    from fray.cli.records import actor_record

    living, ended = _ask_all(controller)
    records = [actor_record(actor) for actor in (*living, *(ended if show_all else ()))]
    if as_json:
        print_json({"ended": len(ended), "actors": records})
        return
    if records:
        _print_filled([_row(record) for record in records])
    else:
        print("no actor lives")
    if ended and not show_all:
        print(f"{len(ended)} {'has' if len(ended) == 1 else 'have'} ended; show with --all")


def find_actor(controller: str | None, who: str) -> pb.ActorInfo:
    """Return the actor with an id, else the latest with that name, one that lives before all that have ended. Blocks.

    Raises:
        ActorNotFound: if the controller knows none.
    """
    living, ended = _ask_all(controller)
    known = [*living, *ended]
    by_id = [actor for actor in known if actor.actor_id == who]
    by_name = [actor for actor in known if actor.settings is not None and actor.settings.name == who]
    if not who or not (by_id or by_name):
        raise ActorNotFound(f"no actor has the id or the name {who!r}; `fray actors --all` lists the known")
    return (by_id or by_name)[0]


def _ask_all(controller: str | None) -> tuple[list[pb.ActorInfo], list[pb.ActorInfo]]:
    """Return the actors that live and those that have ended, the latest first each."""
    from fray.job.rpc.proto import fray_pb as pb

    answer: pb.ActorList = ask(controller, "list_actors", pb.Empty())
    latest_first = list(reversed(answer.actors))
    living = [actor for actor in latest_first if actor.state != pb.ActorState.DEAD]
    return living, [actor for actor in latest_first if actor.state == pb.ActorState.DEAD]


def _print_filled(rows: list[list[str]]) -> None:
    """Print a table of the columns that say something: terminals are narrow."""
    filled = [number for number in range(len(TITLES)) if any(row[number] != EMPTY for row in rows)]
    print_table([TITLES[number] for number in filled], [[row[number] for number in filled] for row in rows])


def _row(record: dict[str, Any]) -> list[str]:
    occupies = (f"{name} {describe_amount(name, amount)}" for name, amount in sorted(record["resources"].items()))
    return [
        record["actor_id"],
        record["name"] or EMPTY,
        record["class_name"],
        record["state"],
        str(record["incarnation"] or EMPTY),
        record["worker_id"] or EMPTY,
        "yes" if record["detached"] else EMPTY,
        ", ".join(occupies) or EMPTY,
        describe_duration(record["age_s"]),
        (record["reason"] or EMPTY).partition("\n")[0],
    ]
