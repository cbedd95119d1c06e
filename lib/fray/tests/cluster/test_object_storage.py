"""Large values travel through S3 over HTTP, signed, and are gone with their session."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fray import create_job_ctx
from fray.errors import DecodeError
from fray.job.rpc.local import LocalCluster
from fray.payloads import PayloadStore
from fray.testing import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server of its own on loopback, found through the environment as any other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    assert server is not None, "moto is among requirements-dev.txt"
    process = subprocess.Popen([server, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)

        def made() -> bool:
            try:
                fsspec.filesystem("s3").mkdir("fray-test")
            except OSError:
                return False
            return True

        try:
            eventually(made, what="the S3 server answers")
            yield "s3://fray-test/payloads"
        finally:
            process.terminate()
            process.wait(10)


def _objects(url: str) -> list[str]:
    fs, path = fsspec.url_to_fs(url)
    fs.invalidate_cache()
    found: list[str] = fs.find(path)
    return found


def test_large_arguments_and_results_travel_through_s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(workers=1, num_cpus=1, storage=bucket) as cluster:
        monkeypatch.setenv("FRAY_TOKEN", cluster.token)
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            array = np.arange(200_000, dtype=np.float64)
            doubled = ctx.get(ctx.run(lambda values: values * 2, array), timeout=60)
            assert (doubled == array * 2).all()
            assert len(_objects(bucket)) == 2
        eventually(lambda: not _objects(bucket), what="the session's objects are deleted")


def test_an_object_that_was_changed_or_signed_by_another_cluster_is_not_unpickled(bucket: str) -> None:
    store = PayloadStore(f"{bucket}/direct", b"our key")
    payload = store.pack(bytes(500_000))
    assert store.unpack(payload) == bytes(500_000)
    with pytest.raises(DecodeError, match="digest"):
        PayloadStore(f"{bucket}/direct", b"another key").unpack(payload)
    (name,) = _objects(f"{bucket}/direct")
    fs = fsspec.filesystem("s3")
    data = bytearray(fs.cat_file(name))
    data[len(data) // 2] ^= 1
    fs.pipe_file(name, bytes(data))
    with pytest.raises(DecodeError, match="digest"):
        store.unpack(payload)
    store.delete()
    assert _objects(f"{bucket}/direct") == []
