"""What belongs together in one report: engines, workloads, what is compared with what, and the marks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from data import workloads as data
from environments import DATA_SPECS, TASK_SPECS, EngineSpec
from workloads import Workload, task_workloads

Medians = dict[str, float]
"""Of one metric, by engine."""
MIB_MB = 1024**2 / 1e6


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that Fray or Zephyr should reach."""

    metric: str
    text: str
    value: Callable[[Medians], float | None]
    """The number to compare, from the medians of one metric by engine; None if a needed engine did not run."""
    limit: float
    at_most: bool = False
    """Whether the number may not be above the limit; else not below it."""

    def verdict(self, medians: Medians) -> str:
        """Say whether the mark is met, and by which number."""
        value = self.value(medians)
        if value is None:
            return "not measured"
        met = value <= self.limit if self.at_most else value >= self.limit
        return f"{'met' if met else 'NOT MET'} ({show(value)})"


@dataclass(frozen=True, slots=True)
class Suite:
    """The contents of a report."""

    name: str
    """Begins the names of its files."""
    title: str
    own: str
    """The engine that the others are compared with."""
    specs: dict[str, EngineSpec]
    """Engines by name."""
    workloads: Callable[[float], list[Workload]]
    """All of them at a scale."""
    notes: tuple[str, ...]
    """How to read the numbers."""
    comparisons: dict[str, tuple[str, ...]]
    """Columns with ratios: the title, and the peers of which the best counts."""
    marks: tuple[Mark, ...]
    """What must be reached."""
    aims: tuple[Mark, ...] = ()
    """What is reached for."""
    more_is_better: tuple[str, ...] = ()
    """How the names of metrics end in which more is better."""
    prepare: Callable[[float], object] = field(default=lambda scale: None)
    """Makes what the workloads need, before the first clock starts."""


def show(value: float | None) -> str:
    """Return a number with about three digits."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.{2 if abs(value) >= 0.1 or not value else 4}f}"


def own(name: str) -> Callable[[Medians], float | None]:
    """Return an engine's own number."""
    return lambda medians: medians.get(name)


def over(name: str, *peers: str) -> Callable[[Medians], float | None]:
    """Return an engine's number divided by the lowest of its peers."""

    def ratio(medians: Medians) -> float | None:
        found = [medians[peer] for peer in peers if medians.get(peer)]
        return medians[name] / min(found) if found and name in medians else None

    return ratio


def _fastest(*metrics: str) -> tuple[Mark, ...]:
    return tuple(Mark(metric, "fastest by rows", over("zephyr", *data.ROWS), 1.0, at_most=True) for metric in metrics)


COSTS = (
    "CPU seconds are those of the engine's whole process tree during the measured part. Memory is the sum of PSS "
    "(proportional set size) over the tree, client included, sampled every 0.2 s and at the end: short peaks can hide."
)

TASKS = Suite(
    name="tasks",
    title="Tasks and actors",
    own="fray",
    specs=TASK_SPECS,
    workloads=task_workloads,
    notes=(
        "Fray's private cluster keeps its state in memory, as it ends with its program; T11 measures what a controller that "
        "keeps it on disk pays for that, with controller and worker as commands of their own.",
        "Numbers are medians over the rounds; a ratio above 1 means that Fray is better by that factor. Only ratios within one "
        "run count. Every answer was compared with what it must be before its number was taken.",
        COSTS,
    ),
    comparisons={"x ray": ("ray",), "x dask": ("dask",), "x floor": ("floor",)},
    more_is_better=("tasks/s", "calls/s", "ideal"),
    marks=(
        Mark("T1 5,000 tasks/s", ">= 10 x Ray", over("fray", "ray"), 10),
        Mark("T1 100,000 tasks/s", ">= 10 x Ray", over("fray", "ray"), 10),
        Mark("T2 tasks/s", ">= 1.5 x Ray", over("fray", "ray"), 1.5),
        Mark("T3 actor calls/s", ">= 2 x Ray", over("fray", "ray"), 2),
        Mark("T4 5,000 actor calls/s", ">= 8 x Ray", over("fray", "ray"), 8),
        Mark("T11 5,000 tasks/s", ">= 0.8 x in memory", over("fray-durable", "fray-memory"), 0.8),
        Mark("T11 100,000 tasks/s", ">= 0.8 x in memory", over("fray-durable", "fray-memory"), 0.8),
        Mark("T8 first result s", "< 1.5 s", own("fray"), 1.5, at_most=True),
        Mark("T8 idle PSS MB", "< 150 MB", own("fray"), 150, at_most=True),
        Mark("T10a create 50 actors, s", "faster than Ray", over("fray", "ray"), 1.0, at_most=True),
    ),
    aims=(
        Mark("T1 5,000 tasks/s", ">= 20 x Ray", over("fray", "ray"), 20),
        Mark("T1 100,000 tasks/s", ">= 20 x Ray", over("fray", "ray"), 20),
        Mark("T1 5,000 tasks/s", ">= 60 x Dask", over("fray", "dask"), 60),
        Mark("T2 tasks/s", ">= 3 x Ray", over("fray", "ray"), 3),
        Mark("T2 median round trip us", "<= 2.5 x floor", over("fray", "floor"), 2.5, at_most=True),
        Mark("T3 actor calls/s", ">= 3 x Ray", over("fray", "ray"), 3),
        Mark("T3 median round trip us", "<= 2 x floor", over("fray", "floor"), 2, at_most=True),
        Mark("T4 5,000 actor calls/s", ">= 10 x Ray", over("fray", "ray"), 10),
        Mark("T8 first result s", "< 1.0 s", own("fray"), 1.0, at_most=True),
        Mark("T9 sleep 1 ms, % of ideal", ">= 90 %", own("fray"), 90),
        Mark("T9 sleep 10 ms, % of ideal", ">= 99 %", own("fray"), 99),
    ),
)

DATASETS = Suite(
    name="data",
    title="Data",
    own="zephyr",
    specs=DATA_SPECS,
    workloads=data.data_workloads,
    prepare=data.prepare,
    notes=(
        "Numbers are medians over the rounds; less is better everywhere; a ratio above 1 means that Zephyr is better by that "
        "factor than the best of the peers. Only ratios within one run count. What was written was read and compared with "
        "what it must be before its number was taken.",
        f"By rows: {', '.join(data.ROWS)}. By expressions: {', '.join(data.EXPRESSIONS)}. Left out: "
        + "; ".join(f"{what} ({why})" for what, why in data.LEFT_OUT.items())
        + ".",
        COSTS,
    ),
    comparisons={"x rows": data.ROWS, "x expressions": data.EXPRESSIONS, "x floor": ("floor",)},
    marks=(
        *_fastest("W1 gzip level 6, s", "W1 fastest gzip, s", "W2 write Parquet, s", "W3 count words, s", "W4 deduplicate, s"),
        Mark("W1 gzip level 6, s", "<= 1.5 x floor", over("zephyr", "floor"), 1.5, at_most=True),
        Mark("W1 fastest gzip, s", "<= 1.5 x floor", over("zephyr", "floor"), 1.5, at_most=True),
        Mark("W2 read a column, s", "<= 1.5 x Polars", over("zephyr", "polars"), 1.5, at_most=True),
        Mark("W4 deduplicate, peak MB", "<= 1 GiB", own("zephyr"), 1024 * MIB_MB, at_most=True),
        *(
            Mark(f"W5 {name} in {cap}, peak MB", f"<= {cap}", own("zephyr"), limit / 1e6, at_most=True)
            for name in ("D2", "D2s")
            for cap, limit in data.CAPS.items()
        ),
        *_fastest(*(f"W5 {name} in {cap}, s" for name in ("D2", "D2s") for cap in data.CAPS)),
        Mark("W6 rework, pieces begun again", "<= 1 a slot", own("zephyr"), 2, at_most=True),
        Mark("W6 files with other bytes", "none", own("zephyr"), 0, at_most=True),
    ),
)

SUITES = (TASKS, DATASETS)
