"""The contract of JobContext over every context: sync, threads, real Ray, and Fray in this process and in processes.

The rules that name actors run on Fray once more, with every call going through the controller. On Ray, where an actor takes a
second to start, the everyday run has some of these rules, and ``make contract CTX=ray`` all.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fray import create_job_ctx
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.worker import FrayWorker
from fray.testing import CHECKS

TOKEN = "contract-suite"

RAY_EVERYDAY = {
    "a_call_under_way_when_an_actor_dies_is_retried_if_asked",
    "actor_names_are_unique",
    "an_actor_carries_out_as_many_calls_as_asked_for",
    "an_actor_keeps_state_and_carries_out_calls_in_order",
    "an_actor_keeps_the_order_of_each_calling_thread",
    "an_actor_that_may_be_restarted_lives_again",
    "an_actors_call_with_late_arguments_keeps_its_place",
    "an_actors_constructor_raises_at_creation",
    "an_actors_coroutines_run_at_the_same_time",
    "an_actors_exceptions_have_their_type_text_and_traceback",
    "an_actors_status_says_who_it_is",
    "handles_of_an_actor_travel_inside_values",
}
"""Rules about actors that run on Ray every day."""


def _rows(kind: str, word: str = "") -> list[object]:
    names = [name for name in CHECKS if word in name and kind not in CHECKS[name].exempt]
    return [pytest.param(kind, name, id=f"{kind}-{name}", marks=_marks(kind, name)) for name in names]


def _marks(kind: str, name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if kind == "ray" and "actor" in name and name not in RAY_EVERYDAY else []


@pytest.mark.unit
@pytest.mark.parametrize(("kind", "name"), [*_rows("sync"), *_rows("threadpool")])
def test_contract_in_this_process(kind: str, name: str, tmp_path: Path) -> None:
    with create_job_ctx(kind, max_workers=2) as ctx:  # type: ignore[arg-type]
        CHECKS[name].fn(ctx, tmp_path)


@pytest.fixture(scope="module")
def in_process() -> Iterator[str]:
    """Controller and agent on one thread of this process, as in a local cluster; executors are processes always."""
    server = FrayControllerServer(token=TOKEN)
    server.start()
    worker = FrayWorker(server.address, token=TOKEN, num_cpus=2, embedded_in=server)
    worker.start()
    yield server.address
    worker.stop(grace=0)
    server.stop()


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalCluster]:
    """A controller process and one worker process with two slots."""
    with LocalCluster(workers=1, num_cpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def relayed() -> Iterator[LocalCluster]:
    """The same with a worker that takes calls of actors from the controller alone."""
    with LocalCluster(workers=1, num_cpus=2, direct_calls=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray with two CPUs for all rows."""
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("CI"):
            pytest.fail("Ray is not installed: it must be for CI")
        pytest.skip("Ray is not installed: pip install 'fray[ray]'")
    with create_job_ctx("ray", max_workers=2):
        yield


@pytest.mark.integration
@pytest.mark.parametrize(("kind", "name"), _rows("fray"))
def test_contract_on_fray_in_process(
    kind: str, name: str, in_process: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)
    with create_job_ctx("fray", controller_address=in_process) as ctx:
        CHECKS[name].fn(ctx, tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize(("kind", "name"), _rows("fray"))
def test_contract_on_fray_processes(
    kind: str, name: str, processes: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAY_TOKEN", processes.token)
    with create_job_ctx("fray", controller_address=processes.address) as ctx:
        CHECKS[name].fn(ctx, tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize(("kind", "name"), _rows("fray", "actor"))
def test_contract_on_fray_relayed(
    kind: str, name: str, relayed: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAY_TOKEN", relayed.token)
    with create_job_ctx("fray", controller_address=relayed.address) as ctx:
        CHECKS[name].fn(ctx, tmp_path)


@pytest.mark.unit
def test_every_rule_about_actors_names_them_and_so_runs_by_way_of_the_controller_too() -> None:
    others = [name for name, rule in CHECKS.items() if "actor" in rule.fn.__module__ and "actor" not in name]
    assert others == []


@pytest.mark.integration
@pytest.mark.parametrize(("kind", "name"), _rows("ray"))
def test_contract_on_ray(kind: str, name: str, ray: None, tmp_path: Path) -> None:
    with create_job_ctx("ray") as ctx:
        CHECKS[name].fn(ctx, tmp_path)
