"""Measure Fray, Zephyr and their peers side by side: ``python benchmarks/run.py --help``. Standard library only."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from environments import ROOT, EngineSpec, ensure_environment
from processes import EngineFailed, EngineProcess, adopt_orphans
from report import Round, compute_marks, compute_medians, render
from suites import SUITES, Suite, show
from workloads import Workload

SCALES = {"small": 0.06, "full": 1.0}


def main() -> None:
    """Run what was asked for, print a report per suite, keep it with the raw numbers."""
    args = _parse_arguments()
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    args.out.mkdir(parents=True, exist_ok=True)
    lost = False
    for suite in SUITES:
        lost |= _run_suite(suite, args)
    if lost:
        sys.exit(1)


def _run_suite(suite: Suite, args: argparse.Namespace) -> bool:
    """Run what was asked for of one suite; return whether a round was lost."""
    chosen = [workload for workload in suite.workloads(args.scale) if workload.id in args.only]
    wanted = [name for name in suite.specs if name in args.engines and any(name in workload.engines for workload in chosen)]
    skipped = [name for name in wanted if not _is_possible(suite.specs[name])]
    for name in skipped:
        print(f"{name} is skipped: there is no {suite.specs[name].needs} on this machine", file=sys.stderr)
    engines = [name for name in wanted if name not in skipped]
    if not engines:
        return False
    suite.prepare(args.scale)
    pythons = {name: ensure_environment(suite.specs[name].environment) for name in engines}
    began = datetime.datetime.now(datetime.UTC)
    name = f"{suite.name}-{began:%Y%m%d-%H%M%S}"
    rounds: list[Round] = []
    with (args.out / f"{name}.log").open("w") as log:
        facts = _collect_facts(suite, args, began, pythons, log)
        if skipped:
            facts["skipped"] = {name: f"needs {suite.specs[name].needs}" for name in skipped}
        try:
            for entry in _run_all(suite, chosen, args.repeats, pythons, log):
                _announce(entry)
                rounds.append(entry)
        except KeyboardInterrupt:
            print("interrupted: this is what there is so far", file=sys.stderr)
    _keep(suite, args.out / name, facts, rounds, engines)
    return any(entry.error for entry in rounds)


def _keep(suite: Suite, path: Path, facts: dict[str, Any], rounds: list[Round], engines: list[str]) -> None:
    """Print the report and write it, and the raw numbers, to files."""
    report = render(suite, facts, rounds, engines)
    medians = compute_medians(rounds)
    record = {
        "facts": facts,
        "medians": medians,
        "marks": compute_marks(suite, medians),
        "rounds": [asdict(entry) for entry in rounds],
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    path.with_suffix(".md").write_text(report)
    print(report)
    print(f"kept as {path.name}.md, .json and .log", file=sys.stderr)


def _is_possible(spec: EngineSpec) -> bool:
    return not spec.needs or shutil.which(spec.needs) is not None


def _parse_arguments() -> argparse.Namespace:
    known = list(dict.fromkeys(workload.id for suite in SUITES for workload in suite.workloads(SCALES["small"])))
    engines = list(dict.fromkeys(name for suite in SUITES for name in suite.specs))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=_names(known), default=known, help=f"workloads, from {','.join(known)}")
    parser.add_argument("--engines", type=_names(engines), default=engines, help=f"from {','.join(engines)}")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; engines take turns within each")
    parser.add_argument(
        "--scale", type=_scale, default=SCALES["small"], help="small (the default), full, or a number: small is 0.06, full is 1"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where the report goes")
    return parser.parse_args()


def _scale(text: str) -> float:
    try:
        value = SCALES[text] if text in SCALES else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(SCALES)}, nor a number above 0")
    return value


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        wanted = text.split(",")
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return [name for name in known if name in wanted]

    return parse


def _run_all(suite: Suite, chosen: list[Workload], repeats: int, pythons: dict[str, Path], log: IO[str]) -> Iterator[Round]:
    """Run every workload on every engine, interleaved; who goes first changes from round to round."""
    engines = list(pythons)
    for repeat in range(1, repeats + 1):
        shift = (repeat - 1) % len(engines)
        for workload in chosen:
            for engine in engines[shift:] + engines[:shift]:
                if engine in workload.engines:
                    yield _run_one(repeat, workload, suite.specs[engine], pythons[engine], log)


def _run_one(repeat: int, workload: Workload, spec: EngineSpec, python: Path, log: IO[str]) -> Round:
    log.write(f"--- round {repeat}: {workload.title}: {spec.name}\n")
    log.flush()
    load = os.getloadavg()[0]
    try:
        with closing(EngineProcess(spec, python, log)) as process:
            found = workload.run(process)
    except EngineFailed as error:
        return Round(repeat, workload.title, spec.name, {}, {}, str(error), load)
    costs = found.pop("costs")
    return Round(repeat, workload.title, spec.name, found, costs, load=load)


def _announce(entry: Round) -> None:
    text = ", ".join(f"{metric}: {show(value)}" for metric, value in entry.metrics.items())
    print(f"round {entry.repeat}: {entry.engine}: {text or f'{entry.workload}: LOST: {entry.error}'}", file=sys.stderr)


def _collect_facts(
    suite: Suite, args: argparse.Namespace, began: datetime.datetime, pythons: dict[str, Path], log: IO[str]
) -> dict[str, Any]:
    """Return versions, the command line and what this machine is; also wakes every engine's files once."""
    versions = {}
    for engine, python in pythons.items():
        with closing(EngineProcess(suite.specs[engine], python, log)) as process:
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
