"""The command line within this process and as a process of its own, and an S3 server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from zephyr.cli import main

WAIT_S = 60.0


def _load_storages() -> Any:
    spec = importlib.util.spec_from_file_location("zephyr_storages", Path(__file__).parents[1] / "storage" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_storages = _load_storages()
moto_endpoint, moto, memory = _storages.moto_endpoint, _storages.moto, _storages.memory


@dataclass(frozen=True, slots=True)
class Done:
    """How a command has ended."""

    code: Any
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def assert_fails(self, code: int, *hints: str) -> None:
        """Check for the exit code and one clear message."""
        assert self.code == code, self.out + self.err
        for hint in hints:
            assert hint in self.err
        assert "Traceback" not in self.err
        assert self.out == ""


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who has set nothing of Fray's but a home, and whose directory is empty."""
    for name in [name for name in os.environ if name.startswith("FRAY_") and name != "FRAY_STORAGE"]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def zephyr(capsys: pytest.CaptureFixture[str]) -> Command:
    """A command within this process."""

    def run(*args: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Done(ended.value.code or 0, out, err)

    return run


@pytest.fixture
def process() -> Command:
    """A command as a process of its own."""

    def run(*args: object) -> Done:
        command = [sys.executable, "-m", "zephyr", *map(str, args)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a script of a text."""

    def write(text: str, name: str = "script.py") -> Path:
        path = tmp_path / name
        path.write_text(f"from zephyr import Backend, Dataset\n{text}")
        return path

    return write
