"""``fray controller``: serve a controller."""

from __future__ import annotations

from typing import Annotated

import typer

from fray.cli.options import Host, Insecure, Storage
from fray.cli.serving import StopSignals, describe_token, say, set_up_logging
from fray.config import DEFAULT_PORT
from fray.errors import ConfigurationError

IN_MEMORY = ":memory:"
"""The value of ``--state`` that keeps nothing beyond the process."""


def serve_controller(
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Where to listen; 0 for any free port.")
    ] = DEFAULT_PORT,
    state: Annotated[
        str, typer.Option(metavar="PATH", help="Where tasks are kept; only ':memory:' yet: they end with the controller.")
    ] = IN_MEMORY,
    storage: Storage = None,
    insecure: Insecure = False,
) -> None:
    """Serve a controller until SIGTERM or Ctrl-C."""
    if state != IN_MEMORY:
        raise ConfigurationError(
            f"--state {state}: keeping the state on disk is not there yet; leave the option out, or give {IN_MEMORY}, and know "
            "that tasks end with the controller"
        )
    from fray.job.rpc.controller import FrayControllerServer

    set_up_logging()
    server = FrayControllerServer(port, host, storage=storage, insecure=insecure)
    server.start()
    signals = StopSignals()
    signals.install()
    say(f"The controller listens on {server.address}")
    say(f"Its token is {describe_token()}; clients and workers need the same.")
    signals.wait()
    server.stop()
