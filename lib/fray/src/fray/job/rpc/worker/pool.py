"""Executor processes of one worker: started, spoken to, listened to, ended. Lives on the agent's event loop.

Children are spawned, never forked: the agent's process holds threads and a network runtime that do not survive a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from fray.job.rpc.worker import frames

TAIL_LINES = 20
"""Lines of an executor's standard error that are kept to explain its death."""
EXIT_GRACE_S = 0.5
"""How long to wait for the last output of an executor that has ended."""


class _Link(asyncio.Protocol):
    """The agent's end of an executor's data socket."""

    def __init__(self, on_frame: Callable[[frames.Frame], None]) -> None:
        self._on_frame = on_frame
        self._unpacker = frames.Unpacker()
        self.transport: asyncio.WriteTransport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's transports are no subclasses

    def data_received(self, data: bytes) -> None:
        for frame in self._unpacker.feed(data):
            self._on_frame(frame)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


class ExecutorProcess:
    """One executor."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], link: _Link, control: socket.socket) -> None:
        self.number = number
        self.process = process
        self.link = link
        self.control = control
        self.known_functions: set[str] = set()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.last_item: Any = None
        """What it ended last, for output that comes after."""

    def send(self, frame: frames.Frame) -> None:
        """Send work. Does not block: what the executor does not read yet is buffered here.

        Does nothing when the executor has ended: its exit is on its way, and tells what becomes of the work.
        """
        transport = self.link.transport
        if transport is not None and not transport.is_closing():
            transport.write(frames.pack(frame))

    def order(self, frame: frames.Frame) -> None:
        """Send what cannot wait."""
        with contextlib.suppress(OSError):  # it has ended: its death is on its way
            self.control.sendall(frames.pack(frame))

    def kill(self) -> None:
        """End it at once, with the processes it may have started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class ExecutorPool:
    """All executors. Methods belong to the event loop."""

    def __init__(
        self,
        environment: dict[str, str],
        on_frame: Callable[[int, frames.Frame], None],
        on_exit: Callable[[int, str], None],
        on_output: Callable[[int, bool, str], None],
    ) -> None:
        self._environment = environment
        self._on_frame, self._on_exit, self._on_output = on_frame, on_exit, on_output
        self._executors: dict[int, ExecutorProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def find(self, number: int) -> ExecutorProcess | None:
        """Return an executor that is alive as far as we know."""
        return self._executors.get(number)

    def spawn(self, number: int) -> None:
        """Start an executor; READY or its exit follows. Does nothing once closed."""
        if self._closed:
            return
        task = asyncio.create_task(self._spawn(number), name=f"fray-executor-{number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def kill(self, number: int) -> None:
        """End an executor at once; its exit follows."""
        executor = self._executors.get(number)
        if executor is not None:
            executor.kill()

    async def close(self) -> None:
        """End all executors and wait for their ends; no new ones start."""
        self._closed = True
        while self._tasks:
            for executor in self._executors.values():
                executor.kill()
            await asyncio.wait(self._tasks, timeout=0.1)

    async def _spawn(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        data, child_data = socket.socketpair()
        control, child_control = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        fds = [child_data.fileno(), child_control.fileno()]
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - takes about 2 ms; the loop has nothing to do that is more urgent
                [sys.executable, "-m", "fray.job.rpc.worker.executor", *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=out_write,
                stderr=err_write,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            for end in (data, control):
                end.close()
            os.close(out_read)
            os.close(err_read)
            self._on_exit(number, f"it could not be started: {error}")
            return
        finally:
            child_data.close()
            child_control.close()
            os.close(out_write)
            os.close(err_write)
        data.setblocking(False)
        exited = _watch_exit(loop, process.pid)
        _, link = await loop.connect_accepted_socket(lambda: _Link(lambda frame: self._on_frame(number, frame)), data)
        executor = self._executors[number] = ExecutorProcess(number, process, link, control)
        outputs = [
            _watch_output(loop, out_read, lambda text: self._output(executor, False, text)),
            _watch_output(loop, err_read, lambda text: self._output(executor, True, text)),
        ]
        await exited.wait()
        code = process.wait()
        waits = [asyncio.ensure_future(end.wait()) for end in (link.closed, *(closed for closed, _ in outputs))]
        await asyncio.wait(waits, timeout=EXIT_GRACE_S)  # a child of the executor may hold them open for longer
        for wait in waits:
            wait.cancel()
        for _, stop in outputs:
            stop()
        if link.transport is not None:
            link.transport.close()
        control.close()
        executor.kill()  # what it may have started and left behind
        del self._executors[number]
        self._on_exit(number, describe_exit(code, executor.tail))

    def _output(self, executor: ExecutorProcess, is_stderr: bool, text: str) -> None:
        if is_stderr:
            executor.tail.extend(text.splitlines())
        self._on_output(executor.number, is_stderr, text)


def describe_exit(code: int, tail: deque[str]) -> str:
    """Return how a process ended, in words, with the last lines it wrote to standard error."""
    if code < 0:
        try:
            how = f"killed by {signal.Signals(-code).name}"
        except ValueError:
            how = f"killed by signal {-code}"
        if code == -signal.SIGKILL:
            how += " (out of memory, or killed by somebody)"
    else:
        how = f"exit code {code}"
    return how + ("; last lines of its stderr:\n" + "\n".join(tail) if tail else "")


def _watch_exit(loop: asyncio.AbstractEventLoop, pid: int) -> asyncio.Event:
    exited = asyncio.Event()
    fd = os.pidfd_open(pid)

    def note() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        exited.set()

    loop.add_reader(fd, note)
    return exited


def _watch_output(
    loop: asyncio.AbstractEventLoop, fd: int, on_text: Callable[[str], None]
) -> tuple[asyncio.Event, Callable[[], Any]]:
    os.set_blocking(fd, False)
    closed = asyncio.Event()
    partial = b""

    def read() -> None:
        nonlocal partial
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if not data:
            stop()
            return
        lines, newline, partial = (partial + data).rpartition(b"\n")
        if newline:
            on_text((lines + newline).decode(errors="backslashreplace"))
        elif len(partial) > 65536:
            on_text(partial.decode(errors="backslashreplace"))
            partial = b""

    def stop() -> None:
        nonlocal partial
        if not closed.is_set():
            closed.set()
            loop.remove_reader(fd)
            os.close(fd)
            if partial:
                on_text(partial.decode(errors="backslashreplace") + "\n")

    loop.add_reader(fd, read)
    return closed, stop
