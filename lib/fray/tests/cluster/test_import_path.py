"""Values of modules that only the client's import path has arrive in the processes of tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PROGRAM = """
import sys
from fray import create_job_ctx

def read(thing):
    return thing.number

options = {"fray": {"controller_address": "local[1]"}, "ray": {"max_workers": 1, "include_dashboard": False}}[sys.argv[1]]
with create_job_ctx(sys.argv[1], **options) as ctx:
    if sys.argv[2] == "later":
        class Early:
            number = 0
        assert ctx.get(ctx.run(read, Early())) == 0  # the function has been packed under the old path
    sys.path.insert(0, sys.argv[3])
    from only_here import Thing
    thing = ctx.put(Thing(7)) if sys.argv[4] == "put" else Thing(7)
    print(ctx.get(ctx.run(read, thing)))
"""


@pytest.mark.parametrize(
    ("kind", "when", "how"),
    [("fray", "first", "put"), ("fray", "later", "put"), ("fray", "later", "argument"), ("ray", "first", "put")],
)
def test_a_value_of_a_module_on_the_clients_path_arrives(tmp_path: Path, kind: str, when: str, how: str) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "only_here.py").write_text("class Thing:\n    def __init__(self, number):\n        self.number = number\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py", kind, when, str(modules), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=tmp_path, check=False)
    assert done.stdout == "7\n", done.stderr
