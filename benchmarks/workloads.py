"""The workloads for tasks and actors: which verbs an engine is asked for, and which numbers its answers become.

A workload is a function of a fresh engine process. It returns its metrics and its costs; each metric's name is a row of the
report.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from processes import EngineProcess, descendants, describe, pss_bytes

WARM_UP_TASKS = 200
WARM_UP_CALLS = 200
SETTLE_S = 2.0
"""An engine is left alone for so long before its idle memory is read."""
MANY = ("fray", "ray", "dask", "threadpool")
BOTH = ("fray-memory", "fray-durable")
SLOTS = 2


@dataclass(frozen=True, slots=True)
class Workload:
    """One experiment on one engine."""

    id: str
    """The name for ``--only``; several workloads may share one."""
    title: str
    """What it does, for the report."""
    engines: tuple[str, ...]
    """Which engines can do it at the scale asked for."""
    run: Callable[[EngineProcess], dict[str, Any]]
    """Does it on a fresh process; returns metrics by name, and ``costs``."""


def task_workloads(scale: float) -> list[Workload]:
    """Return all workloads for tasks and actors; there are two scales, of which the larger begins at 1."""
    full = scale >= 1
    return [
        Workload("T1", "5,000 no-op tasks at once", MANY, lambda engine: _many(engine, 5_000)),
        Workload(
            "T1",
            "100,000 no-op tasks at once",
            MANY if full else tuple(name for name in MANY if name != "dask"),
            lambda engine: _many(engine, 100_000),
        ),
        Workload("T2", "one no-op task at a time", (*MANY, "floor"), lambda engine: _one_by_one(engine, 2000 if full else 500)),
        Workload(
            "T3", "one actor call at a time", (*MANY, "floor"), lambda engine: _actor_one_by_one(engine, 2000 if full else 500)
        ),
        Workload("T4", "5,000 actor calls at once", MANY, lambda engine: _actor_calls(engine, 5_000)),
        Workload("T11", "durability: 5,000 no-op tasks", BOTH, lambda engine: _durable(engine, 5_000)),
        Workload("T11", "durability: 100,000 no-op tasks", BOTH, lambda engine: _durable(engine, 100_000)),
        Workload("T8", "from nothing to the first result", MANY, _first_result),
        Workload("T9", "tasks that sleep, on 2 slots", MANY, lambda engine: _sleeps(engine, 5 if full else 1)),
        Workload("T10a", "actors: creation", MANY, lambda engine: _actors(engine, 50)),
        Workload("T10a", "actors: creation of 200", ("fray",), lambda engine: _actors(engine, 200)),
    ]


def _start(engine: EngineProcess) -> None:
    engine.ask("start")
    engine.ask("check", n=WARM_UP_TASKS)


def _many(engine: EngineProcess, n: int) -> dict[str, Any]:
    _start(engine)
    answer = engine.measure("many", n=n)
    return {f"T1 {n:,} tasks/s": n / answer["wall_s"], "costs": {f"T1 {n:,}": answer}}


def _durable(engine: EngineProcess, n: int) -> dict[str, Any]:
    _start(engine)
    answer = engine.measure("many", n=n)
    return {f"T11 {n:,} tasks/s": n / answer["wall_s"], "costs": {f"T11 {n:,}": answer}}


def _one_by_one(engine: EngineProcess, n: int) -> dict[str, Any]:
    _start(engine)
    return _round_trips("T2", "tasks/s", engine.measure("one_by_one", n=n))


def _round_trips(id: str, rate: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{id} {rate}": answer["n"] / answer["wall_s"],
        f"{id} median round trip us": answer["p50_us"],
        f"{id} 99th percentile us": answer["p99_us"],
        "costs": {f"{id} {answer['n']:,}": answer},
    }


def _start_actor(engine: EngineProcess) -> None:
    _start(engine)
    engine.ask("actors", n=1)
    engine.ask("actor_one_by_one", n=WARM_UP_CALLS)


def _actor_one_by_one(engine: EngineProcess, n: int) -> dict[str, Any]:
    _start_actor(engine)
    return _round_trips("T3", "actor calls/s", engine.measure("actor_one_by_one", n=n))


def _actor_calls(engine: EngineProcess, n: int) -> dict[str, Any]:
    _start_actor(engine)
    answer = engine.measure("actor_calls", n=n)
    return {f"T4 {n:,} actor calls/s": n / answer["wall_s"], "costs": {f"T4 {n:,}": answer}}


def _actors(engine: EngineProcess, n: int) -> dict[str, Any]:
    _start(engine)
    answer = engine.measure("actors", n=n)
    idle = _idle_pss_mb()
    answer["idle_pss_mb_by_process"] = idle
    return {
        f"T10a create {n} actors, s": answer["wall_s"],
        f"T10a {n} idle actors PSS MB": sum(idle.values()),
        "costs": {f"T10a {n}": answer},
    }


def _first_result(engine: EngineProcess) -> dict[str, Any]:
    engine.ask("start")
    answer = engine.ask("one_by_one", n=1)
    first_s = time.perf_counter() - engine.began
    engine.ask("check", n=WARM_UP_TASKS)
    idle = _idle_pss_mb()
    answer["idle_pss_mb_by_process"] = idle
    return {"T8 first result s": first_s, "T8 idle PSS MB": sum(idle.values()), "costs": {"T8": answer}}


def _idle_pss_mb() -> dict[str, float]:
    """Let the engine rest, then return the memory of each of its processes."""
    time.sleep(SETTLE_S)
    return {f"{pid} {describe(pid)}": round(pss_bytes(pid) / 1e6, 1) for pid in descendants()}


def _sleeps(engine: EngineProcess, factor: int) -> dict[str, Any]:
    _start(engine)
    found: dict[str, Any] = {"costs": {}}
    for sleep_ms, n in ((1, 1000), (10, 200), (100, 20)):
        answer = engine.measure("sleeps", n=n * factor, sleep_s=sleep_ms / 1000)
        ideal_s = n * factor * sleep_ms / 1000 / SLOTS
        found[f"T9 sleep {sleep_ms} ms, % of ideal"] = 100 * ideal_s / answer["wall_s"]
        found["costs"][f"T9 {sleep_ms} ms x {n * factor:,}"] = answer
    return found
