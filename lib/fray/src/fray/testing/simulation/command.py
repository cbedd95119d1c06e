"""The command line of the simulation: run many seeds and count what they did, or one and show how it fails.

It only runs seeds and prints; what a seed means is not decided here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from fray.testing.simulation.cluster import simulate

DESCRIPTION = (
    "A deterministic simulation of a whole cluster: the real cores, model clients and executors, a virtual network and disk "
    "with faults."
)
SHOWN = 3
"""Failures that are printed in full."""
CHUNK = 50
"""Seeds that a process takes at a time."""


@dataclass(slots=True)
class Totals:
    """What many seeds did together."""

    seeds: int = 0
    failed: list[int] = field(default_factory=list)
    virtual_hours: float = 0.0
    events: int = 0
    tasks: int = 0
    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    call_outcomes: Counter[str] = field(default_factory=Counter)
    lives: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    stats: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        """Count what others did."""
        self.seeds += other.seeds
        self.failed += other.failed
        self.virtual_hours += other.virtual_hours
        self.events += other.events
        self.tasks += other.tasks
        self.calls += other.calls
        for mine, theirs in (
            (self.outcomes, other.outcomes),
            (self.call_outcomes, other.call_outcomes),
            (self.lives, other.lives),
            (self.faults, other.faults),
            (self.stats, other.stats),
        ):
            mine.update(theirs)

    def describe(self) -> str:
        """Return it in words, one group a line."""
        groups = {
            "faults": self.faults,
            "tasks ended as": self.outcomes,
            "calls ended as": self.call_outcomes,
            "actors": self.lives,
            "the controller counted": self.stats,
        }
        lines = [f"{self.virtual_hours:.1f} virtual hours, {self.events} events, {self.tasks} tasks, {self.calls} calls"]
        for title, counts in groups.items():
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
        return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds and print what they did; return whether any failed."""
    parser = argparse.ArgumentParser(prog="python -m fray.testing.simulation", description=DESCRIPTION)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, default=None, help="run one seed and show what it did")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many run at a time")
    parser.add_argument("--quiet", action="store_true", help="run when nobody else wants the CPU, and tell the totals only")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="keep the totals there, for programs")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        totals = run_seeds([options.seed])
    else:
        if options.quiet:
            os.nice(10)
        seeds = range(options.first, options.first + options.seeds)
        totals = _run_all(seeds, options.processes, options.quiet, options.json)
    print(totals.describe())
    return 1 if totals.failed else 0


def run_seeds(seeds: Iterable[int]) -> Totals:
    """Run some seeds, and print how the first of them fail."""
    totals = Totals()
    for seed in seeds:
        totals.seeds += 1
        try:
            report = simulate(seed)
        except AssertionError as error:
            totals.failed.append(seed)
            if len(totals.failed) <= SHOWN:
                print(error, flush=True)
            continue
        totals.virtual_hours += report.virtual_s / 3600
        totals.events += report.events
        totals.tasks += report.tasks
        totals.calls += report.calls
        totals.outcomes.update(report.outcomes)
        totals.call_outcomes.update(report.call_outcomes)
        totals.lives.update(report.lives)
        totals.faults.update(report.faults)
        totals.stats.update(report.stats)
    return totals


def _run_all(seeds: range, processes: int, quiet: bool, path: Path | None) -> Totals:
    began = time.perf_counter()
    totals = Totals()
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done in pool.imap_unordered(run_seeds, chunks):
            totals.add(done)
            if path is not None:
                path.write_text(json.dumps({entry.name: getattr(totals, entry.name) for entry in fields(totals)}))
            if not quiet:
                print(f"{totals.seeds} of {len(seeds)} seeds, {len(totals.failed)} failed", file=sys.stderr, end="\r")
    rate = len(seeds) / (time.perf_counter() - began)
    print(f"{totals.seeds} seeds, {rate:.1f} per second, {len(totals.failed)} failed: {sorted(totals.failed)[:50]}")
    return totals
