"""The command line as its users meet it: real processes, their output, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fray import create_job_ctx
from fray.errors import ActorDied, TaskTimeout
from fray.job.rpc.context import FrayContext
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.testing import eventually

pytestmark = pytest.mark.integration

TOKEN = "a-token-for-the-command-line"
WAIT_S = 30.0

Env = dict[str, str]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Env]:
    """The environment of a user with nothing set but a token; at the end no process of theirs may be left."""
    home = tmp_path_factory.mktemp("home")
    yield make_env(home, FRAY_TOKEN=TOKEN)
    eventually(lambda: not find_processes(home), what="processes left behind")


@pytest.fixture(scope="module")
def local(env: Env, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Env]:
    """An environment in which a ``fray local`` with two CPUs is the cluster."""
    with serving("local", "-n", "2", env=env, log=tmp_path_factory.mktemp("local") / "out", until="export FRAY_ADDRESS=") as it:
        line = next(line for line in it.lines() if line.startswith("export "))
        yield {**env, "FRAY_ADDRESS": line.removeprefix("export FRAY_ADDRESS=")}
        assert it.stop(signal.SIGINT) == 0, it.text()
        assert TOKEN not in it.text()
        assert "Traceback" not in it.text()


@pytest.fixture
def client(local: Env) -> Iterator[ControllerClient]:
    """Calls to the cluster of ``local``."""
    client = ControllerClient(local["FRAY_ADDRESS"], TOKEN)
    yield client
    client.close()


@pytest.fixture
def ctx(local: Env, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrayContext]:
    """A context on the cluster of ``local``; its actors end with the test."""
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)
    with create_job_ctx("fray", controller_address=local["FRAY_ADDRESS"]) as ctx:
        assert isinstance(ctx, FrayContext)
        yield ctx


# --- the controller's options


def test_controller_gives_up_workers_and_clients_that_are_silent_for_as_long_as_it_was_told(env: Env, tmp_path: Path) -> None:
    options = ("controller", "--port", "0", "--silence", "0.5", "--grace", "0.5")
    with serving(*options, env=env, log=tmp_path / "out", until="token") as it:
        address = it.lines()[0].split()[-1]
        client = ControllerClient(address, TOKEN)
        client.call("register_worker", pb.WorkerInfo(worker_id="w", resources={"cpu": 1.0}))
        client.call("open_session", pb.OpenSessionRequest(session_id="s"))
        found: list[pb.ClusterStatus] = []

        def is_alone() -> bool:
            found[:] = [client.call("get_status", pb.Empty())]
            return not found[0].workers and not found[0].sessions

        eventually(is_alone, timeout=8.0, what="both are given up, long before the defaults of 10 and 30 s")
        assert found[0].stats["workers lost"] == found[0].stats["sessions expired"] == 1
        client.close()


def test_controller_keeps_its_state_in_a_file_and_goes_on_with_it(env: Env, tmp_path: Path) -> None:
    state, port = tmp_path / "deep" / "state.sqlite", str(free_port())
    options = ("controller", "--port", port, "--state", str(state), "--storage", str(tmp_path / "storage"))
    with serving(*options, env=env, log=tmp_path / "first", until="token") as it:
        assert f"Its state is kept in {state}\n" in it.text()
        address = it.lines()[0].split()[-1]
        client = ControllerClient(address, TOKEN)
        client.call("submit_task", pb.TaskSpec(task_id="later", entrypoint="math:sqrt", json_args="[9]"))
        assert fray_json("status", "--controller", address, env=env)["state_path"] == str(state)
    with serving(*options, env=env, log=tmp_path / "second", until="token") as it:
        assert f"{state}; 1 tasks of before go on" in it.text()
        with serving("worker", "--controller", address, "-n", "1", env=env, log=tmp_path / "worker", until="works"):
            answer = client.call("get_task_result", pb.TaskHandle(task_id="later", wait_s=15))
            assert answer.result_json == "3.0"
        client.close()


def test_controller_with_a_port_of_its_own_has_a_state_file_of_its_own(env: Env, tmp_path: Path) -> None:
    port = free_port()
    home = {**env, "XDG_STATE_HOME": str(tmp_path)}
    with serving("controller", "--port", str(port), env=home, log=tmp_path / "out", until="token"):
        assert (tmp_path / "fray" / f"controller-{port}.sqlite").exists()
    with serving("controller", "--port", str(port), "--state", ":memory:", env=env, log=tmp_path / "out2", until="token") as it:
        assert "kept in memory" in it.text()


def test_state_that_cannot_be_used_ends_the_controller_with_the_files_name(env: Env, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database at all " * 1000)
    assert_fails(fray("controller", "--port", "0", "--state", str(path), env=env), 1, str(path))


# --- what needs no cluster


def test_version_is_printed(env: Env) -> None:
    assert fray("--version", env=env).stdout.startswith("fray 0.")


def test_help_names_all_commands_and_exit_codes(env: Env) -> None:
    text = fray("--help", env=env).stdout
    commands = ("controller", "worker", "local", "run", "status", "tasks", "actors", "workers", "why", "cancel", "kill")
    for word in (*commands, "Exit codes"):
        assert word in text


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["nonsense"], "nonsense"),
        (["tasks", "--status", "odd"], "in_progress"),
        (["status", "--controller", "no-port"], "http://127.0.0.1:50051"),
        (["worker", "--resources", '{"gpu"'], "not JSON"),
        (["worker", "--resources", "[1]"], "not an object"),
        (["worker", "--resources", '{"gpu": -1}'], "gpu"),
        (["worker", "--resources", '{"gpu": "one"}'], "gpu"),
        (["worker", "--tags", "zone"], "NAME=VALUE"),
        (["worker", "--num-cpus", "0"], "above 0"),
        (["worker", "--host", "0.0.0.0"], "--insecure"),
        (["controller", "--host", "0.0.0.0"], "--insecure"),
        (["run", "absent.py"], "absent.py"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(args: list[str], hint: str, env: Env) -> None:
    assert_fails(fray(*args, env=env), 2, hint)


def test_malformed_configuration_file_ends_with_2(env: Env, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("adress = 'http://127.0.0.1:1'")
    assert_fails(fray("status", env={**env, "FRAY_CONFIG": str(file)}), 2, "adress")


@pytest.mark.parametrize(
    "args", [["status"], ["actors"], ["why", "t"], ["cancel", "t"], ["kill", "a"], ["worker"]], ids=" ".join
)
def test_absent_controller_ends_with_3_and_says_how_to_start_one(args: list[str], env: Env) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert_fails(fray(*args, "--controller", address, env=env), 3, f"no Fray controller answers at {address}")


def test_interrupt_while_waiting_for_an_answer_ends_with_130(env: Env) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "fray", "status", "--controller", address]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=15.0)
    assert process.returncode == 130
    assert "Traceback" not in errors


# --- reading from a cluster


def test_wrong_token_ends_with_4(local: Env) -> None:
    strange = {**local, "FRAY_TOKEN": "another-token"}
    assert_fails(fray("status", env=strange), 4, "refuses the token")
    assert_fails(fray("worker", env=strange), 4, "refuses the token")


def test_taken_port_ends_with_2(local: Env) -> None:
    port = local["FRAY_ADDRESS"].rpartition(":")[2]
    assert_fails(fray("controller", "--port", port, env=local), 2, "is taken")


def test_unknown_task_or_actor_ends_with_1(local: Env) -> None:
    assert_fails(fray("why", "no-such-task", env=local), 1, "no-such-task")
    assert_fails(fray("kill", "no-such-actor", env=local), 1, "no-such-actor")
    assert_fails(fray("kill", "", env=local), 1, "no actor")
    assert_fails(fray("cancel", "no-such-task", env=local), 1, "no-such-task")


def test_address_is_taken_from_argument_then_environment_then_file(env: Env, local: Env, tmp_path: Path) -> None:
    address, dead = local["FRAY_ADDRESS"], f"http://127.0.0.1:{free_port()}"
    file = tmp_path / "config.toml"
    file.write_text(f'address = "{address}"')
    by_file = {**env, "FRAY_CONFIG": str(file)}
    by_env = {**by_file, "FRAY_ADDRESS": dead}
    assert fray_json("status", env=by_file)["address"] == address
    assert_fails(fray("status", env=by_env), 3, dead)
    assert fray_json("status", "--controller", address, env=by_env)["address"] == address


def test_status_tells_workers_and_tasks(local: Env, client: ControllerClient) -> None:
    run_task(client, "status-1", "math:sqrt", [9])
    status = fray_json("status", env=local)
    assert set(status) == {
        *("address", "controller_id", "version", "uptime_s", "sessions", "workers", "tasks", "actors", "capacity", "used"),
        *("stats", "state_path", "trouble"),
    }
    assert set(status["tasks"]) == {"PENDING", "IN_PROGRESS", "FINISHED", "FAILED", "CANCELLED"}
    assert status["workers"] == 1
    assert status["capacity"]["cpu"] == 2
    assert status["tasks"]["FINISHED"] >= 1
    assert "of 2" in fray("status", env=local).stdout


def test_workers_lists_the_worker(local: Env) -> None:
    (worker,) = fray_json("workers", env=local)["workers"]
    assert set(worker) == {
        *("worker_id", "incarnation", "address", "state", "running", "actors", "last_seen_s", "resources", "used", "tags")
    }
    assert worker["state"] == "ready"
    assert worker["resources"]["cpu"] == 2
    assert worker["worker_id"] in fray("workers", env=local).stdout


def test_tasks_lists_the_latest_first_and_by_status(local: Env, client: ControllerClient) -> None:
    run_task(client, "listed-1", "math:sqrt", [9])
    run_task(client, "listed-2", "math:sqrt", [-1])
    listed = fray_json("tasks", "--limit", "1000", env=local)
    names = [task["task_id"] for task in listed["tasks"]]
    assert names.index("listed-2") < names.index("listed-1")
    assert listed["total"] == len(names)
    failed = {task["task_id"]: task for task in fray_json("tasks", "--status", "failed", env=local)["tasks"]}
    assert "listed-1" not in failed
    assert set(failed["listed-2"]) == {
        *("task_id", "name", "status", "session_id", "worker_id", "attempt", "age_s", "reason", "error")
    }
    assert "ValueError" in failed["listed-2"]["error"]
    text = fray("tasks", "--limit", "1", "--status", "FAILED", env=local).stdout
    assert "ValueError" in text
    (shown,) = fray_json("tasks", "--limit", "1", env=local)["tasks"]
    assert shown["task_id"] == "listed-2"


def test_names_are_shown_without_steering_the_terminal(local: Env, client: ControllerClient) -> None:
    run_task(client, "odd-1", "builtins:int", ["[bold]\x1b[31m"])
    text = fray("tasks", "--status", "failed", env=local).stdout
    assert "[bold]" in text
    assert "\x1b" not in text


def test_why_tells_what_a_pending_task_waits_for_until_it_is_cancelled(local: Env, client: ControllerClient) -> None:
    client.call("submit_task", pb.TaskSpec(task_id="gpu-1", entrypoint="math:sqrt", json_args="[9]", resources={"gpu": 1}))
    told = fray_json("why", "gpu-1", env=local)
    assert told["status"] == "PENDING"
    assert "gpu" in told["reason"]
    assert any("submitted" in line for line in told["story"])
    text = fray("why", "gpu-1", env=local).stdout
    assert "PENDING" in text
    assert told["reason"] in text
    assert "submitted" in text
    assert "cancelled 1 of 1" in fray("cancel", "gpu-1", env=local).stdout
    assert fray_json("why", "gpu-1", env=local)["status"] == "CANCELLED"
    assert "1 had ended already" in fray("cancel", "gpu-1", env=local).stdout


def test_cancel_ends_a_running_task(local: Env, client: ControllerClient) -> None:
    client.call("submit_task", pb.TaskSpec(task_id="long-1", entrypoint="time:sleep", json_args="[600]"))
    eventually(lambda: status_of(client, "long-1") == "IN_PROGRESS")
    assert "cancelled 1 of 1" in fray("cancel", "long-1", env=local).stdout
    eventually(lambda: status_of(client, "long-1") == "CANCELLED")


# --- actors


def test_actors_lists_those_that_live_the_latest_first_and_counts_those_that_ended(local: Env, ctx: FrayContext) -> None:
    first, second = ctx.create_actor(Counter, name="first"), ctx.options(resources={"cpu": 0.5}).create_actor(Counter)
    before = fray_json("actors", env=local)
    assert set(before) == {"ended", "actors"}
    latest, earlier = before["actors"]
    assert set(earlier) == {
        *("actor_id", "name", "class_name", "state", "incarnation", "restarts", "worker_id", "session_id", "detached"),
        *("resources", "age_s", "reason"),
    }
    assert (earlier["name"], latest["name"]) == ("first", None)
    assert (earlier["state"], earlier["incarnation"], earlier["restarts"], earlier["reason"]) == ("ALIVE", 1, 0, None)
    assert (earlier["resources"], latest["resources"]) == ({}, {"cpu": 0.5})
    assert earlier["actor_id"] == ctx.actor_status(first).actor_id
    ctx.kill(first)
    after, everything = fray_json("actors", env=local), fray_json("actors", "--all", env=local)
    assert [actor["actor_id"] for actor in after["actors"]] == [latest["actor_id"]]
    assert after["ended"] == everything["ended"] == before["ended"] + 1
    assert [actor["state"] for actor in everything["actors"]] == ["ALIVE", *["DEAD"] * after["ended"]]
    assert everything["actors"][1]["reason"] == "it was killed"
    ctx.kill(second)


def test_actors_shows_a_table_of_what_is_to_be_said(local: Env, ctx: FrayContext) -> None:
    actor = ctx.options(resources={"cpu": 0.5}).create_actor(Counter, name="shown")
    text = fray("actors", env=local).stdout
    assert {"shown", "Counter", "ALIVE"} < set(text.split())
    assert "cpu 0.5" in text
    assert "detached" not in text
    assert "why" not in text
    ctx.kill(actor)
    assert "no actor lives" in fray("actors", env=local).stdout
    assert "it was killed" in fray("actors", "--all", env=local).stdout


def test_actors_are_counted_by_state_and_by_worker_and_are_no_tasks(local: Env, ctx: FrayContext) -> None:
    before = fray_json("status", env=local)
    actor = ctx.create_actor(Counter)
    status = fray_json("status", env=local)
    assert set(status["actors"]) == {"PENDING", "ALIVE", "RESTARTING", "DEAD"}
    assert status["actors"]["ALIVE"] == 1
    assert status["tasks"] == before["tasks"]
    assert "1 alive, 0 pending, 0 restarting" in fray("status", env=local).stdout
    (worker,) = fray_json("workers", env=local)["workers"]
    assert (worker["actors"], worker["running"]) == (1, 0)
    listed = fray_json("tasks", "--limit", "1000", env=local)["tasks"]
    ctx.kill(actor)
    listed += fray_json("tasks", "--limit", "1000", env=local)["tasks"]
    assert "Counter" not in {task["name"] for task in listed}


def test_why_tells_an_actors_story_by_id_and_by_name_also_when_it_has_ended(local: Env, ctx: FrayContext) -> None:
    actor = ctx.create_actor(Counter, name="explained")
    actor_id = ctx.actor_status(actor).actor_id
    told = fray_json("why", actor_id, env=local)
    assert (told["actor_id"], told["name"], told["state"]) == (actor_id, "explained", "ALIVE")
    assert any("constructed" in line for line in told["story"])
    assert "ALIVE" in fray("why", "explained", env=local).stdout
    ctx.kill(actor)
    text = fray("why", "explained", env=local).stdout
    assert actor_id in text
    assert "DEAD" in text
    assert "it was killed" in text


def test_why_takes_the_actor_that_lives_among_those_of_one_name(local: Env, ctx: FrayContext) -> None:
    ctx.kill(ctx.create_actor(Counter, name="again"))
    actor = ctx.create_actor(Counter, name="again")
    assert fray_json("why", "again", env=local)["actor_id"] == ctx.actor_status(actor).actor_id
    ctx.kill(actor)


def test_kill_ends_an_actor_by_name_or_id_and_waits_until_it_has_ended(local: Env, ctx: FrayContext) -> None:
    named, other = ctx.create_actor(Counter, name="victim"), ctx.options(max_restarts=-1).create_actor(Counter)
    other_id = ctx.actor_status(other).actor_id
    assert "killed Counter" in fray("kill", "victim", env=local).stdout
    assert f"killed Counter {other_id}" in fray("kill", other_id, env=local).stdout
    assert [ctx.actor_status(actor).state for actor in (named, other)] == ["DEAD", "DEAD"]
    with pytest.raises(ActorDied, match="killed"):
        ctx.get(named.total.remote())
    again = fray("kill", "victim", env=local)
    assert (again.returncode, "had ended already" in again.stdout) == (0, True)


def test_kill_ends_an_actor_that_no_worker_can_host(local: Env, ctx: FrayContext) -> None:
    creator = ThreadPoolExecutor(1)
    created = creator.submit(ctx.options(resources={"moonstone": 1}).create_actor, Counter, name="nowhere")
    eventually(lambda: "moonstone" in fray("why", "nowhere", env=local).stdout)
    assert fray_json("why", "nowhere", env=local)["state"] == "PENDING"
    assert fray("kill", "nowhere", env=local).returncode == 0
    with pytest.raises(ActorDied, match="killed"):
        created.result(WAIT_S)
    creator.shutdown()


def test_worker_says_that_it_is_preemptible_and_takes_no_direct_calls(
    local: Env, ctx: FrayContext, client: ControllerClient, tmp_path: Path
) -> None:
    options = ["-n", "1", "--worker-id", "spot", "--preemptible", "--no-direct-calls", "--tags", "zone=a"]
    with serving(
        "worker", *options, "--resources", '{"odd": 1}', env=local, log=tmp_path / "spot", until="works for"
    ) as worker:
        listed = {worker.worker_id: worker for worker in client.call("list_workers", pb.Empty()).workers}
        assert dict(listed["spot"].tags) == {"zone": "a", "preemptible": "true"}
        assert listed["spot"].lane_address == ""
        assert all(other.lane_address for name, other in listed.items() if name != "spot")
        actor = ctx.options(resources={"odd": 1}).create_actor(Counter)
        ctx.get(actor.update.remote("abc"))
        assert ctx.get(actor.total.remote()) == 3
        with pytest.raises(TaskTimeout):
            ctx.options(resources={"odd": 1}, deadline=0.5).create_actor(Counter, preemptible=False)
        ctx.kill(actor)
        assert worker.stop() == 0


# --- controller and worker


def test_worker_drains_on_the_first_signal_and_ends_at_once_on_the_second(tmp_path: Path) -> None:
    env = make_env(tmp_path)  # no token: the controller makes the file
    with serving("controller", "--port", "0", env=env, log=tmp_path / "controller", until="Its token is") as controller:
        address = controller.lines()[0].rpartition(" ")[2]
        token_file = tmp_path / "fray" / "token"
        token = token_file.read_text().strip()
        assert str(token_file) in controller.text()
        assert token not in controller.text()
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        client = ControllerClient(address, token)
        options = ["--controller", address, "-n", "1", "--worker-id", "w1", "--tags", "zone=a", "--tags", "disk=ssd"]
        with serving(
            "worker", *options, "--resources", '{"disk": 2}', env=env, log=tmp_path / "w1", until="works for"
        ) as worker:
            (listed,) = fray_json("workers", "--controller", address, env=env)["workers"]
            assert listed["tags"] == {"zone": "a", "disk": "ssd"}
            assert listed["resources"]["disk"] == 2
            finish = start_waiting_task(client, "drained-1", tmp_path)
            worker.process.send_signal(signal.SIGTERM)
            eventually(lambda: "Draining" in worker.text())
            finish()
            assert worker.process.wait(WAIT_S) == 0
        result = client.call("get_task_result", pb.TaskHandle(task_id="drained-1", wait_s=10))
        assert result.result_json == "0"
        assert client.call("list_workers", pb.Empty()).workers == []
        with serving("worker", *options, env=env, log=tmp_path / "w2", until="works for") as worker:
            start_waiting_task(client, "left-1", tmp_path)
            worker.process.send_signal(signal.SIGTERM)
            eventually(lambda: "Draining" in worker.text())
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(15.0) == 128 + signal.SIGTERM
        client.close()
        (tmp_path / "left-1").touch()  # lets the command end that the task had started
        assert controller.stop() == 0
    eventually(lambda: not find_processes(tmp_path), what="processes left behind")


# --- run


def test_run_gives_a_script_a_cluster_and_ends_as_it_does(env: Env, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "import fray\n"
        "with fray.create_job_ctx() as ctx:\n"
        "    print(type(ctx).__name__, ctx.get(ctx.run(os.getpid)) != os.getpid(), *sys.argv[1:], flush=True)\n"
        "sys.exit(7)\n"
    )
    done = fray("run", "--num-cpus", "1", "--workers", "1", str(script), "--limit", "-x", "--", "y", env=env)
    assert done.stdout.split() == ["FrayContext", "True", "--limit", "-x", "--", "y"], done.stderr
    assert done.returncode == 7
    assert not find_processes(Path(env["HOME"]), exclude="local")


def test_run_names_the_signal_that_ended_the_script(env: Env, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert fray("run", "-n", "1", str(script), env=env).returncode == 128 + signal.SIGKILL


def test_run_passes_a_signal_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import signal\nprint('begun', flush=True)\nsignal.pause()\n")
    env = make_env(tmp_path)
    with serving("run", "-n", "1", str(script), env=env, log=tmp_path / "out", until="begun") as running:
        assert running.stop() == 128 + signal.SIGTERM
    assert not find_processes(tmp_path)


# --- helpers


class Serving:
    """A command that runs until it is stopped."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def text(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[str]:
        return self.text().splitlines()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


@contextmanager
def serving(*args: str, env: Env, log: Path, until: str) -> Iterator[Serving]:
    """Run a command in the background; enter when it has said ``until``; end it whatever happens."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fray", *args], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        it = Serving(process, log)
        eventually(lambda: until in it.text() or process.poll() is not None, WAIT_S, what=f"{args} to say {until!r}")
        assert process.poll() is None, it.text()
        yield it
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def fray(*args: str, env: Env) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "fray", *args]
    return subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def fray_json(*args: str, env: Env) -> Any:
    """Run a command that must succeed, and return what it prints as JSON."""
    done = fray(*args, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def assert_fails(done: subprocess.CompletedProcess[str], code: int, hint: str) -> None:
    """Check for the exit code and one clear message."""
    assert done.returncode == code, done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def make_env(home: Path, **settings: str) -> Env:
    """Return an environment in which nothing of Fray is set, with its files under ``home``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FRAY_")}
    return {**inherited, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TMPDIR": str(home), **settings}


def find_processes(home: Path, exclude: str = "") -> list[str]:
    """Return the command lines of living processes that were started with this home, but for those of one command."""
    mark = f"XDG_CONFIG_HOME={home}".encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                found[process.name] = parent, (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended, or is somebody else's
            continue
    excluded = {pid for pid, (_, line) in found.items() if exclude and f"-m fray {exclude}" in line}
    while below := {pid for pid, (parent, _) in found.items() if parent in excluded} - excluded:
        excluded |= below
    return [line for pid, (_, line) in found.items() if pid not in excluded]


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run_task(client: ControllerClient, task_id: str, entrypoint: str, args: list[Any]) -> None:
    """Run a task to its end."""
    client.call("submit_task", pb.TaskSpec(task_id=task_id, entrypoint=entrypoint, json_args=json.dumps(args)))
    client.call("get_task_result", pb.TaskHandle(task_id=task_id, wait_s=15))
    assert status_of(client, task_id) in ("FINISHED", "FAILED")


def start_waiting_task(client: ControllerClient, task_id: str, directory: Path) -> Callable[[], None]:
    """Start a task that ends, with the value 0, when the returned function is called; return when it runs."""
    begun, goal = directory / f"{task_id}.begun", directory / task_id
    command = f"touch {begun}; for i in $(seq 600); do [ -e {goal} ] && exit; sleep 0.05; done; exit 1"
    spec = pb.TaskSpec(task_id=task_id, entrypoint="subprocess:call", json_args=json.dumps([["sh", "-c", command]]))
    client.call("submit_task", spec)
    eventually(begun.exists)
    return goal.touch


def status_of(client: ControllerClient, task_id: str) -> str:
    """Return a task's status."""
    return str(client.call("get_task_status", pb.TaskHandle(task_id=task_id)).status.name)
