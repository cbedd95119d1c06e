from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "reinforcement_learning.py"
ITERATIONS = 12
BY = 4.0
"""How many times the first reward the last ones are, at least: seed 0 gives about 25 and 200 to 300."""

pytestmark = pytest.mark.integration


def learn(*arguments: str) -> list[str]:
    """Run the script; return what it says of each iteration."""
    command = [sys.executable, str(SCRIPT), "--iterations", str(ITERATIONS), "--seed", "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def read_rewards(lines: list[str]) -> list[float]:
    found = [re.match(r"iteration +(\d+): mean reward +([\d.]+)", line) for line in lines]
    assert [match and int(match[1]) for match in found] == list(range(ITERATIONS))
    return [float(match[2]) for match in found if match]


def read_news(lines: list[str]) -> dict[int, str]:
    return {iteration: line.split("; ", 1)[1] for iteration, line in enumerate(lines) if "; " in line}


@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    return learn("--context", "threadpool")


def test_the_reward_rises_on_threads(undisturbed: list[str]) -> None:
    first, *_, before, last = read_rewards(undisturbed)
    assert min(before, last) > BY * first
    assert read_news(undisturbed) == {}


def test_on_fray_a_rollout_worker_and_the_inference_server_are_killed_and_the_rewards_stay_the_same(
    undisturbed: list[str],
) -> None:
    lines = learn("--context", "fray", "--kill")
    assert read_news(lines) == {
        ITERATIONS // 3: "rollout worker 0 died and was replaced",
        ITERATIONS * 2 // 3: "inference server restarted (1 in all)",
    }
    assert read_rewards(lines) == read_rewards(undisturbed)


def test_actors_of_threads_cannot_be_killed_and_the_script_says_so() -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        learn("--context", "threadpool", "--kill")
    assert "--kill ends processes" in error.value.stderr
