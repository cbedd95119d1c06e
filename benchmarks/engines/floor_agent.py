"""The floor's agent: passes on what comes over one TCP connection to a child over a socket pair, and the child's answers back.

Prints its port and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import cast

import uvloop

CHUNK_BYTES = 1 << 16


def echo(parent: socket.socket) -> None:
    """Send back what comes, until the parent closes its end: what an executor does, without the call."""
    while data := parent.recv(CHUNK_BYTES):
        parent.sendall(data)


def fork_executor() -> socket.socket:
    """Start a child that echoes; return the way to it. To be called before there are threads."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        echo(theirs)
        os._exit(0)
    theirs.close()
    return ours


class Pipe(asyncio.Protocol):
    """One end of the way: what comes in goes out at the other."""

    other: Pipe
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)


async def forward(executor: socket.socket) -> None:
    """Connect a client with the executor, until standard input is closed."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    client, child = Pipe(), Pipe()
    client.other, child.other = child, client
    await loop.create_connection(lambda: child, sock=executor)
    server = await loop.create_server(lambda: client, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(forward(fork_executor()))
