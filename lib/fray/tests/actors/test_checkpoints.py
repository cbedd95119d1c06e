"""What is kept of an actor on storage, and what comes back."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import pytest
from fray import create_job_ctx, save_checkpoint
from fray.errors import ActorDied, DecodeError
from fray.job.rpc.worker.checkpoints import CheckpointStore


class Block:
    """Holds memory as arrays do: it travels beside the pickle."""

    def __init__(self, memory: Any) -> None:
        self.memory = memoryview(memory)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Block, (PickleBuffer(self.memory),)


@pytest.mark.unit
def test_latest_state_comes_back_and_its_memory_can_be_changed(tmp_path: Path) -> None:
    first = CheckpointStore(str(tmp_path), b"key", 1)
    assert first.load() is None
    first.save({"n": 1})
    first.save({"n": 2, "block": Block(bytearray(1 << 20))})
    restored = CheckpointStore(str(tmp_path), b"key", 2).load()
    assert restored is not None
    (state,) = restored
    assert state["n"] == 2
    state["block"].memory[0] = 7


@pytest.mark.unit
def test_late_state_of_an_earlier_life_does_not_come_back(tmp_path: Path) -> None:
    old, new = CheckpointStore(str(tmp_path), b"key", 1), CheckpointStore(str(tmp_path), b"key", 2)
    old.save("old")
    new.save("new")
    new.drop_earlier()
    old.save("late")
    assert CheckpointStore(str(tmp_path), b"key", 3).load() == ("new",)


@pytest.mark.unit
def test_few_files_are_kept(tmp_path: Path) -> None:
    for incarnation in (1, 2, 3):
        store = CheckpointStore(str(tmp_path), b"key", incarnation)
        for n in range(5):
            store.save(n)
        store.drop_earlier()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.unit
@pytest.mark.parametrize("damage", [b"", b"x" * 10, b"x" * 4000])
def test_damaged_state_is_refused_and_none_before_it_taken_in_its_place(damage: bytes, tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), b"key", 1)
    store.save("one")
    store.save("two")
    max(tmp_path.iterdir()).write_bytes(damage)
    with pytest.raises(DecodeError, match="damaged"):
        CheckpointStore(str(tmp_path), b"key", 2).load()


@pytest.mark.unit
def test_state_of_another_cluster_is_refused(tmp_path: Path) -> None:
    CheckpointStore(str(tmp_path), b"key", 1).save("one")
    with pytest.raises(DecodeError, match="not written by this cluster"):
        CheckpointStore(str(tmp_path), b"other key", 2).load()


class Nested:
    """Saves itself after every call; a call may call it within."""

    def __init__(self, marks: str) -> None:
        self.marks = Path(marks)
        self.value = 0

    def inner(self) -> None:
        self.value += 10

    def outer(self, me: Any) -> int:
        self.value += 1
        me.inner.remote().result()
        if not self.marks.exists():
            self.marks.touch()
            os._exit(1)
        return self.value

    def save(self) -> int:
        self.value += 100
        save_checkpoint()
        return self.value


@pytest.mark.integration
def test_state_is_not_saved_while_a_call_is_half_carried_out(tmp_path: Path) -> None:
    with create_job_ctx("fray", controller_address="local[1]") as ctx:
        lasting = ctx.options(max_restarts=1, max_task_retries=1, checkpoint_every=1)
        actor = lasting.create_actor(Nested, str(tmp_path / "marks"))
        assert ctx.get(actor.save.remote()) == 100
        assert ctx.get(actor.outer.remote(actor), timeout=60) == 111  # made again from the state before it


@pytest.mark.integration
def test_actor_whose_saved_state_is_damaged_ends_and_says_so(tmp_path: Path) -> None:
    with create_job_ctx("fray", controller_address="local[1]") as ctx:
        actor = ctx.options(max_restarts=1, checkpoint_every=1).create_actor(Nested, str(tmp_path / "marks"))
        ctx.get(actor.save.remote())
        (directory,) = Path(ctx.session.actors_url).glob("actors/*")
        for file in directory.iterdir():
            file.write_bytes(b"damage")
        with pytest.raises(ActorDied):
            ctx.get(actor.outer.remote(actor), timeout=60)
        with pytest.raises(ActorDied, match="damaged"):
            ctx.get(actor.save.remote(), timeout=60)


@pytest.mark.integration
def test_life_that_finds_no_state_saves_its_own_before_anything_else(tmp_path: Path) -> None:
    with create_job_ctx("fray", controller_address="local[1]") as ctx:
        actor = ctx.options(max_restarts=1, checkpoint_every=1000).create_actor(Nested, str(tmp_path / "marks"))
        with pytest.raises(ActorDied):
            ctx.get(actor.outer.remote(actor), timeout=60)
        assert ctx.get(actor.outer.remote(actor), timeout=60) == 11
        assert [path.name[:10] for path in Path(ctx.session.actors_url).glob("actors/*/*")] == ["0000000002"]
