"""The Python blocks of README and docs run as they stand, each in a fresh process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PAGES = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if path.is_file()]
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", re.M | re.S)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")

README_OUTPUT = [
    ["332833500"],
    ["sync 332833500", "threadpool 332833500", "ray 332833500"],
    ["as itself: ", "stopped: "],
    ["died: ", "3"],
    ["[{'url': 'a.org', 'n': 3}]"],
]
"""How each line begins that the blocks of the README print."""

SHOWN = ("docs/actors.md", "docs/cookbook.md", "docs/zephyr.md")
"""Pages whose blocks print exactly what is shown below them."""


def read_blocks(page: str) -> list[tuple[str, str]]:
    """Return the Python blocks of a page, each with the output shown right below it, which may be none."""
    return BLOCK.findall((ROOT / page).read_text())


def run_python(folder: Path, *arguments: str) -> str:
    """Return what Python prints in a folder, as for a user without any settings."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("FRAY_", "XDG_", "MARIN_", "PYTEST_"))}
    env["HOME"] = str(folder)  # not TMPDIR: paths of Ray's sockets must stay short
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(read_blocks("README.md"))))
def test_block_of_the_readme_runs_as_it_stands(number: int, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(read_blocks("README.md")[number][0])
    lines = run_python(tmp_path, "block.py").splitlines()
    assert len(lines) == len(README_OUTPUT[number])
    for line, start in zip(lines, README_OUTPUT[number], strict=True):
        assert line.startswith(start)


@pytest.mark.integration
@pytest.mark.parametrize(("page", "number"), [(page, number) for page in SHOWN for number in range(len(read_blocks(page)))])
def test_block_of_a_page_prints_what_is_shown(page: str, number: int, tmp_path: Path) -> None:
    code, shown = read_blocks(page)[number]
    (tmp_path / "block.py").write_text(code)
    assert run_python(tmp_path, "block.py") == shown
    assert shown


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(read_blocks("docs/testing.md"))))
def test_block_of_the_page_on_testing_passes_as_a_test(number: int, tmp_path: Path) -> None:
    (tmp_path / "test_block.py").write_text(read_blocks("docs/testing.md")[number][0])
    printed = run_python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_block.py")
    assert re.search(r"^\d+ passed", printed, re.M), printed


@pytest.mark.unit
def test_no_page_has_python_blocks_that_nothing_runs() -> None:
    with_blocks = {str(page.relative_to(ROOT)) for page in PAGES if "```python" in page.read_text()}
    assert with_blocks == {"README.md", "docs/testing.md", *SHOWN}
    for page in with_blocks:
        assert len(read_blocks(page)) == (ROOT / page).read_text().count("```python"), page


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_that_a_page_names_exist(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []
