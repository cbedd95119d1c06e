"""Workers as processes of their own that can be drained, and what belongs to a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
from fray.job.rpc.local import LocalCluster


def start_worker(
    cluster: LocalCluster,
    num_cpus: int = 2,
    *,
    direct_calls: bool = True,
    resources: dict[str, float] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``fray worker``; does not wait until it is registered. SIGTERM lets it drain."""
    command = [sys.executable, "-m", "fray", "worker", "--controller", cluster.address, "--num-cpus", str(num_cpus)]
    command += ["--resources", json.dumps(resources or {}), *([] if direct_calls else ["--no-direct-calls"])]
    environment = {**os.environ, "FRAY_TOKEN": cluster.token}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )


def end_worker(process: subprocess.Popen[bytes]) -> None:
    """End a worker at once and wait for its end. Idempotent."""
    process.kill()
    process.wait()


def tree_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that came from it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def is_executor(pid: int) -> bool:
    """Whether a process of that number lives and is one of Fray's workers', or a worker."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "fray" in " ".join(process.cmdline())
    except psutil.Error:
        return False
