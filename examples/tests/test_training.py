from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "training.py"
STEPS = 80


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(*arguments: str) -> str:
    """Run the script; return what it says."""
    command = [sys.executable, str(SCRIPT), "--steps", str(STEPS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read_result(said: str) -> tuple[int, str, str]:
    """Return (restarts, loss, digest of the weights)."""
    found = re.search(rf"^{STEPS} steps, (\d+) restarts, loss ([\d.]+)\nweights (\w{{32}})$", said, re.MULTILINE)
    assert found, said
    return int(found[1]), found[2], found[3]


@pytest.mark.integration
def test_a_trainer_that_loses_its_worker_and_its_process_ends_with_the_weights_of_one_left_alone() -> None:
    undisturbed = read_result(train("--context", "threadpool"))
    assert undisturbed[0] == 0
    said = train("--context", "fray", "--kill-at", "30,60")
    assert read_result(said) == (2, *undisturbed[1:])
    lost = re.findall(r"step (\d+): the trainer loses its (\w+)", said)
    assert lost == [("30", "worker"), ("60", "process")]
    restored = [(int(at), int(to)) for at, to in re.findall(r"step (\d+): it is restored, and goes on at step (\d+)", said)]
    assert [at for at, _ in restored] == [30, 60]
    assert all(0 < at - to <= 8 for at, to in restored), "at most the steps since the last checkpoint are done again"


@pytest.mark.integration
def test_training_left_alone_on_fray_is_never_restarted() -> None:
    assert read_result(train("--context", "fray")) == read_result(train("--context", "sync"))


@pytest.mark.integration
def test_another_seed_gives_other_weights() -> None:
    digests = [read_result(train("--context", "sync", "--seed", seed))[2] for seed in ("0", "1")]
    assert len(set(digests)) == 2


@pytest.mark.unit
def test_the_loss_falls(script: ModuleType) -> None:
    trainer = script.Trainer(seed=0)
    losses = [trainer.train(step)[1] for step in range(300)]
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


@pytest.mark.unit
def test_a_trainer_made_of_a_state_goes_on_as_the_one_that_gave_it(script: ModuleType) -> None:
    first, second = script.Trainer(seed=0), script.Trainer.__new__(script.Trainer)
    for step in range(10):
        first.train(step)
    second.__setstate__(first.__getstate__())
    assert second.train(0)[0] == 10
    assert [second.train(10), second.train(11)] == [first.train(10), first.train(11)]
    assert second.digest() == first.digest()


@pytest.mark.unit
def test_a_step_done_again_or_out_of_turn_changes_nothing(script: ModuleType) -> None:
    trainer = script.Trainer(seed=0)
    done = trainer.train(0)
    digest = trainer.digest()
    assert (trainer.train(0), trainer.train(5), trainer.digest()) == (done, done, digest)
    assert done[0] == 1
    assert trainer.train(1)[0] == 2
    assert trainer.digest() != digest
