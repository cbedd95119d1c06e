"""A worker's agent: takes orders from the controller, gives them to executors, reports until it is acknowledged.

Network only: user code never runs here, so nothing a task does can delay a heartbeat. If the controller cannot be reached,
what runs goes on, and outcomes are kept and sent when it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fray.clock import Clock, SystemClock
from fray.config import executor_environment
from fray.errors import DeadlineExceeded, FrayError, TransportError
from fray.job.rpc.controller.core.model import Outcome, OutcomeKind
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import AsyncControllerClient
from fray.job.rpc.wire.convert import OUTCOME_TO_WIRE, shape_of
from fray.job.rpc.wire.errors import NotKnown
from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS, HEARTBEAT_S
from fray.job.rpc.worker import core as wc
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.actors import ActorDesk
from fray.job.rpc.worker.memory import Excess, MemoryWatch
from fray.job.rpc.worker.pool import ExecutorPool
from fray.types import TaskId

if TYPE_CHECKING:
    from fray.job.rpc.controller.direct import DirectClient

log = logging.getLogger("fray.worker")

MESSAGE_BYTES = 500
"""What a message of output takes besides its text."""
MAX_LOG_BYTES = 1024 * 1024
"""Output of tasks that waits to be sent; more is dropped, and the loss is told."""
ATTACH_TIMEOUT_S = 10.0
"""How long a worker that starts waits for its first orders; it goes on trying then."""
MIN_REPORT_TIMEOUT_S = 1.0
"""A report is given up when the lease that it would renew is over, but not before this."""
DIRECT_GRACE_S = 5.0
"""How long a task that came straight from a caller goes on, and its outcome is kept, for a call that is made again."""
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.1, 1.0
"""Between attempts to reach the controller."""


@dataclass(slots=True)
class _DirectRun:
    """A task that came straight from a caller."""

    future: asyncio.Future[Outcome]
    callers: int = 0
    left_at: float = 0.0
    """When the latest caller went, on the loop's clock."""


class Agent:
    """One worker's connection and executors. All methods belong to one event loop."""

    def __init__(
        self,
        client: AsyncControllerClient | DirectClient,
        token: str,
        worker_id: str,
        capacity: dict[str, float],
        tags: dict[str, str],
        address: str,
        lane_address: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.worker_id = worker_id
        self._info = pb.WorkerInfo(
            worker_id=worker_id,
            address=address,
            lane_address=lane_address,
            cpu_cores=int(capacity.get("cpu", 0)),
            memory_bytes=int(capacity.get("memory", 0)),
            resources=capacity,
            tags=tags,
        )
        self._clock = clock or SystemClock()
        self._client = client
        self._core = wc.WorkerCore(capacity, executors=max(1, int(capacity.get("cpu", 1))))
        environment = executor_environment(client.address, token)
        self._pool = ExecutorPool(environment, self._on_frame, self._on_exit, self._on_output)
        self._memory = MemoryWatch(self._on_excess)
        self.desk = ActorDesk(self._send, self._has_lease)
        self._relay = _Relay(lambda: self._news.set())
        self._generation = 0
        self._attachments = 0
        self._heartbeat_s = HEARTBEAT_S
        self._lease_s = 0.0
        self._functions: dict[str, bytes] = {}
        self._storage_url = ""
        self._logs: list[pb.LogLines] = []
        self._log_bytes = 0
        self._log_bytes_dropped = 0
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._attached = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._direct: dict[TaskId, _DirectRun] = {}
        self._draining = False
        self._orders: asyncio.Task[None] | None = None
        self._was_heard = False

    async def start(self) -> None:
        """Register and begin to work; returns when the controller has begun to give orders, or after a while.

        Raises:
            FrayError: if the controller cannot be used; nothing runs then.
        """
        await self._register()
        self._perform(self._core.start())
        self._spawn_task(self._follow_orders(), "fray-orders")
        self._spawn_task(self._keep_reporting(), "fray-reports")
        self._spawn_task(self._memory.run(), "fray-memory")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTACH_TIMEOUT_S):
                await self._attached.wait()

    async def drain(self, grace_s: float) -> None:
        """Hand back what has not begun, let the rest end within ``grace_s``, tell the controller, and go."""
        self._draining = True
        self._core.drain()
        for item in self._core.actors():
            self.desk.retire(item)
        self._news.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while not self._core.idle():
                    self._settled.clear()
                    await self._settled.wait()
        await self._cancel_tasks()
        report = self._core.report(BATCH_ITEMS)
        await self._pool.close()  # first: the controller may start what is left here elsewhere as soon as it knows
        with contextlib.suppress(FrayError):
            await self._client.call("report", self._to_wire(report, leaving=True), timeout_s=2.0)
        await self.stop()

    async def stop(self) -> None:
        """End at once, executors included. Idempotent."""
        await self._cancel_tasks()
        if self._timer is not None:
            self._timer.cancel()
        await self._pool.close()
        await self._client.close()
        for run in self._direct.values():
            run.future.cancel()

    async def execute(self, order: pb.StartTask) -> Outcome:
        """Run one task that came straight from a caller, and return its outcome; a call that comes again joins the first.

        When the last caller has gone, the task is stopped, and its outcome forgotten, after ``DIRECT_GRACE_S``.
        """
        loop = asyncio.get_running_loop()
        task = TaskId(order.task_id)
        run = self._direct.get(task)
        if run is None:
            run = self._direct[task] = _DirectRun(loop.create_future())
            self._perform(self._core.receive(self._clock.now(), [_to_item(order, direct=True)]))
        run.callers += 1
        try:
            return await asyncio.shield(run.future)
        finally:
            run.callers -= 1
            run.left_at = loop.time()
            loop.call_later(DIRECT_GRACE_S, self._leave, task, order.attempt)

    def _leave(self, task: TaskId, attempt: int) -> None:
        run = self._direct.get(task)
        if run is None or run.callers or asyncio.get_running_loop().time() < run.left_at + DIRECT_GRACE_S - 0.01:
            return
        del self._direct[task]
        if not run.future.cancelled():
            self._perform(self._core.stop(self._clock.now(), task, attempt))

    # --- the controller

    async def _register(self) -> None:
        self._info.incarnation = f"{self.worker_id}.{secrets.token_hex(6)}"
        began = self._clock.now()
        answer = await self._client.call("register_worker", self._info)
        self._storage_url = answer.storage_url
        self._heartbeat_s, self._lease_s = answer.heartbeat_s, answer.lease_s
        self._core.lease_until = began + self._lease_s

    async def _begin_new_life(self) -> None:
        log.warning("worker %s was given up by the controller; it registers anew", self.worker_id)
        self._perform(self._core.abandon())
        self._relay.clear()
        await self._register()

    async def _follow_orders(self) -> None:
        current = asyncio.current_task()
        assert current is not None
        backoff_s = MIN_BACKOFF_S
        while True:
            self._was_heard = False
            try:
                self._orders = asyncio.create_task(self._take_orders(), name="fray-stream")
                await self._orders
            except asyncio.CancelledError:
                if current.cancelling():
                    raise  # it was not the stream alone that was cancelled
            except NotKnown:
                with contextlib.suppress(TransportError):
                    await self._begin_new_life()
                    continue
            except TransportError as error:
                log.info("worker %s: %s", self.worker_id, error)
            except Exception:  # a defect of ours must not leave a worker that lives, reports, and does nothing
                log.exception("worker %s could not follow its orders; it begins a new life", self.worker_id)
                with contextlib.suppress(TransportError):
                    await self._begin_new_life()
            backoff_s = MIN_BACKOFF_S if self._was_heard else min(MAX_BACKOFF_S, 2 * backoff_s)
            await asyncio.sleep(backoff_s)

    async def _take_orders(self) -> None:
        async for commands in self._client.attach(self._attach_request()):
            self._was_heard = True
            self._attached.set()
            self._obey(commands)

    def _attach_request(self) -> pb.AttachRequest:
        self._attachments += 1
        return pb.AttachRequest(
            number=self._attachments,
            incarnation=self._info.incarnation,
            held=_refs(self._core.held()),
            told=_refs(self._core.told()),
            generation=self._generation,
        )

    def _begin_generation(self, generation: int) -> None:
        """Take note of the controller's present life; a later one is told what the earlier one may not have saved."""
        if generation > self._generation:
            if self._generation:
                log.warning("worker %s: the controller was restarted", self.worker_id)
                self._core.tell_again()
                self._news.set()
            self._generation = generation

    def _obey(self, commands: pb.Commands) -> None:
        self._begin_generation(commands.generation)
        self._core.forget(commands.saved_report)
        now = self._clock.now()
        for function in commands.functions:
            self._functions[function.function_id] = function.code
        if commands.start:
            self._perform(self._core.receive(now, [_to_item(order) for order in commands.start]))
        for calls in commands.calls:
            self.desk.take(calls, self._relay)
        self.desk.forget(commands.ended_sessions)
        for ref in commands.stop:
            self._perform(self._core.stop(now, TaskId(ref.task_id), ref.attempt))
        for ref in commands.reclaim:
            self._core.hand_back(TaskId(ref.task_id), ref.attempt)
        if commands.reclaim:
            self._perform(self._core.time_passed(now))  # begins what stood behind them
        for function_id in commands.forget_functions:
            self._functions.pop(function_id, None)
        self._after_change()

    async def _keep_reporting(self) -> None:
        backoff_s = MIN_BACKOFF_S
        unanswered: tuple[wc.Report, pb.ReportRequest] | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    self._heartbeat_s
                ):  # wait_for of Python 3.11 loses a cancellation at the wrong moment
                    await self._news.wait()
            self._news.clear()
            if unanswered is None or unanswered[1].incarnation != self._info.incarnation:
                report = self._core.report(BATCH_ITEMS)
                message = self._to_wire(report, answers=self._relay.take())
            else:  # as it was, so that it changes nothing if it did arrive
                report, message = unanswered
            sent_at, incarnation = self._clock.now(), self._info.incarnation
            try:
                answer = await self._client.call("report", message, timeout_s=max(MIN_REPORT_TIMEOUT_S, self._lease_s))
                if answer.fenced:
                    continue  # the stream of orders has ended too, and its owner begins a new life
            except TransportError as error:
                log.info("worker %s cannot report: %s", self.worker_id, error)
                if isinstance(error, DeadlineExceeded) and self._orders is not None:
                    self._orders.cancel()  # it came over the same network, which may swallow everything
                unanswered = (report, message)
                self._news.set()
                await asyncio.sleep(backoff_s)
                backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)
                continue
            unanswered, backoff_s = None, MIN_BACKOFF_S
            self._begin_generation(answer.generation)
            if answer.generation < self._generation:
                self._news.set()  # told to a life of the controller that is over
                continue
            self._core.acknowledge(report)
            self._core.forget(answer.saved_report)
            if incarnation == self._info.incarnation:
                self._renew_lease(sent_at)
            self._after_change()

    def _renew_lease(self, sent_at: float) -> None:
        was_over = not self._has_lease()
        self._core.lease_until = sent_at + self._lease_s
        self.desk.renew()
        if was_over:
            self._perform(self._core.time_passed(self._clock.now()))  # begins what had to wait

    def _has_lease(self) -> bool:
        """Whether the controller surely counts on this life of the worker."""
        return self._clock.now() < self._core.lease_until

    def _to_wire(
        self, report: wc.Report, leaving: bool = False, answers: list[pb.ActorAnswers] | None = None
    ) -> pb.ReportRequest:
        outcomes, size = [], 0
        for outcome, _ in report.outcomes:
            outcomes.append(
                pb.AttemptOutcome(
                    task_id=outcome.task,
                    attempt=outcome.attempt,
                    kind=OUTCOME_TO_WIRE[outcome.kind],
                    payload=outcome.payload,
                    message=outcome.message,
                    retryable=outcome.retryable,
                    run_s=outcome.run_s,
                )
            )
            size += len(outcome.payload)
            if size > BATCH_BYTES:
                break
        del report.outcomes[len(outcomes) :]
        return pb.ReportRequest(
            incarnation=self._info.incarnation,
            outcomes=outcomes,
            blocked=_refs(report.blocked),
            unblocked=_refs(report.unblocked),
            draining=self._core.draining,
            leaving=leaving,
            logs=self._take_logs(),
            created=_refs(report.created),
            answers=answers or [],
            number=report.number,
        )

    # --- executors

    def _perform(self, effects: Iterable[wc.Effect]) -> None:
        for effect in effects:
            match effect:
                case wc.Spawn(number):
                    self._pool.spawn(number)
                case wc.Give(number, items):
                    self._give(number, items)
                case wc.Interrupt(number, task):
                    self._order(number, (frames.STOP, task))
                case wc.Recall(number):
                    self._order(number, (frames.RECALL,))
                case wc.Kill(number):
                    self._pool.kill(number)
        self._after_change()

    def _give(self, number: int, items: list[wc.Item]) -> None:
        executor = self._pool.find(number)
        if executor is None:
            return  # it has just ended: its exit follows
        batch = []
        for item in items:
            order: pb.StartTask = item.order
            function_id = order.function_id
            if function_id not in executor.known_functions:
                code = self._functions.get(function_id)
                if code is not None:
                    executor.known_functions.add(function_id)
                    executor.send((frames.FUNCTION, function_id, code))
            batch.append(
                (
                    order.task_id,
                    order.session_id,
                    function_id,
                    order.name,
                    order.payload,
                    list(order.dependency_values),
                    list(order.retry_on),
                    f"{self._storage_url}/{order.session_id}",
                    order.logs,
                    list(order.chain),
                    _actor_settings(order),
                )
            )
        if len(batch) == self._core.count_items(number):  # it has nothing else
            self._memory.begin(number, executor.process.pid, dict(items[0].shape).get("memory"))
        executor.send((frames.RUN, batch))

    def _send(self, number: int, frame: frames.Frame) -> None:
        executor = self._pool.find(number)
        if executor is not None:
            executor.send(frame)

    def _order(self, number: int, frame: frames.Frame) -> None:
        executor = self._pool.find(number)
        if executor is not None:
            executor.order(frame)

    def _on_frame(self, number: int, frame: frames.Frame) -> None:
        now = self._clock.now()
        kind = frame[0]
        if kind == frames.DONE:
            executor = self._pool.find(number)
            if executor is not None:
                executor.last_item = self._core.items.get(TaskId(frame[1][-1][0]))
            outcomes = [
                Outcome(TaskId(task), 0, OutcomeKind(how), payload, message, retryable, run_s)
                for task, how, payload, message, retryable, run_s in frame[1]
            ]
            self._perform(self._core.outcomes(now, number, outcomes))
            if not self._core.count_items(number):
                self._memory.end(number)
        elif kind == frames.ANSWER:
            self.desk.answered(TaskId(frame[1]), frame[2], number)
        elif kind == frames.CREATED:
            item = self._core.constructed(number)
            if item is not None:
                self.desk.open(item, number)
                if self._draining:
                    self.desk.retire(item)
            self._after_change()
        elif kind == frames.READY:
            self._perform(self._core.executor_ready(now, number))
        elif kind == frames.RETURNED:
            self._perform(self._core.returned(now, number, frame[1]))
        elif kind == frames.BLOCKED:
            self._perform(self._core.blocked(now, frame[1], number))
        elif kind == frames.UNBLOCKED:
            self._perform(self._core.unblocked(now, frame[1], number))
        elif kind == frames.LOG:
            item = self._core.items.get(frame[1])
            if item is not None:
                self._log(item, frame[2], frame[3])

    def _on_excess(self, number: int, excess: Excess) -> None:
        self._perform(self._core.exceeded(number, str(excess)))

    def _on_exit(self, number: int, why: str) -> None:
        self._memory.end(number)
        self._perform(self._core.executor_died(self._clock.now(), number, why))

    def _on_output(self, number: int, is_stderr: bool, text: str) -> None:
        """Take what an executor's process wrote below Python's own streams."""
        executor, process = self._core.executors.get(number), self._pool.find(number)
        item = next(iter(executor.items.values()), None) if executor is not None else None
        if item is None and process is not None:
            item = process.last_item  # the pipe is read after the task's end
        if item is not None and item.order.logs:
            self._log(item, is_stderr, text)
        elif is_stderr:
            log.info("executor %d of worker %s: %s", number, self.worker_id, text.rstrip())

    # --- output of tasks

    def _log(self, item: wc.Item, is_stderr: bool, text: str) -> None:
        if self._log_bytes + len(text) > MAX_LOG_BYTES:
            self._log_bytes_dropped += len(text)
            return
        order: pb.StartTask = item.order
        self._log_bytes += len(text) + MESSAGE_BYTES
        self._logs.append(
            pb.LogLines(
                session_id=order.session_id,
                task_id=order.task_id,
                name=order.name,
                worker_id=self.worker_id,
                is_stderr=is_stderr,
                text=text,
            )
        )
        self._news.set()

    def _take_logs(self) -> list[pb.LogLines]:
        logs, self._logs, self._log_bytes = self._logs, [], 0
        if self._log_bytes_dropped and logs:
            lost, self._log_bytes_dropped = self._log_bytes_dropped, 0
            logs[-1].text += f"... {lost} characters of output were dropped here: tasks print faster than they can be sent\n"
        return logs

    # --- housekeeping

    def _after_change(self) -> None:
        """Wake the reporter, answer direct callers, keep one timer."""
        if self._core.has_news():
            self._news.set()
        if self._core.direct_outcomes:
            done, self._core.direct_outcomes = self._core.direct_outcomes, []
            for outcome in done:
                run = self._direct.get(outcome.task)
                if run is not None and not run.future.done():
                    run.future.set_result(outcome)
        if self._core.ended_actors:
            ended, self._core.ended_actors = self._core.ended_actors, []
            self.desk.close(ended)
        if self._core.broken and not self._draining:
            self._draining = True
            log.error("worker %s takes no more tasks: %s", self.worker_id, self._core.broken)
        if self._core.idle():
            self._settled.set()
        when = self._core.next_deadline()
        if self._timer is not None:
            if when is not None and abs(self._timer_at - when) < 0.001:
                return
            self._timer.cancel()
            self._timer = None
        if when is not None:
            self._timer_at = when
            self._timer = asyncio.get_running_loop().call_later(max(0.0, when - self._clock.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._perform(self._core.time_passed(self._clock.now()))

    def _spawn_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.append(task)
        task.add_done_callback(_complain)

    async def _cancel_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _to_item(order: pb.StartTask, direct: bool = False) -> wc.Item:
    return wc.Item(
        task=TaskId(order.task_id),
        attempt=order.attempt,
        function_id=order.function_id,
        shape=shape_of(order.resources),
        timeout=order.timeout_s or None,
        order=order,
        direct=direct,
        priority=order.priority,
        alone=order.actor is not None,
        actor=order.actor is not None,
    )


def _actor_settings(order: pb.StartTask) -> tuple[int, str, int, int] | None:
    actor = order.actor
    return None if actor is None else (order.attempt, order.name, actor.max_concurrency, actor.checkpoint_every)


class _Relay:
    """The way to callers by the controller: answers go with the next report."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._answers: list[pb.ActorAnswers] = []

    def send(self, answers: pb.ActorAnswers) -> None:
        self._answers.append(answers)
        self._wake()

    def take(self) -> list[pb.ActorAnswers]:
        """Return what waits, as much as one message should hold."""
        size = count = 0
        while count < len(self._answers) and size < BATCH_BYTES:
            size += sum(len(answer.payload) for answer in self._answers[count].answers)
            count += 1
        taken, self._answers = self._answers[:count], self._answers[count:]
        if self._answers:
            self._wake()
        return taken

    def clear(self) -> None:
        """Forget what waits: this life of the worker is over."""
        self._answers.clear()

    def put_back(self, answers: list[pb.ActorAnswers]) -> None:
        """Send again what did not arrive."""
        self._answers[:0] = answers


def _refs(attempts: list[tuple[TaskId, int]]) -> list[pb.AttemptRef]:
    return [pb.AttemptRef(task_id=task, attempt=attempt) for task, attempt in attempts]


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the worker's %s ended: %s", task.get_name(), error, exc_info=error)
