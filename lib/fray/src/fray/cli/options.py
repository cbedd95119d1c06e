"""Options that several commands share, so that the same word means the same everywhere."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from fray.config import DEFAULT_PORT


def _check_positive(value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value:g} is not a number above 0")
    return value


def check_seconds(value: float) -> float:
    """Return a number of seconds above 0, for options."""
    _check_positive(value)
    return value


DEFAULT_ADDRESS = f"http://127.0.0.1:{DEFAULT_PORT}"
"""The controller that is meant when nothing names one."""

ControllerUrl = Annotated[
    str | None,
    typer.Option(
        "--controller",
        metavar="URL",
        help=f"The controller. Else FRAY_ADDRESS, else the configuration file's address, else {DEFAULT_ADDRESS}.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
NumCpus = Annotated[
    float | None,
    typer.Option(
        "--num-cpus",
        "-n",
        metavar="N",
        callback=_check_positive,
        help="CPUs each worker offers, one executor process each. Default: those this process may use.",
    ),
]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on; other than loopback only with --insecure.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where large payloads are kept: a directory or any fsspec URL. Else FRAY_STORAGE, else the configuration file's "
        "storage, else a private directory of this machine.",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow other machines to connect without encryption, on a trusted network.")
]
