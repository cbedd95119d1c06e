"""The owner of the controller's state: feeds events to the core on one event loop, performs the effects, keeps one timer.

No locks: everything here runs on the loop, and nothing awaits between reading and writing the state. What has changed is saved
behind the work, in groups. Acknowledgements wait for that; so does what could not be taken back if the controller ended
before: what others are told of actors, the start of an actor's life, and the deletion of storage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from fray.clock import Clock, SystemClock
from fray.job.rpc.controller.channels import SessionChannel, WorkerChannel
from fray.job.rpc.controller.core import actors, apply, next_deadline
from fray.job.rpc.controller.core import effects as fx
from fray.job.rpc.controller.core.events import Event, SessionOpened, TimePassed
from fray.job.rpc.controller.core.machine import ANONYMOUS_SESSION
from fray.job.rpc.controller.core.model import Limits, State, Task
from fray.job.rpc.controller.core.restore import restore
from fray.job.rpc.controller.functions import FunctionStore
from fray.job.rpc.controller.journal import Journal, Saved
from fray.job.rpc.controller.saver import Saver
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire import convert
from fray.job.rpc.wire.settings import ACTORS_DIRECTORY
from fray.payloads import PayloadStore
from fray.types import Incarnation, SessionId, TaskId

LATE_WRITES_S = 5.0
"""How long after its end, beyond what it takes to notice that, an actor may still write a checkpoint."""

LATE_S = 0.5
"""A timer that fires so late tells that this process did not run, and has not heard what others said meanwhile."""

log = logging.getLogger("fray.controller")


class Driver:
    """Runs the core. All methods belong to the event loop it was started on."""

    def __init__(
        self,
        storage_root: str,
        limits: Limits,
        saved: Saved,
        journal: Journal | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Go on with what was saved; without a journal nothing more is."""
        self.clock = clock or SystemClock()
        self.controller_id = saved.controller_id
        self.generation = saved.generation
        self.started_at = self.clock.now()
        offset_s = self.clock.wall() - self.started_at
        self.state = State(limits)
        if journal is not None:
            self.state = restore(saved.rows, limits, self.started_at, offset_s, saved.generation)
        self.functions = FunctionStore(saved.code, saved.users)
        self.saver = Saver(journal, self.state, self.functions, offset_s)
        self.saver.on_trouble = self._tell_trouble
        self.workers: dict[Incarnation, WorkerChannel] = {}
        self.sessions: dict[SessionId, SessionChannel] = {}
        self.storage_root = f"{storage_root.rstrip('/')}/{saved.controller_id}"
        self._cleanups: dict[SessionId, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._listening_until = 0.0
        self._waiters: dict[TaskId, list[asyncio.Future[None]]] = {}
        self._ends_seen = 0
        self._stopped = False

    async def start(self) -> None:
        """Begin."""
        self.post(SessionOpened(self.now(), ANONYMOUS_SESSION, "callers without a session", anonymous=True))
        for part in await asyncio.to_thread(_list_parts, self.storage_root):  # of sessions that ended as the controller did
            if part not in self.state.sessions:
                self._delete_later(SessionId(part))

    async def stop(self) -> None:
        """End all streams, save what is left; delete the storage, unless sessions are to go on with the saved state."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for channel in (*self.workers.values(), *self.sessions.values()):
            channel.close()
        is_over = not self.saver.path or not (self.state.tasks or len(self.state.sessions) > 1)
        await self.saver.close()
        await asyncio.gather(*self._cleanups.values(), return_exceptions=True)
        if is_over:
            await asyncio.to_thread(_delete_storage, self.storage_root)

    def now(self) -> float:
        """Return the time for an event."""
        return self.clock.now()

    def post(self, event: Event) -> None:
        """Apply an event and perform what follows, at once."""
        for effect in apply(self.state, event):
            self._perform(effect)
        self.saver.step()
        self._arm()
        if self._waiters:
            self._release_waiters()

    def worker_channel(self, incarnation: Incarnation) -> WorkerChannel:
        """Return the commands waiting for a worker; for one that is gone, a channel that nobody reads."""
        channel = self.workers.get(incarnation)
        if channel is None:
            channel = WorkerChannel()
            if incarnation in self.state.workers:
                self.workers[incarnation] = channel
        return channel

    def session_channel(self, session: SessionId) -> SessionChannel:
        """Return what waits for a session besides results; for one that is gone, a channel that nobody reads."""
        channel = self.sessions.get(session)
        if channel is None:
            channel = SessionChannel()
            if session in self.state.sessions:
                self.sessions[session] = channel
        return channel

    def session_storage(self, session: SessionId) -> str:
        """Return the URL of a session's directory."""
        return f"{self.storage_root}/{session}"

    def relay(self, calls: pb.ActorCalls) -> None:
        """Pass calls on to the worker of an actor, or tell the caller that the incarnation is gone."""
        task = actors.find(self.state, TaskId(calls.actor_id))
        if task is not None and task.worker is not None and actors.is_ready(task, calls.incarnation):
            self.worker_channel(task.worker).call(calls)
            return
        gone = pb.ActorAnswers(actor_id=calls.actor_id, incarnation=calls.incarnation, caller=calls.caller, gone=True)
        self.session_channel(SessionId(calls.caller)).answer(gone)

    async def wait_ended(self, tasks: Iterable[TaskId], timeout_s: float) -> None:
        """Return when all the tasks have ended or are unknown, or after ``timeout_s``."""
        loop = asyncio.get_running_loop()
        futures = []
        for task_id in tasks:
            task = self.state.tasks.get(task_id)
            if task is not None and not task.state.is_final:
                future = loop.create_future()
                self._waiters.setdefault(task_id, []).append(future)
                futures.append(future)
        try:
            if futures:
                await asyncio.wait(futures, timeout=timeout_s)
        finally:
            for future in futures:
                future.cancel()

    async def wait_cleaned(self, session: SessionId, timeout_s: float) -> None:
        """Return when the storage of an ended session is deleted, or after ``timeout_s``."""
        cleanup = self._cleanups.get(session)
        if cleanup is not None:
            await asyncio.wait([cleanup], timeout=timeout_s)

    def _perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StartTasks(incarnation, tasks):
                self._start(incarnation, tasks)
            case fx.WakeSession(session):
                channel = self.sessions.get(session)
                if channel is not None:
                    channel.wake()
            case fx.StopTasks(incarnation, attempts):
                self._stop(incarnation, attempts)
            case fx.ReclaimTasks(incarnation, attempts):
                self.worker_channel(incarnation).reclaim(attempts)
            case fx.DisconnectWorker(incarnation):
                gone = self.workers.pop(incarnation, None)
                if gone is not None:
                    gone.close()
            case fx.NotifySession(session, text):
                log.warning("%s", text)
                self.session_channel(session).notify(text)
            case fx.TellActor(session, actor):
                info = convert.actor_to_wire(self.state, actor, self.now())
                self.saver.when_saved(lambda: self.session_channel(session).tell_actor(info))
            case fx.EndActor(actor):
                self.saver.when_saved(lambda: self._delete_actor(actor.spec.session, actor.spec.id))
            case fx.EndSession(session):
                self._end_session(session)

    def _start(self, incarnation: Incarnation, tasks: list[Task]) -> None:
        attempts = [(task, task.attempt) for task in tasks if task.actor is None]
        if attempts:
            self.worker_channel(incarnation).start(attempts)
        if len(attempts) < len(tasks):  # no two lives of an actor may have the same number: a start is saved first
            lives = [(task, task.attempt) for task in tasks if task.actor is not None]
            self.saver.when_saved(lambda: self.worker_channel(incarnation).start(lives))

    def _stop(self, incarnation: Incarnation, attempts: list[tuple[TaskId, int]]) -> None:
        channel = self.worker_channel(incarnation)
        if any(task_id in self.state.tasks and self.state.tasks[task_id].actor is not None for task_id, _ in attempts):
            self.saver.when_saved(lambda: channel.stop(attempts))  # not before the start that it ends
        else:
            channel.stop(attempts)

    def _tell_trouble(self, text: str) -> None:
        for session in self.sessions.values():
            session.notify(f"the controller takes no new work until it can save its state: {text}")

    def _end_session(self, session: SessionId) -> None:
        channel = self.sessions.pop(session, None)
        if channel is not None:
            channel.close()
        for incarnation, worker in self.state.workers.items():
            if worker.actors:
                self.worker_channel(incarnation).end_session(session)
        forgotten = self.functions.release(session)
        if forgotten:
            for channel_of_worker in self.workers.values():
                channel_of_worker.forget(forgotten)
        self.saver.when_saved(lambda: self._delete_later(session))

    def _delete_actor(self, session: SessionId, actor: TaskId) -> None:
        """Delete an actor's checkpoints, and once more when a life of it that was paused has surely noticed its end."""
        part = SessionId(f"{session}/{ACTORS_DIRECTORY}/{actor}")
        self._delete_later(part)

        def delete_again() -> None:
            if not self._stopped:
                self._delete_later(part if session in self.state.sessions else session)

        asyncio.get_running_loop().call_later(LATE_WRITES_S + 2 * self.state.limits.silence_s, delete_again)

    def _delete_later(self, part: SessionId) -> None:
        """Delete the storage of a session, or a part of it, on another thread; parts of it go before the whole."""
        parts = [cleanup for other, cleanup in self._cleanups.items() if other.startswith(f"{part}/")]

        async def delete() -> None:
            await asyncio.gather(*parts, return_exceptions=True)
            await asyncio.to_thread(_delete_storage, self.session_storage(part))

        cleanup = asyncio.create_task(delete())
        self._cleanups[part] = cleanup
        cleanup.add_done_callback(lambda _: self._cleanups.pop(part, None))

    def _arm(self) -> None:
        """Keep one timer, for the core's next deadline."""
        when = next_deadline(self.state)
        if when is None or self._stopped:
            return
        when = max(when, self._listening_until)
        if self._timer is not None and self._timer_at <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - self.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._stopped:
            return
        now = self.now()
        late_s = now - self._timer_at
        if late_s > LATE_S and self._listening_until < self._timer_at:  # else it has just listened, and is busy
            log.warning("the controller did not run for %.1f s; it listens before it judges others", late_s)
            self._listening_until = now + min(late_s, self.state.limits.silence_s)
            self._arm()
        else:
            self.post(TimePassed(now))

    def _release_waiters(self) -> None:
        """Tell those that wait for tasks that have ended; look only when some have."""
        stats = self.state.stats
        ends = stats["tasks finished"] + stats["tasks failed"] + stats["tasks cancelled"]
        if ends == self._ends_seen:
            return
        self._ends_seen = ends
        for task_id, futures in list(self._waiters.items()):
            task = self.state.tasks.get(task_id)
            waiting = [future for future in futures if not future.done()]
            if task is None or task.state.is_final:
                for future in waiting:
                    future.set_result(None)
                waiting = []
            if waiting:
                self._waiters[task_id] = waiting
            else:
                del self._waiters[task_id]


def _list_parts(url: str) -> list[str]:
    """Return the names of what is kept directly below a URL."""
    try:
        return PayloadStore(url).list_parts()
    except Exception as error:  # as below
        log.warning("could not look for what is left over in %s: %s: %s", url, type(error).__name__, error)
        return []


def _delete_storage(url: str) -> None:
    try:
        PayloadStore(url).delete()
    except Exception as error:  # storage of any kind may fail in any way; what stays is named
        log.warning("could not remove %s: %s: %s", url, type(error).__name__, error)
