"""How the command line words durations, amounts and errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fray import errors
from fray.cli.exits import find_exit_code
from fray.cli.output import clean, describe_amount, describe_duration, describe_use

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-0.001, "0.0 s"),
        (0.25, "0.2 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (7265, "2 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration_is_told_with_its_two_largest_units(seconds: float, words: str) -> None:
    assert describe_duration(seconds) == words


def test_amounts_have_units_only_for_memory() -> None:
    assert describe_amount("cpu", 0.5) == "0.5"
    assert describe_amount("memory", 3 * 2**29) == "1.5 GiB"
    assert describe_use({"gpu": 2.0}, {}, "gpu") == "0 of 2"


def test_control_characters_are_spelt_out_but_lines_stay() -> None:
    assert clean("a\x1b[31m\nb\r\x9bc") == "a\\x1b[31m\nb\\r\\x9bc"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TaskLost(), 1),
        (errors.VersionMismatch(), 1),
        (errors.ConfigurationError(), 2),
        (errors.Unavailable(), 3),
        (errors.DeadlineExceeded(), 3),
        (errors.AuthError(), 4),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: errors.FrayError, code: int) -> None:
    assert find_exit_code(error) == code


def test_start_up_imports_nothing_heavy() -> None:
    heavy = "{'uvicorn', 'uvloop', 'pyqwest', 'connectrpc', 'fsspec', 'ray', 'rich'}"
    program = f"import sys, fray.cli; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
