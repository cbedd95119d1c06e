"""Executor processes of one worker: started, spoken to, listened to, ended. Lives on the agent's event loop.

Executors are forked by the template, a process of its own that is started with the first of them, and again when it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from fray.job.rpc.worker import frames
from fray.job.rpc.worker.processes import (
    TAIL_LINES,
    Forked,
    TemplateEnded,
    TemplateProcess,
    describe_exit,
    wait_briefly,
    watch_output,
)


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


@dataclass(frozen=True, slots=True)
class _Ends:
    """The agent's ends of what connects it with an executor."""

    data: socket.socket
    control: socket.socket
    stdout: int
    stderr: int


class ExecutorProcess:
    """One executor."""

    def __init__(self, number: int, process: Forked, link: _Link, control: socket.socket) -> None:
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
        self.process.kill()


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
        self._template: TemplateProcess | None = None
        self._turn = asyncio.Lock()  # held by whoever asks the template
        self._starting: set[int] = set()
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
        self._starting.add(number)
        self._keep(asyncio.create_task(self._run(number), name=f"fray-executor-{number}"))

    def kill(self, number: int) -> None:
        """End an executor at once; its exit follows."""
        self._starting.discard(number)
        executor = self._executors.get(number)
        if executor is not None:
            executor.kill()

    async def close(self) -> None:
        """End all executors and wait for their ends; no new ones start."""
        self._closed = True
        if self._template is not None:
            await self._template.close()
        while self._tasks:
            for executor in self._executors.values():  # those of an earlier template
                executor.kill()
            await asyncio.wait(self._tasks, timeout=0.1)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, number: int) -> None:
        """Start an executor, follow it to its end, and tell."""
        try:
            process, ends = await self._fork()
        except OSError as error:
            self._starting.discard(number)
            if not self._closed:
                self._on_exit(number, f"it could not be started: {error}")
            return
        link = _Link(lambda frame: self._on_frame(number, frame))
        executor = self._executors[number] = ExecutorProcess(number, process, link, ends.control)
        if number not in self._starting:  # killed meanwhile
            executor.kill()
        self._starting.discard(number)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: link, ends.data)  # READY is there already, maybe
        code = await self._follow(executor, ends)
        del self._executors[number]
        self._on_exit(number, describe_exit(code, executor.tail))

    async def _fork(self) -> tuple[Forked, _Ends]:
        async with self._turn:
            try:
                return await self._fork_once()
            except TemplateEnded:  # somebody killed it, maybe; a new one shows whether it can start at all
                return await self._fork_once()

    async def _fork_once(self) -> tuple[Forked, _Ends]:
        with contextlib.ExitStack() as on_error, contextlib.ExitStack() as its_ends:
            ends, fds = _open_ends(on_error, its_ends)
            process = await self._find_template().fork(fds)
            on_error.pop_all()
            return process, ends

    def _find_template(self) -> TemplateProcess:
        if self._closed:
            raise OSError("the worker is about to end")
        if self._template is None or self._template.ended:
            self._template = TemplateProcess(self._environment)
            self._keep(self._template.life)
        return self._template

    async def _follow(self, executor: ExecutorProcess, ends: _Ends) -> int | None:
        """Pass on what it writes until it ends; return its exit code, if it is known."""
        outputs = [
            watch_output(ends.stdout, lambda text: self._output(executor, False, text)),
            watch_output(ends.stderr, lambda text: self._output(executor, True, text)),
        ]
        code = await executor.process.wait()
        link = executor.link
        await wait_briefly([link.closed, *(closed for closed, _ in outputs)])  # what it has started may hold them open
        for _, stop in outputs:
            stop()
        if link.transport is not None:
            link.transport.close()
        executor.control.close()
        return code

    def _output(self, executor: ExecutorProcess, is_stderr: bool, text: str) -> None:
        if is_stderr:
            executor.tail.extend(text.splitlines())
        self._on_output(executor.number, is_stderr, text)


def _open_ends(ours: contextlib.ExitStack, its: contextlib.ExitStack) -> tuple[_Ends, list[int]]:
    """Return our ends of an executor's sockets and pipes, and the descriptors of its own; the stacks close them."""
    sockets, pipes = [], []
    for _ in range(2):
        own, other = socket.socketpair()
        ours.callback(own.close)
        its.callback(other.close)
        sockets.append((own, other))
    for _ in range(2):
        read, write = os.pipe()
        ours.callback(os.close, read)
        its.callback(os.close, write)
        pipes.append((read, write))
    (data, control), (stdout, stderr) = (own for own, _ in sockets), (read for read, _ in pipes)
    data.setblocking(False)
    return _Ends(data, control, stdout, stderr), [*(other.fileno() for _, other in sockets), *(write for _, write in pipes)]
