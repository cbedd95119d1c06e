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
local = _storages.local

ONE_ANSWER_AT_A_TIME = """
import io
import threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

def answer(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    with lock:
        return app({**environ, "wsgi.input": io.BytesIO(body)}, start_response)

run_simple("127.0.0.1", 0, answer, threaded=True)
"""
"""A server that a client with an open connection does not hold up while it is stopped."""


@pytest.fixture(scope="session")
def threaded_moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same store as ``moto_endpoint``."""
    log = tmp_path_factory.mktemp("moto") / "log"
    with _storages._serving([sys.executable, "-c", ONE_ANSWER_AT_A_TIME], log) as endpoint:
        yield endpoint


@pytest.fixture
def threaded_moto(threaded_moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of it."""
    with _storages._bucket(threaded_moto_endpoint, monkeypatch) as url:
        yield url


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
    storage: str = getattr(request, "param", "local")
    place: str = request.getfixturevalue(storage)
    return Case(nursery, inputs, f"{place}/place", tmp_path, storage)
