"""The Python blocks of the README run as they stand, each in a fresh process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[4] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
EXPECTED = [
    ["332833500"],
    ["sync 332833500", "threadpool 332833500", "ray 332833500"],
    ["as itself: ", "stopped: "],
    ["[('be', 2), ('is', 1)"],
]


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_of_the_readme_runs_as_it_stands(number: int, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[number])
    env = {key: value for key, value in os.environ.items() if not key.startswith(("FRAY_", "XDG_"))}
    env["HOME"] = str(tmp_path)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, env=env, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(EXPECTED[number])
    for line, start in zip(lines, EXPECTED[number], strict=True):
        assert line.startswith(start)


@pytest.mark.unit
def test_every_page_the_readme_names_exists() -> None:
    pages = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert pages
    assert [page for page in pages if not (README.parent / page).exists()] == []
