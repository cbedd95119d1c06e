"""The command line of the simulation: run many seeds and count what they did, or one and show how it fails.

It only runs seeds and prints; what a seed means is not decided here.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence

from fray.testing.simulation.cluster import simulate

DESCRIPTION = (
    "A deterministic simulation of a whole cluster: the real cores, model clients and executors, a virtual network with faults."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds and print what they did; return how many failed."""
    parser = argparse.ArgumentParser(prog="python -m fray.testing.simulation", description=DESCRIPTION)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, default=None, help="run one seed and show what it did")
    options = parser.parse_args(arguments)
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    started = time.perf_counter()
    failed = []
    total: Counter[str] = Counter()
    for seed in seeds:
        try:
            report = simulate(seed)
        except AssertionError as error:
            failed.append(seed)
            if len(failed) <= 3 or options.seed is not None:
                print(error)
            continue
        for group in (report.outcomes, report.faults, report.stats):
            total.update(group)
        total.update({f"calls: {how}": count for how, count in report.call_outcomes.items()})
        total["events"] += report.events
        total.update({f"lives: {how}": count for how, count in report.lives.items()})
    rate = len(seeds) / (time.perf_counter() - started)
    print(f"{len(seeds)} seeds, {rate:.1f} per second, {len(failed)} failed: {failed[:50]}")
    print(", ".join(f"{name}: {count}" for name, count in sorted(total.items())))
    return min(len(failed), 1)
