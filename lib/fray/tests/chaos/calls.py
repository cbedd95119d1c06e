"""What clients of actors do: calls to counters that write down all they do, see the tests of actors."""

from __future__ import annotations

import contextlib
import random
import secrets
from pathlib import Path
from typing import Any, Literal

from fray import JobContext
from fray.errors import ActorDied, ActorNameTaken, ActorNotFound, ActorUnavailable
from model import Kind
from witness import Caller, Witness, use_in_task

from chaos.ledger import Book
from chaos.tasks import SETTLE_S

KINDS = {
    "named": Kind("chaos", -1, 0, 1),
    "plain": Kind("", -1),
    "retrier": Kind("", -1, 3, 2),
}
"""The actors of a client by slot. The named one is detached: it outlives clients, and saves its state after each call."""

UNDER_WAY = 40
"""Calls that a client has under way."""


class ActorClient:
    """Calls actors until a file says to stop, and waits for all calls."""

    def __init__(self, ctx: JobContext, book: Book, name: str, seed: str, stop: Path) -> None:
        self._ctx, self._name, self._stop = ctx, name, stop
        self._ledger = book.actors()
        self._caller = Caller(self._ledger, name)
        self._chance = random.Random(seed)
        self._handles: dict[str, Any] = {}
        self._futures: list[Any] = []

    def run(self, workload: str) -> None:
        """Call until told to stop. Blocks."""
        while not self._stop.exists():
            with contextlib.suppress(ActorDied, ActorUnavailable, ActorNotFound):
                self._burst()
        for future in self._futures:
            self._caller.wait(future, SETTLE_S)
        for handle in self._handles.values():
            self._ctx.kill(handle)
        self._ledger.write("left", caller=self._name)

    def _burst(self) -> None:
        slot = self._chance.choice(list(KINDS))
        handle = self._find(slot)
        if self._chance.random() < 0.1:
            self._ctx.run(use_in_task, self._ledger, {slot: handle}, self._name, 2).exception(SETTLE_S)
            return
        calls = [
            self._caller.call(handle, slot, self._chance.choice([0, 0, 0.005, 0.03])) for _ in range(self._chance.randint(1, 6))
        ]
        self._futures += calls
        is_full = sum(not future.done() for future in self._futures[-2 * UNDER_WAY :]) >= UNDER_WAY
        if (is_full or self._chance.random() < 0.6) and not self._caller.wait(calls[-1], SETTLE_S):
            self._drop(slot, handle)

    def _find(self, slot: str) -> Any:
        if slot not in self._handles:
            self._handles[slot] = self._create(slot, KINDS[slot])
        return self._handles[slot]

    def _create(self, slot: str, kind: Kind) -> Any:
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
        lifetime: Literal["detached", "non_detached"] = "detached" if kind.name else "non_detached"
        try:
            handle = view.create_actor(Witness, self._ledger, actor, name=kind.name or None, lifetime=lifetime)
        except ActorNameTaken:
            self._ledger.write("refused", caller=self._name, actor=actor)
            raise ActorNotFound(f"another client creates {kind.name}") from None
        self._ledger.write("created", caller=self._name, actor=actor)
        return handle

    def _drop(self, slot: str, handle: Any) -> None:
        if self._ctx.actor_status(handle).state == "DEAD":
            del self._handles[slot]
