"""From rounds to a table: medians, ratios and marks, as Markdown. Pure: values in, text out."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from suites import Suite, show


@dataclass(frozen=True, slots=True)
class Round:
    """One workload on one engine, once."""

    repeat: int
    workload: str
    engine: str
    metrics: dict[str, float]
    """Empty when the round was lost."""
    costs: dict[str, dict[str, Any]]
    """By measured part: the engine's own answer, ``cpu_s`` and ``peak_pss_mb``."""
    error: str = ""
    """Why the round was lost."""
    load: float = 0.0
    """The machine's one-minute load average before it: what else runs here spoils a round."""


def compute_medians(rounds: Iterable[Round]) -> dict[str, dict[str, float]]:
    """Return medians by metric and engine, in the order in which metrics were first measured."""
    values: dict[str, dict[str, list[float]]] = {}
    for entry in rounds:
        for metric, value in entry.metrics.items():
            values.setdefault(metric, {}).setdefault(entry.engine, []).append(value)
    return {metric: {name: statistics.median(of) for name, of in found.items()} for metric, found in values.items()}


def compute_marks(suite: Suite, medians: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """Return the verdict on every mark and aim whose metric was measured."""
    return [
        {"kind": kind, "metric": mark.metric, "wanted": mark.text, "verdict": mark.verdict(medians[mark.metric])}
        for kind, marks in (("mark", suite.marks), ("aim", suite.aims))
        for mark in marks
        if mark.metric in medians
    ]


def render(suite: Suite, facts: dict[str, Any], rounds: Sequence[Round], engines: Sequence[str]) -> str:
    """Return the whole report."""
    medians = compute_medians(rounds)
    lines = [f"# {suite.title}: benchmark run", "", *(f"- {key}: {_flat(value)}" for key, value in facts.items()), ""]
    lines += [*suite.notes, "", "## Results", "", *_results(suite, medians, engines)]
    lines += ["", "## Marks", "", *_marks(suite, medians), "", "## What it cost", "", *_costs(rounds, engines)]
    lines += [*_caps(rounds, engines), "", "## All rounds", "", *_all_rounds(rounds, engines)]
    return "\n".join(lines) + "\n"


def _results(suite: Suite, medians: dict[str, dict[str, float]], engines: Sequence[str]) -> list[str]:
    columns = {title: peers for title, peers in suite.comparisons.items() if set(peers) & set(engines)}
    rows = []
    for metric, found in medians.items():
        more_is_better = metric.endswith(suite.more_is_better)
        ratios = [compare(found, suite.own, peers, more_is_better) for peers in columns.values()]
        rows.append([metric, *(show(found.get(name)) for name in engines), *map(show, ratios)])
    return _table(["metric", *engines, *columns], rows)


def compare(found: dict[str, float], own: str, peers: Sequence[str], more_is_better: bool) -> float | None:
    """Return by which factor ``own`` is better than the best of the peers; None without numbers."""
    values = [found[name] for name in peers if name in found]
    if not values or own not in found:
        return None
    over, under = (found[own], max(values)) if more_is_better else (min(values), found[own])
    return over / under if under else None


def _marks(suite: Suite, medians: dict[str, dict[str, float]]) -> list[str]:
    return _table(["kind", "metric", "wanted", "verdict"], [list(row.values()) for row in compute_marks(suite, medians)])


def _caps(rounds: Sequence[Round], engines: Sequence[str]) -> list[str]:
    """Return a table of how often an engine stayed below a cap; nothing if no cap was set."""
    found: dict[str, dict[str, list[bool]]] = {}
    for entry in rounds:
        for part, answer in entry.costs.items():
            for cap, below in answer.get("caps", {}).items():
                found.setdefault(f"{part}: below {cap}", {}).setdefault(entry.engine, []).append(below)
    rows = [
        [row, *(f"{sum(cells[name])} of {len(cells[name])}" if name in cells else "-" for name in engines)]
        for row, cells in found.items()
    ]
    return ["", *_table(["rounds that finished and stayed below", *engines], rows)] if rows else []


def _costs(rounds: Sequence[Round], engines: Sequence[str]) -> list[str]:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for entry in rounds:
        for part, answer in entry.costs.items():
            if "cpu_s" in answer:
                found.setdefault(part, {}).setdefault(entry.engine, []).append(answer)
    rows = []
    for part, by_engine in found.items():
        cells = []
        for name in engines:
            answers = by_engine.get(name)
            if answers:
                cpu = statistics.median(answer["cpu_s"] for answer in answers)
                memory = statistics.median(answer["peak_pss_mb"] for answer in answers)
                cells.append(f"{cpu:.2f} s, {memory:.0f} MB")
            else:
                cells.append("-")
        rows.append([part, *cells])
    return _table(["CPU seconds, peak PSS", *engines], rows)


def _all_rounds(rounds: Sequence[Round], engines: Sequence[str]) -> list[str]:
    metrics = dict.fromkeys(metric for entry in rounds for metric in entry.metrics)
    rows = []
    for metric in metrics:
        cells = [
            " / ".join(show(entry.metrics[metric]) for entry in rounds if entry.engine == name and metric in entry.metrics)
            for name in engines
        ]
        rows.append([metric, *(cell or "-" for cell in cells)])
    loads = [entry.load for entry in rounds] or [0.0]
    lost = [f"- lost: {entry.workload}, {entry.engine}, round {entry.repeat}: {entry.error}" for entry in rounds if entry.error]
    noise = f"Load average before a round: {min(loads):.1f} to {max(loads):.1f}; the engines' own work counts in it."
    return [*_table(["metric", *engines], rows), "", noise, "", *(lost or ["No round was lost."])]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    return [line(head), "|---" * len(head) + "|", *map(line, rows)]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    return str(value)
