"""What is done to members while faults happen; what happens to messages is the business of the network.

A fault is only caused here: what it means for a member is in the member.
"""

from __future__ import annotations

from collections.abc import Sequence

from fray.testing.simulation.clients import Client
from fray.testing.simulation.controller import Controller
from fray.testing.simulation.workers import Worker
from fray.testing.simulation.world import World

HARM = (
    "crash",
    "freeze",
    "drain",
    "kill",
    "kill",
    "sick",
    "cut off",
    "cut off",
    "break orders",
    "break results",
    "away",
    "vanish",
    "leave",
)
"""What is done to members while faults happen."""


ACTOR_HARM = (
    "kill actor",
    "kill actor",
    "break lane",
    "break lane",
    "break lane",
    "close lanes",
    "pause",
    "pause",
    "part",
    "part",
    "part",
    "crash host",
    "drain host",
    "drain host",
)
"""What is done besides where there are actors: to their executors, to direct lanes, and to workers for longer than a lease."""


def do_harm_to_controller(world: World, controller: Controller) -> None:
    """Let the controller crash, for shorter or longer than others wait for it."""
    controller.crash(world.disk_rng.choice([0.02, 0.5, 2.0, 12.0]))


def do_harm_to_actors(world: World, workers: Sequence[Worker]) -> None:
    """Do something to a worker that hosts actors, if there is one."""
    rng = world.actor_rng
    hosting = [worker for worker in workers if worker.core.actors()]
    if not hosting:
        return
    worker, what = rng.choice(hosting), rng.choice(ACTOR_HARM)
    world.report.faults[what] += 1
    if what == "kill actor":
        number = rng.choice([item.executor for item in worker.core.actors()])
        if number in worker.executors:
            worker.executors[number].die("killed by chance")
    elif what == "break lane":
        worker.desk.break_line(rng)
    elif what == "close lanes":
        worker.desk.close_lanes(rng.uniform(0.5, 6.0))
    elif what == "pause":
        worker.freeze(rng.choice([6.0, 12.0]))
    elif what == "part":
        worker.cut_off(rng.choice([6.0, 12.0]))
    elif what == "drain host":
        worker.drain()
    elif what == "crash host":
        worker.restart_in(rng.uniform(0.0, 4.0))


def do_harm(world: World, workers: Sequence[Worker], clients: Sequence[Client]) -> None:
    """Do something to a worker or a client."""
    rng = world.rng
    worker, client = rng.choice(workers), rng.choice(clients)
    what = rng.choice(HARM)
    world.report.faults[what] += 1
    if what == "crash":
        worker.restart_in(rng.uniform(0.0, 4.0))
    elif what == "freeze":
        worker.freeze(rng.choice([0.5, 3.0, 15.0]))
    elif what == "drain":
        worker.drain()
    elif what == "break orders":
        worker.break_stream()
    elif what == "kill":
        worker.kill_executor()
    elif what == "cut off":
        worker.cut_off(rng.choice([1.0, 4.0, 8.0]))
    elif what == "sick":
        worker.sicken(rng.uniform(0.5, 6.0))
    elif what == "break results":
        client.break_stream()
    elif what == "away":
        client.freeze(rng.choice([1.0, 4.0, 12.0]))
        client.break_stream()
    elif what == "vanish" and rng.random() < 0.2:
        client.vanish()
    elif what == "leave" and rng.random() < 0.2:
        client.close()
