"""What actors may be asked for: options as values, on views of a context, and what contradicts itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from fray import ActorOptions, TaskOptions, create_job_ctx
from fray.errors import ConfigurationError
from fray.types import MAX_COUNT, MAX_SECONDS, change_options

pytestmark = pytest.mark.unit

WRONG: list[tuple[str, Any]] = [
    *(
        (option, value)
        for option in ("max_restarts", "max_task_retries")
        for value in (-2, 1.0, True, "1", None, MAX_COUNT + 1)
    ),
    *(
        (option, value)
        for option in ("max_concurrency", "checkpoint_every")
        for value in (0, -1, 2.0, True, "2", MAX_COUNT + 1)
    ),
    *(("pending_timeout", value) for value in (0, -1.0, True, "5", math.inf, math.nan, MAX_SECONDS * 2)),
]


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_an_option_of_actors_that_makes_no_sense_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        ActorOptions(**{option: value})


def test_an_actor_asks_for_nothing_by_default() -> None:
    assert dataclasses.asdict(ActorOptions()) == {
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": None,
        "checkpoint_every": None,
        "pending_timeout": 60.0,
    }


def test_the_limits_of_every_option_of_actors_are_allowed() -> None:
    ActorOptions(max_restarts=-1, max_task_retries=-1, max_concurrency=1, checkpoint_every=1, pending_timeout=None)
    ActorOptions(MAX_COUNT, MAX_COUNT, MAX_COUNT, MAX_COUNT, MAX_SECONDS)


def test_options_of_tasks_and_actors_are_changed_each_for_itself() -> None:
    task, actor = TaskOptions(priority=1), ActorOptions(max_restarts=2)
    changed = change_options(task, actor, {"max_retries": 3, "max_task_retries": 4})
    assert changed == (TaskOptions(priority=1, max_retries=3), ActorOptions(max_restarts=2, max_task_retries=4))
    assert (task, actor) == (TaskOptions(priority=1), ActorOptions(max_restarts=2))


def test_an_unknown_option_is_refused_with_a_list_of_those_of_tasks_and_of_actors() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown option max_restart, nonsense; .*checkpoint_every.*max_retries"):
        change_options(TaskOptions(), ActorOptions(), {"nonsense": 1, "max_restart": 1, "priority": 1})


def test_a_view_with_options_leaves_its_context_as_it_was() -> None:
    class Any_:
        pass

    with create_job_ctx("sync") as ctx:
        view = ctx.options(max_concurrency=2).options(max_restarts=1)
        with pytest.raises(ConfigurationError, match="checkpoint_every"):
            view.options(checkpoint_every=3).create_actor(Any_)
        ctx.options(checkpoint_every=3).create_actor(Any_)
        view.create_actor(Any_)
