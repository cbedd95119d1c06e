"""A client process: ``python -m chaos.clients WORKLOAD NAME SEED FOLDER``; the cluster is that of the environment."""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys
import threading
import time
from pathlib import Path

from fray import JobContext, create_job_ctx
from fray.errors import TransportError

from chaos.ledger import Book

CONNECT_S = 60.0
"""How long a client tries to begin; the controller may be down just now."""

WORKLOADS = ("flat", "nested", "dependencies", "actors", "shuffle")


def main() -> None:
    """Work until a file says to stop, and say goodbye."""
    workload, name, seed, folder = sys.argv[1:]
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    book, stop = Book(f"{folder}/facts"), Path(folder, f"{name}.stop")
    with _connect() as ctx:
        _find_class(workload)(ctx, book, name, seed, stop).run(workload)
    book.write("left", name)


def _connect() -> JobContext:
    end = time.monotonic() + CONNECT_S
    while True:
        try:
            return create_job_ctx("fray", log_to_driver=False)
        except TransportError:
            if time.monotonic() > end:
                raise
        threading.Event().wait(0.2)


def _find_class(workload: str) -> type:
    if workload == "actors":
        from chaos.calls import ActorClient

        return ActorClient
    if workload == "shuffle":
        from chaos.shuffle import ShuffleClient

        return ShuffleClient
    from chaos.tasks import TaskClient

    return TaskClient


if __name__ == "__main__":
    main()
