"""Jobs in processes of their own, on a local disk and on two S3 servers, of which one ignores the condition on a creation."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if (here := str(Path(__file__).parent)) not in sys.path:
    sys.path.append(here)

from drivers import Case, Nursery


def _load_storages() -> Any:
    spec = importlib.util.spec_from_file_location("zephyr_storages", Path(__file__).parents[1] / "storage" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_storages = _load_storages()
moto_endpoint, moto = _storages.moto_endpoint, _storages.moto
rclone_endpoint, rclone = _storages.rclone_endpoint, _storages.rclone
local, MOTO, RCLONE = _storages.local, _storages.MOTO, _storages.RCLONE


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes of jobs come from."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def other_nursery() -> Iterator[Nursery]:
    """The same, for a second job at the same time."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 files of 12 records with 24 keys."""
    directory = tmp_path_factory.mktemp("inputs")
    for file in range(16):
        name = f"input-{file:02d}"
        lines = [json.dumps({"file": name, "n": n, "key": f"key-{(7 * file + n) % 24:02d}"}) for n in range(12)]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def case(request: pytest.FixtureRequest, nursery: Nursery, inputs: Path, tmp_path: Path) -> Case:
    """A place for one run, on the storage that the test asks for; else on a local disk."""
    place: str = request.getfixturevalue(getattr(request, "param", "local"))
    return Case(nursery, inputs, place, tmp_path)
