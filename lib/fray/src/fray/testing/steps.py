"""What the rules of the contract run as tasks and in actors. Files tell what happened, in whichever process it did."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fray.testing.polling import eventually


def raise_error(kind: type[BaseException], *args: Any) -> None:
    raise kind(*args)


def fail_deep_down(text: str) -> None:
    raise ValueError(text)


def nap(seconds: float) -> None:
    """Sleep so that an interrupt ends it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def wait_for_file(path: Path, value: Any) -> Any:
    """Note that it started, in a file beside ``path``; return ``value`` when ``path`` exists."""
    path.with_name(f"started-{value}").touch()
    eventually(path.exists, timeout=100)
    return value


def note(path: Path, word: str) -> None:
    """Add a line to a file."""
    with path.open("a") as file:
        file.write(word + "\n")


def read_notes(path: Path) -> list[str]:
    """Return the lines of a file, none if there is no file."""
    return path.read_text().split() if path.exists() else []


def be_alone(path: Path) -> None:
    """Fail if this runs twice at the same time."""
    path.touch(exist_ok=False)
    nap(0.05)
    path.unlink()


def meet(here: Path, there: Path) -> bool:
    """Return when both of two that run at the same time have arrived."""
    here.touch()
    return eventually(there.exists)


class Rich(Exception):
    """An exception with fields."""

    def __init__(self, what: str, count: int) -> None:
        super().__init__(what, count)
        self.what, self.count = what, count


class NoRoundTrip(Exception):
    """An exception that cannot be rebuilt from its arguments."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} and {b}")
