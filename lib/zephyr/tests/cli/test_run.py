"""``zephyr run`` and ``zephyr explain`` within this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from fray import ContextConfig
from zephyr.cli.run import choose_context

pytestmark = pytest.mark.unit

Script = Callable[..., Path]
Command = Callable[..., Any]

SQUARES = "def main(): return Dataset.from_list([1, 2, 3]).map(lambda x: x * x)\n"
CONTEXT = "import fray\ndef main(): return type(fray.get_default_job_ctx()).__name__\n"
MARK = "from pathlib import Path\ndef main(): return Dataset.from_list(['a', 'b']).map(lambda name: Path(name).touch())\n"
PEAK = """
import contextlib, sys, threading
lock, running, peak = threading.Lock(), 0, 0
timeout = float(sys.argv[1])
barrier = threading.Barrier(2)

def work(item):
    global running, peak
    with lock:
        running += 1
        peak = max(peak, running)
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(timeout)
    with lock:
        running -= 1

def main():
    Backend.execute(Dataset.from_list([0, 1]).map(work))
    return peak
"""
LONG_S, SHORT_S = 20.0, 0.05


def test_items_of_the_returned_dataset_are_printed_a_line_each(zephyr: Command, script: Script) -> None:
    assert zephyr("run", script(SQUARES)).lines == ["1", "4", "9"]


def test_text_is_printed_as_it_is_unless_it_would_break_the_line_or_steer_the_terminal(zephyr: Command, script: Script) -> None:
    done = zephyr(
        "run", script("def main(): return Dataset.from_list(['a b', 'tab\\there', 'x\\ny', '\\x1b[31m', {'k': 'v'}])\n")
    )
    assert done.lines == ["a b", "tab\there", "'x\\ny'", "'\\x1b[31m'", "{'k': 'v'}"]


def test_items_are_json_lines_alone_on_stdout_if_that_is_wanted(zephyr: Command, script: Script) -> None:
    text = "def main():\n    print('by the way')\n    return Dataset.from_list([{'n': 1}, 'two']).map(show)\n"
    done = zephyr("run", "--json", script(text + "def show(x): print('task'); return x\n"))
    assert [json.loads(line) for line in done.lines] == [{"n": 1}, "two"]
    assert "by the way" in done.err
    assert "task" in done.err


@pytest.mark.parametrize(("value", "lines"), [("{'rows': 3}", ["{'rows': 3}"]), ("0", ["0"]), ("None", [])])
def test_what_a_script_returns_that_is_no_dataset_is_printed_unless_it_is_none(
    value: str, lines: list[str], zephyr: Command, script: Script
) -> None:
    done = zephyr("run", script(f"def main(): return {value}\n"))
    assert (done.code, done.lines) == (0, lines)


def test_script_finds_its_own_arguments_and_its_neighbours(zephyr: Command, script: Script, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "neighbour_of_script.py").write_text("value = 'neighbour'\n")
    path = script("import sys, neighbour_of_script as n\ndef main(): return [*sys.argv, n.value]\n", "elsewhere/its.py")
    done = zephyr("run", path, "plain", "--context", "sync", "--", "--top", "3")
    assert done.out.strip() == repr([str(path), "plain", "--top", "3", "neighbour"])
    sys.modules.pop("neighbour_of_script")


def test_script_is_the_main_module_but_its_own_start_does_not_run(zephyr: Command, script: Script) -> None:
    text = """
import sys
assert __name__ != "__main__" or True
def main(): return __name__, main.__module__, sys.modules["__main__"].main is main, here
here = []
if __name__ == "__main__":
    raise SystemExit("started itself")
elif "__main__" == __name__:
    raise SystemExit("started itself")
else:
    here.append("imported")
if __name__ != "__main__":
    here.append("again")
"""
    assert zephyr("run", script(text)).out.strip() == "('__main__', '__main__', True, ['imported', 'again'])"


def test_process_is_as_before_after_a_script(zephyr: Command, script: Script) -> None:
    before = sys.modules["__main__"], list(sys.argv), list(sys.path)
    zephyr("run", script("import sys\nsys.path.append('x')\ndef main(): raise KeyError\n"))
    assert (sys.modules["__main__"], list(sys.argv), list(sys.path)) == before


def test_entry_point_is_chosen_by_name(zephyr: Command, script: Script) -> None:
    path = script("def main(): return 'main'\nother = lambda: 'other'\n")
    assert zephyr("run", path).lines == ["main"]
    assert zephyr("run", path, "--entry-point", "other").lines == ["other"]
    assert zephyr("explain", path, "--entry-point", "absent").code == 2


def test_absent_entry_point_is_told_with_the_functions_there_are_before_anything_runs(
    zephyr: Command, script: Script, tmp_path: Path
) -> None:
    path = script("open('ran', 'w').close()\ndef count(): ...\ndef index():\n    def main(): ...\n")
    zephyr("run", path).assert_fails(2, "has no main()", "count, index", "--entry-point")
    zephyr("run", script("print(1)\n")).assert_fails(2, "it has no function")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("text", "hint"), [("main = 3\n", "not a function"), ("def main(path): ...\n", "sys.argv")])
def test_entry_point_that_cannot_be_called_is_a_usage_error(text: str, hint: str, zephyr: Command, script: Script) -> None:
    zephyr("run", script(text)).assert_fails(2, hint)


@pytest.mark.parametrize(
    ("args", "name"),
    [([], "ThreadContext"), (["--context", "sync"], "SyncContext"), (["--context", "threadpool"], "ThreadContext")],
)
def test_context_is_the_default_of_the_script(args: list[str], name: str, zephyr: Command, script: Script) -> None:
    assert zephyr("run", script(CONTEXT), *args).lines == [name]


@pytest.mark.parametrize(
    ("args", "timeout_s", "peak"),
    [
        (["--workers", "2"], LONG_S, 2),
        (["--workers", "1"], SHORT_S, 1),
        (["--workers", "2", "--max-parallelism", "1"], SHORT_S, 1),
        (["--workers", "2", "--max-parallelism", "2"], LONG_S, 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_workers_and_max_parallelism_bound_the_tasks_at_a_time(
    args: list[str], timeout_s: float, peak: int, zephyr: Command, script: Script
) -> None:
    assert zephyr("run", script(PEAK), "--context", "threadpool", *args, "--", timeout_s).lines == [str(peak)]


def test_intermediate_data_goes_where_storage_says_and_is_removed(zephyr: Command, script: Script, tmp_path: Path) -> None:
    place = tmp_path / "place"
    text = f"import os\ndef main(): return Dataset.from_list([0]).map(lambda _: len(os.listdir({str(place)!r})))\n"
    assert zephyr("run", script(text), "--storage", place).lines == ["1"]
    assert list(place.iterdir()) == []


def test_dry_run_prints_plans_and_runs_nothing(zephyr: Command, script: Script, tmp_path: Path) -> None:
    top_level = "Backend.execute(Dataset.from_list([1]).map(abs))\n"
    done = zephyr("run", script(MARK + top_level), "--dry-run", "--context", "fray", "--controller", "http://127.0.0.1:9")
    assert done.code == 0, done.err
    assert done.out.count("source:") == 2
    assert "MapOp(fn=abs)" in done.out
    assert not (tmp_path / "a").exists()
    assert zephyr("run", script(MARK)).lines == ["None", "None"]
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["--context", "sync", "--workers", "4"], "one task at a time"),
        (["--context", "nonsense"], "threadpool"),
        (["--workers", "0"], "--workers"),
        (["--max-parallelism", "0"], "--max-parallelism"),
        (["--context", "threadpool", "--controller", "local"], "--context fray"),
        (["--controller", "http://127.0.0.1:9", "--workers", "2"], "decide"),
        (["--controller", "local[2]", "--workers", "3"], "contradict"),
        (["--controller", "no-port"], "http://127.0.0.1:50051"),
        (["--context", "fray"], "needs a controller"),
        (["--dry-run", "--json"], "zephyr explain --json"),
        (["--unknown"], "--unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_make_no_sense_are_usage_errors(args: list[str], hint: str, zephyr: Command, script: Script) -> None:
    zephyr("run", script(SQUARES), *args).assert_fails(2, hint)


def test_absent_script_is_a_usage_error(zephyr: Command) -> None:
    zephyr("run", "absent.py").assert_fails(2, "absent.py")


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (("auto", None, None), ContextConfig("auto")),
        (("sync", None, 1), ContextConfig("sync", 1)),
        (("threadpool", None, 3), ContextConfig("threadpool", 3)),
        (("ray", None, 3), ContextConfig("ray", 3)),
        (("fray", None, 3), ContextConfig("fray", None, "local[3]")),
        (("fray", None, None), ContextConfig("fray")),
        (("auto", "http://h:1", None), ContextConfig("auto", None, "http://h:1")),
        (("fray", "local", 2), ContextConfig("fray", 2, "local")),
    ],
    ids=str,
)
def test_options_name_a_context(given: tuple[Any, Any, Any], chosen: ContextConfig) -> None:
    assert choose_context(*given) == chosen


def test_options_that_contradict_each_other_name_no_context() -> None:
    with pytest.raises(typer.BadParameter, match="not ray"):
        choose_context("ray", "http://h:1", None)


def test_users_exception_ends_with_1_and_a_traceback_from_the_script_on(zephyr: Command, script: Script) -> None:
    path = script("def main(): return Dataset.from_list([1, 0]).map(invert)\ndef invert(x): return 1 // x\n")
    done = zephyr("run", path, "--context", "sync")
    assert done.code == 1
    assert done.err.startswith("Traceback")
    assert f'File "{path}", line 3, in invert' in done.err
    assert "zephyr/cli" not in done.err
    assert "ZeroDivisionError" in done.err
    assert "shard 1 of 2" in done.err


def test_script_that_is_no_python_ends_with_1_and_its_place(zephyr: Command, script: Script) -> None:
    done = zephyr("run", script("def main(:\n"))
    assert done.code == 1
    assert "SyntaxError" in done.err


def test_bad_plan_ends_with_2_and_its_message_alone(zephyr: Command, script: Script) -> None:
    path = script("def main(): return Dataset.from_list([1, 2]).write_text('out.txt')\n")
    zephyr("run", path).assert_fails(2, "Error: ", "{shard}")
    zephyr("explain", path).assert_fails(2, "Error: ", "{shard}")


def test_zephyrs_own_error_ends_with_1_and_its_message_and_notes(zephyr: Command, script: Script) -> None:
    text = "import threading\ndef main(): return Dataset.from_list([0]).map(lambda _: threading.Lock())\n"
    zephyr("run", script(text)).assert_fails(1, "cannot be pickled", "in stage 1 of 1")


def test_exit_code_of_a_script_is_its_own(zephyr: Command, script: Script) -> None:
    assert zephyr("run", script("import sys\ndef main(): sys.exit(7)\n")).code == 7


def test_interrupt_ends_with_130(zephyr: Command, script: Script) -> None:
    assert zephyr("run", script("def main(): raise KeyboardInterrupt\n")).code == 130


def test_explain_prints_the_plans_of_what_is_returned_and_of_what_would_run(zephyr: Command, script: Script) -> None:
    text = "def main():\n    assert Backend.execute(Dataset.from_list([1]).map(str)) == []\n"
    done = zephyr("explain", script(text + "    return Dataset.from_list([1, 2]).reshard(3)\n"))
    assert done.lines == [
        "source: 1 item",
        "stage 1 (worker), 1 -> 1 shard",
        "  Map",
        "    MapOp(fn=str)",
        "source: 2 items",
        "stage 1 (reshard), 2 -> 3 shards",
        "  Reshard(num_shards=3)",
    ]


def test_explain_runs_nothing_and_gives_the_script_its_arguments(zephyr: Command, script: Script, tmp_path: Path) -> None:
    text = MARK.replace("['a', 'b']", "sys.argv[1:]")
    assert "source: 3 items" in zephyr("explain", script("import sys\n" + text), "--", "a", "b", "-c").out
    assert not (tmp_path / "a").exists()


def test_explain_gives_programs_the_plan_as_json(zephyr: Command, script: Script) -> None:
    text = """
def main():
    print("by the way")
    right = Dataset.from_list([1, 2]).map(str)
    return Dataset.from_list([1, 2, 3]).map(str).join(right, on=len, num_output_shards=2)
"""
    (plan,) = zephyr("explain", script(text), "--json").json
    assert plan["source"] == {"shards": 3, "files": None, "bytes": None, "parts": 3}
    assert plan["output_shards"] == 2
    first, second = plan["stages"]
    assert (first["number"], first["type"], first["input_shards"], first["output_shards"]) == (1, "worker", 3, 2)
    assert first["operations"] == ["MapOp(fn=str)", "Scatter(key=len, num_shards=2)"]
    assert first["others"] == []
    assert [other["source"]["shards"] for other in second["others"]] == [2]


def test_explain_counts_files_and_their_bytes(zephyr: Command, script: Script, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345")
    (plan,) = zephyr("explain", script("def main(): return Dataset.from_files('*.txt').load_text()\n"), "--json").json
    assert plan["source"] == {"shards": 1, "files": 1, "bytes": 5, "parts": 1}


def test_explain_gives_programs_the_plans_of_what_would_run_too(zephyr: Command, script: Script) -> None:
    text = "def main():\n    assert Backend.execute(Dataset.from_list([1]).map(str)) == []\n"
    plans = zephyr("explain", script(text + "    return Dataset.from_list([1, 2])\n"), "--json").json
    assert [plan["source"]["shards"] for plan in plans] == [1, 2]
    assert zephyr("explain", script("def main(): return 3\n"), "--json").json == []
