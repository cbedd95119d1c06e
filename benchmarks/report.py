"""From rounds to a table: medians, ratios and marks, as Markdown. Pure: values in, text out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NOTES = (
    "Fray's state is in memory: journal: not there yet, so nothing here pays for durability.",
    "Numbers are medians over the rounds; a ratio above 1 means that Fray is better by that factor. Only ratios within one run "
    "count. Every answer was compared with what it must be before its number was taken.",
    "CPU seconds are those of the engine's whole process tree during the measured part. Memory is the sum of PSS "
    "(proportional set size) over the tree, client included, sampled every 0.2 s and at the end: short peaks can hide.",
)


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


@dataclass(frozen=True, slots=True)
class Mark:
    """Something Fray should reach."""

    metric: str
    text: str
    value: Callable[[dict[str, float]], float | None]
    """The number to compare, from the medians of one metric by engine; None if a needed engine did not run."""
    limit: float
    at_most: bool = False
    """Whether the number may not be above the limit; else not below it."""

    def verdict(self, medians: dict[str, float]) -> str:
        """Say whether the mark is met, and by which number."""
        value = self.value(medians)
        if value is None:
            return "not measured"
        met = value <= self.limit if self.at_most else value >= self.limit
        return f"{'met' if met else 'NOT MET'} ({show(value)})"


def own(medians: dict[str, float]) -> float | None:
    """Return Fray's own number."""
    return medians.get("fray")


def over(other: str) -> Callable[[dict[str, float]], float | None]:
    """Return Fray's number divided by another engine's."""

    def ratio(medians: dict[str, float]) -> float | None:
        return medians["fray"] / medians[other] if medians.get(other) and "fray" in medians else None

    return ratio


MARKS = (
    Mark("T1 5,000 tasks/s", ">= 10 x Ray", over("ray"), 10),
    Mark("T1 100,000 tasks/s", ">= 10 x Ray", over("ray"), 10),
    Mark("T2 tasks/s", ">= 1.5 x Ray", over("ray"), 1.5),
    Mark("T8 first result s", "< 1.5 s", own, 1.5, at_most=True),
    Mark("T8 idle PSS MB", "< 150 MB", own, 150, at_most=True),
)
"""What must be reached."""

AIMS = (
    Mark("T1 5,000 tasks/s", ">= 20 x Ray", over("ray"), 20),
    Mark("T1 100,000 tasks/s", ">= 20 x Ray", over("ray"), 20),
    Mark("T1 5,000 tasks/s", ">= 60 x Dask", over("dask"), 60),
    Mark("T2 tasks/s", ">= 3 x Ray", over("ray"), 3),
    Mark("T2 median round trip us", "<= 2.5 x floor", over("floor"), 2.5, at_most=True),
    Mark("T8 first result s", "< 1.0 s", own, 1.0, at_most=True),
    Mark("T9 sleep 1 ms, % of ideal", ">= 90 %", own, 90),
    Mark("T9 sleep 10 ms, % of ideal", ">= 99 %", own, 99),
)
"""What is reached for."""


def compute_medians(rounds: Iterable[Round]) -> dict[str, dict[str, float]]:
    """Return medians by metric and engine, in the order in which metrics were first measured."""
    values: dict[str, dict[str, list[float]]] = {}
    for entry in rounds:
        for metric, value in entry.metrics.items():
            values.setdefault(metric, {}).setdefault(entry.engine, []).append(value)
    return {metric: {name: statistics.median(of) for name, of in found.items()} for metric, found in values.items()}


def compute_marks(medians: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """Return the verdict on every mark and aim whose metric was measured."""
    return [
        {"kind": kind, "metric": mark.metric, "wanted": mark.text, "verdict": mark.verdict(medians[mark.metric])}
        for kind, marks in (("mark", MARKS), ("aim", AIMS))
        for mark in marks
        if mark.metric in medians
    ]


def render(facts: dict[str, Any], rounds: Sequence[Round], engines: Sequence[str]) -> str:
    """Return the whole report."""
    medians = compute_medians(rounds)
    lines = ["# Tasks and actors: benchmark run", "", *(f"- {key}: {_flat(value)}" for key, value in facts.items()), ""]
    lines += [*NOTES, "", "## Results", "", *_results(medians, engines), "", "## Marks", "", *_marks(medians)]
    lines += ["", "## What it cost", "", *_costs(rounds, engines), "", "## All rounds", "", *_all_rounds(rounds, engines)]
    return "\n".join(lines) + "\n"


def show(value: float | None) -> str:
    """Return a number with about three digits."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _results(medians: dict[str, dict[str, float]], engines: Sequence[str]) -> list[str]:
    peers = [name for name in ("ray", "dask", "floor") if name in engines]
    rows = []
    for metric, found in medians.items():
        lower_is_better = not metric.endswith(("tasks/s", "ideal"))
        ratios = []
        for peer in peers:
            ratio = over(peer)(found)
            ratios.append(show(1 / ratio if ratio and lower_is_better else ratio))
        rows.append([metric, *(show(found.get(name)) for name in engines), *ratios])
    return _table(["metric", *engines, *(f"x {peer}" for peer in peers)], rows)


def _marks(medians: dict[str, dict[str, float]]) -> list[str]:
    return _table(["kind", "metric", "wanted", "verdict"], [list(row.values()) for row in compute_marks(medians)])


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
