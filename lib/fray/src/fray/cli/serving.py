"""What commands that serve have in common: signals, log lines, and what they say at the start."""

from __future__ import annotations

import logging
import os
import queue
import signal
from types import FrameType

from fray.cli.exits import SIGNAL_BASE
from fray.config import load_config


class StopSignals:
    """SIGTERM and SIGINT as something to wait for. The first asks to stop, another one ends the process at once."""

    def __init__(self) -> None:
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()  # its put may interrupt its get, unlike an Event's set
        self._asked = False

    def install(self) -> None:
        """Take the signals from now on; for the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def wait(self) -> None:
        """Block until the first signal."""
        self._numbers.get()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(SIGNAL_BASE + number)  # executors notice the end of their worker and end too
        self._asked = True
        self._numbers.put(number)


def set_up_logging() -> None:
    """Show what Fray's own parts log, on standard error."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("fray").setLevel(logging.INFO)


def say(text: str) -> None:
    """Print a line that others may be waiting for."""
    print(text, flush=True)


def describe_token() -> str:
    """Return where the cluster's token is; never the token."""
    config = load_config()
    return "taken from FRAY_TOKEN" if config.token else f"in the file {config.token_path}"
