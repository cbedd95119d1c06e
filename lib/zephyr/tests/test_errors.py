from __future__ import annotations

import pickle

import pytest
import zephyr
from zephyr import errors

pytestmark = pytest.mark.unit

ARGUMENTS = {"ChunkMissing": ("a/b",), "ChunkCorrupted": ("a/b", "bad"), "OutputConflict": ("a/b",)} | {
    "PlanChanged": ("a/b", ("- old", "+ new")),
    "TooManyBadRecords": (3, 2, "bad"),
}


def tree(kind: type[errors.ZephyrError]) -> list[type[errors.ZephyrError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in tree(sub))]


@pytest.mark.parametrize("kind", tree(errors.ZephyrError), ids=lambda kind: kind.__name__)
def test_every_error_is_documented_exported_and_survives_pickling(kind: type[errors.ZephyrError]) -> None:
    error = kind(*ARGUMENTS.get(kind.__name__, ("text",)))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error) and vars(copy) == vars(error)
    assert kind.__name__ in (errors.__doc__ or "")
    assert getattr(zephyr, kind.__name__) is kind
    assert error.code.replace("_", "") == kind.__name__.lower()


def test_plan_error_is_a_value_error() -> None:
    assert issubclass(errors.PlanError, ValueError)


def test_all_is_sorted_and_complete() -> None:
    assert zephyr.__all__ == sorted(zephyr.__all__)
    assert all(hasattr(zephyr, name) for name in zephyr.__all__)
