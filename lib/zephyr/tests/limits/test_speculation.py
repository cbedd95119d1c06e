"""A task that is slow beside the others gets a second attempt, and whichever ends first counts, once."""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fray import JobContext, JobFuture, create_job_ctx
from zephyr import Backend, BackendConfig, Dataset, compute_plan, counters
from zephyr.storage import StorageManager

pytestmark = pytest.mark.unit

TASKS = 4
SLOW = 2
"""The task that does not end by itself."""


class ByHand:
    """A context on which time passes, and tasks end, only as its script says."""

    def __init__(self, script: Iterable[float | int | Callable[[], None]]) -> None:
        self._script = iter(script)
        self.now_s = 0.0
        self.attempts: list[tuple[JobFuture[Any], Callable[[], Any]]] = []
        self.timeouts_s: list[float | None] = []

    def monotonic(self) -> float:
        return self.now_s

    def options(self, **_: Any) -> ByHand:
        return self

    def put(self, value: Any) -> Any:
        return value

    def run(self, fn: Callable[..., Any], *args: Any) -> JobFuture[Any]:
        future: JobFuture[Any] = JobFuture("task")
        self.attempts.append((future, lambda: fn(*args)))
        return future

    def end(self, *attempts: int) -> None:
        for attempt in attempts:
            future, call = self.attempts[attempt]
            future.resolve(call())

    def wait(self, futures: list[JobFuture[Any]], timeout: float | None = None) -> None:
        self.timeouts_s.append(timeout)
        step = next(self._script)
        if callable(step):
            step()
        else:
            self.now_s += step


def run_by_hand(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[ByHand], list[Any]], **config: Any
) -> tuple[ByHand, list[Any], dict[str, dict[str, int]]]:
    """Run a dataset of a few tasks on a context whose script ``build`` makes."""
    script: list[Any] = []
    ctx = ByHand(step for step in script)
    script += build(ctx)
    monkeypatch.setattr("zephyr.execution.tasks.time", types.SimpleNamespace(monotonic=ctx.monotonic))
    found: dict[str, dict[str, int]] = {}
    plan = compute_plan(Dataset.from_list(range(TASKS)).map(count_call))
    with StorageManager() as storage:
        shards = Backend(ctx, BackendConfig(**config), storage).run(plan, found)  # type: ignore[arg-type]
        return ctx, [item for shard in shards for item in shard], found


def count_call(item: int) -> int:
    counters.increment("calls")
    return item


def end_all_but_slow(ctx: ByHand) -> list[Callable[[], None]]:
    return [lambda at=at: ctx.end(at) for at in range(TASKS) if at != SLOW]  # type: ignore[misc]


def test_a_slow_task_gets_one_more_attempt_that_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(ctx: ByHand) -> list[Any]:
        return [
            1,
            *end_all_but_slow(ctx),
            28,
            lambda: see(ctx),
            2,
            lambda: see(ctx),
            1000,
            lambda: see(ctx),
            lambda: ctx.end(TASKS),
        ]

    attempts = []

    def see(ctx: ByHand) -> None:
        attempts.append(len(ctx.attempts))

    ctx, items, found = run_by_hand(monkeypatch, build, speculate_after_s=30.0)
    assert items == list(range(TASKS))
    assert found == {"stage 1": {"calls": TASKS}}
    assert attempts == [TASKS, TASKS + 1, TASKS + 1]
    assert ctx.attempts[SLOW][0].cancelled()


def test_the_first_attempt_counts_when_it_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, items, found = run_by_hand(
        monkeypatch, lambda ctx: [*end_all_but_slow(ctx), 31, lambda: ctx.end(SLOW)], speculate_after_s=30.0
    )
    assert (items, found) == (list(range(TASKS)), {"stage 1": {"calls": TASKS}})
    assert len(ctx.attempts) == TASKS + 1
    assert ctx.attempts[TASKS][0].cancelled()


def test_both_attempts_may_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(ctx: ByHand) -> list[Any]:
        return [*end_all_but_slow(ctx), 31, lambda: ctx.end(TASKS, SLOW)]

    _, items, found = run_by_hand(monkeypatch, build, speculate_after_s=30.0)
    assert (items, found) == (list(range(TASKS)), {"stage 1": {"calls": TASKS}})


def test_none_never_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, items, _ = run_by_hand(
        monkeypatch, lambda ctx: [*end_all_but_slow(ctx), 10_000, 10_000, lambda: ctx.end(SLOW)], speculate_after_s=None
    )
    assert items == list(range(TASKS))
    assert len(ctx.attempts) == TASKS
    assert set(ctx.timeouts_s) == {None}


def test_a_task_is_not_slow_while_the_others_took_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def build(ctx: ByHand) -> list[Any]:
        def see() -> None:
            attempts.append(len(ctx.attempts))

        return [100, *end_all_but_slow(ctx), 199, see, 2, see, lambda: ctx.end(TASKS)]

    run_by_hand(monkeypatch, build, speculate_after_s=30.0)
    assert attempts == [TASKS, TASKS + 1]


def test_no_task_is_slow_before_another_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, items, _ = run_by_hand(monkeypatch, lambda ctx: [10_000, lambda: ctx.end(*range(TASKS))], speculate_after_s=1.0)
    assert items == list(range(TASKS))
    assert len(ctx.attempts) == TASKS


def test_no_second_attempt_starts_while_tasks_wait_to_be_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(ctx: ByHand) -> list[Any]:
        return [lambda: ctx.end(0), 1000, lambda: ctx.end(2), lambda: ctx.end(1), lambda: ctx.end(3)]

    ctx, items, _ = run_by_hand(monkeypatch, build, speculate_after_s=30.0, max_parallelism=2)
    assert items == list(range(TASKS))
    assert len(ctx.attempts) == TASKS


def test_second_attempts_stay_within_max_parallelism(monkeypatch: pytest.MonkeyPatch) -> None:
    running = []

    def build(ctx: ByHand) -> list[Any]:
        def see() -> None:
            running.append(sum(not future.done() for future, _ in ctx.attempts))

        return [lambda: ctx.end(0), see, lambda: ctx.end(1), 1000, see, lambda: ctx.end(2, 3)]

    run_by_hand(monkeypatch, build, speculate_after_s=30.0, max_parallelism=3)
    assert running == [3, 3]


def test_a_task_that_waits_for_a_slot_of_its_context_is_not_slow(recording: Callable[[JobContext], Any]) -> None:
    blocked = threading.Event()

    class Patient(recording):  # type: ignore[misc, valid-type]
        rounds = 0

        def options(self, **changes: Any) -> Any:
            return self

        def wait(self, futures: Any, timeout: float | None = None) -> Any:
            Patient.rounds += 1
            if Patient.rounds == 100 or len(self.calls) > 10:
                blocked.set()
            return self._context.wait(futures, timeout=timeout)

    def work(item: int) -> int:
        if item == 1:
            blocked.wait(20)
        return item

    with create_job_ctx("threadpool", max_workers=1) as ctx, StorageManager() as storage:
        context = Patient(ctx)
        config = BackendConfig(speculate_after_s=0.02)
        Backend(context, config, storage).run(compute_plan(Dataset.from_list(range(9)).map(work)))
    assert len(context.calls) <= 10


def test_of_two_attempts_one_output_is_published_and_no_draft_stays(tmp_path: Path) -> None:
    second, release = threading.Event(), threading.Event()
    attempts = []

    def work(item: int) -> int:
        counters.increment("calls")
        if item == 3:
            attempts.append(item)
            if len(attempts) == 1:
                second.wait(20)
                release.wait(20)
            second.set()
        return item

    dataset = Dataset.from_list(range(5)).map(work).write_jsonl(f"{tmp_path}/out/{{shard}}.jsonl")
    found: dict[str, dict[str, int]] = {}
    with create_job_ctx("threadpool", max_workers=3) as ctx, StorageManager() as storage:
        shards = Backend(ctx, BackendConfig(speculate_after_s=0.01), storage).run(compute_plan(dataset), found)
        assert [path for shard in shards for path in shard] == [f"{tmp_path}/out/{number}.jsonl" for number in range(5)]
        release.set()
    assert attempts == [3, 3]
    assert found == {"stage 1": {"calls": 5}}
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert set(files) == {"_manifest.json", "_SUCCESS", *(f"{number}.jsonl" for number in range(5))}
    assert [files[f"{number}.jsonl"] for number in range(5)] == [f"{number}\n" for number in range(5)]


@pytest.mark.integration
def test_a_process_that_hangs_is_overtaken(fray: JobContext, tmp_path: Path) -> None:
    gate, marker = tmp_path / "gate", tmp_path / "first"
    os.mkfifo(gate)

    def work(item: int) -> int:
        counters.increment("calls")
        if item == 2:
            try:
                marker.open("x").close()
            except FileExistsError:
                gate.open("w").close()  # lets the first attempt go
            else:
                gate.open().close()  # hangs until the second attempt is there
        return item

    dataset = Dataset.from_list(range(4)).map(work).write_jsonl(f"{tmp_path}/out/{{shard}}.jsonl")
    found: dict[str, dict[str, int]] = {}
    with StorageManager() as storage:
        shards = Backend(fray, BackendConfig(speculate_after_s=0.05), storage).run(compute_plan(dataset), found)
        assert len([path for shard in shards for path in shard]) == 4
    assert found == {"stage 1": {"calls": 4}}
    assert (tmp_path / "out" / "2.jsonl").read_text() == "2\n"
