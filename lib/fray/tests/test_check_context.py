"""``fray.testing.check_context`` as users call it on contexts of their own."""

from __future__ import annotations

from typing import Any

import pytest
from fray import JobFuture, create_job_ctx
from fray.job.sync_ctx import SyncContext
from fray.testing import CHECKS, check_context

pytestmark = pytest.mark.unit


def test_a_context_of_fray_s_own_is_known_and_its_exemptions_apply() -> None:
    ran = check_context(lambda: create_job_ctx("sync"))
    assert ran == [name for name, rule in CHECKS.items() if "sync" not in rule.exempt]


def test_a_context_of_one_s_own_has_no_exemptions_unless_it_names_a_kind() -> None:
    class Mine(SyncContext):
        pass

    rule = "arguments_that_cannot_travel_are_named_at_run"
    assert check_context(Mine, kind="sync", names=[rule]) == []
    with pytest.raises(AssertionError, match=rule):
        check_context(Mine, names=[rule])


def test_every_exemption_names_a_kind_of_context_and_says_why() -> None:
    for rule in CHECKS.values():
        assert set(rule.exempt) < {"sync", "threadpool", "ray", "fray"}, rule.name
        assert all(" " in reason for reason in rule.exempt.values()), rule.name


def test_a_context_whose_actors_break_a_rule_is_told_which() -> None:
    class Nameless(SyncContext):
        def create_actor(self, cls: type, /, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
            return super().create_actor(cls, *args, **kwargs)

    with pytest.raises(AssertionError, match="actor_names_are_unique"):
        check_context(Nameless, names=["many_actors_take_many_calls_each", "actor_names_are_unique"])


def test_a_context_that_breaks_a_rule_is_told_which() -> None:
    class Forgetful(SyncContext):
        def run(self, fn: Any, /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
            return super().run(fn, *args)

    with pytest.raises(AssertionError, match="run_passes_arguments_and_returns_the_value"):
        check_context(Forgetful)
