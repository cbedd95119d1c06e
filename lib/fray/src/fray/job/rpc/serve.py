"""The main function of a local cluster's processes: ``python -m fray.job.rpc.serve FD``.

Reads its settings from the inherited socket, says when it serves, and ends when the other side closes the socket, be it by
its own end: children do not outlive their parent.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import threading
from typing import Any

from fray.job.rpc.collector import tune_collector
from fray.job.rpc.controller import FrayControllerServer, Limits
from fray.job.rpc.worker import FrayWorker


def main() -> None:
    """Serve until the parent is gone or a signal comes."""
    link = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(link.makefile("rb").readline())
    finished = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: finished.set())
    threading.Thread(target=_watch_parent, args=(link, finished), name="fray-parent", daemon=True).start()
    with contextlib.ExitStack() as stack:
        try:
            ready = _start(settings, stack)
        except Exception as error:  # whatever went wrong is the parent's to show
            _tell(link, {"error": f"{type(error).__name__}: {error}"})
            return
        _tell(link, ready)
        tune_collector()
        finished.wait()


def _start(settings: dict[str, Any], stack: contextlib.ExitStack) -> dict[str, Any]:
    token = settings["token"]
    address = settings.get("controller_address", "")
    controller = settings.get("controller")
    server = None
    if controller is not None:
        limits = Limits(**controller["limits"])
        server = FrayControllerServer(token=token, storage=controller["storage"], state=controller["state"], limits=limits)
        server.start()
        stack.callback(server.stop)
        address = server.address
    for offer in settings["workers"]:
        worker = FrayWorker(address, token=token, embedded_in=server, **offer)
        worker.start()
        stack.callback(worker.stop, 0.0)
    return {"address": address}


def _watch_parent(link: socket.socket, finished: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while link.recv(4096):
            pass
    finished.set()


def _tell(link: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
