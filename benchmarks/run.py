"""Measure Fray and its peers side by side: ``python benchmarks/run.py --help``. Standard library only."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from environments import ROOT, SPECS, ensure_environment
from processes import EngineFailed, EngineProcess, adopt_orphans
from report import Round, compute_marks, compute_medians, render, show
from workloads import Workload, workloads


def main() -> None:
    """Run what was asked for, print the report, keep it with the raw numbers."""
    args = _parse_arguments()
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pythons = {name: ensure_environment(SPECS[name].environment) for name in args.engines}
    args.out.mkdir(parents=True, exist_ok=True)
    began = datetime.datetime.now(datetime.UTC)
    name = f"tasks-{began:%Y%m%d-%H%M%S}"
    with (args.out / f"{name}.log").open("w") as log:
        facts = _collect_facts(args, began, pythons, log)
        rounds: list[Round] = []
        try:
            for entry in _run_all(args, pythons, log):
                _announce(entry)
                rounds.append(entry)
        except KeyboardInterrupt:
            print("interrupted: this is what there is so far", file=sys.stderr)
    report = render(facts, rounds, args.engines)
    medians = compute_medians(rounds)
    record = {
        "facts": facts,
        "medians": medians,
        "marks": compute_marks(medians),
        "rounds": [asdict(entry) for entry in rounds],
    }
    (args.out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    (args.out / f"{name}.md").write_text(report)
    print(report)
    print(f"kept as {name}.md, .json and .log", file=sys.stderr)
    if any(entry.error for entry in rounds):
        sys.exit(1)


def _parse_arguments() -> argparse.Namespace:
    known = list(dict.fromkeys(workload.id for workload in workloads("small")))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=_names(known), default=known, help=f"workloads, from {','.join(known)}")
    parser.add_argument("--engines", type=_names(list(SPECS)), default=list(SPECS), help=f"from {','.join(SPECS)}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; engines take turns within each")
    parser.add_argument("--scale", choices=("small", "full"), default="small", help="full takes much longer")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the report goes")
    return parser.parse_args()


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        wanted = text.split(",")
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return [name for name in known if name in wanted]

    return parse


def _run_all(args: argparse.Namespace, pythons: dict[str, Path], log: IO[str]) -> Iterator[Round]:
    """Run every workload on every engine, interleaved; who goes first changes from round to round."""
    chosen = [workload for workload in workloads(args.scale) if workload.id in args.only]
    for repeat in range(1, args.repeats + 1):
        shift = (repeat - 1) % len(args.engines)
        for workload in chosen:
            for engine in args.engines[shift:] + args.engines[:shift]:
                if engine in workload.engines:
                    yield _run_one(repeat, workload, engine, pythons[engine], log)


def _run_one(repeat: int, workload: Workload, engine: str, python: Path, log: IO[str]) -> Round:
    log.write(f"--- round {repeat}: {workload.title}: {engine}\n")
    log.flush()
    load = os.getloadavg()[0]
    try:
        with closing(EngineProcess(SPECS[engine], python, log)) as process:
            found = workload.run(process)
    except EngineFailed as error:
        return Round(repeat, workload.title, engine, {}, {}, str(error), load)
    costs = found.pop("costs")
    return Round(repeat, workload.title, engine, found, costs, load=load)


def _announce(entry: Round) -> None:
    text = ", ".join(f"{metric}: {show(value)}" for metric, value in entry.metrics.items())
    print(f"round {entry.repeat}: {entry.engine}: {text or f'{entry.workload}: LOST: {entry.error}'}", file=sys.stderr)


def _collect_facts(
    args: argparse.Namespace, began: datetime.datetime, pythons: dict[str, Path], log: IO[str]
) -> dict[str, Any]:
    """Return versions, the command line and what this machine is; also wakes every engine's files once."""
    versions = {}
    for engine, python in pythons.items():
        with closing(EngineProcess(SPECS[engine], python, log)) as process:
            versions[engine] = process.ask("versions")
            process.ask("start")
    return {
        "date": began.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]]),
        "scale": args.scale,
        "repeats": args.repeats,
        "machine": {
            "cpu": _first_value("/proc/cpuinfo", "model name"),
            "cores": len(os.sched_getaffinity(0)),
            "memory": _first_value("/proc/meminfo", "MemTotal"),
            "system": platform.platform(),
            "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        },
        "journal": "not there yet (Fray's state is in memory)",
        "source": _source_version(),
        "versions": versions,
    }


def _first_value(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "unknown"


def _source_version() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
