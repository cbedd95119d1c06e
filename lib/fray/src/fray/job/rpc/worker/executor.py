"""An executor: the process that runs user code, one task at a time, on its main thread.

It answers no RPCs and knows no controller. The main thread reads work and runs it; a second thread listens for orders that
cannot wait - stop, recall - and ends the process when the worker is gone. It is forked from the worker's template.
"""

from __future__ import annotations

import faulthandler
import io
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from fray.config import load_config
from fray.errors import DecodeError, EncodeError
from fray.job import context as job_context
from fray.job.actors import current_chain
from fray.job.calls import Interrupted, call
from fray.job.futures import current_slot
from fray.job.rpc import lineage
from fray.job.rpc.wire.settings import ACTORS_DIRECTORY
from fray.job.rpc.worker import frames
from fray.job.rpc.worker.actor_host import ActorHost
from fray.payloads import PayloadStore, derive_key
from fray.serialization import capture_failure, decode_callable, decode_json_call, encode_failure, encode_json
from fray.serialization.callables import callable_name
from fray.serialization.failures import type_name

FLUSH_S = 0.005
"""Outcomes wait for others at most so long while short tasks follow each other."""
MAX_FUNCTIONS = 1000
"""Unpacked functions kept."""


class Executor:
    """The state of this process."""

    def __init__(self, data: socket.socket, control: socket.socket, key: bytes) -> None:
        self._data, self._control, self._key = data, control, key
        self._unpacker = frames.Unpacker()
        self._send_lock = threading.Lock()  # one frame at a time on the data socket
        self._read_lock = threading.Lock()  # held by the thread that reads the data socket
        self._lock = threading.Lock()  # guards _queue and _current
        self._queue: deque[Any] = deque()
        self._current: str | None = None
        self._in_user_code = False
        self._stop_target: str | None = None
        self._code: dict[str, bytes] = {}
        self._functions: dict[str, Callable[..., Any]] = {}
        self._done: list[Any] = []
        self._flushed_at = 0.0
        self._main = threading.get_ident()
        self._lent = 0
        self.logs = True

    def serve(self) -> None:
        """Run until the worker closes the socket."""
        signal.signal(signal.SIGUSR1, self._on_stop_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self._listen, name="fray-control", daemon=True).start()
        current_slot.set(self)
        job_context.set_default_factory(lineage.default_context)
        self.send((frames.READY, os.getpid()))
        while True:
            with self._read_lock:
                self._take(self.receive())
            while (item := self._next()) is not None:
                self._run(item)
                self._poll()
            self._flush()

    # --- the slot of the running task (fray.job.futures.Slot)

    def lend(self) -> None:
        self._lent += 1
        if self._lent == 1 and self._current is not None:
            self._flush()
            self._return_queue()
            self.send((frames.BLOCKED, self._current))

    def reclaim(self) -> None:
        self._lent -= 1
        if self._lent == 0 and self._current is not None:
            self.send((frames.UNBLOCKED, self._current))

    def resume(self) -> None:
        """Do nothing: the process runs one task at a time."""

    # --- output

    def write_log(self, is_stderr: bool, text: str) -> None:
        """Send whole lines to whoever watches the current task."""
        task = self._current
        if task is not None and self.logs:
            self.send((frames.LOG, task, is_stderr, text))

    # --- running

    def _run(self, item: Any) -> None:
        task_id, session, function_id, name, payload, dependency_values, retry_on, storage_url, self.logs, chain, actor = item
        if self._flushed_at + FLUSH_S < time.perf_counter():
            self._flush()
        lineage.enter(session)
        current_chain.set(tuple(chain))
        store = PayloadStore(storage_url, self._key)
        started = time.perf_counter()
        run_s = 0.0
        try:
            fn = self._function(function_id)
            args, kwargs, is_json = _arguments(store, payload, dependency_values)
            if actor is not None:
                self._flush()
                url = f"{storage_url}/{ACTORS_DIRECTORY}/{task_id}"
                ActorHost(self, store, task_id, actor, url).serve(fn, args, kwargs)
                _end()
            started = time.perf_counter()
            try:
                self._in_user_code = True
                if self._stop_target == task_id:
                    raise Interrupted
                value = call(fn, args, kwargs)
            finally:
                self._in_user_code = False
                run_s = time.perf_counter() - started
            del args, kwargs
            result = _pack_result(store, value, name or callable_name(fn), is_json)
            outcome = (task_id, "finished", result, "", False, run_s)
        except Interrupted:
            outcome = (task_id, "cancelled", b"", "stopped", False, 0.0)
        except BaseException as error:
            failure = capture_failure(error, skip_frames=1)
            wanted = not isinstance(error, (DecodeError, EncodeError)) and _is_wanted(error, retry_on)
            message = f"{failure.type_name}: {failure.message}".splitlines()[0][:500]
            outcome = (task_id, "failed", encode_failure(failure), message, wanted, run_s)
        self._lent = 0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with self._lock:
            self._current = self._stop_target = None
        self._done.append(outcome)

    def _function(self, function_id: str) -> Callable[..., Any]:
        fn = self._functions.get(function_id)
        if fn is None:
            code = self._code.get(function_id, b"")
            fn = decode_callable(function_id, code)
            if len(self._functions) >= MAX_FUNCTIONS:
                del self._functions[next(iter(self._functions))]
            self._functions[function_id] = fn
        return fn

    def _next(self) -> Any:
        with self._lock:
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._current = item[0]
            return item

    # --- the sockets

    def receive(self) -> list[frames.Frame]:
        """Return the next frames from the worker; ends the process if the worker is gone. Blocks."""
        data = self._data.recv(1 << 18)
        if not data:
            _end()
        return self._unpacker.feed(data)

    def _take(self, received: list[frames.Frame]) -> None:
        for frame in received:
            if frame[0] == frames.RUN:
                with self._lock:
                    self._queue.extend(frame[1])
            elif frame[0] == frames.FUNCTION:
                self._code[frame[1]] = frame[2]

    def _poll(self) -> None:
        """Take further work that has arrived, without waiting."""
        if len(self._queue) > 4:
            return
        with self._read_lock:
            self._take_arrived()

    def _take_arrived(self) -> bool:
        """Take one piece of what waits in the socket; tell whether there was one. The read lock is held."""
        try:
            data = self._data.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if not data:
            _end()
        self._take(self._unpacker.feed(data))
        return True

    def _flush(self) -> None:
        self._flushed_at = time.perf_counter()
        if self._done:
            done, self._done = self._done, []
            self.send((frames.DONE, done))

    def send(self, frame: frames.Frame) -> None:
        """Send a frame to the worker; ends the process if the worker is gone. Thread-safe."""
        try:
            with self._send_lock:
                self._data.sendall(frames.pack(frame))
        except OSError:
            _end()

    def _return_queue(self) -> None:
        """Give back what has not begun, also what still waits in the socket."""
        if self._read_lock.acquire(blocking=False):
            try:
                while self._take_arrived():
                    pass
            finally:
                self._read_lock.release()
        with self._lock:
            waiting = [item[0] for item in self._queue]
            self._queue.clear()
        if waiting:
            self.send((frames.RETURNED, waiting))

    # --- orders that cannot wait

    def _listen(self) -> None:
        unpacker = frames.Unpacker()
        while True:
            try:
                data = self._control.recv(65536)
            except OSError:
                data = b""
            if not data:
                _end()
            for frame in unpacker.feed(data):
                if frame[0] == frames.RECALL:
                    self._return_queue()
                elif frame[0] == frames.STOP:
                    self._stop(frame[1])

    def _stop(self, task_id: str) -> None:
        with self._lock:
            waiting = [item for item in self._queue if item[0] == task_id]
            for item in waiting:
                self._queue.remove(item)
            running = self._current == task_id
            if running:
                self._stop_target = task_id
        if waiting:
            self.send((frames.DONE, [(task_id, "cancelled", b"", "stopped", False, 0.0)]))
        elif running:
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def _on_stop_signal(self, signum: int, frame: FrameType | None) -> None:
        # Runs on the main thread, maybe late: only the task that was meant is interrupted, and only inside user code.
        if self._in_user_code and self._current == self._stop_target:
            raise Interrupted


class _TaskStream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` of tasks: whole lines go to the worker as they are written."""

    def __init__(self, executor: Executor, is_stderr: bool) -> None:
        self._executor, self._is_stderr = executor, is_stderr
        self._partial = ""
        self._fd = 2 if is_stderr else 1

    def write(self, text: str) -> int:
        self._partial += text
        if "\n" in text:
            lines, _, self._partial = self._partial.rpartition("\n")
            self._executor.write_log(self._is_stderr, lines + "\n")
        return len(text)

    def flush(self) -> None:
        if self._partial:
            text, self._partial = self._partial, ""
            self._executor.write_log(self._is_stderr, text + "\n")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"


def _end() -> None:
    """End this process and those that tasks have started: the worker is gone, and with it whoever wanted what runs here."""
    os.killpg(0, signal.SIGKILL)


def _arguments(store: PayloadStore, payload: bytes, dependency_values: list[bytes]) -> tuple[Any, Any, bool]:
    from_json = decode_json_call(payload)
    if from_json is not None:
        return (*from_json, True)
    args, kwargs = lineage.resolve_arguments(store, payload, dependency_values)
    return args, kwargs, False


def _pack_result(store: PayloadStore, value: Any, name: str, is_json: bool) -> bytes:
    try:
        return encode_json(value) if is_json else store.pack(value)
    except EncodeError as error:
        raise EncodeError(f"the result of {name} cannot travel: {error.args[0]}") from error.__cause__


def _is_wanted(error: BaseException, retry_on: list[str]) -> bool:
    return any(type_name(kind) in retry_on for kind in type(error).__mro__)


def main(data: socket.socket, control: socket.socket) -> None:
    """Serve on these sockets until the worker is gone. The calling process does nothing else, and has no other thread."""
    key = derive_key(load_config().require_token())
    faulthandler.enable(file=2)
    executor = Executor(data, control, key)
    sys.stdout = _TaskStream(executor, False)
    sys.stderr = _TaskStream(executor, True)
    sys.argv = [sys.argv[0]]
    executor.serve()
