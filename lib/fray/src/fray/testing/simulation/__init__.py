"""A deterministic simulation of a whole cluster: the real cores, model clients and executors, a virtual network with faults.

One ``random.Random(seed)`` decides everything and time is virtual, so a seed that fails fails again. For a while messages
get lost, late or repeated, streams break, workers crash, freeze, drain and restart, executors die, clients vanish; then
the faults stop, and everything must come to rest with each task settled once.

In most seeds clients use actors too, over the real lanes, directly and by way of the controller. A ledger holds every promise
about them against what happens: one incarnation takes calls, calls are carried out in order and no more often than promised,
names are unique, what was saved is restored, and no call hangs.

Run many seeds with ``python -m fray.testing.simulation --seeds 1000``, one with ``--seed S``.
"""

from fray.testing.simulation.clients import SUBMIT_ITEMS
from fray.testing.simulation.cluster import FAULTY_S, PATIENCE_S, simulate
from fray.testing.simulation.command import main
from fray.testing.simulation.controller import Sabotage
from fray.testing.simulation.faults import HARM
from fray.testing.simulation.report import SimulationReport
from fray.testing.simulation.scripts import Script
from fray.testing.simulation.workers import DRAIN_GRACE_S, HEARTBEAT_S, REPORT_ITEMS
from fray.testing.simulation.world import LOG_LINES, Plant, Rejected

__all__ = [
    "DRAIN_GRACE_S",
    "FAULTY_S",
    "HARM",
    "HEARTBEAT_S",
    "LOG_LINES",
    "PATIENCE_S",
    "REPORT_ITEMS",
    "SUBMIT_ITEMS",
    "Plant",
    "Rejected",
    "Sabotage",
    "Script",
    "SimulationReport",
    "main",
    "simulate",
]
