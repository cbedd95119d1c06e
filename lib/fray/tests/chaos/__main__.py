"""``python -m chaos``: a long run, as ``make chaos`` starts it. Ends with 1 if a rule was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from chaos.clients import WORKLOADS
from chaos.cluster import Shape, remove_tree
from chaos.faults import DEEDS, PARTITION, Pace
from chaos.networks import find_obstacle
from chaos.run import Settings, Verdict, iterate_tables, run


def main() -> int:
    """Run as the command line says."""
    options = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end like Ctrl-C, with all processes
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    deeds = tuple(deed for deed in DEEDS if not set(deed) & set(options.without.split(",")))
    obstacle = find_obstacle() if options.networks else "not asked for"
    if obstacle is None:
        deeds = (*deeds, PARTITION)
    elif options.networks:
        print(f"no networks of their own for workers: {obstacle}")
    deeds = tuple(random.Random(seed).sample(deeds, len(deeds)))
    shape = Shape(
        workers=options.workers, session_grace_s=options.grace, is_durable=not options.in_memory, has_networks=obstacle is None
    )
    settings = Settings(seed, Pace(options.seconds), tuple(options.workloads.split(",")), deeds, shape)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {seed}, {options.seconds:g} s, {', '.join(settings.workloads)}; facts and logs in {folder}", flush=True)
    calm = None
    if options.calm:
        calm = asyncio.run(run(replace(settings, deeds=(), pace=Pace(options.seconds)), folder / "calm"))
    verdict = asyncio.run(run(settings, folder / "chaos"))
    tell(verdict, calm)
    if options.json is not None:
        options.json.write_text(json.dumps(to_record(verdict, calm), indent=1) + "\n")
    problems = [*verdict.problems, *(calm.problems if calm is not None else [])]
    if problems:
        print("\n".join(problems[:40]))
        print(f"{len(problems)} problems with seed {seed}; facts and logs are kept in {folder}")
        return 1
    if not options.keep:
        remove_tree(folder)
    return 0


def tell(verdict: Verdict, calm: Verdict | None) -> None:
    """Print what came of a run as a table."""
    for heading, rows in iterate_tables(verdict, calm.results_per_s if calm is not None else None):
        print(f"\n{heading}")
        for name, value in rows.items():
            print(f"  {name:48} {value}")


def to_record(verdict: Verdict, calm: Verdict | None) -> dict[str, object]:
    """Return the same for programs."""
    record = asdict(verdict)
    calm_per_s = calm.results_per_s if calm is not None else None
    share = round(verdict.results_per_s / calm_per_s, 3) if calm_per_s else None
    return {**record, "calm_results_per_s": calm_per_s, "goodput_share": share}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things go wrong; the calm run is as long")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of %(default)s")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--grace", type=float, default=20.0, help="seconds until the controller gives up a client")
    parser.add_argument("--without", default="", help="kinds or targets of faults to leave out, such as 'stall,controller'")
    parser.add_argument("--in-memory", action="store_true", help="keep the controller's state in memory")
    parser.add_argument(
        "--calm", action=argparse.BooleanOptionalAction, default=True, help="measure a run without faults first"
    )
    parser.add_argument("--networks", action="store_true", help="give each worker a network of its own, and cut it too")
    parser.add_argument("--keep", action="store_true", help="keep facts and logs also when all is well")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the summary there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
