"""Fingerprints change with what is done, and with nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from zephyr import Backend, Dataset, col, counters
from zephyr.plan.fingerprint import fingerprint

pytestmark = pytest.mark.unit

RULES = """
import enum
import functools
import re

BLOCKED = {"a", "b"}
LIMITS = {"low": 1, "high": (2, 3)}
WORD = re.compile("[a-z]+")

def helper(x):
    return x + 1

def _unused(x):
    return x

class Base:
    offset = 1

    def __call__(self, x):
        return self.change(x)

    def change(self, x):
        return x - self.offset

def through(x):
    return [y for y in range(x) if helper(y)] and x not in BLOCKED and LIMITS and WORD

def made(n, extra=0):
    def inner(x):
        return x * n + extra
    return inner

used = made(2)
partial = functools.partial(helper, 1)
instance = Base()
"""
NAMES = ("through", "used", "partial", "instance", "helper")


def load(folder: Path, text: str, name: str = "rules") -> ModuleType:
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def prints(folder: Path, text: str) -> dict[str, str]:
    module = load(folder, text)
    try:
        return {name: fingerprint(getattr(module, name)) for name in NAMES}
    finally:
        del sys.modules["rules"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("return x + 1", "return x + 2", {"through", "partial", "helper"}),
        ('{"a", "b"}', '{"a", "c"}', {"through"}),
        ("(2, 3)", "(2, 4)", {"through"}),
        ("[a-z]+", "[a-z]*", {"through"}),
        ("x * n + extra", "x * n - extra", {"used"}),
        ("made(2)", "made(3)", {"used"}),
        ("extra=0", "extra=1", {"used"}),
        ("functools.partial(helper, 1)", "functools.partial(helper, 2)", {"partial"}),
        ("x - self.offset", "x + self.offset", {"instance"}),
        ("offset = 1", "offset = 2", {"instance"}),
        ("def _unused(x):\n    return x", "def _unused(x):\n    return -x", set()),
        ("import enum\n", "import enum\n\n\n# moved down\n", set()),
    ],
)
def test_a_fingerprint_changes_with_what_a_function_does(tmp_path: Path, old: str, new: str, changed: set[str]) -> None:
    assert old in RULES
    before, after = prints(tmp_path, RULES), prints(tmp_path, RULES.replace(old, new))
    assert {name for name in NAMES if before[name] != after[name]} == changed


def test_a_function_reached_through_a_module_counts(tmp_path: Path) -> None:
    text = "import rules\n\ndef fn(x):\n    return rules.helper(x)\n"
    found = []
    for body in ("return x + 1", "return x + 2"):
        load(tmp_path, RULES.replace("return x + 1", body))
        found.append(fingerprint(load(tmp_path, text, "job").fn))
    del sys.modules["rules"], sys.modules["job"]
    assert found[0] != found[1]


def test_a_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    program = "import rules; from zephyr.plan.fingerprint import fingerprint\n"
    program += f"print([fingerprint(getattr(rules, name)) for name in {NAMES}])"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_functions_that_call_each_other_have_a_fingerprint(tmp_path: Path) -> None:
    module = load(tmp_path, "def a(x):\n    return b(x) if x else 0\n\ndef b(x):\n    return a(x - 1)\n", "loop")
    del sys.modules["loop"]
    assert fingerprint(module.a) == fingerprint(module.a) != fingerprint(module.b)


def test_items_expressions_and_types_are_told_apart() -> None:
    values = [1, 1.0, True, "1", b"1", None, (1,), [1], {1}, {1: 1}, col("a") > 1, col("a") > 2, col("b") > 1, int, str]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_a_rerun_that_fails_half_way_leaves_no_manifest_of_other_files(tmp_path: Path) -> None:
    def write(values: list[str], fn: object) -> Dataset[str]:
        return Dataset.from_list(values).map(fn).write_text(f"{tmp_path}/out/{{shard}}.txt", skip_existing=True)  # type: ignore[arg-type]

    def first(value: str) -> str:
        return f"{value}1"

    def second(value: str) -> str:
        if value == "b":
            raise ValueError(value)
        return f"{value}2"

    from fray import create_job_ctx

    with create_job_ctx("sync") as ctx:
        Backend.execute(write(["a", "b"], first), ctx)
        with pytest.raises(ValueError, match="b"):
            Backend.execute(write(["a", "b"], second), ctx)
        assert (tmp_path / "out" / "0.txt").read_text() == "a2\n"
        assert not (tmp_path / "out" / "_SUCCESS").exists()
        Backend.execute(write(["a", "b"], first), ctx)
    assert [(tmp_path / "out" / f"{shard}.txt").read_text() for shard in (0, 1)] == ["a1\n", "b1\n"]


def test_a_table_of_functions_that_names_itself_has_a_fingerprint(tmp_path: Path) -> None:
    text = """
def handle(value):
    return TABLE[type(value)](value)

def handle_list(values):
    return [handle(value) for value in values]

TABLE = {list: handle_list, int: abs}
"""
    module = load(tmp_path, text, "table")
    other = load(tmp_path, text.replace("int: abs", "int: str"), "table")
    del sys.modules["table"]
    assert fingerprint(module.handle) == fingerprint(module.handle) != fingerprint(other.handle)


def test_a_sorted_output_that_is_there_is_found_again(tmp_path: Path) -> None:
    def note(x: int) -> int:
        counters.increment("calls")
        return x

    from fray import create_job_ctx

    found: list[dict[str, dict[str, int]]] = [{}, {}]
    with create_job_ctx("sync") as ctx:
        written = Dataset.from_list([3, 1, 2]).map(note).sort(num_output_shards=2)
        out = written.write_jsonl(f"{tmp_path}/{{shard}}", skip_existing=True)
        paths = [Backend.execute(out, ctx, counters=each) for each in found]
    assert paths[0] == paths[1] and found == [{"stage 1": {"calls": 3}}, {}]
