"""Storages to try: a local disk, memory, and two S3 servers over HTTP, of which one ignores the condition on a creation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from fray.testing import eventually
from fsspec.implementations.memory import MemoryFileSystem

KEY = "test"
S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}
ONE_REQUEST_AT_A_TIME = """
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
"""
"""Moto's own command serves in threads, where its look and its write of a conditional creation are two steps."""


@pytest.fixture(scope="session")
def moto_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that honours ``If-None-Match``, and lists ten objects a page."""
    log = tmp_path_factory.mktemp("moto") / "log"
    env = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": "10"}
    with _serving([sys.executable, "-c", ONE_REQUEST_AT_A_TIME], log, env) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that overwrites in spite of ``If-None-Match``."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("rclone is not installed; it is among requirements-dev.txt")
    home = tmp_path_factory.mktemp("rclone")
    (home / "served").mkdir()
    command = [program, "serve", "s3", str(home / "served"), "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{KEY}"]
    with _serving([*command, "--config", os.devnull, "--cache-dir", str(home / "cache")], home / "log") as endpoint:
        yield endpoint


@contextmanager
def _serving(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run a server that tells in its log which port the system gave it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env)

    def endpoint() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"http://127\.0\.0\.1:\d+", log.read_text())

    try:
        found = eventually(endpoint, what=f"{command[0]} listens")
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def _bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give a new bucket, found by this process and its children through the environment as any other."""
    for name, value in (S3_SETTINGS | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()  # an instance keeps the endpoint and the key it was made with
    url = f"s3://zephyr-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(url)
    yield url
    s3.clear_instance_cache()


@pytest.fixture
def moto(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of a store that honours exclusive creation."""
    with _bucket(moto_endpoint, monkeypatch) as url:
        yield url


@pytest.fixture
def rclone(rclone_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of a store that does not."""
    with _bucket(rclone_endpoint, monkeypatch) as url:
        yield url


@pytest.fixture
def local(tmp_path: Path) -> str:
    """A directory that does not exist yet."""
    return str(tmp_path / "place")


@pytest.fixture
def memory() -> Iterator[str]:
    """A directory of this process's memory."""
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    fs = MemoryFileSystem()
    if fs.exists(url):
        fs.rm(url, recursive=True)


IN_PROCESS = [pytest.param(name, marks=pytest.mark.unit) for name in ("local", "memory")]
MOTO = pytest.param("moto", marks=pytest.mark.integration)
RCLONE = pytest.param("rclone", marks=pytest.mark.integration)


@pytest.fixture(params=[*IN_PROCESS, MOTO, RCLONE])
def place(request: pytest.FixtureRequest) -> str:
    """An empty place, on each storage."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(params=[*IN_PROCESS, MOTO])
def exclusive_place(request: pytest.FixtureRequest) -> str:
    """An empty place, on each storage that honours exclusive creation."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(params=[MOTO, RCLONE])
def bucket(request: pytest.FixtureRequest) -> str:
    """An empty bucket of each S3 server."""
    url: str = request.getfixturevalue(request.param)
    return url
