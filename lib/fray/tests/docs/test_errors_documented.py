"""Every error of Fray pickles, has a code of its own, and is explained in docs/errors.md."""

from __future__ import annotations

import inspect
import pickle
import re
from collections import Counter
from pathlib import Path

import fray.errors
import pytest
from fray.errors import FrayError, RemoteTraceback, TaskFailed

pytestmark = pytest.mark.unit

PAGE = Path(__file__).parents[4] / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (yes|no) \|", re.MULTILINE)


def walk(root: type[FrayError]) -> list[type[FrayError]]:
    """Return the classes of the tree that ``fray.errors`` defines, each once."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == fray.errors.__name__:
            found += walk(child)
    return list(dict.fromkeys(found))


TREE = walk(FrayError)


def test_every_class_of_the_module_is_in_the_tree() -> None:
    defined = {
        kind
        for _, kind in inspect.getmembers(fray.errors, inspect.isclass)
        if kind.__module__ == fray.errors.__name__ and issubclass(kind, BaseException)
    }
    assert defined - set(TREE) == {RemoteTraceback}, "only the carrier of remote tracebacks is no FrayError"


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_text_and_notes(kind: type[FrayError]) -> None:
    error = kind("what, where, what now")
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error, 5))
    assert type(back) is kind
    assert str(back) == str(error) == "what, where, what now"
    assert back.code == error.code
    assert back.__notes__ == ["a note"]


def test_a_failed_task_keeps_its_fields_over_pickling() -> None:
    back = pickle.loads(pickle.dumps(TaskFailed("it raised", "my.Error", "Traceback ..."), 5))
    assert (back.message, back.type_name, back.traceback_text) == ("it raised", "my.Error", "Traceback ...")
    assert str(back) == "it raised\n\nTraceback ..."


def test_codes_are_unique_and_in_snake_case() -> None:
    codes = Counter(kind("x").code for kind in TREE)
    assert [code for code, count in codes.items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes), codes


def test_the_page_lists_each_error_once_with_its_code_and_whether_to_try_again() -> None:
    expected = {(kind.__name__, kind("x").code, "yes" if kind.retryable else "no") for kind in TREE}
    rows = ROW.findall(PAGE.read_text())
    assert sorted(rows) == sorted(expected)


def test_the_page_gives_meaning_and_remedy_for_each_error() -> None:
    for line in PAGE.read_text().splitlines():
        if ROW.match(line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 5, line
            assert all(len(cell) > 10 for cell in cells[3:]), line


def test_the_tree_drawn_in_the_module_names_every_error() -> None:
    drawn = set(re.findall(r"\b([A-Z]\w+)\b", fray.errors.__doc__ or ""))
    assert {kind.__name__ for kind in TREE} <= drawn
