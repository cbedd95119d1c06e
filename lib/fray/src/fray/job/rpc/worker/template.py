"""The template of a worker's executors: a process that has imported what executors import, and forks one for each request.

An executor starts so within milliseconds and shares this process's memory. One thread runs here, and no network runtime: they
do not survive a fork. The agent holds the other end of a socket that keeps packets apart:

To the template:   a request, with four descriptors: the executor's data and control sockets, its standard output and error
From the template: (READY,)     (STARTED, pid), with a descriptor of the process     (FAILED, why)     (EXITED, pid, exit code)

READY comes once, before all else. Requests are answered in order. A process is reaped only after its descriptor has gone out,
so that a pid names one process from STARTED to EXITED. When the agent's end closes, all that was forked here is killed, and
the template ends.

Start it with ``python -m fray.job.rpc.worker.template SOCKET_FD``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import sys
from pathlib import Path

from fray.job.rpc.worker import executor

READY, STARTED, FAILED, EXITED = "ready", "started", "failed", "exited"
REQUEST = b"fork"
MAX_PACKET_BYTES = 4096
OOM_SCORE = 500
"""What executors, and what they start, are given at least: when memory runs out, they go before agents and controllers."""


class Template:
    """The processes forked here and not reaped yet."""

    def __init__(self, agent: socket.socket) -> None:
        self._agent = agent
        self._children: dict[int, int] = {}  # the pid by the process's descriptor

    def serve(self) -> list[int] | None:
        """Fork on request until the agent's end closes, then return None; return in each child its four descriptors."""
        poll = select.poll()  # unlike epoll it has no descriptor that children would have to close
        poll.register(self._agent, select.POLLIN)
        self._tell((READY,))
        while True:
            for fd, _ in poll.poll():
                if fd in self._children:
                    poll.unregister(fd)
                    self._bury(fd)
                    continue
                fds = self._receive()
                if fds is None:
                    return None
                pid = self._fork(fds)
                if pid == 0:
                    return fds
                for end in fds:
                    os.close(end)
                if pid is not None:
                    poll.register(self._watch(pid), select.POLLIN)

    def end(self) -> None:
        """Kill all children and wait for their ends."""
        for pid in self._children.values():
            os.kill(pid, signal.SIGKILL)
        for fd in list(self._children):
            self._bury(fd)

    def _receive(self) -> list[int] | None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._agent, MAX_PACKET_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:  # it has gone without reading all that it was told
            return None
        return fds if packet else None

    def _fork(self, fds: list[int]) -> int | None:
        try:
            pid = os.fork()
        except OSError as error:
            self._tell((FAILED, str(error)))
            return None
        if pid == 0:
            self._become_executor(fds)
        return pid

    def _watch(self, pid: int) -> int:
        fd = os.pidfd_open(pid)
        self._children[fd] = pid
        self._tell((STARTED, pid), fd)
        return fd

    def _bury(self, fd: int) -> None:
        """Reap a child that has ended or been killed, after those it has left behind in its group."""
        pid = self._children.pop(fd)
        with contextlib.suppress(OSError):  # it ended before it had a group
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        self._tell((EXITED, pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, message: tuple[str | int, ...], *fds: int) -> None:
        with contextlib.suppress(ConnectionError):  # it is gone: its end is read next
            socket.send_fds(self._agent, [marshal.dumps(message)], fds)

    def _become_executor(self, fds: list[int]) -> None:
        """Leave the template behind: its session, its descriptors, its streams, and what it has seen of the import path."""
        os.setsid()
        _go_first(Path("/proc/self/oom_score_adj"))
        self._agent.close()
        for fd in self._children:
            os.close(fd)
        _, _, stdout, stderr = fds
        for fd, own in ((stdout, 1), (stderr, 2)):
            os.dup2(fd, own)
            os.close(fd)
        importlib.invalidate_caches()


def _go_first(score: Path) -> None:
    with contextlib.suppress(OSError):  # a system without it
        if int(score.read_text()) < OOM_SCORE:
            score.write_text(str(OOM_SCORE))


def main() -> None:
    """Serve on the socket named by the command line; in the processes forked meanwhile, be an executor."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # sent to all of a worker's processes, they ask the worker alone to leave
        signal.signal(signum, signal.SIG_IGN)
    template = Template(socket.socket(fileno=int(sys.argv[1])))
    gc.collect()
    gc.freeze()  # a collection in an executor would write to every object, and so copy the memory it shares
    fds = template.serve()
    if fds is None:
        template.end()
    else:
        executor.main(socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1]))


if __name__ == "__main__":
    main()
