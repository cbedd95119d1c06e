"""A client's session with a controller: one lane that sends, one stream that receives.

Sending: the first task of an idle client goes out at once from the calling thread; while a call is in flight, others gather
and go together in the next one (``Outbox``). One request is in flight at a time, so requests arrive in order; each carries a
number, so that repeating one changes nothing. Receiving: results are pushed, acknowledged by number with the next request,
and then forgotten by the controller. A broken stream is opened again behind the last result. A controller that was restarted
numbers its results anew: all that it has come again, and what it had not saved is sent again.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from fray.errors import (
    AuthError,
    ConfigurationError,
    ContextClosed,
    DeadlineExceeded,
    FrayError,
    InternalError,
    TaskLost,
    TransportError,
    Unavailable,
    VersionMismatch,
)
from fray.job.rpc import lineage
from fray.job.rpc.actors.handle import binding
from fray.job.rpc.actors.hub import ActorHub
from fray.job.rpc.futures import FrayFuture, to_exception
from fray.job.rpc.outbox import Entry, Outbox, Request
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.wire.errors import Refused, Restarted, SessionUnknown, unreachable
from fray.job.rpc.wire.settings import BATCH_BYTES, BATCH_ITEMS, CALL_TIMEOUT_S
from fray.payloads import PayloadStore, derive_key
from fray.serialization import PackedCallable
from fray.types import SessionId, TaskId

log = logging.getLogger("fray.client")

RECONNECT_S = 300.0
"""How long a client tries to reach a controller that it has lost: long enough for somebody to start it again."""
OPEN_S = 1.0
"""How long a client tries to reach a controller that it has not met: a message may get lost, or the controller be starting."""
WORRY_S = 5.0
"""After so long without its controller a client tells the person that it waits."""
ACK_DELAY_S = 0.5
"""Results are acknowledged after so long if no other request takes the acknowledgement along."""
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.05, 1.0
"""Between attempts to reach the controller."""
CLOSE_TIMEOUT_S = 10.0
"""How long ``close`` waits for the controller to say goodbye."""


class Session:
    """One session. Thread-safe."""

    def __init__(self, address: str, token: str, show_logs: bool) -> None:
        self.id = SessionId(f"s{secrets.token_hex(6)}")
        self.address = address
        self._client = ControllerClient(address, token)
        self._key = derive_key(token)
        self._show_logs = show_logs
        self.store = PayloadStore("", self._key)
        self._changed = threading.Condition()  # guards all fields below
        self._futures: dict[TaskId, FrayFuture] = {}
        self._outbox = Outbox()
        self._sending = False
        self._held_bytes = 0
        self._max_bytes = self._max_tasks = 0
        self.actors = ActorHub(self, token)
        self.actors_url = ""
        """Where what belongs to actors created here is kept."""
        self._last_result_at = 0.0
        self._unread_bytes = 0
        """Of results that arrived since the latest request."""
        self._sender_rests = False
        self._room_wanted = 0
        self._counter = 0
        self._closed = False
        self._failure: FrayError | None = None
        self._stopping = threading.Event()
        self._sender = threading.Thread(target=self._send_loop, name="fray-send", daemon=True)
        self._watcher = threading.Thread(target=self._watch_loop, name="fray-watch", daemon=True)

    def open(self) -> None:
        """Introduce the client to the controller. Blocks.

        Raises:
            Unavailable, AuthError, VersionMismatch: if the controller cannot be used; says what to do.
        """
        request = pb.OpenSessionRequest(
            session_id=self.id,
            name=f"{sys.argv[0] or 'python'} (pid {os.getpid()} on {socket.gethostname()})"[-200:],
            parent_id=lineage.current_session(),
            logs=self._show_logs,
        )
        try:
            # A task's controller was there a moment ago, and will be again; anybody else's may not be running.
            answer = self.ask("open_session", request, RECONNECT_S if request.parent_id else OPEN_S)
        except SessionUnknown as error:
            self._client.close()
            raise ContextClosed("the session of the task that runs here has ended") from error
        except Unavailable as error:
            self._client.close()
            raise unreachable(self.address, error) from error
        except BaseException:
            self._client.close()
            raise
        self.store = PayloadStore(answer.storage_url, self._key)
        self._max_bytes = answer.max_bytes // 2  # the other half is for results
        self._max_tasks = answer.max_tasks
        self.actors_url = answer.actors_url
        self._outbox.begin_generation(answer.generation)
        self._sender.start()
        self._watcher.start()

    def submit(
        self, function: PackedCallable, name: str, build: Callable[[], tuple[pb.TaskSpec, list[FrayFuture]]]
    ) -> FrayFuture:
        """Send a task. Blocks only while the session has more at the controller than it may.

        ``build`` makes the spec and names the unsettled futures it depends on; it is called again if one of them settles
        before the task is in the lane.

        Raises:
            ContextClosed: after ``close``, or when the controller is lost for good.
        """
        while True:
            spec, dependencies = build()
            size = len(spec.serialized_data)
            with self._changed:
                self._wait_for_room(size)
                if any(dependency.settled for dependency in dependencies):
                    continue
                self._counter += 1
                task_id = TaskId(f"{self.id}-{self._counter}")
                spec.task_id = task_id
                future = FrayFuture(task_id, name, size, self.unpack, self._cancel)
                was_idle = not self._futures
                self._futures[task_id] = future
                self._held_bytes += size
                outbox = self._outbox
                inline = was_idle and not self._sending and not outbox.has_unsent()
                received_seq = outbox.received_seq
                outbox.entries.append(Entry(task_id, spec, size, function.function_id, function.code, received_seq))
                if inline:
                    self._sending = True
                elif not self._sending:
                    self._changed.notify_all()
            if inline:
                self._send_once()
            return future

    def unpack(self, payload: bytes) -> Any:
        """Return the value of a payload; handles of actors in it belong to this session. Blocks on storage."""
        with binding(self):
            return self.store.unpack(payload)

    def ask(self, method: str, request: Any, patience_s: float = RECONNECT_S) -> Any:
        """Make a call that may be repeated; goes on trying while the controller cannot be reached. Blocks.

        Raises:
            FrayError: what the controller answers; Unavailable after ``patience_s``.
        """
        end = time.monotonic() + patience_s
        while True:
            try:
                return self._client.call(method, request, timeout_s=min(CALL_TIMEOUT_S, 10 * patience_s))
            except Refused:  # full: it makes room as tasks end
                self.check_open()
                self._stopping.wait(MIN_BACKOFF_S)
            except (Unavailable, DeadlineExceeded) as error:
                if time.monotonic() > end or self._stopping.wait(4 * MIN_BACKOFF_S):
                    raise
                log.info("%s; trying again", error)

    def ask_actor(self, method: str, request: pb.ActorRef) -> pb.ActorInfo:
        """Ask for an actor; as ``ask``."""
        info: pb.ActorInfo = self.ask(method, request)
        return info

    def send(self, calls: pb.ActorCalls) -> None:
        """Send calls of an actor through the controller. Does not block."""
        with self._changed:
            self._outbox.calls.append(calls)
            self._changed.notify_all()

    @property
    def is_broken(self) -> bool:
        """As a way to actors: never, as the session looks after its own connection."""
        return False

    @property
    def delivers_once(self) -> bool:
        """As a way to actors: not so, as a request without an answer is repeated."""
        return False

    def is_own_thread(self) -> bool:
        """Whether this is the thread that delivers results."""
        return threading.current_thread() is self._watcher

    def check_open(self) -> None:
        """Raise ContextClosed if the session has ended."""
        if self._closed:
            raise ContextClosed("this fray context is closed; create a new one")
        if self._failure is not None:
            raise ContextClosed(f"this fray context has lost its controller: {self._failure}") from self._failure

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._closed or self._failure is not None

    def close(self) -> None:
        """Cancel what is not done, end the session, release everything. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            futures = list(self._futures.values())
            self._outbox.entries.clear()
            self._changed.notify_all()
        self._stopping.set()
        for future in futures:
            future.cancel()
        self.actors.close()
        try:
            if self._failure is None:
                self._client.call("close_session", pb.SessionRef(session_id=self.id), timeout_s=CLOSE_TIMEOUT_S)
        except TransportError as error:
            log.info("the session could not be closed: %s", error)
        for thread in (self._sender, self._watcher):
            if thread is not threading.current_thread():
                thread.join(CLOSE_TIMEOUT_S)
        self._client.close()

    # --- sending

    def _wait_for_room(self, size: int) -> None:
        """Wait, with the lock held, until the session may have ``size`` more bytes and one more task."""
        while True:
            self.check_open()
            full = self._held_bytes + size > self._max_bytes or len(self._futures) >= self._max_tasks
            if not self._futures or not full or threading.current_thread() is self._watcher:
                return
            self._room_wanted += 1
            self._changed.wait()
            self._room_wanted -= 1

    def _send_loop(self) -> None:
        while True:
            with self._changed:
                while not self._may_send():
                    if self._closed or self._failure is not None:
                        return
                    self._sender_rests = self._outbox.received_seq == self._outbox.acked_seq
                    self._changed.wait(None if self._sender_rests else ACK_DELAY_S)
                    self._sender_rests = False
                self._sending = True
            self._send_once()

    def _may_send(self) -> bool:
        if self._sending or self._closed or self._failure is not None:
            return False
        outbox = self._outbox
        return outbox.has_news() or (outbox.received_seq > outbox.acked_seq and self._quiet())

    def _quiet(self) -> bool:
        """Whether acknowledgements need a request of their own: many, large ones, or nobody else sends."""
        if self._outbox.received_seq - self._outbox.acked_seq >= BATCH_ITEMS or self._unread_bytes >= BATCH_BYTES:
            return True
        return time.monotonic() - self._last_result_at >= ACK_DELAY_S

    def _send_once(self) -> None:
        """Send one request. The caller has set ``_sending``."""
        with self._changed:
            request, self._unread_bytes = self._outbox.next(), 0
            message, generation = self._to_wire(request), request.generation
        backoff_s = 0.0
        try:
            answer = self._client.call("submit_tasks", message)
        except Refused:
            backoff_s = MIN_BACKOFF_S
            self._make_room(request)
        except Restarted as error:
            self._begin_generation(error.generation)
        except (SessionUnknown, AuthError, VersionMismatch, ConfigurationError, InternalError) as error:
            self._fail(error)
        except TransportError as error:
            log.info("%s; trying again", error)
            backoff_s = 4 * MIN_BACKOFF_S
        else:
            with self._changed:
                self._outbox.sent(request, generation, answer.saved)
        if backoff_s:
            self._stopping.wait(backoff_s)
        with self._changed:
            self._sending = False
            if self._may_send():
                self._changed.notify_all()

    def _to_wire(self, request: Request) -> pb.SubmitTasksRequest:
        return pb.SubmitTasksRequest(
            session_id=self.id,
            batch=request.batch,
            tasks=request.tasks,
            functions=[pb.Function(function_id=function_id, code=code) for function_id, code in request.functions.items()],
            acked_seq=request.acked_seq,
            cancel=request.cancels,
            calls=request.calls,
            generation=request.generation,
        )

    def _make_room(self, refused: Request) -> None:
        """Make room at a controller that has none: tell it which results it can forget and what to cancel."""
        with self._changed:
            request = self._outbox.make_room(refused)
        try:
            self._client.call("submit_tasks", self._to_wire(request))
        except TransportError as error:
            log.info("%s; trying again", error)
            with self._changed:
                self._outbox.put_back(request)

    def _begin_generation(self, generation: int) -> None:
        """Take note of the controller's present life."""
        with self._changed:
            if self._outbox.begin_generation(generation):
                log.warning("the controller at %s was restarted; what it had not saved is sent again", self.address)
                self._changed.notify_all()

    def _cancel(self, future: Any) -> None:
        with self._changed:
            known = self._futures.pop(future.task_id, None)
            if known is None:
                return
            self._held_bytes -= known.size_bytes
            known.settled = True
            self._outbox.cancels.append(future.task_id)
            self._changed.notify_all()

    # --- receiving

    def _watch_loop(self) -> None:
        lost_at: float | None = None
        is_told = False
        backoff_s = MIN_BACKOFF_S
        streams = 0
        while not self._closed and self._failure is None:
            streams, is_new = streams + 1, True
            try:
                for events in self._client.watch(self._watch_request()):
                    lost_at, backoff_s = None, MIN_BACKOFF_S
                    self._take(events)
                    if is_new and streams > 1:
                        self.actors.resync()
                    is_new = False
            except (SessionUnknown, AuthError, VersionMismatch, InternalError) as error:
                self._fail(error)
                return
            except TransportError as error:
                log.info("%s", error)
            if self._closed:
                return
            now = time.monotonic()
            if lost_at is None:
                lost_at, is_told = now, False
            elif now - lost_at > WORRY_S and not is_told:
                is_told = True
                print(f"fray: the controller at {self.address} does not answer; waiting for it", file=sys.stderr)
            elif now - lost_at > RECONNECT_S:
                self._fail(Unavailable(f"the controller at {self.address} has not answered for {RECONNECT_S:g} s"))
                return
            self._stopping.wait(backoff_s)
            backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)

    def _watch_request(self) -> pb.WatchTasksRequest:
        with self._changed:
            after_seq, generation = self._outbox.received_seq, self._outbox.generation
        return pb.WatchTasksRequest(session_id=self.id, after_seq=after_seq, generation=generation)

    def _take(self, events: pb.TaskEvents) -> None:
        self._begin_generation(events.generation)
        if events.generation < self._outbox.generation:
            return  # the last words of an earlier life: the present one tells all of it again
        if self._outbox.kept:
            with self._changed:
                self._outbox.forget(events.saved_batch)
        for notice in events.notices:
            print(f"fray: {notice}", file=sys.stderr)
        for lines in events.logs:
            _show(lines)
        for answers in events.answers:
            self.actors.take_answers(answers)
        for info in events.actors:
            self.actors.take_info(info)
        if not events.results:
            return
        ended = []
        with self._changed:
            for result in events.results:
                future = self._futures.pop(TaskId(result.task_id), None)
                if future is None:
                    continue
                self._held_bytes -= future.size_bytes
                self._unread_bytes += len(result.result_data)
                if result.status == pb.TaskStatus.FINISHED:
                    future.payload = result.result_data
                future.settled = True
                ended.append((future, result))
            self._outbox.received_seq = max(self._outbox.received_seq, events.last_seq)
            self._last_result_at = time.monotonic()
            if self._sender_rests or self._room_wanted or self._may_send():
                self._changed.notify_all()
        for future, result in ended:
            if future.payload is not None:
                future.resolve(None)
            else:
                future.reject(to_exception(result, future.name))

    def _fail(self, error: FrayError) -> None:
        """Give up: no future may hang."""
        with self._changed:
            if self._failure is not None or self._closed:
                return
            self._failure = error
            futures = list(self._futures.values())
            self._futures.clear()
            self._held_bytes = 0
            self._changed.notify_all()
        self._stopping.set()
        self.actors.fail(error)
        for future in futures:
            future.settled = True
            lost = TaskLost(f"{future.name} ({future.task_id}): the controller lost this session: {error}")
            lost.__cause__ = error
            future.reject(lost)


def _show(lines: pb.LogLines) -> None:
    stream = sys.stderr if lines.is_stderr else sys.stdout
    prefix = f"({lines.name} {lines.worker_id}) "
    try:
        stream.write("".join(prefix + line + "\n" for line in lines.text.splitlines()))
        stream.flush()
    except (OSError, ValueError):  # the stream is closed: nobody wants to read
        pass
