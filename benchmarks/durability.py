"""Measure what durability is worth and what it costs, and write the table of docs/durability.md: ``make durability``.

Runs the simulation, chaos on real processes, restarts of a controller with many tasks, and load; each leaves a JSON file in
``benchmarks/results/durability``, from which the table is made. ``--only`` runs some of them and keeps the others' files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "durability"
PAGE = ROOT / "docs" / "durability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PARTS = ("simulation", "chaos", "restart", "load")
FAILED: list[str] = []
"""Parts that found something that does not hold."""
SIZES = (1_000, 10_000, 100_000)


def main() -> None:
    """Run what was asked for, then write the table from all there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"from {','.join(PARTS)}; 'none' writes the table alone")
    parser.add_argument("--seeds", type=int, default=100_000, help="of the simulation")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=int, default=300, help="of chaos")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    chosen = options.only.split(",")
    if "simulation" in chosen:
        seeds = ["--seeds", str(options.seeds), "--first", str(options.first)]
        _run("simulation", "-m", "fray.testing.simulation", *seeds, "--json", str(RESULTS / "simulation.json"))
    if "chaos" in chosen:
        path = os.pathsep.join([str(ROOT / "lib/fray/tests"), str(ROOT / "lib/fray/tests/actors")])
        arguments = ["--seconds", str(options.seconds), "--json", str(RESULTS / "chaos.json")]
        _run("chaos", "-m", "chaos", *arguments, PYTHONPATH=path)
    if "restart" in chosen:
        (RESULTS / "restart.json").write_text(json.dumps({str(size): _measure_restart(size) for size in SIZES}))
    if "load" in chosen:
        path = str(ROOT / "lib/fray/tests")
        _run("load", "-m", "load", "--json", str(RESULTS / "load.json"), PYTHONPATH=path)
    _write_page(_render())
    if FAILED:
        sys.exit(f"{', '.join(FAILED)}: something does not hold; see above")


def _run(what: str, *arguments: str, **env: str) -> None:
    print(f"{what}: {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env={**os.environ, **env}, check=False)
    if done.returncode:
        FAILED.append(what)


# --- restarts


@contextlib.contextmanager
def _controller(directory: str, port: int) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """Serve; yield the process, its address and the seconds until it served. It is killed at the end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "fray", "controller", "--port", str(port), "--storage", directory]
    process = subprocess.Popen([*command, "--state", f"{directory}/state.sqlite"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        yield process, address, time.perf_counter() - began
    finally:
        process.kill()
        process.communicate()


def _measure_restart(tasks: int) -> dict[str, float]:
    """Kill a controller that has many tasks waiting, and start it again."""
    from fray import create_job_ctx
    from fray.testing import eventually

    os.environ["FRAY_TOKEN"] = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        with _controller(directory, 0) as (_, address, empty_s):
            ctx = stack.enter_context(create_job_ctx("fray", controller_address=address))
            futures = [ctx.run(_square, n) for n in range(tasks)]
            eventually(lambda: _count_pending(address) == tasks, timeout=120, interval=0.2, what="all tasks are saved")
        size_mb = _state_mb(directory)
        port = int(address.rpartition(":")[2])
        process, _, restart_s = stack.enter_context(_controller(directory, port))
        rss_mb = _rss_mb(process.pid)
        began = time.perf_counter()
        worker = subprocess.Popen([sys.executable, "-m", "fray", "worker", "--controller", address], stdout=subprocess.DEVNULL)
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        lost = sum(1 for n, value in enumerate(ctx.get(futures)) if value != n * n)
        drained_s = time.perf_counter() - began
        ctx.close()
        eventually(lambda: _state_mb(directory) < 5, timeout=30, what="the file is small again")
        small_mb = _state_mb(directory)
    print(f"restart with {tasks} tasks: {restart_s:.2f} s", flush=True)
    return {
        "empty_s": empty_s,
        "restart_s": restart_s,
        "state_mb": size_mb,
        "state_after_mb": small_mb,
        "rss_mb": rss_mb,
        "drained_s": drained_s,
        "lost": lost,
    }


def _state_mb(directory: str) -> float:
    return sum(path.stat().st_size for path in Path(directory).glob("state.sqlite*")) / 1e6


def _square(n: int) -> int:
    return n * n


def _count_pending(address: str) -> int:
    command = [sys.executable, "-m", "fray", "status", "--json", "--controller", address]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    pending: int = answer["tasks"]["PENDING"]
    return pending


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


# --- the table


def _render() -> str:
    parts = {part: json.loads(path.read_text()) for part in PARTS if (path := RESULTS / f"{part}.json").exists()}
    lines = [f"Made by `make durability` ({platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()})."]
    for part, render in (("simulation", _simulation), ("chaos", _chaos), ("restart", _restart), ("load", _load)):
        if part in parts:
            lines += ["", *render(parts[part])]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(_show(cell) for cell in row)} |" for row in rows]


def _show(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.2f}" if cell < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _simulation(found: dict[str, Any]) -> list[str]:
    stats, outcomes = found["stats"], found["outcomes"]
    rows = [
        ("seeds, of which failed", f"{found['seeds']:,}, {len(found['failed'])}"),
        ("simulated hours", found["virtual_hours"]),
        ("events of the controller, invariants checked after each", found["events"]),
        ("tasks submitted, each with exactly one visible outcome", found["tasks"]),
        ("outcomes", ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items()))),
        ("calls of actors", found["calls"]),
        ("controller crashes", found["faults"].get("controller crashed", 0)),
        ("tasks restored, actors restored", f"{stats.get('tasks restored', 0):,}, {stats.get('actors restored', 0):,}"),
        ("attempts found again with their workers", stats.get("attempts found again", 0)),
        ("stale reports refused", stats.get("stale reports refused", 0)),
        ("faults injected", ", ".join(f"{name} {count:,}" for name, count in sorted(found["faults"].items()))),
    ]
    return ["### Simulation", "", *_table(("what", "figure"), rows)]


def _chaos(found: dict[str, Any]) -> list[str]:
    pace, problems = found["settings"]["pace"], found["problems"]
    rows = [
        ("seconds under faults, seed", f"{pace['seconds']:g}, {found['settings']['seed']}"),
        ("workloads", ", ".join(found["settings"]["workloads"])),
        ("problems", len(problems)),
        *found["figures"].items(),
        ("faults injected", _join(found["faults"])),
        *((f"seconds: {name}", _join(values)) for name, values in found["times"].items() if values),
        *((name, _join(found[name])) for name in found if name not in ("settings", "problems", "figures", "faults", "times")),
    ]
    return ["### Chaos with real processes", "", *_table(("what", "figure"), rows)]


def _load(found: list[dict[str, Any]]) -> list[str]:
    rows = []
    for report in found:
        sizes = ", ".join(f"{name} {_show(value)}" for name, value in report["sizes"].items())
        rows += [(f"{report['scenario']} ({sizes})", "", "")]
        for figure in report["figures"]:
            bound = "" if figure["at_most"] is None else f"at most {_show(figure['at_most'])}"
            bound += "" if figure["at_least"] is None else f"{', ' if bound else ''}at least {_show(figure['at_least'])}"
            kept = bound and f"{bound}{'' if figure['kept'] else ': NOT KEPT'}"
            rows.append((f"- {figure['name']}", f"{_show(figure['value'])} {figure['unit']}".strip(), kept))
    return ["### Limits under load", "", *_table(("what", "figure", "bound"), rows)]


def _join(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(inner)}" for name, inner in value.items())
    return value


def _restart(found: dict[str, dict[str, float]]) -> list[str]:
    head = ("tasks waiting", "serves again after, s", "of which an empty start, s", "state, MB", "afterwards, MB", "lost")
    names = ("restart_s", "empty_s", "state_mb", "state_after_mb", "lost")
    rows = [(int(size), *(figures[name] for name in names)) for size, figures in found.items()]
    return ["### Restart of the controller after SIGKILL", "", *_table(head, rows)]


def _write_page(figures: str) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{figures}\n{END}{rest.partition(END)[2]}")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
