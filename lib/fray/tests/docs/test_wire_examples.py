"""The examples of docs/wire.md, run as they stand with curl against a real controller and worker."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.worker import FrayWorker

PAGE = Path(__file__).parents[4] / "docs" / "wire.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEPARATOR = "-- next example --"
TOKEN = "token-of-the-wire-examples"
SETTLED_LATER = {"TASK_STATUS_PENDING", "TASK_STATUS_IN_PROGRESS", "TASK_STATUS_FINISHED"}


def read_examples(text: str) -> list[tuple[str, Any]]:
    """Return the page's commands in order, each with the JSON shown below it, or None."""
    examples: list[tuple[str, Any]] = []
    for language, body in FENCE.findall(text):
        if language == "bash":
            examples.append((body, None))
        elif language == "json" and examples and examples[-1][1] is None:
            examples[-1] = (examples[-1][0], json.loads(body))
    return examples


def assert_like(shown: Any, printed: Any, where: str = "answer") -> None:
    """Compare loosely: everything shown must be printed; what is printed may be more. ``"..."`` stands for anything."""
    if shown == "...":
        return
    if isinstance(shown, dict):
        assert isinstance(printed, dict), f"{where}: {printed!r} is no object"
        for key, value in shown.items():
            assert key in printed, f"{where}: {key} is missing in {printed!r}"
            assert_like(value, printed[key], f"{where}.{key}")
    elif isinstance(shown, list):
        assert isinstance(printed, list), f"{where}: {printed!r} is no list"
        assert len(printed) >= len(shown), f"{where}: {printed!r} is shorter than {shown!r}"
        for i, (want, got) in enumerate(zip(shown, printed, strict=False)):
            assert_like(want, got, f"{where}[{i}]")
    elif shown == "TASK_STATUS_IN_PROGRESS":
        assert printed in SETTLED_LATER, f"{where}: {printed!r}"
    elif isinstance(shown, float):
        assert math.isclose(shown, float(printed)), f"{where}: {printed!r} is not {shown!r}"
    else:
        assert printed == shown, f"{where}: {printed!r} is not {shown!r}"


@pytest.fixture
def address() -> Iterator[str]:
    """A controller and a worker with the name that the page shows."""
    server = FrayControllerServer(token=TOKEN)
    server.start()
    worker = FrayWorker(server.address, "docs-worker", num_cpus=2, token=TOKEN)
    try:
        worker.start()
        yield server.address
    finally:
        worker.stop(grace=0)
        server.stop()


def require_curl() -> None:
    for tool in ("bash", "curl"):
        if shutil.which(tool) is None:
            text = f"{tool} is not installed: the examples of docs/wire.md cannot be run"
            pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)


@pytest.mark.integration
def test_examples_of_the_wire_page_print_what_they_show(address: str, tmp_path: Path) -> None:
    require_curl()
    examples = read_examples(PAGE.read_text())
    assert len(examples) > 8, "the examples of docs/wire.md are not found"
    script = f"\necho '{SEPARATOR}'\n".join(["set -eu", *(command for command, _ in examples)])
    environment = {**os.environ, "FRAY_ADDRESS": address, "FRAY_TOKEN": TOKEN, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    outputs = ended.stdout.split(SEPARATOR)[1:]
    assert len(outputs) == len(examples), ended.stdout
    for (command, shown), printed in zip(examples, outputs, strict=True):
        if shown is None:
            assert printed.strip() == "", f"{command} prints {printed}, the page shows nothing"
        else:
            assert_like(shown, json.loads(printed), command.strip())
    assert list(tmp_path.iterdir()) == [], "the examples leave files behind"


@pytest.mark.unit
def test_wire_page_passes_no_token_on_a_command_line() -> None:
    for command, _ in read_examples(PAGE.read_text()):
        for line in command.splitlines():
            assert not ("FRAY_TOKEN" in line and "curl" in line), line


@pytest.mark.unit
@pytest.mark.parametrize(
    ("shown", "printed"),
    [({"a": 1}, {}), ({"a": 1}, {"a": 2}), ([1, 2], [1]), ("TASK_STATUS_IN_PROGRESS", "TASK_STATUS_FAILED"), (5.0, 4.0)],
)
def test_loose_comparison_still_notices_differences(shown: Any, printed: Any) -> None:
    with pytest.raises(AssertionError):
        assert_like(shown, printed)
