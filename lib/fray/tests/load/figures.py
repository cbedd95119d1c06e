"""What a scenario found: figures, each with its bound if it has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

MB = 1_000_000
KB = 1_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One number."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    """Above this the scenario has failed."""
    at_least: float | None = None
    """Below this the scenario has failed."""

    @property
    def is_kept(self) -> bool:
        """Whether the number is within its bounds."""
        return (self.at_most is None or self.value <= self.at_most) and (self.at_least is None or self.value >= self.at_least)

    def __str__(self) -> str:
        if self.at_most is not None and self.at_most == self.at_least:
            bound = f"  (must be {_show(self.at_most)})"
        elif self.at_most is not None:
            bound = f"  (at most {_show(self.at_most)})"
        else:
            bound = f"  (at least {_show(self.at_least)})" if self.at_least is not None else ""
        return f"{self.name:58} {_show(self.value):>12} {self.unit:9}{bound}{'' if self.is_kept else '  NOT KEPT'}"


@dataclass(slots=True)
class Report:
    """All figures of a scenario."""

    scenario: str
    """What was done, in words."""
    sizes: Mapping[str, object]
    """How much of it."""
    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str = "", at_most: float | None = None, at_least: float | None = None) -> None:
        """Add a figure."""
        self.figures.append(Figure(name, value, unit, at_most, at_least))

    def must_be(self, name: str, value: float, wanted: float) -> None:
        """Add a number that may be no other."""
        self.add(name, value, at_most=wanted, at_least=wanted)

    @property
    def problems(self) -> list[str]:
        """The figures that are not within their bounds, as lines."""
        return [str(figure) for figure in self.figures if not figure.is_kept]


def show_table(reports: Iterable[Report]) -> str:
    """Return the reports for people."""
    lines: list[str] = []
    for report in reports:
        sizes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report.sizes.items())
        lines += ["", f"{report.scenario} ({sizes})", *(f"  {figure}" for figure in report.figures)]
    return "\n".join(lines)


def to_records(reports: Iterable[Report]) -> list[dict[str, object]]:
    """Return the reports for programs."""
    return [
        {
            "scenario": report.scenario,
            "sizes": report.sizes,
            "figures": [{**asdict(figure), "kept": figure.is_kept} for figure in report.figures],
        }
        for report in reports
    ]


def _show(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
