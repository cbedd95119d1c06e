"""The RPC edge of the controller: messages in, events to the driver, messages out. Nothing is decided here."""

from __future__ import annotations

import heapq
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

import fray
from fray.errors import ConfigurationError
from fray.job.rpc.controller.channels import WorkerChannel
from fray.job.rpc.controller.core import actors
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.machine import ANONYMOUS_SESSION
from fray.job.rpc.controller.core.model import STABLE, EndedTask, Outcome, OutcomeKind, Session, Task, TaskSpec
from fray.job.rpc.controller.core.story import tell_story
from fray.job.rpc.controller.core.tasks import find_refusal
from fray.job.rpc.controller.driver import Driver
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.proto.fray_connect import FrayController as ControllerProtocol
from fray.job.rpc.wire import convert
from fray.job.rpc.wire.errors import RESTARTED, SESSION_UNKNOWN, Code, ConnectError
from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS, HEARTBEAT_S, LEASE_SHARE, MAX_NAME_CHARS
from fray.types import Incarnation, SessionId, TaskId, TaskOptions, WorkerId

MAX_WAIT_S = 15.0
"""Longest wait inside ``GetTaskResult``: shorter than the silence after which clients take a connection as dead."""

MAX_BATCH = 2**62
"""Larger numbers of batches are refused: nobody counts so far, and they must fit into a column."""
PLENTY = 1e9
"""Of a resource that is there or not."""

Ctx = Any


class ControllerService(ControllerProtocol):
    """Implements the ``FrayController`` service. Handlers do not await between reading and writing the state.

    What a call has changed is saved before it is answered; the lanes (SubmitTasks, Report) do not wait: they tell later.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    # --- sessions and tasks: the lanes

    async def open_session(self, request: pb.OpenSessionRequest, ctx: Ctx, /) -> pb.OpenSessionResponse:
        driver = self._driver
        session = SessionId(_checked(request.session_id, "session_id"))
        if session == ANONYMOUS_SESSION:
            raise ConnectError(Code.INVALID_ARGUMENT, "session_id: 'anonymous' is the controller's own")
        self._check_saving()
        parent = SessionId(request.parent_id) if request.parent_id else None
        driver.post(ev.SessionOpened(driver.now(), session, request.name[:MAX_NAME_CHARS], parent, request.logs))
        self._session(session)
        await driver.saver.wait_saved()
        limits = driver.state.limits
        return pb.OpenSessionResponse(
            generation=driver.generation,
            storage_url=driver.session_storage(session),
            max_bytes=limits.session_bytes,
            max_tasks=limits.session_tasks,
            controller_id=driver.controller_id,
            actors_url=driver.session_storage(self._root(session)),
        )

    async def close_session(self, request: pb.SessionRef, ctx: Ctx, /) -> pb.Empty:
        session = SessionId(request.session_id)
        self._driver.post(ev.SessionClosed(self._driver.now(), session))
        await self._driver.saver.wait_saved()
        await self._driver.wait_cleaned(session, 5.0)
        return pb.Empty()

    async def submit_tasks(self, request: pb.SubmitTasksRequest, ctx: Ctx, /) -> pb.SubmitTasksResponse:
        driver = self._driver
        session = self._session(SessionId(request.session_id))
        if request.batch >= MAX_BATCH:
            raise ConnectError(Code.INVALID_ARGUMENT, f"batch {request.batch}: count from 1")
        if request.generation not in (0, driver.generation):
            raise ConnectError(Code.ABORTED, f"{RESTARTED} {driver.generation}: send again what was not saved before")
        for calls in request.calls:  # first: what is refused below comes again, and these are known when they do
            calls.caller = session.id
            driver.relay(calls)
        for function in request.functions:
            driver.functions.add(session.id, _checked(function.function_id, "function_id"), function.code)
        if request.tasks:
            specs: list[TaskSpec] = []
            if not 0 < request.batch <= session.last_batch:  # a repetition is answered, even when there is no room
                self._check_saving()
                specs = [self._spec(spec, session) for spec in request.tasks]
            driver.post(ev.TasksSubmitted(driver.now(), session.id, specs, request.batch))
        if request.cancel:
            driver.post(ev.CancelRequested(driver.now(), [TaskId(task) for task in request.cancel], "cancelled by its client"))
        if request.acked_seq:
            driver.post(ev.ResultsAcknowledged(driver.now(), session.id, request.acked_seq))
        mark = driver.saver.mark()
        if request.batch:
            driver.session_channel(session.id).batches.add(request.batch, mark)
        return pb.SubmitTasksResponse(saved=driver.saver.is_saved(mark))

    async def watch_tasks(self, request: pb.WatchTasksRequest, ctx: Ctx, /) -> AsyncIterator[pb.TaskEvents]:
        driver = self._driver
        session = self._session(SessionId(request.session_id))
        channel = driver.session_channel(session.id)
        reader = channel.claim()
        cursor = request.after_seq if request.generation in (0, driver.generation) else 0
        driver.post(ev.SessionWatched(driver.now(), session.id))
        try:
            async for _ in channel.wakeups(reader):
                results: list[pb.TaskResult] = []
                size = 0
                while cursor < session.last_seq and len(results) < BATCH_ITEMS and size < BATCH_BYTES:
                    cursor += 1
                    task = session.outbox.get(cursor)
                    if task is not None:
                        results.append(convert.result_to_wire(task))
                        size += len(task.result)
                logs, notices = channel.take()
                answers, actors = channel.take_actors()
                if cursor < session.last_seq:
                    channel.wake()
                yield pb.TaskEvents(
                    results=results,
                    last_seq=cursor,
                    logs=logs,
                    notices=notices,
                    answers=answers,
                    actors=actors,
                    generation=driver.generation,
                    saved_batch=channel.batches.latest(driver.saver.is_saved),
                )
        finally:
            driver.post(ev.SessionUnwatched(driver.now(), session.id))

    async def cancel_tasks(self, request: pb.CancelTasksRequest, ctx: Ctx, /) -> pb.CancelTasksResponse:
        live = [self._task(task_id) for task_id in request.task_ids]
        chosen = [task.spec.id for task in live if isinstance(task, Task) and not task.state.is_final]
        self._driver.post(ev.CancelRequested(self._driver.now(), chosen, "cancelled by hand"))
        await self._driver.saver.wait_saved()
        return pb.CancelTasksResponse(cancelled=len(chosen))

    # --- tasks: the simple surface

    async def submit_task(self, request: pb.TaskSpec, ctx: Ctx, /) -> pb.TaskHandle:
        driver = self._driver
        session = self._session(SessionId(request.session_id) if request.session_id else ANONYMOUS_SESSION)
        task_id = TaskId(request.task_id or f"{session.id}-{secrets.token_hex(8)}")
        if task_id not in driver.state.tasks and not self._has_ended(task_id):
            self._check_saving()
            driver.post(ev.TasksSubmitted(driver.now(), session.id, [self._spec(request, session, task_id)]))
        await driver.saver.wait_saved()
        return self._handle(task_id)

    async def get_task_status(self, request: pb.TaskHandle, ctx: Ctx, /) -> pb.TaskHandle:
        return self._handle(request.task_id)

    async def get_task_result(self, request: pb.TaskHandle, ctx: Ctx, /) -> pb.TaskResult:
        self._task(request.task_id)
        if request.wait_s > 0:
            await self._driver.wait_ended([TaskId(request.task_id)], min(request.wait_s, MAX_WAIT_S))
        await self._driver.saver.wait_saved()
        task = self._task(request.task_id)
        if isinstance(task, EndedTask):
            raise ConnectError(Code.NOT_FOUND, f"task {task.id} {task.state.value}; its result is not kept any more")
        if not task.state.is_final:
            return pb.TaskResult(task_id=task.spec.id, status=convert.STATUS_OF_STATE[task.state])
        result = convert.result_to_wire(task)
        if result.result_data[:1] == b"J" and task.error_kind is None:
            result.result_json = result.result_data[1:].decode()
        return result

    async def list_tasks(self, request: pb.ListTasksRequest, ctx: Ctx, /) -> pb.TaskList:
        if request.limit < 0:
            raise ConnectError(Code.INVALID_ARGUMENT, f"limit {request.limit} must not be negative")
        state = self._driver.state
        living = (task for task in state.tasks.values() if task.actor is None)
        known: Iterable[Task | EndedTask] = chain(living, state.history)
        wanted = [task for task in known if request.status in (pb.TaskStatus.UNSPECIFIED, convert.STATUS_OF_STATE[task.state])]
        shown = heapq.nlargest(request.limit or 100, wanted, key=lambda task: task.submitted_at)
        return pb.TaskList(tasks=[self._any_to_wire(task) for task in shown], total=len(wanted))

    async def explain_task(self, request: pb.TaskHandle, ctx: Ctx, /) -> pb.Explanation:
        task = self._task(request.task_id)
        return pb.Explanation(task=self._any_to_wire(task), story=tell_story(task))

    # --- actors

    async def create_actor(self, request: pb.CreateActorRequest, ctx: Ctx, /) -> pb.ActorInfo:
        driver = self._driver
        wanted, settings, code = request.task or pb.TaskSpec(), request.settings or pb.ActorSettings(), request.function
        session = self._session(SessionId(wanted.session_id))
        actor_id = _checked(wanted.task_id, "task_id")
        if actors.find(driver.state, TaskId(actor_id)) is None:
            self._check_saving()
            owner = SessionId(actor_id) if settings.detached else self._root(session.id)
            if code is not None:
                driver.functions.add(owner, _checked(code.function_id, "function_id"), code.code)
            try:
                spec = convert.actor_from_wire(self._spec(wanted, session, actor_id), settings)
            except ConfigurationError as error:
                raise ConnectError(Code.INVALID_ARGUMENT, str(error)) from error
            driver.post(ev.ActorRequested(driver.now(), session.id, replace(spec, session=owner)))
        task = actors.find(driver.state, TaskId(actor_id))
        if task is None:
            driver.functions.release(SessionId(actor_id))
            task = actors.find_named(driver.state, settings.name)
            if task is None or not request.get_if_exists:
                text = f"an actor named {settings.name!r} exists; pass get_if_exists=True to use it"
                raise ConnectError(Code.ALREADY_EXISTS, text)
        driver.post(ev.ActorWatched(driver.now(), session.id, task.spec.id))  # anew, if the controller was restarted meanwhile
        return await self._tell_actor(task)

    async def get_actor(self, request: pb.ActorRef, ctx: Ctx, /) -> pb.ActorInfo:
        driver = self._driver
        task = self._actor(request)
        if request.session_id:
            driver.post(ev.ActorWatched(driver.now(), SessionId(request.session_id), task.spec.id))
        return await self._tell_actor(task)

    async def kill_actor(self, request: pb.ActorRef, ctx: Ctx, /) -> pb.ActorInfo:
        driver = self._driver
        task = self._actor(request)
        driver.post(ev.CancelRequested(driver.now(), [task.spec.id], "it was killed"))
        return await self._tell_actor(task)

    async def list_actors(self, request: pb.Empty, ctx: Ctx, /) -> pb.ActorList:
        state, now = self._driver.state, self._driver.now()
        infos = [convert.actor_to_wire(state, task, now) for task in actors.list_all(state)]
        for info in infos:
            info.failure = b""  # for whoever created it
        return pb.ActorList(actors=infos)

    # --- workers

    async def register_worker(self, request: pb.WorkerInfo, ctx: Ctx, /) -> pb.RegisterWorkerResponse:
        driver = self._driver
        worker = WorkerId(_checked(request.worker_id, "worker_id"))
        incarnation = Incarnation(_checked(request.incarnation or request.worker_id, "incarnation"))
        capacity = dict(request.resources) or {"cpu": float(request.cpu_cores), "memory": float(request.memory_bytes)}
        try:
            TaskOptions(resources=capacity)
        except ConfigurationError as error:
            raise ConnectError(Code.INVALID_ARGUMENT, f"worker {worker}: {error}") from error
        tags = dict(request.tags)
        if tags.get("preemptible", "").lower() in ("", "0", "false", "no", "off"):
            capacity[STABLE] = PLENTY
        driver.post(
            ev.WorkerRegistered(driver.now(), incarnation, worker, capacity, request.address, request.lane_address, tags)
        )
        if incarnation not in driver.state.workers:
            raise ConnectError(Code.NOT_FOUND, f"worker incarnation {incarnation!r} is over: register with a new one")
        await driver.saver.wait_saved()
        return pb.RegisterWorkerResponse(
            storage_url=driver.storage_root,
            heartbeat_s=min(HEARTBEAT_S, driver.state.limits.silence_s / 5),
            lease_s=driver.state.limits.silence_s * LEASE_SHARE,
        )

    async def attach(self, request: pb.AttachRequest, ctx: Ctx, /) -> AsyncIterator[pb.Commands]:
        driver = self._driver
        incarnation = Incarnation(request.incarnation)
        if incarnation not in driver.state.workers:
            raise ConnectError(
                Code.NOT_FOUND, f"worker incarnation {incarnation!r} is not registered, or was given up: register"
            )
        channel = driver.worker_channel(incarnation)
        if request.number:
            if request.number <= channel.last_attachment:
                raise ConnectError(
                    Code.UNAVAILABLE, f"attachment {request.number} comes late: {channel.last_attachment} came before"
                )
            channel.last_attachment = request.number
        reader = channel.claim()
        channel.discard_unsent()
        is_new = request.generation != driver.generation
        held = [(TaskId(ref.task_id), ref.attempt) for ref in (*request.held, *(request.told if is_new else ()))]
        driver.post(ev.WorkerAttached(driver.now(), incarnation, held))
        try:
            async for _ in channel.wakeups(reader):
                starts, functions = self._starts(channel)
                stop, reclaim, forget = channel.take_rest()
                yield pb.Commands(
                    start=starts,
                    stop=stop,
                    reclaim=reclaim,
                    functions=functions,
                    forget_functions=forget,
                    calls=channel.take_calls(),
                    ended_sessions=channel.take_ended_sessions(),
                    generation=driver.generation,
                    saved_report=channel.reports.latest(driver.saver.is_saved),
                )
        finally:
            if channel.is_reader(reader):
                driver.post(ev.WorkerDetached(driver.now(), incarnation))

    async def report(self, request: pb.ReportRequest, ctx: Ctx, /) -> pb.ReportResponse:
        driver = self._driver
        incarnation = Incarnation(request.incarnation)
        if incarnation not in driver.state.workers:
            driver.state.stats["stale reports refused"] += max(1, len(request.outcomes))
            return pb.ReportResponse(fenced=True)
        if incarnation in driver.state.awaited:
            driver.post(ev.WorkerReported(driver.now(), incarnation))
            raise ConnectError(Code.ABORTED, f"{RESTARTED} {driver.generation}: attach before reporting")
        channel = driver.worker_channel(incarnation)
        if request.number:
            if request.number <= channel.last_report:  # the later one has told all of it, or it is a repetition
                driver.state.stats["reports repeated"] += 1
                return self._acknowledge(channel)
            channel.last_report = request.number
        for lines in request.logs:
            driver.session_channel(SessionId(lines.session_id)).add_logs(lines)
        for answers in request.answers:
            driver.session_channel(SessionId(answers.caller)).answer(answers)
        driver.post(
            ev.WorkerReported(
                driver.now(),
                incarnation,
                [convert.outcome_from_wire(outcome) for outcome in request.outcomes],
                [(TaskId(ref.task_id), ref.attempt) for ref in request.blocked],
                [(TaskId(ref.task_id), ref.attempt) for ref in request.unblocked],
                request.draining,
                [(TaskId(ref.task_id), ref.attempt) for ref in request.created],
            )
        )
        channel.reports.add(request.number, driver.saver.mark())
        if request.leaving:
            driver.post(ev.WorkerLeft(driver.now(), incarnation))
            await driver.saver.wait_saved()
        elif request.draining:  # it waits to be let go
            driver.saver.when_saved(channel.wake)
        return self._acknowledge(channel)

    async def report_task_complete(self, request: pb.TaskHandle, ctx: Ctx, /) -> pb.Empty:
        return await self._report_one(request, OutcomeKind.FINISHED)

    async def report_task_failed(self, request: pb.TaskHandle, ctx: Ctx, /) -> pb.Empty:
        return await self._report_one(request, OutcomeKind.FAILED)

    async def list_workers(self, request: pb.Empty, ctx: Ctx, /) -> pb.WorkerList:
        now = self._driver.now()
        return pb.WorkerList(workers=[convert.worker_to_wire(worker, now) for worker in self._driver.state.workers.values()])

    async def get_status(self, request: pb.Empty, ctx: Ctx, /) -> pb.ClusterStatus:
        state = self._driver.state
        tasks: dict[str, int] = {}
        for task in state.tasks.values():
            if task.actor is not None:
                continue
            name = convert.STATUS_OF_STATE[task.state].name
            tasks[name] = tasks.get(name, 0) + 1
        return pb.ClusterStatus(
            controller_id=self._driver.controller_id,
            version=fray.__version__,
            uptime_s=self._driver.now() - self._driver.started_at,
            sessions=sum(1 for session in state.sessions.values() if not (session.anonymous or session.detached)),
            tasks=tasks,
            actors=dict(Counter(task.actor.state.name for task in actors.list_all(state) if task.actor is not None)),
            stats=dict(state.stats),
            capacity=_total(worker.capacity for worker in state.workers.values()),
            used=_total(worker.used for worker in state.workers.values()),
            workers=len(state.workers),
            state_path=self._driver.saver.path,
            trouble=self._driver.saver.trouble,
        )

    # --- translation

    def _acknowledge(self, channel: WorkerChannel) -> pb.ReportResponse:
        saved = channel.reports.latest(self._driver.saver.is_saved)
        return pb.ReportResponse(generation=self._driver.generation, saved_report=saved)

    def _check_saving(self) -> None:
        if self._driver.saver.trouble:
            raise ConnectError(Code.RESOURCE_EXHAUSTED, f"no new work is taken: {self._driver.saver.trouble}")

    async def _tell_actor(self, task: Task) -> pb.ActorInfo:
        """Return how an actor is now, when that is saved: nobody may learn of a life that a restart would take back."""
        info = convert.actor_to_wire(self._driver.state, task, self._driver.now())
        await self._driver.saver.wait_saved()
        return info

    def _session(self, session_id: SessionId) -> Session:
        session = self._driver.state.sessions.get(session_id)
        if session is None or session.closed:
            raise ConnectError(Code.NOT_FOUND, f"{SESSION_UNKNOWN}: the controller has no session {session_id!r}")
        return session

    def _root(self, session_id: SessionId) -> SessionId:
        """Return the session that a task's session belongs to in the end: actors made in tasks live as long as that."""
        sessions = self._driver.state.sessions
        while (session := sessions.get(session_id)) is not None and session.parent in sessions:
            session_id = session.parent
        return session_id

    def _actor(self, ref: pb.ActorRef) -> Task:
        state = self._driver.state
        task = actors.find(state, TaskId(ref.actor_id)) if ref.actor_id else actors.find_named(state, ref.name)
        if task is None:
            who = f"has the id {ref.actor_id!r}" if ref.actor_id else f"is named {ref.name!r}"
            raise ConnectError(Code.NOT_FOUND, f"no actor {who}; `fray actors` lists the known")
        return task

    def _has_ended(self, task_id: TaskId) -> bool:
        """Whether a task ended not long ago and its client has the result."""
        return any(ended.id == task_id for ended in self._driver.state.history)

    def _task(self, task_id: str) -> Task | EndedTask:
        task = self._driver.state.tasks.get(TaskId(task_id)) or actors.find(self._driver.state, TaskId(task_id))
        if task is not None:
            return task
        for ended in reversed(self._driver.state.history):
            if ended.id == task_id:
                return ended
        raise ConnectError(
            Code.NOT_FOUND, f"no task {task_id!r}: it never was, or ended long ago; `fray tasks` lists the known"
        )

    def _spec(self, spec: pb.TaskSpec, session: Session, task_id: str | None = None) -> TaskSpec:
        try:
            converted = convert.spec_from_wire(spec, session.id, _checked(task_id or spec.task_id, "task_id"))
        except ConfigurationError as error:
            raise ConnectError(Code.INVALID_ARGUMENT, str(error)) from error
        if not self._driver.functions.has(converted.function_id):
            raise ConnectError(
                Code.INVALID_ARGUMENT, f"task {converted.id}: unknown function {converted.function_id!r}: send its code"
            )
        refusal = find_refusal(self._driver.state, session, 1, len(converted.payload))
        if refusal is not None:
            raise ConnectError(Code.RESOURCE_EXHAUSTED, refusal)
        return converted

    def _starts(self, channel: WorkerChannel) -> tuple[list[pb.StartTask], list[pb.Function]]:
        """Return the next attempts to start, as many as one message should hold, and the code they need."""
        state, known = self._driver.state, channel.known_functions
        starts: list[pb.StartTask] = []
        functions: list[pb.Function] = []
        size = 0
        while len(starts) < BATCH_ITEMS and size < BATCH_BYTES and (task := channel.take_start()) is not None:
            function_id = task.spec.function_id
            if function_id not in known:
                code = self._driver.functions.find(function_id)
                if code is not None:
                    known.add(function_id)
                    functions.append(pb.Function(function_id=function_id, code=code))
                    size += len(code)
            values = [state.tasks[dependency].result for dependency in task.spec.dependencies]
            size += len(task.spec.payload) + sum(map(len, values))
            session = state.sessions.get(task.spec.session)
            starts.append(convert.start_to_wire(task, values, session is not None and session.logs))
        return starts, functions

    async def _report_one(self, request: pb.TaskHandle, kind: OutcomeKind) -> pb.Empty:
        incarnation = Incarnation(request.incarnation or request.worker_id)
        if incarnation not in self._driver.state.workers:
            raise ConnectError(Code.NOT_FOUND, f"worker incarnation {incarnation!r} is not registered")
        outcome = Outcome(TaskId(request.task_id), request.attempt, kind, request.result_data, request.error, retryable=True)
        self._driver.post(ev.WorkerReported(self._driver.now(), incarnation, [outcome]))
        await self._driver.saver.wait_saved()
        return pb.Empty()

    def _handle(self, task_id: str) -> pb.TaskHandle:
        return self._any_to_wire(self._task(task_id))

    def _any_to_wire(self, task: Task | EndedTask) -> pb.TaskHandle:
        now = self._driver.now()
        if isinstance(task, Task):
            return convert.handle_to_wire(self._driver.state, task, now)
        return pb.TaskHandle(
            task_id=task.id,
            status=convert.STATUS_OF_STATE[task.state],
            error=task.message,
            name=task.name,
            session_id=task.session,
            attempt=task.attempt,
            age_s=now - task.submitted_at,
        )


def _checked(text: str, field: str) -> str:
    if not text or len(text) > MAX_NAME_CHARS or not text.isprintable() or "/" in text or text.startswith("."):
        raise ConnectError(
            Code.INVALID_ARGUMENT,
            f"{field} {text[:40]!r}: give 1 to {MAX_NAME_CHARS} printable characters, without '/' and not beginning with '.'",
        )
    return text


def _total(amounts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in amounts:
        for name, amount in one.items():
            if name == STABLE:
                continue
            total[name] = total.get(name, 0.0) + amount
    return total
