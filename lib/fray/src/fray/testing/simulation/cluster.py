"""The course of a simulation: who takes part, when faults begin and end, and what must hold when all is at rest.

What fails anywhere becomes one AssertionError here, with the seed, the latest events and the stories of the tasks concerned.
"""

from __future__ import annotations

from collections.abc import Collection

from fray.job.rpc.controller.core import actors, invariants
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.model import STABLE, ActorState, Limits, Task
from fray.job.rpc.controller.core.story import explain_pending, tell_story
from fray.testing.simulation.clients import Client
from fray.testing.simulation.controller import Controller, Sabotage
from fray.testing.simulation.faults import do_harm, do_harm_to_actors, do_harm_to_controller
from fray.testing.simulation.report import SimulationReport, Violation
from fray.testing.simulation.workers import Worker
from fray.testing.simulation.world import Plant, World
from fray.types import TaskId

FAULTY_S = 25.0
"""Virtual seconds during which faults happen."""
ACTOR_SHARE = 0.7
"""Of so many seeds the clients use actors."""
ACTORS_S = 60.0
"""Virtual seconds after the faults during which actors may live."""
ANSWERED_S = 50.0
"""A call of an actor that lives for so long without faults is answered: longer than all calls of a seed take."""
REST_STEPS = 16
"""How many steps pass between looking whether all is at rest."""
PLENTY = 1e9
"""Of what stands for a worker that is not preemptible."""
PATIENCE_S = 300.0
"""Virtual seconds after the faults within which everything must have come to rest."""


def simulate(
    seed: int, *, sabotage: Sabotage | None = None, plants: Collection[Plant] = (), faulty_s: float = FAULTY_S
) -> SimulationReport:
    """Run one seed until everything is at rest.

    Raises:
        AssertionError: naming the seed, what went wrong, the latest events and the story of the task.
    """
    cluster = Cluster(seed, sabotage, plants, faulty_s)
    try:
        cluster.run()
    except Violation as violation:
        raise AssertionError(cluster.describe(str(violation), violation.task)) from violation
    except Exception as error:
        raise AssertionError(cluster.describe(f"{type(error).__name__}: {error}")) from error
    return cluster.world.report


class Cluster:
    """A controller, workers and clients in one world."""

    def __init__(self, seed: int, sabotage: Sabotage | None, plants: Collection[Plant], faulty_s: float) -> None:
        world = self.world = World(seed, faulty_s, plants)
        self.faulty_s = faulty_s
        self._killed: set[TaskId] = set()
        rng = world.rng
        limits = Limits(
            session_grace_s=6.0,
            reattach_grace_s=rng.choice([0.5, 2.0]),
            silence_s=rng.choice([5.0, 10.0]),
            max_losses=rng.choice([2, 10, 1000]),
            max_kills=rng.choice([3, 1000]),
            session_tasks=rng.choice([5, 1000]),
        )
        self.controller = Controller(world, limits, sabotage)
        world.draw_odds()
        self.workers = [Worker(world, self.controller, f"w{n}", self._capacity(n)) for n in range(rng.randint(1, 4))]
        self.clients = [Client(world, self.controller, f"c{n}") for n in range(rng.randint(1, 3))]

    def run(self) -> None:
        """Let everybody do what they do until all is at rest."""
        world = self.world
        for member in (*self.workers, *self.clients):
            world.at(world.rng.uniform(0.0, 0.5), member.start)
        if world.actor_rng.random() < ACTOR_SHARE:
            for client in self.clients:
                client.use_actors()
            if world.faulty and not world.calm:
                world.at(world.actor_rng.uniform(2.0, 5.0), self._do_harm_to_actors)
        if world.faulty and not world.calm:
            world.at(world.rng.uniform(0.5, 2.0), self._do_harm)
            world.at(world.disk_rng.uniform(1.0, 12.0), self._do_harm_to_controller)
        world.at(self.faulty_s, self._heal)
        steps = 0
        while (what := world.advance()) is not None:
            if world.now > self.faulty_s + PATIENCE_S:
                raise Violation("it does not come to rest: " + self._unrest())
            what()
            steps += 1
            if not world.faulty and steps % REST_STEPS == 0 and self._at_rest():
                break
        self._check_rest()

    def describe(self, text: str, task_id: TaskId | None = None) -> str:
        """Return a failure in words: the seed, the latest events, the stories of the tasks concerned."""
        state, world = self.controller.state, self.world
        lines = [f"seed {world.report.seed} at {world.now:.4f} s: {text}", *world.log]
        ended = {task.id: task for task in state.history}
        concerned = [task_id] if task_id else [task for task in (*state.tasks, *world.scripts) if task in text]
        for name in dict.fromkeys(concerned[:5] or list(state.tasks)[:5]):
            task = state.tasks.get(name) or ended.get(name)
            if task is not None:
                lines += [f"story of {name} ({task.state.value}):", *(f"  {line}" for line in tell_story(task))]
            if isinstance(task, Task):
                lines.append(f"  pending: {explain_pending(state, task, world.now)}")
        return "\n".join(lines)

    def _capacity(self, number: int) -> dict[str, float]:
        if number == 0:
            return {"cpu": 2.0, "gpu": 1.0, STABLE: PLENTY}  # fits every shape there is
        stable = {STABLE: PLENTY} if self.world.actor_rng.random() < 0.5 else {}
        return {"cpu": float(self.world.rng.randint(1, 4))} | stable

    def _do_harm(self) -> None:
        world = self.world
        if world.faulty:
            do_harm(world, self.workers, self.clients)
            world.at(world.rng.uniform(0.2, 3.0), self._do_harm)

    def _do_harm_to_actors(self) -> None:
        world = self.world
        if world.faulty:
            do_harm_to_actors(world, self.workers)
            world.at(world.actor_rng.uniform(0.3, 3.0), self._do_harm_to_actors)

    def _do_harm_to_controller(self) -> None:
        world = self.world
        if world.faulty:
            do_harm_to_controller(world, self.controller)
            world.at(world.disk_rng.uniform(1.0, 15.0), self._do_harm_to_controller)

    def _heal(self) -> None:
        self.world.faulty = False
        for member in (*self.workers, *self.clients):
            member.thaw()

    def _at_rest(self) -> bool:
        for client in self.clients:
            if client.is_settled() and not client.gone:
                client.close()
        state = self.controller.state
        if self.controller.is_down:
            return False
        self._kill_actors()
        return (
            not state.sessions
            and all(client.gone for client in self.clients)
            and all(worker.core.idle() for worker in self.workers)
        )

    def _kill_actors(self) -> None:
        """End actors when nobody calls them, or after a while: they occupy what others wait for, and outlive clients."""
        settled = all(client.user.is_settled() for client in self.clients)
        if not settled and self.world.now < self.faulty_s + ACTORS_S:
            return
        if not settled:
            for client in self.clients:
                for actor, what in client.user.list_waiting():
                    self._check_waits(actor, what)
        left = [task.spec.id for task in self.controller.state.tasks.values() if task.actor is not None]
        left = [actor for actor in left if actor not in self._killed]
        if left:
            self._killed.update(left)
            for actor in left:
                self.world.ledger.excuse(actor)
            self.controller.post(ev.CancelRequested(self.world.now, left, "killed by hand"))

    def _check_waits(self, actor: TaskId, what: str) -> None:
        """See that nobody waits for an actor that has been there, or has been gone, for long."""
        task = actors.find(self.controller.state, actor)
        if task is None or task.actor is None or task.actor.state in (ActorState.ALIVE, ActorState.DEAD):
            since = 0.0 if task is None or task.actor is None else max(task.ended_at, task.actor.alive_since)
            self.world.require(since > self.world.now - ANSWERED_S, f"{what} hangs", actor)

    def _unrest(self) -> str:
        state = self.controller.state
        lines = [f"sessions {sorted(state.sessions)}"]
        lines += [f"client {c.session} waits for {sorted(c.futures)}" for c in self.clients if c.futures]
        lines += [f"client {c.session} {c.user.describe()}" for c in self.clients if not c.user.is_settled()]
        for worker in state.workers.values():
            lines.append(f"{worker.incarnation}: used {worker.used} attached {worker.attached} {sorted(worker.assigned)}")
        for sim in self.workers:
            busy = {e.number: sorted(e.items) for e in sim.core.executors.values()}
            lines.append(f"{sim.name}: holds {sim.core.held()}, executors {busy}")
        return "\n  ".join(lines)

    def _check_rest(self) -> None:
        state = self.controller.state
        invariants.check(state)
        require = self.world.require
        require(not state.orphans or self.world.now < state.orphans_until, f"nobody has asked for {state.orphans}")
        require(not state.tasks, f"{len(state.tasks)} tasks are kept though all was acknowledged or closed")
        for worker in state.workers.values():
            require(not worker.assigned and not worker.prefetched, f"{worker.id} keeps {sorted(worker.assigned)}")
            require(all(used < 1e-6 for used in worker.used.values()), f"{worker.id} has not got back {worker.used}")
            require(worker.load() < 1e-6, f"{worker.id} counts a load of {worker.load()} without one")
        for queue in state.queues.values():
            require(queue.length == 0, f"queue {queue.shape} is not empty")
        ended = sum(state.stats[f"tasks {final}"] for final in ("finished", "failed", "cancelled"))
        accepted = state.stats["tasks accepted"] + state.stats["tasks restored"]
        require(ended == accepted, f"{ended} ends of {accepted} accepted tasks")
        lived = state.stats["actors accepted"] + state.stats["actors restored"]
        require(state.stats["actors ended"] == lived, "an actor that was accepted has not ended")
        require(not state.actor_names, f"names are taken by nobody: {state.actor_names}")
        for client in self.clients:
            client.check()
        self.world.report.virtual_s = self.world.now
        self.world.report.stats = state.stats
