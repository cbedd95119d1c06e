"""What tasks and actors do when they run, and how clients choose them: short and long, failing, crashing, endless, nested.

A script is only data: executors play it, and clients compare with it how the task ended.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from fray.job.rpc.controller.core.model import STABLE, ActorSpec, Shape


@dataclass(frozen=True, slots=True)
class Script:
    """What a task does when it runs."""

    function_id: str
    """Names the code: tasks of one name take about equally long."""
    duration_s: float
    """How long one run takes, without waiting."""
    failures: int = 0
    """The first so many runs raise."""
    crashes: int = 0
    """The first so many runs end the executor."""
    stubborn: bool = False
    """Whether it ignores interrupts."""
    children: int = 0
    """Tasks it submits and waits for, one after another."""


@dataclass(frozen=True, slots=True)
class ActorScript:
    """What an actor is like."""

    construct_s: float = 0.05
    """How long its constructor takes."""
    failures: int = 0
    """The first so many constructors raise."""
    crashes: int = 0
    """The first so many constructors end the executor."""
    checkpoint_every: int = 0
    """Calls after which its state is saved; 0 for never."""


@dataclass(frozen=True, slots=True)
class CallScript:
    """What a call does."""

    duration_s: float
    """How long it takes."""
    raises: bool = False
    """Whether it raises, having done what it does."""
    crashes: bool = False
    """Whether it ends the executor, having done what it does, when it is carried out the first time."""


def draw_actor(rng: random.Random) -> tuple[ActorScript, ActorSpec, Shape]:
    """Return an actor to create."""
    spec = ActorSpec(
        name=rng.choice(["", "", "n1", "n2", "n3"]),
        max_restarts=rng.choice([0, 1, 4, -1, -1]),
        detached=rng.random() < 0.25,
        not_preemptible=rng.random() < 0.2,
        max_task_retries=rng.choice([0, 0, 0, 1, -1]),
        checkpoint_every=rng.choice([0, 0, 1, 3]),
    )
    troubles = rng.choice([(0, 0)] * 8 + [(1, 0), (0, 1), (0, 2)])
    script = ActorScript(rng.choice([0.001, 0.05, 0.4]), *troubles, spec.checkpoint_every)
    shape: Shape = rng.choice([(), (), (), (("cpu", 0.5),), (("cpu", 1.0),)])
    return script, spec, tuple(sorted((*shape, (STABLE, 1.0)))) if spec.not_preemptible else shape


def draw_call(rng: random.Random) -> CallScript:
    """Return a call to make."""
    duration_s = rng.choice([0.0005, 0.002, 0.05, 0.05, 0.5, 0.5])
    return CallScript(duration_s, rng.random() < 0.05, rng.random() < 0.02)


def draw_script(rng: random.Random) -> tuple[Script, dict[str, Any]]:
    """Return a task to submit."""
    options: dict[str, Any] = {}
    shapes: list[Shape] = [(("cpu", 1.0),)] * 6 + [(("cpu", 0.5),), (("cpu", 2.0),), (("cpu", 1.0), ("gpu", 1.0)), ()]
    options["shape"] = rng.choice(shapes)
    options["priority"] = rng.choice([0, 0, 0, 1, -1])
    kind = rng.choice(["short"] * 8 + ["long", "long", "fails", "crashes", "endless", "stubborn", "nests", "nests", "slow"])
    if kind == "short":
        return Script(rng.choice(["f1", "f2"]), rng.uniform(0.0005, 0.002)), options
    if kind == "long":
        return Script("long", rng.uniform(0.5, 3.0)), options
    if kind == "fails":
        options |= {"max_retries": rng.randint(0, 3), "retry_delay_s": 0.1}
        return Script("f1", 0.002, failures=rng.randint(1, 3)), options
    if kind == "crashes":
        return Script("f2", 0.002, crashes=rng.randint(1, 4)), options
    if kind in ("endless", "stubborn"):
        limit = rng.choice(["timeout", "deadline_s", ""])
        if limit:
            options[limit] = rng.uniform(0.2, 3.0)
        return Script("endless", 1e6, stubborn=kind == "stubborn"), options
    if kind == "nests":
        return Script(rng.choice(["nest", "f1"]), 0.01, children=rng.randint(1, 4)), options
    return Script("f1", rng.uniform(0.1, 1.0)), options  # of a name that is mostly short
