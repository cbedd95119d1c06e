"""What a newcomer types into ``python -c`` gives the right thing or a clear error, and never hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fray.job.rpc.local import LocalCluster

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(num_cpus=1) as running:
        yield running


def _python(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("FRAY_", "XDG_"))}
    env.update(HOME=str(home), **environment)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env, check=False)


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith(("fray.errors.", "ValueError", "TypeError"))]
    assert lines, result.stderr
    return lines[-1]


def test_three_lines_work_without_any_set_up(tmp_path: Path) -> None:
    result = _python("import fray\nwith fray.create_job_ctx() as ctx:\n    print(ctx.get(ctx.run(pow, 2, 5)))", tmp_path)
    assert (result.stdout, result.stderr, result.returncode) == ("32\n", "", 0)


def test_a_private_cluster_works_from_a_script_and_ends_with_it(tmp_path: Path) -> None:
    code = "import fray\nctx = fray.create_job_ctx('fray', controller_address='local[2]')\nprint(ctx.get(ctx.run(pow, 2, 5)))"
    forgotten = _python(code, tmp_path)  # the context is never closed
    assert (forgotten.stdout, forgotten.stderr, forgotten.returncode) == ("32\n", "", 0)
    closed = _python(code + "\nctx.close()", tmp_path)
    assert (closed.stdout, closed.stderr, closed.returncode) == ("32\n", "", 0)


def test_no_controller_there_says_how_to_start_one(tmp_path: Path) -> None:
    text = _last_line(_python("import fray; fray.create_job_ctx('fray', controller_address='127.0.0.1:9')", tmp_path))
    assert text.startswith("fray.errors.Unavailable")
    assert "fray controller" in text


def test_no_address_at_all_is_a_value_error_that_says_where_to_set_it(tmp_path: Path) -> None:
    code = "import fray\ntry:\n    fray.create_job_ctx('fray')\nexcept ValueError as e:\n    print(e)"
    assert "FRAY_ADDRESS" in _python(code, tmp_path).stdout


def test_a_wrong_token_is_refused_and_never_shown(cluster: LocalCluster, tmp_path: Path) -> None:
    code = f"import fray; fray.create_job_ctx('fray', controller_address='{cluster.address}')"
    result = _python(code, tmp_path, FRAY_TOKEN="not-the-token")
    text = _last_line(result)
    assert text.startswith("fray.errors.AuthError")
    assert "FRAY_TOKEN" in text
    assert "not-the-token" not in result.stderr
    assert cluster.token not in result.stderr


def test_another_version_of_the_protocol_is_told_apart(cluster: LocalCluster, tmp_path: Path) -> None:
    code = f"""
import fray, fray.job.rpc.wire.auth as auth
auth.PROTOCOL_VERSION = "99"
fray.create_job_ctx("fray", controller_address="{cluster.address}")
"""
    text = _last_line(_python(code, tmp_path, FRAY_TOKEN=cluster.token))
    assert text.startswith("fray.errors.VersionMismatch")
    assert "the same version" in text


def test_a_taken_port_names_the_port_and_the_way_out(cluster: LocalCluster, tmp_path: Path) -> None:
    port = cluster.address.rpartition(":")[2]
    code = f"from fray.job.rpc.controller import FrayControllerServer\nFrayControllerServer(port={port}).start()"
    text = _last_line(_python(code, tmp_path))
    assert f"port {port} on 127.0.0.1 is taken" in text
    assert "--port" in text


def test_a_closed_context_says_so(tmp_path: Path) -> None:
    code = "import fray; ctx = fray.create_job_ctx('threadpool'); ctx.close(); ctx.run(print)"
    assert "is closed" in _last_line(_python(code, tmp_path))


def test_get_on_a_value_says_what_get_takes(tmp_path: Path) -> None:
    text = _last_line(_python("import fray; fray.create_job_ctx('sync').get(3)", tmp_path))
    assert "futures from run()" in text
    assert "int" in text


def test_a_lambda_with_an_open_file_names_the_file_type_and_the_remedy(cluster: LocalCluster, tmp_path: Path) -> None:
    code = f"""
import fray
ctx = fray.create_job_ctx("fray", controller_address="{cluster.address}")
f = open("{tmp_path}/log", "w")
ctx.run(lambda: f.write("x"))
"""
    text = _last_line(_python(code, tmp_path, FRAY_TOKEN=cluster.token))
    assert text.startswith("fray.errors.EncodeError")
    assert "open files" in text
    assert "inside the task" in text


def test_an_unknown_context_lists_those_there_are(tmp_path: Path) -> None:
    text = _last_line(_python("import fray; fray.create_job_ctx('spark')", tmp_path))
    assert "threadpool" in text
