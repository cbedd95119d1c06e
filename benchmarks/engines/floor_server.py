"""The floor's server: Fray's HTTP server with its token gate, and one RPC that returns what it is sent.

Prints its address and ends when its standard input is closed.
"""

from __future__ import annotations

import sys
from typing import Any

from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.proto.fray_connect import FrayController, FrayControllerASGIApplication
from fray.job.rpc.wire.server import HttpServer, LoopThread
from fray.job.rpc.wire.settings import MAX_MESSAGE_BYTES


class Echo(FrayController):
    """Answers ``GetTaskStatus`` with its request and knows nothing else."""

    async def get_task_status(self, request: pb.TaskHandle, ctx: Any, /) -> pb.TaskHandle:
        return request


async def listen(token: str) -> HttpServer:
    """Return a server that accepts calls on a free port."""
    app = FrayControllerASGIApplication(Echo(), read_max_bytes=MAX_MESSAGE_BYTES, compressions=[])
    server = HttpServer(app, token, "127.0.0.1", 0)
    await server.start()
    return server


def main() -> None:
    """Serve until the parent closes the pipe."""
    loop = LoopThread("floor")
    loop.start()
    server = loop.run(listen(sys.argv[1]))
    print(server.address, flush=True)
    sys.stdin.read()
    loop.run(server.stop())
    loop.stop()


if __name__ == "__main__":
    main()
