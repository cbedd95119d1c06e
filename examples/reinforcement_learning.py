"""Learn to balance CartPole with actors, on threads, on Fray or on Ray.

    python examples/reinforcement_learning.py --context threadpool
    python examples/reinforcement_learning.py --context fray --iterations 20 --seed 1 --kill

Rollout workers play episodes and ask one inference server for every move; the learner, in this process, improves the policy
by what they played, and gives the server its weights. With --kill, first a rollout worker and later the inference server
lose their processes while episodes are played. That costs time and nothing else: an episode depends on the weights and its
seed alone, so what was lost is played again, move by move the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from fray import JobContext, create_job_ctx
from fray.errors import ActorDied
from numpy.typing import NDArray

EPISODES = 8
"""Played by a rollout worker at the same time: one request asks for a move in each."""
MOMENTUM = 0.9
STEP_LENGTH = 1.0

Array = NDArray[np.float64]
Episode = tuple[Array, Array]
"""What was seen, and whether the cart was pushed to the right, at each step."""


class WeightsMissing(Exception):
    """The inference server does not have the weights that it was asked to use."""


def compute_chances(weights: Array, observations: Array) -> Array:
    """Return the policy's chance of a push to the right for each observation."""
    return 1 / (1 + np.exp(-(observations @ weights)))


class InferenceServer:
    """An actor that answers all requests that come together in one pass. After a restart it has no weights."""

    def __init__(self) -> None:
        self.version, self.weights = -1, np.zeros(4)
        self.batch: list[Array] = []

    async def load(self, version: int, weights: Array) -> None:
        self.version, self.weights = version, weights

    async def act(self, version: int, observations: Array) -> Array:
        """Return the chances of the observations; raises WeightsMissing unless that version was loaded last."""
        if version != self.version:
            raise WeightsMissing(f"asked for version {version} of the weights; have version {self.version}")
        place = len(self.batch)
        self.batch.append(observations)
        if place == 0:
            self.answers = asyncio.create_task(self.answer_all())
        return (await asyncio.shield(self.answers))[place]  # whoever goes away does not take the others' answers along

    async def answer_all(self) -> list[Array]:
        await asyncio.sleep(0)  # requests that arrived together join the batch
        batch, self.batch = self.batch, []
        chances = compute_chances(self.weights, np.concatenate(batch))
        return np.split(chances, np.cumsum([len(observations) for observations in batch])[:-1])

    async def pid(self) -> int:
        return os.getpid()


class RolloutWorker:
    """An actor that plays episodes with the moves of an inference server, whose handle it gets."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.envs = [gymnasium.make("CartPole-v1") for _ in range(EPISODES)]

    def play(self, version: int, seed: Sequence[int]) -> list[Episode]:
        """Return episodes that depend on the weights of that version and on the seed alone."""
        random = np.random.default_rng(seed)
        seen: list[list[Array]] = [[] for _ in self.envs]
        pushes: list[list[bool]] = [[] for _ in self.envs]
        running = {i: env.reset(seed=int(random.integers(2**31)))[0] for i, env in enumerate(self.envs)}
        while running:
            chances = self.server.act.remote(version, np.array(list(running.values()))).result()
            moves = random.random(len(chances)) < chances
            for (i, observation), move in zip(list(running.items()), moves, strict=True):
                seen[i].append(observation)
                pushes[i].append(move)
                running[i], _, has_fallen, is_over, _ = self.envs[i].step(int(move))
                if has_fallen or is_over:
                    del running[i]
        return [(np.array(observations), np.array(moves, float)) for observations, moves in zip(seen, pushes, strict=True)]

    def pid(self) -> int:
        return os.getpid()


class Learner:
    """REINFORCE: pushes become likelier that were followed by more steps than others at the same step."""

    def __init__(self) -> None:
        self.version, self.weights, self.direction = 0, np.zeros(4), np.zeros(4)

    def learn(self, episodes: Sequence[Episode]) -> float:
        """Improve the weights; return the mean reward of the episodes, which is one for each step."""
        observations, pushes = (np.concatenate(parts) for parts in zip(*episodes, strict=True))
        lengths = [len(moves) for _, moves in episodes]
        steps = np.concatenate([np.arange(length) for length in lengths])
        to_come = np.repeat(lengths, lengths) - steps
        baseline = np.bincount(steps, to_come) / np.bincount(steps)
        advantages = to_come - baseline[steps]
        gradient = ((pushes - compute_chances(self.weights, observations)) * advantages) @ observations
        gradient /= len(steps) * (advantages.std() + 1e-9)
        self.direction = MOMENTUM * self.direction + (1 - MOMENTUM) * gradient
        self.weights = self.weights + STEP_LENGTH * self.direction / (np.linalg.norm(self.direction) + 1e-9)
        self.version += 1
        return float(np.mean(lengths))


class Players:
    """The actors as the driver sees them: the server is restarted by itself, rollout workers are replaced here."""

    def __init__(self, ctx: JobContext, number: int) -> None:
        self.ctx = ctx
        self.server = ctx.options(max_restarts=-1, max_task_retries=-1).create_actor(InferenceServer, name="inference")
        self.workers = [ctx.create_actor(RolloutWorker, self.server) for _ in range(number)]
        self.news: list[str] = []

    def play(self, learner: Learner, seed: Sequence[int], victim: int | None) -> list[Episode]:
        """Have every worker play with the learner's weights, while the process ``victim`` is killed."""
        self.give_weights(learner)
        pending = {self.start(i, learner, seed): i for i in range(len(self.workers))}
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
        played: dict[int, list[Episode]] = {}
        while pending:
            (future,), _ = self.ctx.wait(pending)
            i = pending.pop(future)
            try:
                played[i] = future.result()
                continue
            except ActorDied:
                self.news.append(f"rollout worker {i} died and was replaced")
                self.workers[i] = self.ctx.create_actor(RolloutWorker, self.server)
            except WeightsMissing:
                self.news.append(f"inference server restarted ({self.ctx.actor_status(self.server).restarts} in all)")
                self.give_weights(learner)
            pending[self.start(i, learner, seed)] = i
        return [episode for i in sorted(played) for episode in played[i]]

    def give_weights(self, learner: Learner) -> None:
        self.ctx.get(self.server.load.remote(learner.version, learner.weights))

    def start(self, i: int, learner: Learner, seed: Sequence[int]) -> Any:
        return self.workers[i].play.remote(learner.version, [*seed, i])


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    with create_job_ctx(args.context, controller_address="local" if args.context == "fray" else None) as ctx:
        players, learner = Players(ctx, args.workers), Learner()
        victims = {args.iterations // 3: players.workers[0], args.iterations * 2 // 3: players.server} if args.kill else {}
        for iteration in range(args.iterations):
            pid = ctx.get(victims[iteration].pid.remote()) if iteration in victims else None
            reward = learner.learn(players.play(learner, [args.seed, iteration], pid))
            print(f"iteration {iteration:>3}: mean reward {reward:6.1f}", *dict.fromkeys(players.news), sep="; ", flush=True)
            players.news.clear()
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learn to balance CartPole.")
    parser.add_argument("--context", choices=["threadpool", "fray", "ray"], default="fray", help="where to run")
    parser.add_argument("--iterations", type=int, metavar="N", default=20, help="how often the policy is improved")
    parser.add_argument("--workers", type=int, metavar="N", default=2, help="rollout workers")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes and moves")
    parser.add_argument("--kill", action="store_true", help="kill a rollout worker after a third, the server after two thirds")
    args = parser.parse_args(argv)
    if args.kill and args.context == "threadpool":
        parser.error("--kill ends processes: the actors of a threadpool have none of their own")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
