"""``fray worker``: offer this machine's CPUs and other resources to a controller."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fray.cli.link import find_address
from fray.cli.options import ControllerUrl, Host, Insecure, NumCpus
from fray.cli.serving import StopSignals, say, set_up_logging


def serve_worker(
    controller: ControllerUrl = None,
    num_cpus: NumCpus = None,
    resources: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='What else it offers, such as \'{"gpu": 1, "memory": 8e9}\' (memory in bytes).'),
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label shown in listings; may be given several times.")
    ] = None,
    worker_id: Annotated[
        str | None, typer.Option(metavar="ID", help="A name that stays the same over restarts. Default: made from the host's.")
    ] = None,
    preemptible: Annotated[
        bool,
        typer.Option(
            "--preemptible",
            help="It may go at any moment: actors with preemptible=False keep away. The same as a tag preemptible=true.",
        ),
    ] = False,
    no_direct_calls: Annotated[
        bool,
        typer.Option(
            "--no-direct-calls",
            help="Take calls of actors by way of the controller only, not on a further port that the system chooses.",
        ),
    ] = False,
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Where it answers direct callers; 0 for any free port.")
    ] = 0,
    insecure: Insecure = False,
) -> None:
    """Work for a controller until SIGTERM or Ctrl-C.

    The first signal drains: what has not begun is handed back, what runs has half a minute to end, actors save their states
    and move to other workers if they can. A second signal ends at once.
    """
    offered, labels = _parse_resources(resources), _parse_tags(tags or [])
    if preemptible:
        labels["preemptible"] = "true"
    from fray.job.rpc.worker import FrayWorker
    from fray.job.rpc.worker.server import DRAIN_GRACE_S

    set_up_logging()
    address = find_address(controller)
    worker = FrayWorker(
        address,
        worker_id,
        port,
        host=host,
        num_cpus=num_cpus,
        resources=offered,
        tags=labels,
        insecure=insecure,
        direct_calls=not no_direct_calls,
    )
    worker.start()
    signals = StopSignals()
    signals.install()
    say(f"Worker {worker.worker_id} works for {address}")
    signals.wait()
    say(f"Draining: running tasks have {DRAIN_GRACE_S:g} s to end; a second signal ends at once.")
    worker.stop()


def _parse_resources(text: str | None) -> dict[str, float]:
    if text is None:
        return {}
    example = "give a JSON object of numbers, such as '{\"gpu\": 1}'"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error}); {example}", param_hint="--resources") from error
    if not isinstance(values, dict):
        raise typer.BadParameter(f"{text!r} is not an object; {example}", param_hint="--resources")
    return values


def _parse_tags(texts: list[str]) -> dict[str, str]:
    tags = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--tags")
        tags[name.strip()] = value
    return tags
