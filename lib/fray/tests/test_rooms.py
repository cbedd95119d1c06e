"""Rules of the house that imports alone do not show."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fray
import pytest

ROOT = Path(__file__).parents[3]
SOURCES = [path for path in ROOT.glob("lib/*/src/**/*.py") if "proto" not in path.parts]
TESTS = [*ROOT.glob("lib/*/tests/**/*.py"), *ROOT.glob("examples/**/*.py")]

pytestmark = pytest.mark.unit


def _attributes(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


def test_only_config_reads_the_environment() -> None:
    readers = [path for path in SOURCES if {("os", "environ"), ("os", "getenv")} & set(_attributes(path))]
    assert sorted(str(path.relative_to(ROOT)) for path in readers) == [
        "lib/fray/src/fray/config.py",
        "lib/zephyr/src/zephyr/config.py",
    ]


def test_tests_sleep_in_the_polling_helper_only() -> None:
    assert [path for path in TESTS if ("time", "sleep") in set(_attributes(path))] == []


def test_zephyr_uses_only_names_that_fray_exports() -> None:
    used = set()
    for path in ROOT.glob("lib/zephyr/src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fray":
                assert node.module == "fray", f"{path}: from {node.module} import ..."
                used.update(alias.name for alias in node.names)
            elif isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if alias.name.startswith("fray.")], path
    assert used <= set(fray.__all__)


@pytest.mark.parametrize("package", ["fray", "zephyr"])
def test_public_names_are_sorted_and_there(package: str) -> None:
    module = __import__(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_importing_fray_does_nothing_and_loads_no_network() -> None:
    code = "import sys, fray; print([m for m in ('uvicorn', 'pyqwest', 'ray', 'connectrpc', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
