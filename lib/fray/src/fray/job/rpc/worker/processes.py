"""Processes as a worker's agent sees them: the template, what it has forked, what they write and how they end.

All of it belongs to the agent's event loop. The agent itself never forks: its threads and network runtime would not survive.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fray.job.rpc.worker import template

TAIL_LINES = 20
"""Lines of a process's standard error that are kept to explain its death."""
EXIT_GRACE_S = 0.5
"""How long to wait for the last output of a process that has ended."""
CLOSE_GRACE_S = 5.0
"""How long a template may take to end what it has forked before it is killed itself."""


class TemplateEnded(OSError):
    """The template ended before it answered."""


class Forked:
    """A process that a template has forked."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd
        self._exited = asyncio.Event()
        self._code: int | None = None

    def kill(self) -> None:
        """End it at once; what it has started ends with it."""
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    async def wait(self) -> int | None:
        """Wait for its end; return its exit code, negative for a signal, or None if its template ended before it could tell."""
        await self._exited.wait()
        return self._code

    def note_exit(self, code: int | None) -> None:
        """Take the news of its end."""
        self._code = code
        os.close(self._fd)
        self._exited.set()

    def watch(self) -> None:
        """Notice its end without its template."""

        def on_exit() -> None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)  # what it has started and left behind
            self.note_exit(None)

        _when_readable(self._fd, on_exit)


class TemplateProcess:
    """A running template. ``life`` ends after it, and leaves nothing of it open."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Start it.

        Raises:
            OSError: if the system refuses.
        """
        self.ended = False
        self._ready = False
        self._answer: asyncio.Future[Forked] | None = None
        self._forked: dict[int, Forked] = {}
        with contextlib.ExitStack() as on_error, contextlib.ExitStack() as its_ends:
            self._socket, its_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            on_error.callback(self._socket.close)
            its_ends.callback(its_socket.close)
            stderr, its_stderr = os.pipe()
            on_error.callback(os.close, stderr)
            its_ends.callback(os.close, its_stderr)
            self._process = _start_template(its_socket.fileno(), its_stderr, environment)
            on_error.pop_all()
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        self.life = asyncio.create_task(self._live(stderr), name="fray-template")

    async def fork(self, fds: Sequence[int]) -> Forked:
        """Start an executor with these descriptors, which remain the caller's to close. One call at a time.

        Raises:
            TemplateEnded: if the template ended before it answered; says how.
            OSError: if the system refuses.
        """
        self._answer = asyncio.get_running_loop().create_future()
        with contextlib.suppress(ConnectionError):  # it has ended: the news is on its way
            socket.send_fds(self._socket, [template.REQUEST], fds)
        return await self._answer

    async def close(self) -> None:
        """End it with all it has forked, and wait for their ends."""
        if not self._ready:
            self._process.kill()  # it has forked nothing yet, and would first import all that it needs for it
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)
        _, late = await asyncio.wait([self.life], timeout=CLOSE_GRACE_S)
        if late:
            self._process.kill()
            await self.life

    async def _live(self, stderr: int) -> None:
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        output_closed, stop_output = watch_output(stderr, lambda text: tail.extend(text.splitlines()))
        exited = asyncio.Event()
        _when_readable(os.pidfd_open(self._process.pid), exited.set, close=True)
        await exited.wait()
        self.ended = True
        code = self._process.wait()
        while self._receive():
            pass
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for orphan in self._forked.values():
            orphan.watch()
        await wait_briefly([output_closed])
        stop_output()
        self._settle(TemplateEnded(f"the template of executors ended: {describe_exit(code, tail)}"))

    def _receive(self) -> bool:
        """Take a message; tell whether there may be another one."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._socket, template.MAX_PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except ConnectionError:  # it has ended without reading all requests; what it said before comes next
            return True
        if packet:
            self._take(marshal.loads(packet), fds)
        else:
            asyncio.get_running_loop().remove_reader(self._socket)
        return bool(packet)

    def _take(self, message: tuple[Any, ...], fds: list[int]) -> None:
        match message:
            case (template.READY,):
                self._ready = True
            case (template.STARTED, pid) if fds:
                forked = self._forked[pid] = Forked(pid, fds[0])
                self._settle(forked)
            case (template.STARTED, _):
                self._settle(OSError("the worker has too many open files"))
            case (template.FAILED, why):
                self._settle(OSError(why))
            case (template.EXITED, pid, code) if pid in self._forked:
                self._forked.pop(pid).note_exit(code)

    def _settle(self, answer: Forked | OSError) -> None:
        if self._answer is None or self._answer.done():
            return
        if isinstance(answer, Forked):
            self._answer.set_result(answer)
        else:
            self._answer.set_exception(answer)


def describe_exit(code: int | None, tail: deque[str]) -> str:
    """Return how a process ended, in words, with the last lines it wrote to standard error."""
    if code is None:
        how = "exit code unknown (the template it was forked from had ended before it)"
    elif code < 0:
        try:
            how = f"killed by {signal.Signals(-code).name}"
        except ValueError:
            how = f"killed by signal {-code}"
        if code == -signal.SIGKILL:
            how += " (out of memory, or killed by somebody)"
    else:
        how = f"exit code {code}"
    return how + ("; last lines of its stderr:\n" + "\n".join(tail) if tail else "")


async def wait_briefly(ends: Iterable[asyncio.Event]) -> None:
    """Wait for all of these, but no longer than the last output of an ended process may take."""
    waits = [asyncio.ensure_future(end.wait()) for end in ends]
    await asyncio.wait(waits, timeout=EXIT_GRACE_S)
    for wait in waits:
        wait.cancel()


def watch_output(fd: int, on_text: Callable[[str], None]) -> tuple[asyncio.Event, Callable[[], None]]:
    """Pass on whole lines that are written into a pipe; return what is set at its end, and what ends the watch earlier."""
    loop = asyncio.get_running_loop()
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


def _start_template(its_socket: int, its_stderr: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # takes about 2 ms; the loop has nothing to do that is more urgent
        [sys.executable, "-m", "fray.job.rpc.worker.template", str(its_socket)],
        pass_fds=[its_socket],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=its_stderr,
        env=environment,
        start_new_session=True,
    )


def _when_readable(fd: int, then: Callable[[], None], close: bool = False) -> None:
    """Call once, when a descriptor becomes readable."""
    loop = asyncio.get_running_loop()

    def on_readable() -> None:
        loop.remove_reader(fd)
        if close:
            os.close(fd)
        then()

    loop.add_reader(fd, on_readable)
