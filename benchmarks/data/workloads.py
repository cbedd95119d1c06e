"""The data workloads: which pieces of work an engine is asked for, and which numbers its answers become.

Every one runs on fresh processes. An engine is started and warmed up, by the same work on a few records, before the clock
starts; what it writes is checked before its number counts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from processes import EngineFailed, EngineProcess, TreeMeter
from workloads import Workload

from data.inputs import FOLDER, TINY, ensure_inputs, verify

GIB = 1024**3
CAPS = {"1 GiB": GIB, "512 MiB": GIB // 2}
SMALL_BELOW = 0.5
"""At scales below, engines are told the smaller cap only, and judged by both: one run instead of two."""
TIMEOUT_S = 600.0
"""For a piece of work at the small scale."""
READS = 5
"""The Parquet files are read so often, for they are read in no time."""
FILES = "16"
ROWS = ("dask", "datatrove", "ray")
"""Peers whose user functions see records, or batches of them, in Python."""
EXPRESSIONS = ("polars", "daft", "spark")
"""Peers that were given expressions, which never leave compiled code."""
LEFT_OUT = {
    "daft: W1, W4": "it writes no compressed JSON",
    "datatrove: W3, W5": "it has no grouping",
    "floor: W2 to W6": "it is W1's codecs without an engine",
    "dask, ray, spark, daft, polars: W6": "a program that was killed starts again from nothing",
}
"""What is not measured, and why not."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work that is measured by itself."""

    metric: str
    """Its row in the report."""
    work: str
    """The engine's method."""
    source: str = "D1"
    """The input."""
    files: str = FILES
    """How many files must come out, or ``any``."""
    fastest: bool | None = None
    """The argument of ``rewrite``."""
    memory_bytes: int | None = None
    """What the engine is told to stay below; its peak is then a number too."""

    def arguments(self, source: Path, target: Path) -> dict[str, Any]:
        """Return what the engine is asked."""
        found: dict[str, Any] = {"work": self.work, "source": str(source), "target": str(target)}
        if self.fastest is not None:
            found["fastest"] = self.fastest
        if self.work == "deduplicate":
            found |= {"state": f"{target}.state", "begun": None}
        return found


def prepare(scale: float) -> None:
    """Make the inputs."""
    for wanted in (TINY, scale):
        ensure_inputs(wanted)


def data_workloads(scale: float) -> list[Workload]:
    """Return all data workloads at a scale."""
    grouping = ("zephyr", "dask", "ray", *EXPRESSIONS)
    return [
        Workload(
            "W1", "rewrite jsonl.gz", ("zephyr", *ROWS, "spark", "polars", "floor"), lambda engine: _rewrite(engine, scale)
        ),
        Workload("W2", "jsonl.gz to Parquet", ("zephyr", *ROWS, *EXPRESSIONS), lambda engine: _parquet(engine, scale)),
        Workload(
            "W3",
            "count words",
            grouping,
            lambda engine: _one(engine, scale, Part("W3 count words, s", "count_words", files="any")),
        ),
        Workload(
            "W4",
            "exact deduplication",
            ("zephyr", *ROWS, "spark", "polars"),
            lambda engine: _one(engine, scale, Part("W4 deduplicate, s", "deduplicate", memory_bytes=GIB)),
        ),
        *(_grouping(name, cap, scale, grouping) for name in ("D2", "D2s") for cap in _caps(scale)),
        Workload("W6", "deduplication, killed and resumed", ("zephyr", "datatrove"), lambda engine: _resume(engine, scale)),
    ]


def _caps(scale: float) -> tuple[str, ...]:
    return ("512 MiB",) if scale < SMALL_BELOW else tuple(CAPS)


def _grouping(name: str, cap: str, scale: float, engines: tuple[str, ...]) -> Workload:
    part = Part(f"W5 {name} in {cap}, s", "sort_groups", name, files="any", memory_bytes=CAPS[cap])
    return Workload("W5", f"sorted groups of {name} in {cap}", engines, lambda engine: _one(engine, scale, part))


def _rewrite(engine: EngineProcess, scale: float) -> dict[str, Any]:
    parts = (
        Part("W1 gzip level 6, s", "rewrite", fastest=False),
        Part("W1 fastest gzip, s", "rewrite", fastest=True),
    )
    with _folder() as folder:
        found = {"W1 start-up, s": _start(engine, folder, parts), "costs": {}}
        for part in parts:
            _measure(engine, scale, folder, part, found)
    return found


def _parquet(engine: EngineProcess, scale: float) -> dict[str, Any]:
    part = Part("W2 write Parquet, s", "to_parquet", files="any" if engine.name == "daft" else FILES)
    with _folder() as folder:
        _start(engine, folder, (part,))
        found: dict[str, Any] = {"costs": {}}
        written = _measure(engine, scale, folder, part, found)
        engine.ask("do", work="read_ids", source=str(written))
        laps = [engine.measure("do", work="read_ids", source=str(written)) for _ in range(READS)]
        ids = folder / "ids.json"
        for lap in laps:
            ids.write_text(json.dumps(lap.pop("answer")))
            checked = verify("read_ids", ensure_inputs(scale) / part.source, ids, "any")
        found["W2 read a column, s"] = median(lap["wall_s"] for lap in laps)
        found["costs"]["W2 read a column"] = laps[-1] | {"found": checked}
    return found


def _one(engine: EngineProcess, scale: float, part: Part) -> dict[str, Any]:
    with _folder() as folder:
        _start(engine, folder, (part,))
        found: dict[str, Any] = {"costs": {}}
        _measure(engine, scale, folder, part, found)
    return found


def _resume(engine: EngineProcess, scale: float) -> dict[str, Any]:
    """Deduplicate undisturbed; in a new process until half of the time is over; and go on in another one."""
    source, timeout_s = ensure_inputs(scale) / "D1", _timeout(scale)
    part = Part("W6 resumed, s", "deduplicate", memory_bytes=GIB)
    with _folder() as folder:
        whole, killed = folder / "whole", folder / "killed"
        _start(engine, folder, (part,))
        undisturbed = engine.measure("do", timeout_s=timeout_s, **_noted(part, source, whole))
        engine.close()
        verify(part.work, source, whole, part.files)
        with closing(engine.again()) as second:
            _start(second, folder, (part,))
            lost = _kill_halfway(second, undisturbed["wall_s"] / 2, _noted(part, source, killed))
        with closing(engine.again()) as third:
            _start(third, folder, (part,))
            resumed = third.measure("do", timeout_s=timeout_s, **_noted(part, source, killed))
        if _digests(whole, gzip.open) != _digests(killed, gzip.open):
            raise EngineFailed("the resumed run wrote something else than the undisturbed one")
        bytes_of_both = list(zip(_digests(whole, open).values(), _digests(killed, open).values(), strict=True))
        begun = [len(Path(f"{target}.begun").read_text().splitlines()) for target in (whole, killed)]
    cpu_s = lost["cpu_s"] + resumed["cpu_s"] - undisturbed["cpu_s"]
    return {
        "W6 undisturbed, s": undisturbed["wall_s"],
        "W6 resumed, s": resumed["wall_s"],
        "W6 rework, % of CPU": max(0.0, 100 * cpu_s / undisturbed["cpu_s"]),
        "W6 rework, pieces begun again": begun[1] - begun[0],
        "W6 files with other bytes": sum(one != other for one, other in bytes_of_both),
        "costs": {
            "W6 undisturbed": undisturbed | {"pieces": begun[0]},
            "W6 until it was killed": lost,
            "W6 resumed": resumed,
        },
    }


def _noted(part: Part, source: Path, target: Path) -> dict[str, Any]:
    return part.arguments(source, target) | {"begun": f"{target}.begun"}


def _kill_halfway(engine: EngineProcess, after_s: float, arguments: dict[str, Any]) -> dict[str, Any]:
    alarm = threading.Timer(after_s, engine.kill)
    with TreeMeter() as meter:
        alarm.start()
        try:
            engine.ask("do", **arguments)
            done = True
        except EngineFailed:
            done = False
    alarm.cancel()
    if done or not alarm.finished.is_set():
        raise EngineFailed("it ended before it was killed, half of the undisturbed time after its start")
    return meter.result()


def _digests(folder: Path, read: Callable[[Path, str], Any]) -> dict[str, str]:
    """Return a digest of every file with records; manifests and marks may tell when they were written."""
    found = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith((".", "_")):
            with read(path, "rb") as file:
                found[path.name] = hashlib.sha256(file.read()).hexdigest()
    return found


def _start(engine: EngineProcess, folder: Path, parts: tuple[Part, ...]) -> float:
    """Start an engine and let it do everything once; return the seconds since its process began."""
    engine.ask("start", memory_bytes=parts[0].memory_bytes)
    tiny = ensure_inputs(TINY)
    for part in parts:
        target = Path(tempfile.mkdtemp(dir=folder)) / "warm"
        engine.ask("do", **part.arguments(tiny / part.source, target))
    return time.perf_counter() - engine.began


def _measure(engine: EngineProcess, scale: float, folder: Path, part: Part, found: dict[str, Any]) -> Path:
    """Do a piece of work, check it, and put its numbers into ``found``; return what was written."""
    source, target = ensure_inputs(scale) / part.source, folder / part.metric.replace(" ", "-")
    answer = engine.measure("do", timeout_s=_timeout(scale), **part.arguments(source, target))
    answer["found"] = verify(part.work, source, target, part.files)
    answer["written_mb"] = round(sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6, 1)
    found[part.metric] = answer["wall_s"]
    if part.memory_bytes is not None:
        found[part.metric.removesuffix(", s") + ", peak MB"] = answer["peak_pss_mb"]
        answer["caps"] = {cap: answer["peak_pss_mb"] * 1e6 <= limit for cap, limit in CAPS.items()}
    found["costs"][part.metric.removesuffix(", s")] = answer
    return target


def _timeout(scale: float) -> float:
    return TIMEOUT_S * max(1.0, scale / 0.06 / 3)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="work-", dir=FOLDER))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
