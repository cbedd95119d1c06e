"""``fray workers``: who works for the controller."""

from __future__ import annotations

from typing import Any

from fray.cli.link import ask, find_address
from fray.cli.options import AsJson, ControllerUrl
from fray.cli.output import describe_duration, describe_use, print_json, print_table


def list_workers(controller: ControllerUrl = None, as_json: AsJson = False) -> None:
    """List workers.

    JSON keys: workers (each with worker_id, incarnation, address, state: ready, draining or silent, running (tasks), actors,
    last_seen_s, resources, used, tags).
    """
    from fray.cli.records import worker_record
    from fray.job.rpc.proto import fray_pb as pb

    answer: pb.WorkerList = ask(controller, "list_workers", pb.Empty())
    records = [worker_record(worker) for worker in answer.workers]
    if as_json:
        print_json({"workers": records})
    elif not records:
        print(f"no worker is connected; start one: fray worker --controller {find_address(controller)}")
    else:
        titles = ("worker", "state", "tasks", "actors", "cpu in use", "memory in use", "other in use", "last seen", "tags")
        print_table(titles, [_row(record) for record in records])


def _row(record: dict[str, Any]) -> list[str]:
    capacity, used = record["resources"], record["used"]
    others = [f"{name} {describe_use(capacity, used, name)}" for name in sorted(capacity) if name not in ("cpu", "memory")]
    return [
        record["worker_id"],
        record["state"],
        str(record["running"]),
        str(record["actors"]),
        describe_use(capacity, used, "cpu"),
        describe_use(capacity, used, "memory"),
        ", ".join(others) or "-",
        f"{describe_duration(record['last_seen_s'])} ago",
        ", ".join(f"{name}={value}" for name, value in sorted(record["tags"].items())) or "-",
    ]
