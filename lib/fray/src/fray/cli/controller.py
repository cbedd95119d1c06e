"""``fray controller``: serve a controller."""

from __future__ import annotations

from typing import Annotated

import typer

from fray.cli.options import Host, Insecure, Storage, check_seconds
from fray.cli.serving import StopSignals, describe_token, say, set_up_logging
from fray.config import DEFAULT_PORT, default_state_path
from fray.job.rpc.controller.core.model import Limits

DEFAULT_LIMITS = Limits()
IN_MEMORY = ":memory:"
"""The value of ``--state`` that keeps nothing beyond the process."""


def serve_controller(
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Where to listen; 0 for any free port.")
    ] = DEFAULT_PORT,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The file that keeps what was accepted: a controller started again with the same --port, --state and "
            f"--storage goes on. '{IN_MEMORY}' keeps nothing. Default: a file for each port in ~/.local/state/fray; with "
            f"--port 0, {IN_MEMORY}.",
        ),
    ] = None,
    storage: Storage = None,
    silence: Annotated[
        float,
        typer.Option(metavar="SECONDS", callback=check_seconds, help="A worker that says nothing for so long is given up."),
    ] = DEFAULT_LIMITS.silence_s,
    grace: Annotated[
        float,
        typer.Option(metavar="SECONDS", callback=check_seconds, help="A client that is away for so long is given up."),
    ] = DEFAULT_LIMITS.session_grace_s,
    insecure: Insecure = False,
) -> None:
    """Serve a controller until SIGTERM or Ctrl-C. What is not done then goes on when it is started again."""
    from fray.job.rpc.collector import tune_collector
    from fray.job.rpc.controller import FrayControllerServer

    set_up_logging()
    tune_collector()
    path = state or (default_state_path(port) if port else IN_MEMORY)
    limits = Limits(silence_s=silence, session_grace_s=grace)
    server = FrayControllerServer(port, host, storage=storage, state=path, limits=limits, insecure=insecure)
    server.start()
    signals = StopSignals()
    signals.install()
    say(f"The controller listens on {server.address}")
    kept = "in memory and ends with it" if path == IN_MEMORY else f"in {path}{server.describe_restored()}"
    say(f"Its state is kept {kept}")
    say(f"Its token is {describe_token()}; clients and workers need the same.")
    signals.wait()
    server.stop()
