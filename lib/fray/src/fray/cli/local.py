"""``fray local``: a cluster on this machine, in one process, to try things on."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from fray.cli.options import NumCpus, Storage
from fray.cli.serving import StopSignals, describe_token, say, set_up_logging
from fray.config import load_config


def serve_local(
    num_cpus: NumCpus = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Where the controller listens; 0 for any free port.")
    ] = 0,
    storage: Storage = None,
) -> None:
    """Serve a cluster on this machine until Ctrl-C.

    It is a controller and one worker, for this user's programs. Its tasks end with it.
    """
    from fray.job.rpc.controller import FrayControllerServer
    from fray.job.rpc.worker import FrayWorker

    set_up_logging()
    with contextlib.ExitStack() as stack:
        server = FrayControllerServer(port, storage=storage)
        server.start()
        stack.callback(server.stop)
        worker = FrayWorker(server.address, num_cpus=num_cpus, embedded_in=server)
        worker.start()
        stack.callback(worker.stop, 0.0)
        signals = StopSignals()
        signals.install()
        say(f"The cluster runs; its token is {describe_token()}. Ctrl-C ends it. In another terminal:")
        say(f"export FRAY_ADDRESS={server.address}")
        if load_config().token:
            say("# and set FRAY_TOKEN there as it is here")
        signals.wait()
