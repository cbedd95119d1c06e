"""``fray status``: the cluster at a glance."""

from __future__ import annotations

from typing import Any

from fray.cli.link import ask, find_address
from fray.cli.options import AsJson, ControllerUrl
from fray.cli.output import describe_duration, describe_use, print_fields, print_json

STATUSES = ("PENDING", "IN_PROGRESS", "FINISHED", "FAILED", "CANCELLED")
ACTOR_STATES = ("PENDING", "ALIVE", "RESTARTING", "DEAD")


def show_status(controller: ControllerUrl = None, as_json: AsJson = False) -> None:
    """Show the cluster at a glance.

    JSON keys: address, controller_id, version, uptime_s, sessions, workers, tasks (number by status, of those the controller
    still keeps), actors (number by state, of those it still knows), capacity and used (by resource), stats (how often things
    happened since the start), state_path (where it saves what it has accepted; empty: nowhere), trouble (why it cannot).
    """
    from fray.job.rpc.proto import fray_pb as pb

    answer: pb.ClusterStatus = ask(controller, "get_status", pb.Empty())
    record = {
        "address": find_address(controller),
        "controller_id": answer.controller_id,
        "version": answer.version,
        "uptime_s": round(answer.uptime_s, 3),
        "sessions": answer.sessions,
        "workers": answer.workers,
        "tasks": {status: answer.tasks.get(status, 0) for status in STATUSES},
        "actors": {state: answer.actors.get(state, 0) for state in ACTOR_STATES},
        "capacity": dict(answer.capacity),
        "used": dict(answer.used),
        "stats": dict(sorted(answer.stats.items())),
        "state_path": answer.state_path,
        "trouble": answer.trouble,
    }
    if as_json:
        print_json(record)
    else:
        _print_words(record)


def _print_words(record: dict[str, Any]) -> None:
    tasks, capacity, stats = record["tasks"], record["capacity"], dict(record["stats"])
    ended = [f"{stats.pop(f'tasks {how}', 0)} {how}" for how in ("finished", "failed", "cancelled")]
    accepted = stats.pop("tasks accepted", 0)
    made, gone = stats.pop("actors accepted", 0), stats.pop("actors ended", 0)
    alive, pending, restarting = (record["actors"][state] for state in ("ALIVE", "PENDING", "RESTARTING"))
    hint = "" if record["workers"] else f"; start one: fray worker --controller {record['address']}"
    print_fields(
        [
            ("controller", f"{record['address']}, version {record['version']}, up {describe_duration(record['uptime_s'])}"),
            ("state", record["state_path"] or "in memory"),
            ("trouble", record["trouble"]),
            ("workers", f"{record['workers']}{hint}"),
            ("in use", ", ".join(f"{name} {describe_use(capacity, record['used'], name)}" for name in sorted(capacity))),
            ("clients", str(record["sessions"])),
            ("tasks now", f"{tasks['IN_PROGRESS']} in progress, {tasks['PENDING']} pending"),
            ("tasks so far", f"{accepted} accepted: {', '.join(ended)}"),
            ("actors now", f"{alive} alive, {pending} pending, {restarting} restarting" if made else ""),
            ("actors so far", f"{made} accepted, {gone} ended" if made else ""),
            ("also", ", ".join(f"{what} {count}" for what, count in stats.items())),
        ]
    )
