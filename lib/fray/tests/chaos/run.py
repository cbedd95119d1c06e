"""One run: a cluster, workloads, faults, calm, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from fray.job.rpc.proto import fray_pb as pb
from model import find_broken as find_broken_calls

from chaos.calls import KINDS
from chaos.clients import WORKLOADS
from chaos.cluster import Cluster, Shape, list_files, until
from chaos.faults import DEEDS, Chaos, Deed, Pace, Strike
from chaos.ledger import Book, Fact
from chaos.oracle import Broken, History, compute_figures, compute_outages, compute_reassignments, find_broken, summarise
from chaos.shuffle import write_inputs
from chaos.tasks import SETTLE_S

AROUND_S = 3.0
"""Faults so long before a broken rule are shown with it."""
FEW_DESCRIPTORS = 24
"""What the controller may have open at the end beyond what it had at the start."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A run."""

    seed: int
    pace: Pace
    workloads: tuple[str, ...] = WORKLOADS
    deeds: tuple[Deed, ...] = tuple(DEEDS)
    shape: Shape = field(default_factory=Shape)


@dataclass(slots=True)
class Verdict:
    """What came of a run."""

    settings: Settings
    problems: list[str]
    figures: dict[str, float]
    faults: dict[str, int]
    """By kind and target, zeros included."""
    times: dict[str, dict[str, float]]
    """Seconds, summarised."""
    stats: dict[str, int]
    """The controller's own counts."""
    results_per_s: float
    """Results and answers that clients saw while faults happened."""


async def run(settings: Settings, folder: Path) -> Verdict:
    """Run and judge. Nothing is left running; the facts and logs stay in the folder."""
    _prepare(settings, folder)
    book = Book(str(folder / "facts"))
    cluster = Cluster(folder, settings.shape, book)
    chaos = Chaos(cluster, settings.pace, settings.seed, settings.deeds)
    run = _Run(settings, cluster, chaos)
    try:
        await run.play()
    finally:
        await cluster.kill_all()
    return run.judge()


def _prepare(settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "expected").write_text(write_inputs(folder / "inputs", settings.seed))


class _Run:
    def __init__(self, settings: Settings, cluster: Cluster, chaos: Chaos) -> None:
        self._settings, self._cluster, self._chaos = settings, cluster, chaos
        self._folder = cluster.folder
        self._span = (0.0, 0.0)
        self._lived: list[str] = []
        self._stories: dict[str, list[str]] = {}
        self._stats: dict[str, int] = {}
        self._leaks: list[str] = []

    async def play(self) -> None:
        """Let everything happen."""
        await self._cluster.start(self._settings.workloads, self._settings.seed)
        first = await until(self._all_work, 60.0, 0.1)
        if not first:
            raise RuntimeError(f"the workloads did not begin: see {self._folder}/logs")
        descriptors = _count_descriptors(self._cluster.controller.pid)
        publications = asyncio.create_task(self._watch_outputs())
        began = time.monotonic()
        await self._chaos.run()
        self._span = began, time.monotonic()
        await self._let_clients_end()
        publications.cancel()
        await self._check_rest(descriptors)
        await self._cluster.stop()
        await self._check_nothing_left()

    def _all_work(self) -> bool:
        """Whether something has come of each workload."""
        facts = self._cluster.book.read()
        working = {fact.key.partition("-")[0].partition("/")[0] for fact in facts if fact.what in ("seen", "began")}
        if any(line.what == "answered" for line in self._cluster.book.actors().read()):
            working.add("actors")
        return set(self._settings.workloads) <= working

    async def _watch_outputs(self) -> None:
        """Write down each appearance of an output."""
        known: set[tuple[str, int, int]] = set()
        while True:
            for path in (self._folder / "outputs").glob("*/part-*"):
                with contextlib.suppress(FileNotFoundError):
                    info = path.stat()
                    if (str(path), info.st_ino, info.st_mtime_ns) not in known:
                        known.add((str(path), info.st_ino, info.st_mtime_ns))
                        self._cluster.book.write("published", f"{path.parent.name}/{path.name}")
            await asyncio.sleep(0.05)

    async def _let_clients_end(self) -> None:
        clients = list(self._cluster.clients.values())
        self._lived = [client.name for client in clients]
        for client in clients:
            (self._folder / f"{client.name}.stop").touch()
        end = SETTLE_S + 20.0
        if not await until(lambda: not any(client.is_running for client in clients), end):
            self._ask_where_they_are()
            await asyncio.sleep(1.0)
        for fact in self._cluster.book.read():
            if fact.what in ("hung", "failed") and len(self._stories) < 10:
                self._stories[fact.key] = await asyncio.to_thread(self._cluster.explain, fact.text)

    def _ask_where_they_are(self) -> None:
        for client in self._cluster.clients.values():
            if client.is_running:
                client.send(signal.SIGUSR1)
                self._chaos.problems.append(f"hung: client {client.name} does not end; see logs/{client.name}")

    async def _check_rest(self, descriptors: int) -> None:
        """When all clients have left or been given up, the controller and the storage are empty."""
        patience = self._settings.shape.session_grace_s + 20.0
        await until(lambda: not self._find_rest(), patience, 0.25)
        self._leaks += self._find_rest()
        self._stats = dict(self._cluster.stats + self._cluster.read_stats())
        more = _count_descriptors(self._cluster.controller.pid) - descriptors
        if more > FEW_DESCRIPTORS:
            self._leaks.append(f"the controller has {more} descriptors more open than at the start")

    def _find_rest(self) -> list[str]:
        try:
            status = self._cluster.ask("get_status", pb.Empty())
        except Exception as error:
            return [f"the controller does not answer: {error}"]
        assert isinstance(status, pb.ClusterStatus)
        rest = [f"{name} {amount} in use" for name, amount in status.used.items() if abs(amount) > 1e-6]
        rest += [f"{count} tasks {name}" for name, count in status.tasks.items() if count]
        rest += [
            f"{status.actors.get(name)} actors {name}" for name in ("PENDING", "ALIVE", "RESTARTING") if status.actors.get(name)
        ]
        rest += [f"{status.sessions} sessions"] if status.sessions else []
        return [*rest, *(f"file storage/{name}" for name in list_files(self._folder / "storage"))]

    async def _check_nothing_left(self) -> None:
        await until(lambda: not self._cluster.find_processes(), 10.0, 0.1)
        self._leaks += [f"process {pid}: {line}" for pid, line in self._cluster.find_processes().items()]
        self._leaks += [f"file tmp/{name}" for name in list_files(self._folder / "tmp")]
        self._leaks += [f"file intermediate/{name}" for name in list_files(self._folder / "intermediate")]

    # --- the verdict

    def judge(self) -> Verdict:
        """Return what the facts say."""
        book, strikes = self._cluster.book, self._chaos.strikes
        history = History(book.read(), self._cluster.killed_clients)
        broken = find_broken(history, self._lived)
        calls = book.actors().read()
        broken_calls = find_broken_calls(calls, KINDS)
        problems = [*self._chaos.problems, *(f"leak: {leak}" for leak in self._leaks)]
        problems += [self._show(each, history) for each in broken[:20]]
        problems += [f"actors: {each}" for each in broken_calls[:20]]
        began, ended = self._span
        answers = [line.at for line in calls if line.what == "answered"]
        seen = [*answers, *(fact.at for fact in history.facts if fact.what == "seen")]
        figures = compute_figures(history, broken) | {
            "actor calls": sum(1 for line in calls if line.what == "made"),
            "actor calls answered": len(answers),
            "lives of actors": sum(1 for line in calls if line.what == "born"),
            "broken rules of actors": len(broken_calls),
            "leaks": len(self._leaks),
            "orphans": sum(1 for problem in problems if problem.startswith("orphans")),
            "workers that could not start at once": self._chaos.worker_exits,
            "drafts of attempts that came too late": sum(
                name.endswith(".draft") for name in list_files(self._folder / "outputs")
            ),
            "bytes swallowed": sum(proxy.swallowed_bytes for proxy in self._cluster.proxies),
        }
        counts = Counter(strike.deed for strike in strikes)
        return Verdict(
            self._settings,
            problems,
            figures,
            {f"{kind} {target}": counts[kind, target] for kind, target in self._settings.deeds},
            self._times(history, strikes),
            self._stats,
            round(sum(began <= at <= ended for at in seen) / max(ended - began, 0.001), 2),
        )

    def _times(self, history: History, strikes: list[Strike]) -> dict[str, dict[str, float]]:
        found = compute_reassignments(history, strikes)
        times = {f"reassigned after {what}": summarise(found[what]) for what in sorted(found)}
        times["all processes gone after a kill"] = summarise(strike.gone_s for strike in strikes if strike.kind == "kill")
        times["start of the controller"] = summarise(self._cluster.starts_s)
        times["kill of the controller to the next result"] = summarise(compute_outages(history, strikes))
        return times

    def _show(self, broken: Broken, history: History) -> str:
        """Return a broken rule with the facts of its task, its story, and the faults around."""
        task = history.tasks.get(broken.key)
        lines = [str(broken)]
        if task is not None:
            own = [fact for fact in history.facts if fact.key == broken.key]
            span = (own[0].at - AROUND_S, own[-1].at + AROUND_S) if own else (0.0, 0.0)
            faults = [fact for fact in history.facts if fact.what == "fault" and span[0] <= fact.at <= span[1]]
            lines += [_show_fact(fact) for fact in sorted([*own, *faults], key=lambda fact: fact.at)[:40]]
            lines += [f"    story: {line}" for line in self._stories.get(broken.key, [])]
        return "\n".join(lines)


def _show_fact(fact: Fact) -> str:
    parts = [fact.what, fact.key, fact.nonce, fact.value[:60], fact.text[:200], f"pid {fact.pid}"]
    return f"    {fact.at:.3f} {' '.join(part for part in parts if part)}"


def _count_descriptors(pid: int) -> int:
    try:
        return int(psutil.Process(pid).num_fds())
    except psutil.Error:
        return 0


def iterate_tables(verdict: Verdict, calm_per_s: float | None) -> Iterator[tuple[str, dict[str, object]]]:
    """Return what is told of a run, by heading."""
    share = {} if not calm_per_s else {"share of the calm run": round(verdict.results_per_s / calm_per_s, 3)}
    yield "goodput", {"results per second": verdict.results_per_s, "calm run": calm_per_s or "not run", **share}
    yield "faults", {**verdict.faults, "sum": sum(verdict.faults.values())}
    yield "figures", dict(verdict.figures)
    yield "seconds", {name: ", ".join(f"{key} {value:g}" for key, value in row.items()) for name, row in verdict.times.items()}
    yield "counted by the controller", dict(sorted(verdict.stats.items()))
