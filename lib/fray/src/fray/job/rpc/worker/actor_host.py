"""An actor in its executor: constructs or restores the instance, carries out its calls, saves its state.

The main thread carries out calls (see ``fray.job.actors``), a second one reads what the worker sends, a third sends answers
that wait for others.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

from fray.errors import DecodeError, EncodeError
from fray.job.actors import ActorCall, ActorRunner
from fray.job.calls import call
from fray.job.futures import current_slot
from fray.job.rpc.controller.core.model import ErrorKind
from fray.job.rpc.lineage import resolve_arguments
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.checkpoints import CheckpointStore
from fray.payloads import PayloadStore
from fray.serialization import capture_failure, encode_failure

FLUSH_S = 0.002
"""Answers wait for others at most so long while calls follow each other."""


class Link(Protocol):
    """The executor's connection with its worker."""

    def send(self, frame: frames.Frame) -> None:
        """Send a frame; ends the process if the worker is gone. Thread-safe."""

    def receive(self) -> list[frames.Frame]:
        """Return the next frames; ends the process if the worker is gone. Blocks."""


class ActorHost:
    """One incarnation of one actor."""

    def __init__(
        self,
        link: Link,
        store: PayloadStore,
        task_id: str,
        settings: tuple[int, str, int, int],
        checkpoints_url: str,
    ) -> None:
        self._link, self._store, self._task_id = link, store, task_id
        self._slot = _ActorSlot(link, task_id)
        self._incarnation, name, self._max_concurrency, self._every = settings
        self._name = name or "actor"
        self._checkpoints = CheckpointStore(checkpoints_url, store.key, self._incarnation)
        self._instance: Any = None
        self._runner: ActorRunner | None = None
        self._lock = threading.Lock()  # guards _answers and _calls
        self._answers: list[tuple[str, int, str, bytes, str]] = []
        self._calls: dict[tuple[str, int], _HostedCall] = {}
        self._waiting = threading.Event()
        self._unsaved = 0
        self._saves = False
        """Whether the state is ever saved."""

    def serve(self, cls: Any, args: Any, kwargs: Any) -> None:
        """Construct the actor and carry out its calls until the worker retires it. Raises what the constructor raises."""
        self._restore_or_construct(cls, args, kwargs)
        runner = self._runner = ActorRunner(
            f"fray-{self._name}", self._instance, self._max_concurrency or None, self._slot, self._save
        )
        threading.Thread(target=self._listen, args=(runner,), name="fray-calls", daemon=True).start()
        threading.Thread(target=self._keep_flushing, name="fray-answers", daemon=True).start()
        self._link.send((frames.CREATED,))
        runner.serve()
        self._retire()

    # --- the state

    def _restore_or_construct(self, cls: Any, args: Any, kwargs: Any) -> None:
        current_slot.set(self._slot)
        saved = self._checkpoints.load() if self._incarnation > 1 else None
        if saved is None:
            self._instance = call(cls, args, kwargs)
            if self._every and self._incarnation > 1:  # what an earlier life may still write comes before this
                self._save()
            return
        self._instance = cls.__new__(cls)
        _set_state(self._instance, saved[0])
        self._save()
        self._checkpoints.drop_earlier()

    def _save(self) -> None:
        self._checkpoints.save(self._instance.__getstate__())
        self._unsaved, self._saves = 0, True

    def count_call(self, chain: tuple[str, ...]) -> None:
        """Save the state when so many calls have been carried out since the last time, and none is half carried out."""
        self._unsaved += 1
        is_within_another = any(f"/{self._task_id}/" in awaiting for awaiting in chain)
        if not self._every or self._unsaved < self._every or is_within_another:
            return
        try:
            self._save()
        except Exception as error:
            error.add_note("the call was carried out, but the state after it could not be saved")
            raise

    def _retire(self) -> None:
        """Say goodbye: with the state saved, the actor goes on elsewhere; else this is its death."""
        kind, message = "crashed", "its worker was drained"
        if self._saves or self._every:
            try:
                if self._unsaved:
                    self._save()
                kind, message = "returned", "moves with its state: its worker drains"
            except Exception as error:  # the user's __getstate__, or storage
                message += f", and its state could not be saved: {type(error).__name__}: {error}"
        for caller, seq in list(self._calls):
            self.answer(caller, seq, ErrorKind.LOST.value, b"", "not begun: its worker drains")
        self._flush()
        self._link.send((frames.DONE, [(self._task_id, kind, b"", message, True, 0.0)]))

    # --- calls

    def _listen(self, runner: ActorRunner) -> None:
        while True:
            for frame in self._link.receive():
                if frame[0] == frames.CALL:
                    self._take(runner, frame[1])
                elif frame[0] == frames.FORGET:
                    self._forget(frame[1], frame[2])
                elif frame[0] == frames.RETIRE:
                    runner.stop(cancel=False)

    def _take(self, runner: ActorRunner, items: list[Any]) -> None:
        for caller, seq, method, payload, chain in items:
            actor_call = _HostedCall(self, self._store, caller, seq, method, payload, tuple(chain))
            with self._lock:
                self._calls[caller, seq] = actor_call
            runner.submit(actor_call)

    def _forget(self, caller: str, seqs: list[int]) -> None:
        for seq in seqs:
            with self._lock:
                dropped = self._calls.get((caller, seq))
            if dropped is not None:
                dropped.drop()

    def answer(self, caller: str, seq: int, kind: str, payload: bytes, message: str) -> None:
        """Send an answer, at once if no other call is ready."""
        with self._lock:
            if self._calls.pop((caller, seq), None) is None:
                return
            self._answers.append((caller, seq, kind, payload, message))
        if self._runner is not None and self._runner.is_behind():
            self._waiting.set()
        else:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
            if answers:
                self._link.send((frames.ANSWER, self._task_id, answers))

    def _keep_flushing(self) -> None:
        while True:
            self._waiting.wait()
            time.sleep(FLUSH_S)
            self._waiting.clear()
            self._flush()


class _HostedCall(ActorCall):
    """A call that came from the worker."""

    def __init__(
        self, host: ActorHost, store: PayloadStore, caller: str, seq: int, method: str, payload: bytes, chain: tuple[str, ...]
    ) -> None:
        super().__init__(f"{caller}/{host._task_id}/{seq}", method, chain)
        self._host, self._store, self._caller, self._seq, self._payload = host, store, caller, seq, payload
        self._dropped = False

    def drop(self) -> None:
        """Do not begin the call; one that runs goes on."""
        self._dropped = True

    def is_wanted(self) -> bool:
        if self._dropped:
            self._host.answer(self._caller, self._seq, ErrorKind.CANCELLED.value, b"", "cancelled before it began")
        return not self._dropped

    def arguments(self) -> tuple[Any, Any]:
        payload, self._payload = self._payload, b""
        return resolve_arguments(self._store, payload, [])

    def invoke(self, method: Any, args: Any, kwargs: Any) -> Any:
        try:
            return call(method, args, kwargs)
        finally:
            self._host.count_call(self.chain)

    def finish(self, value: Any) -> None:
        try:
            payload = self._store.pack(value)
        except EncodeError as error:
            raise EncodeError(f"the result of {self.method} cannot travel: {error.args[0]}") from error.__cause__
        self._host.answer(self._caller, self._seq, "", payload, "")

    def fail(self, error: BaseException) -> None:
        failure = capture_failure(error, skip_frames=1)
        message = f"{failure.type_name}: {failure.message}".splitlines()[0][:500]
        self._host.answer(self._caller, self._seq, ErrorKind.USER.value, encode_failure(failure), message)


class _ActorSlot:
    """The place of an actor on its worker (``fray.job.futures.Slot``)."""

    def __init__(self, link: Link, task_id: str) -> None:
        self._link, self._task_id = link, task_id
        self._lock = threading.Lock()  # guards _lent, and the order of what is sent
        self._lent = 0

    def lend(self) -> None:
        with self._lock:
            self._lent += 1
            if self._lent == 1:
                self._link.send((frames.BLOCKED, self._task_id))

    def reclaim(self) -> None:
        with self._lock:
            self._lent -= 1
            if self._lent == 0:
                self._link.send((frames.UNBLOCKED, self._task_id))

    def resume(self) -> None:
        """Do nothing: the runner sees to the order of calls."""


def _set_state(instance: Any, state: Any) -> None:
    """Give an instance its state, as unpickling does."""
    setter = getattr(instance, "__setstate__", None)
    if setter is not None:
        setter(state)
        return
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in parts:
        if part is not None and not isinstance(part, dict):
            raise DecodeError(f"{type(instance).__name__} saved a {type(part).__name__} but has no __setstate__ to take it")
        for name, value in (part or {}).items():
            setattr(instance, name, value)
