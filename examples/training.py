"""Train a network in an actor that may lose its process or its machine, and ends with the same weights to the bit.

    python examples/training.py --context threadpool --steps 100
    python examples/training.py --context fray --steps 100 --kill-at 30,60

The state of training is saved to storage every few steps. A trainer that died goes on where its last checkpoint was. Steps
have numbers, and the examples of a step depend on the seed and its number alone: done again, it gives the same weights.
With --kill-at, the trainer loses first the worker that it lives on, then its own process, and so on by turns.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from fray import JobContext, create_job_ctx
from fray.job.rpc.local import LocalCluster
from numpy.typing import NDArray

EXAMPLES, INPUTS, HIDDEN, BATCH = 2048, 8, 32, 64
MOMENTUM, LEARNING_RATE = 0.9, 0.1
SILENCE_S = 2.0
"""How long a worker may be silent before its actors are restarted elsewhere."""

Array = NDArray[np.float64]


class Trainer:
    """An actor that trains two layers on made-up examples. A checkpoint holds what training changes; the rest is computed."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.seed, self.step, self.loss = seed, 0, 0.0
        self.weights = [random.normal(size=(INPUTS, HIDDEN)) / INPUTS**0.5, random.normal(size=(HIDDEN, 1)) / HIDDEN**0.5]
        self.momenta = [np.zeros_like(weights) for weights in self.weights]
        self.make_examples()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("inputs", "targets")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.make_examples()

    def make_examples(self) -> None:
        random = np.random.default_rng([self.seed, EXAMPLES])
        self.inputs = random.normal(size=(EXAMPLES, INPUTS))
        self.targets = np.sin(self.inputs @ random.normal(size=(INPUTS, 1)))

    def train(self, step: int) -> tuple[int, float]:
        """Carry out a step, unless it is not the next one; return the number of the next one, and the last loss.

        A step that was carried out already changes nothing. After a restart, the next one is one that the caller has seen
        before: it goes on from there.
        """
        if step == self.step:
            chosen = np.random.default_rng([self.seed, step]).integers(EXAMPLES, size=BATCH)
            self.loss = self.descend(self.inputs[chosen], self.targets[chosen])
            self.step += 1
        return self.step, self.loss

    def descend(self, inputs: Array, targets: Array) -> float:
        """Change the weights against their gradients; return the loss before."""
        first, second = self.weights
        hidden = np.tanh(inputs @ first)
        errors = hidden @ second - targets
        gradients = [inputs.T @ (errors @ second.T * (1 - hidden**2)), hidden.T @ errors]
        changes = [LEARNING_RATE * gradient / len(inputs) for gradient in gradients]
        self.momenta = [MOMENTUM * momentum - change for momentum, change in zip(self.momenta, changes, strict=True)]
        self.weights = [weights + momentum for weights, momentum in zip(self.weights, self.momenta, strict=True)]
        return float(np.mean(errors**2))

    def digest(self) -> str:
        """Return what tells these weights from all others."""
        return hashlib.blake2b(b"".join(weights.tobytes() for weights in self.weights), digest_size=16).hexdigest()

    def pid(self) -> int:
        return os.getpid()


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    with create_context(args) as (ctx, cluster):
        safe = ctx.options(max_restarts=-1, max_task_retries=-1, checkpoint_every=args.checkpoint_every)
        trainer = safe.create_actor(Trainer, args.seed, name="trainer")
        step, kills = 0, 0
        while step < args.steps:
            if cluster is not None and kills < len(args.kill_at) and step == args.kill_at[kills]:
                print(f"step {step}: the trainer loses its {kill(ctx, cluster, trainer, kills)}", flush=True)
                kills += 1
            following, loss = ctx.get(trainer.train.remote(step))
            if following <= step:
                print(f"step {step}: it is restored, and goes on at step {following}", flush=True)
            step = following
        print(f"{step} steps, {ctx.actor_status(trainer).restarts} restarts, loss {loss:.4f}")
        print(f"weights {ctx.get(trainer.digest.remote())}")
    return 0


def kill(ctx: JobContext, cluster: LocalCluster, trainer: Any, kills: int) -> str:
    """Kill the one worker that there is, after another was started, or the trainer's process; return which."""
    if kills % 2 == 0:
        cluster.add_worker()
        cluster.workers[kills // 2].process.kill()
        return "worker"
    os.kill(ctx.get(trainer.pid.remote()), signal.SIGKILL)
    return "process"


@contextmanager
def create_context(args: argparse.Namespace) -> Iterator[tuple[JobContext, LocalCluster | None]]:
    """Open a context; for Fray, on a cluster whose worker is a process that can be killed."""
    if args.context != "fray":
        with create_job_ctx(args.context) as ctx:
            yield ctx, None
        return
    with LocalCluster(workers=1, num_cpus=1, storage=args.storage, limits={"silence_s": SILENCE_S}) as cluster:
        os.environ["FRAY_TOKEN"] = cluster.token
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            yield ctx, cluster


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small network that survives the death of its trainer.")
    parser.add_argument("--context", choices=["sync", "threadpool", "fray"], default="fray", help="where to run")
    parser.add_argument("--steps", type=int, metavar="N", default=100, help="how long to train")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and examples")
    parser.add_argument("--checkpoint-every", type=int, metavar="N", default=8, help="steps between checkpoints")
    parser.add_argument("--storage", metavar="URL", help="where checkpoints are kept; else a directory of the cluster's own")
    parser.add_argument("--kill-at", metavar="STEPS", default="", help="where to kill, such as 30,60; on Fray only")
    args = parser.parse_args(argv)
    args.kill_at = [int(step) for step in args.kill_at.split(",") if step]
    if args.kill_at and args.context != "fray":
        parser.error(f"--kill-at ends processes: the actors of {args.context} have none of their own")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
