"""Random histories: clients that call, create and kill actors on a real cluster, while processes are killed and paused.

``python histories.py --seeds 100-120 [--seconds 10]`` runs some and ends with 1 if a rule was broken. The schedule of faults
and what each client does come from the seed; how they meet is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from fray import create_job_ctx
from fray.errors import ActorDied, ActorNameTaken, ActorNotFound, ContextClosed
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.testing import eventually
from hosts import end_worker, is_executor, start_worker, tree_of
from model import Kind, find_broken
from witness import Caller, Ledger, Line, Witness, use_in_task

KINDS = {
    "plain": Kind("plain"),
    "phoenix": Kind("phoenix", -1),
    "retrier": Kind("retrier", -1, 2),
    "keeper": Kind("keeper", -1, 0, 1),
    "saver": Kind("saver", -1, 2, 3, 1.0),
    "own": Kind("", -1, 0, 3),
    "mortal": Kind("", 0, 2),
}
"""The actors by slot; those with a name are shared by all clients."""
LIMITS = {"silence_s": 2.0, "reattach_grace_s": 0.5, "session_grace_s": 2.0}
PAUSE_S = (2.2, 3.5)
STEP_S = (0.1, 0.8)
END_S = 60.0
"""Within this all calls must have ended, when nothing disturbs them any more."""


def rest(seconds: float) -> None:
    """Let others go on."""
    threading.Event().wait(seconds)


# --- clients


class Client:
    """What one client process does, on several threads."""

    def __init__(self, ctx: Any, ledger: Ledger, name: str, stop: Path) -> None:
        self._ctx, self._ledger, self._name, self._stop = ctx, ledger, name, stop
        self._caller = Caller(ledger, name)
        self._lock = threading.Lock()  # guards _handles
        self._handles: dict[str, Any] = {}
        self._futures: list[Any] = []

    def run(self, seed: str) -> None:
        """Do random things until told to stop."""
        chance = random.Random(seed)
        deeds: list[Callable[[random.Random], None]] = [
            self._burst,
            self._burst,
            self._burst,
            self._pass_on,
            self._task,
            self._kill,
        ]
        while not self._stop.exists():
            deed = chance.choices(deeds, [4, 4, 4, 2, 1, 0.4])[0]
            with contextlib.suppress(ActorDied, ActorNotFound, ActorNameTaken):
                deed(chance)

    def settle(self) -> None:
        """Wait for all calls."""
        for future in self._futures:
            self._caller.wait(future, END_S)

    def _burst(self, chance: random.Random) -> None:
        slot, handle = self._pick(chance)
        calls = [self._caller.call(handle, slot, chance.choice([0, 0, 0, 0.002, 0.02])) for _ in range(chance.randint(1, 6))]
        self._futures += calls
        if chance.random() < 0.7 and not self._caller.wait(calls[-1]):
            self._drop(slot, handle)

    def _pass_on(self, chance: random.Random) -> None:
        (slot, handle), (other_slot, other) = sorted((self._pick(chance), self._pick(chance)), key=lambda pick: pick[0])
        if slot == other_slot:  # always upwards: two that wait for each other on behalf of strangers wait for ever
            return
        future = self._caller.call_through(handle, slot, other, other_slot)
        self._futures.append(future)
        self._caller.wait(future)

    def _task(self, chance: random.Random) -> None:
        picked = dict(self._pick(chance) for _ in range(2))
        self._ctx.run(use_in_task, self._ledger, picked, self._name, 3).exception(END_S)

    def _kill(self, chance: random.Random) -> None:
        slot, handle = self._pick(chance)
        self._ledger.write("kill", caller=self._name, actor=slot)
        self._ctx.kill(handle)
        self._drop(slot, handle)

    def _pick(self, chance: random.Random) -> tuple[str, Any]:
        slot = chance.choice(list(KINDS))
        with self._lock:
            handle = self._handles.get(slot)
        if handle is None or (KINDS[slot].name and chance.random() < 0.1):
            handle = self._obtain(slot)
            with self._lock:
                handle = self._handles[slot] = handle
        return slot, handle

    def _obtain(self, slot: str) -> Any:
        kind = KINDS[slot]
        if kind.name:
            with contextlib.suppress(ActorNotFound):
                return self._ctx.get_actor(kind.name)
        actor = f"{slot}.{secrets.token_hex(3)}"
        view = self._ctx.options(
            max_restarts=kind.max_restarts,
            max_task_retries=kind.max_task_retries,
            checkpoint_every=kind.checkpoint_every,
            pending_timeout=kind.pending_timeout,
        )
        try:
            handle = view.create_actor(Witness, self._ledger, actor, name=kind.name or None)
        except ActorNameTaken:
            self._ledger.write("refused", caller=self._name, actor=actor)
            raise
        self._ledger.write("created", caller=self._name, actor=actor)
        return handle

    def _drop(self, slot: str, handle: Any) -> None:
        with self._lock:
            if self._handles.get(slot) is handle and self._ctx.actor_status(handle).state == "DEAD":
                del self._handles[slot]


def serve_client(address: str, ledger: Ledger, name: str, stop: Path, seed: str) -> None:
    """Be a client process: two threads that share a context."""
    faulthandler.register(signal.SIGUSR1)
    failures: list[BaseException] = []

    def act(number: int) -> None:
        try:
            client.run(f"{seed}/{number}")
        except ContextClosed:
            return
        except BaseException as error:
            failures.append(error)
            raise

    with create_job_ctx("fray", controller_address=address, log_to_driver=False) as ctx:
        client = Client(ctx, ledger, name, stop)
        threads = [threading.Thread(target=act, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not (stop.with_suffix(".now")).exists():
            client.settle()
    ledger.write("left", caller=name)
    if failures:
        raise failures[0]


# --- the cluster, and what happens to it


@dataclass
class Stage:
    """A cluster with clients, and a list of what was done to them."""

    cluster: LocalCluster
    folder: Path
    chance: random.Random
    seed: int
    ledger: Ledger
    done: list[str] = field(default_factory=list)
    direct_calls: bool = True
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    leaving: list[subprocess.Popen[bytes]] = field(default_factory=list)
    clients: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    timers: list[threading.Timer] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def start_client(self) -> None:
        """Start another client."""
        name = f"c{len(self.done)}-{len(self.clients)}"
        command = [sys.executable, __file__, "--client", self.cluster.address, self.ledger.path, name]
        command += [str(self.folder / f"{name}.stop"), f"{self.seed}/{name}"]
        error = (self.folder / f"{name}.stderr").open("wb")
        with error:
            self.clients[name] = subprocess.Popen(command, stderr=error, env={**os.environ, "FRAY_TOKEN": self.cluster.token})

    def stop_client(self, name: str, now: bool) -> None:
        """Let a client end: ``now``, or when its calls have ended."""
        if now:
            (self.folder / f"{name}.now").touch()
        (self.folder / f"{name}.stop").touch()

    def reap_client(self, name: str) -> None:
        """Wait for a client's end."""
        process = self.clients.pop(name)
        try:
            code = process.wait(END_S + 20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            rest(1.0)
            process.kill()
            code = process.wait()
            self.problems += [f"client {name} hung", *self._describe_waiting()]
        if code:
            words = (self.folder / f"{name}.stderr").read_text()[-6000:]
            self.problems.append(f"client {name} ended with {code}: {words}")

    def _describe_waiting(self) -> list[str]:
        """Return the stories of the actors that are not alive, for a client that hung."""
        controller = ControllerClient(self.cluster.address, self.cluster.token)
        found = []
        for actor in controller.call("list_actors", pb.Empty()).actors:
            if actor.state not in (pb.ActorState.ALIVE, pb.ActorState.DEAD):
                story = controller.call("explain_task", pb.TaskHandle(task_id=actor.actor_id)).story
                found += [f"{actor.actor_id} {actor.class_name} {actor.state}: {actor.reason}", *map(str, story)]
        workers = controller.call("list_workers", pb.Empty()).workers
        controller.close()
        return [*found, *map(str, workers)]

    def step(self) -> None:
        """Do one random thing, and rest."""
        deeds = [
            self._kill_executor,
            self._kill_worker,
            self._pause_worker,
            self._drain_worker,
            self._close_client,
            self._kill_client,
        ]
        deed = self.chance.choices(deeds, [6, 1, 1.5, 1.5, 1, 0.5])[0]
        deed()
        rest(self.chance.uniform(*STEP_S))

    def calm(self) -> None:
        """Undo pauses, and let all clients end."""
        for timer in self.timers:
            timer.join()
        for name in list(self.clients):
            self.stop_client(name, now=False)
        for name in list(self.clients):
            self.reap_client(name)

    def note_processes(self) -> None:
        """Remember the processes of the cluster."""
        self.pids |= {process.pid for worker in (*self.workers, *self.leaving) for process in tree_of(worker.pid)}

    def start_worker(self) -> None:
        """Start another worker."""
        self.workers.append(start_worker(self.cluster, direct_calls=self.direct_calls))

    def _take_worker(self) -> subprocess.Popen[bytes]:
        """Choose a worker that is about to go, and start another."""
        self.note_processes()
        worker = self.chance.choice(self.workers)
        self.workers.remove(worker)
        self.leaving.append(worker)
        self.start_worker()
        return worker

    def _kill_executor(self) -> None:
        slot = self.chance.choice(list(KINDS))
        pids = [line.pid for line in self.ledger.read() if line.what == "born" and line.actor.startswith(f"{slot}.")]
        self.note_processes()
        if pids and pids[-1] in self.pids and is_executor(pids[-1]):
            self._note(f"kill the executor {pids[-1]} of {slot}")
            os.kill(pids[-1], signal.SIGKILL)

    def _kill_worker(self) -> None:
        worker = self._take_worker()
        self._note(f"kill the worker {worker.pid}")
        worker.kill()

    def _drain_worker(self) -> None:
        worker = self._take_worker()
        self._note(f"drain the worker {worker.pid}")
        worker.terminate()

    def _pause_worker(self) -> None:
        if any(timer.is_alive() for timer in self.timers):
            return
        worker = self.chance.choice(self.workers)
        stopped: dict[int, psutil.Process] = {}
        while new := [process for process in tree_of(worker.pid) if process.pid not in stopped]:
            for process in new:
                stopped[process.pid] = process
                with contextlib.suppress(psutil.Error):
                    process.suspend()
        seconds = self.chance.uniform(*PAUSE_S)
        self._note(f"pause the worker {worker.pid} and {len(stopped) - 1} more for {seconds:.1f} s")
        timer = threading.Timer(seconds, self._resume, [list(stopped.values())])
        timer.start()
        self.timers.append(timer)

    def _resume(self, processes: list[psutil.Process]) -> None:
        self._note("resume")
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.resume()

    def _close_client(self) -> None:
        name = self.chance.choice(list(self.clients))
        self._note(f"close the client {name}")
        self.stop_client(name, now=self.chance.random() < 0.5)
        self.start_client()

    def _kill_client(self) -> None:
        name = self.chance.choice(list(self.clients))
        self._note(f"kill the client {name}")
        process = self.clients.pop(name)
        process.kill()
        process.wait()
        self.start_client()

    def _note(self, text: str) -> None:
        self.ledger.write("fault", text=text)
        self.done.append(text)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a history."""

    seed: int
    schedule: list[str]
    lines: list[Line]
    problems: list[str]

    def __str__(self) -> str:
        calls = sum(1 for line in self.lines if line.what == "made")
        lives = sum(1 for line in self.lines if line.what == "born")
        answered = sum(1 for line in self.lines if line.what == "answered")
        head = f"seed {self.seed}: {calls} calls, {answered} answered, {lives} lives, {len(self.schedule)} faults"
        return "\n".join([head, *(self.schedule if self.problems else []), *self.problems[:20]])


@contextlib.contextmanager
def stage(seed: int, folder: Path) -> Iterator[Stage]:
    """Give a cluster of two workers with two clients."""
    chance = random.Random(seed)
    direct = chance.random() < 0.7
    with LocalCluster(workers=1, num_cpus=1, limits=LIMITS, storage=str(folder / "storage"), direct_calls=direct) as cluster:
        opened = Stage(cluster, folder, chance, seed, Ledger(str(folder / "ledger")), direct_calls=direct)
        opened._note(f"direct calls: {direct}")
        try:
            for _ in range(2):
                opened.start_worker()
                opened.start_client()
            yield opened
        finally:
            for timer in opened.timers:
                timer.join()
            for process in opened.clients.values():
                process.kill()
                process.wait()
            for worker in (*opened.workers, *opened.leaving):
                end_worker(worker)


def run_history(seed: int, seconds: float, folder: Path) -> Verdict:
    """Run one history and check it. Blocks for a while longer than ``seconds``."""
    folder.mkdir(parents=True, exist_ok=True)
    with stage(seed, folder) as here:
        steps = int(seconds / (sum(STEP_S) / 2))
        for _ in range(steps):
            here.step()
        here.calm()
        here.note_processes()
        try:
            eventually(lambda: not list_files(folder / "storage"), timeout=20, what="nothing is left on storage")
        except AssertionError as error:
            here.problems.append(f"{error}: {list_files(folder / 'storage')[:5]}")
    try:
        eventually(lambda: not [pid for pid in here.pids if is_executor(pid)], what="no executor is left")
    except AssertionError as error:
        here.problems.append(f"{error}: {[pid for pid in here.pids if is_executor(pid)]}")
    lines = here.ledger.read()
    broken = find_broken(lines, KINDS)
    return Verdict(seed, here.done, lines, [*here.problems, *map(str, broken)])


def list_files(folder: Path) -> list[str]:
    """Return all files below a folder."""
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def main() -> int:
    """Run the histories that the command line asks for."""
    if sys.argv[1] == "--client":
        address, ledger, name, stop, words = sys.argv[2:]
        serve_client(address, Ledger(ledger), name, Path(stop), words)
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-5")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--keep", type=Path)
    wanted = parser.parse_args()
    first, _, last = wanted.seeds.partition("-")
    failed = 0
    for seed in range(int(first), int(last or first) + 1):
        with tempfile.TemporaryDirectory() as folder:
            verdict = run_history(seed, wanted.seconds, Path(folder))
            print(verdict, flush=True)
            failed += bool(verdict.problems)
            if verdict.problems and wanted.keep is not None:
                wanted.keep.mkdir(parents=True, exist_ok=True)
                (wanted.keep / f"{seed}.ledger").write_text(Path(folder, "ledger").read_text())
                (wanted.keep / f"{seed}.txt").write_text(json.dumps(verdict.problems, indent=1))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
