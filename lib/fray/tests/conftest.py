"""What every module of tests must leave behind: nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest
from fray.testing import eventually


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_behind() -> Iterator[None]:
    """No child processes and no threads of Fray's survive a module's fixtures."""
    yield

    def children() -> list[str]:
        alive = [c for c in psutil.Process().children(recursive=True) if c.status() != psutil.STATUS_ZOMBIE]
        lines = [" ".join(child.cmdline()) for child in alive]
        return [line for line in lines if "fray.job" in line or "-m fray" in line]

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("fray-")]

    eventually(lambda: not children(), what="no process is left", timeout=10)
    eventually(lambda: not threads(), what="no thread is left", timeout=10)
