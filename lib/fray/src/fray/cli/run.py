"""``fray run``: a script with a private cluster around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fray.cli.exits import SIGNAL_BASE
from fray.cli.options import NumCpus
from fray.config import executor_environment
from fray.errors import ConfigurationError


def run_script(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A Python file.", show_default=False)],
    args: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="What the script gets.")] = None,
    num_cpus: NumCpus = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Worker processes; 0 for one inside the controller's process.")
    ] = 0,
) -> None:
    """Run a script on a private cluster, which ends with it.

    The script's create_job_ctx() finds the cluster. The exit code is the script's, or 128 + signal if a signal ended it.
    """
    if not script.exists():
        raise ConfigurationError(f"there is no script {script} (in {Path.cwd()})")
    from fray.job.rpc.local import LocalCluster

    with LocalCluster(workers=workers, num_cpus=num_cpus) as cluster:
        env = executor_environment(cluster.address, cluster.token)
        if not getattr(sys.stdout, "write_through", False):
            del env["PYTHONUNBUFFERED"]  # whether the script's output is buffered is its user's choice
        code = _run_child([sys.executable, str(script), *(args or [])], env)
    raise typer.Exit(code)


def _run_child(command: list[str], env: dict[str, str]) -> int:
    """Run a process that gets the signals meant for it; return its exit code as a shell does."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and _is_foreground():
            return  # the terminal has sent Ctrl-C to the script already
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(wanted, forward)
    child = subprocess.Popen(command, env=env)
    for number in early:
        child.send_signal(number)
    code = child.wait()
    return SIGNAL_BASE - code if code < 0 else code


def _is_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0) == os.getpgrp()
    except (OSError, ValueError):  # no terminal
        return False
