"""Payloads and checkpoints on a storage that fails, waits, truncates and lies: the right value, or an error that says where.

``FRAY_STORAGE_SEEDS`` says how many random histories of checkpoints to try instead of a few.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fray import JobContext, create_job_ctx
from fray.errors import ActorDied, DecodeError
from fray.job.rpc.local import LocalCluster
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.worker.checkpoints import CheckpointStore
from fray.payloads import PayloadStore
from fray.testing import FaultyStorage, StorageFault, StorageFaultKind, eventually
from fray.testing.faulty_storage import Operation

unit = pytest.mark.unit
integration = pytest.mark.integration

K = StorageFaultKind
SEEDS = int(os.environ.get("FRAY_STORAGE_SEEDS", "25"))
LARGE = bytes(range(256)) * 2000
"""More than travels inline, and other bytes when it is reversed."""
WRITES = [K.ERROR, K.ERROR_AFTER, K.ERROR_HALFWAY, K.TRUNCATE, K.FLIP, K.LOSE, K.DELAY]
READS = [K.ERROR, K.TRUNCATE, K.FLIP, K.DELAY]
REMOVALS = [K.ERROR, K.ERROR_AFTER, K.LOSE]
LISTS = [K.ERROR, K.HIDE, K.GHOST]
ERRORS = ["EIO", "ENOSPC", "EACCES", "TIMEOUT", "503"]
OVER_TWICE = [("write", kind) for kind in WRITES] + [("read", kind) for kind in READS]


@pytest.fixture
def storage(tmp_path: Path) -> FaultyStorage:
    """A storage that is well until a test gives it rules."""
    return FaultyStorage.create(tmp_path / "control", str(tmp_path / "target"), seed=7)


def words_of(error: BaseException) -> str:
    """Return all that an error says: its text and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def put(url: str, data: bytes, mode: str = "overwrite") -> None:
    fs, path = fsspec.url_to_fs(url)
    fs.pipe_file(path, data, mode=mode)


def get(url: str) -> bytes:
    fs, path = fsspec.url_to_fs(url)
    data: bytes = fs.cat_file(path)
    return data


def names(url: str) -> list[str]:
    fs, path = fsspec.url_to_fs(url)
    return [name.rpartition("/")[2] for name in fs.ls(path, detail=False)]


# --- the storage itself


@unit
def test_a_faulty_storage_without_rules_is_a_storage(storage: FaultyStorage, tmp_path: Path) -> None:
    fs, root = fsspec.url_to_fs(storage.url)
    put(f"{storage.url}/a/one", b"1")
    with fs.open(f"{root}/a/two", "wb") as file:
        file.write(b"2")
        assert not fs.exists(f"{root}/a/two")
    (tmp_path / "three").write_bytes(b"333")
    fs.put_file(str(tmp_path / "three"), f"{root}/a/b/three")
    fs.cp_file(f"{root}/a/one", f"{root}/copy")
    assert sorted(path.removeprefix(root) for path in fs.find(root)) == ["/a/b/three", "/a/one", "/a/two", "/copy"]
    assert [fs.unstrip_protocol(path) for path in fs.glob(f"{root}/a/o*")] == [f"{storage.url}/a/one"]
    assert fs.cat_file(f"{root}/a/b/three", start=1, end=3) == b"33"
    assert (fs.size(f"{root}/a/b/three"), fs.isdir(f"{root}/a"), fs.open(f"{root}/copy").read()) == (3, True, b"1")
    with pytest.raises(FileExistsError):
        put(f"{storage.url}/copy", b"other", mode="create")
    fs.rm(f"{root}/a", recursive=True)
    assert names(storage.url) == ["copy"]
    with pytest.raises(FileNotFoundError):
        fs.ls(f"{root}/a")
    assert not storage.count_faults()


@unit
@pytest.mark.parametrize(
    ("kind", "stored", "raises"),
    [
        (K.ERROR, b"before", True),
        (K.ERROR_AFTER, b"new one!", True),
        (K.ERROR_HALFWAY, b"new ", True),
        (K.TRUNCATE, b"new ", False),
        (K.FLIP, b"new nne!", False),
        (K.LOSE, b"before", False),
        (K.DELAY, b"new one!", False),
    ],
)
def test_a_write_that_is_struck_leaves_what_its_kind_says(
    storage: FaultyStorage, kind: StorageFaultKind, stored: bytes, raises: bool
) -> None:
    url = f"{storage.url}/place/object"
    put(url, b"before")
    storage.set_faults(StorageFault(kind, ("write",), path="place/*", limit=1, error="ENOSPC", seconds=0.001))
    if raises:
        with pytest.raises(OSError, match="No space left"):
            put(url, b"new one!")
    else:
        put(url, b"new one!")
    assert get(url) == stored
    assert storage.count_faults() == {(kind, "write"): 1}
    put(url, b"next")
    assert get(url) == b"next"


@unit
def test_reads_and_listings_and_creations_lie_when_they_are_told_to(storage: FaultyStorage) -> None:
    fs, root = fsspec.url_to_fs(storage.url)
    put(f"{storage.url}/old", b"12345678")
    put(f"{storage.url}/gone", b"1")
    fs.rm_file(f"{root}/gone")
    storage.set_faults(StorageFault(K.TRUNCATE, ("read",), limit=1), StorageFault(K.FLIP, ("read",), limit=1))
    assert [get(f"{storage.url}/old") for _ in range(3)] == [b"1234", b"12344678", b"12345678"]
    storage.set_faults(StorageFault(K.HIDE, path="o*"), StorageFault(K.GHOST, path="gone"), StorageFault(K.OVERWRITE))
    assert (names(storage.url), fs.exists(f"{root}/old"), fs.exists(f"{root}/gone")) == ([], False, True)
    put(f"{storage.url}/old", b"another", mode="create")
    storage.set_faults(StorageFault(K.GHOST))
    assert sorted(names(storage.url)) == ["gone", "old"]
    assert get(f"{storage.url}/old") == b"another"
    storage.set_faults(StorageFault(K.ERROR, ("look", "list"), error="TIMEOUT"))
    assert not fs.exists(f"{root}/old")
    with pytest.raises(TimeoutError):
        names(storage.url)


@unit
def test_rules_count_operations_and_one_seed_gives_one_fate(tmp_path: Path) -> None:
    def fates(name: str, seed: int, *faults: StorageFault) -> str:
        storage = FaultyStorage.create(tmp_path / name, str(tmp_path / f"target of {name}"), *faults, seed=seed)
        fate = ""
        for number in range(30):
            try:
                put(f"{storage.url}/{number}", b"x")
                fate += "."
            except OSError:
                fate += "!"
        assert sum(storage.count_faults().values()) == fate.count("!")
        return fate

    sometimes = StorageFault(K.ERROR, ("write",), share=0.3)
    assert fates("a", 1, sometimes) == fates("b", 1, sometimes) != fates("c", 2, sometimes)
    assert 3 <= fates("d", 3, sometimes).count("!") <= 16
    assert fates("e", 1, StorageFault(K.ERROR, ("write",), first=5, limit=2)) == "." * 4 + "!!" + "." * 24
    assert fates("f", 1, StorageFault(K.ERROR, path="1?")) == "." * 10 + "!" * 10 + "." * 10


@unit
def test_a_rule_that_can_never_strike_is_refused() -> None:
    with pytest.raises(ValueError, match="hide cannot strike write, only list, look"):
        StorageFault(K.HIDE, ("write",))
    with pytest.raises(ValueError, match="ENOENT"):
        StorageFault(K.ERROR, error="ENOENT")
    with pytest.raises(ValueError, match="share"):
        StorageFault(K.ERROR, share=0)


@integration
def test_another_process_meets_the_same_rules_by_the_url_alone(storage: FaultyStorage) -> None:
    storage.set_faults(StorageFault(K.ERROR, ("write",), limit=1))
    code = """
import sys
from fray.payloads import PayloadStore
store = PayloadStore(sys.argv[1] + "/s", b"key")
try:
    store.pack(bytes(300_000))
except OSError as error:
    print(error.errno)
sys.stdout.buffer.write(store.pack(b"x" * 300_000))
"""
    command = [sys.executable, "-c", code, storage.url]
    told = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    errno, _, payload = told.partition(b"\n")
    assert errno == b"5"
    assert PayloadStore(f"{storage.url}/s", b"key").unpack(payload) == b"x" * 300_000
    assert storage.count_faults() == {(K.ERROR, "write"): 1}


# --- payloads


@unit
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("operation", ["write", "read"])
def test_a_payload_that_storage_refuses_is_named_with_what_to_do(storage: FaultyStorage, operation: Any, error: str) -> None:
    store = PayloadStore(f"{storage.url}/session", b"key")
    payload = store.pack(LARGE)
    storage.set_faults(StorageFault(K.ERROR, (operation,), error=error))
    with pytest.raises(OSError) as caught:
        store.unpack(store.pack(LARGE) if operation == "write" else payload)
    words = words_of(caught.value)
    assert f"{storage.url}/session/" in words
    assert {"write": "while writing a payload", "read": "while reading a payload"}[operation] in words
    assert {"write": "set FRAY_STORAGE", "read": "check that storage"}[operation] in words


@unit
def test_a_session_whose_files_cannot_be_looked_for_or_removed_says_so_and_is_removed_later(storage: FaultyStorage) -> None:
    store = PayloadStore(f"{storage.url}/session", b"key")
    store.pack(LARGE)
    storage.set_faults(StorageFault(K.ERROR, ("remove", "list", "look")))
    for fails in (store.delete, PayloadStore(storage.url).list_parts):
        with pytest.raises(OSError, match="Input/output"):
            fails()
    storage.set_faults(StorageFault(K.ERROR, ("look",)))  # of which an answer would be no
    assert PayloadStore(storage.url).list_parts() == ["session"]
    store.delete()
    store.delete()
    assert PayloadStore(f"{storage.url}/session").list_parts() == []


@pytest.fixture(scope="module")
def cluster_storage(tmp_path_factory: pytest.TempPathFactory) -> FaultyStorage:
    """The storage of the cluster below."""
    place = tmp_path_factory.mktemp("storage")
    return FaultyStorage.create(place / "control", str(place / "target"), seed=11)


@pytest.fixture(scope="module")
def cluster_ctx(cluster_storage: FaultyStorage) -> Iterator[JobContext]:
    """A cluster whose large values are on a faulty storage; nothing is left on it at the end."""
    with LocalCluster(workers=1, num_cpus=2, storage=cluster_storage.url) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAY_TOKEN", cluster.token)
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            yield ctx
            cluster_storage.set_faults()
    assert not [path for path in Path(cluster_storage.target).rglob("*") if path.is_file()]


@pytest.fixture
def ctx(cluster_ctx: JobContext, cluster_storage: FaultyStorage) -> Iterator[JobContext]:
    """The same, well before and after each test."""
    cluster_storage.set_faults()
    yield cluster_ctx
    cluster_storage.set_faults()


def check_answer(ask: Callable[[], bytes], expected: bytes, where: str) -> bool:
    """Tell whether an answer came. It must be right; else an error must name the file, and tell what to do."""
    try:
        answer = ask()
    except (OSError, DecodeError) as error:
        words = words_of(error)
        assert where in words
        assert ".payload" in words
        assert any(remedy in words for remedy in ("set FRAY_STORAGE", "check that storage", "shared --storage")), words
        return False
    assert answer == expected
    return True


@integration
@pytest.mark.parametrize("side", ["argument", "result", "put"])
@pytest.mark.parametrize(("operation", "kind"), OVER_TWICE)
def test_a_large_value_that_meets_a_fault_is_right_or_its_file_is_named(
    ctx: JobContext, cluster_storage: FaultyStorage, operation: Any, kind: StorageFaultKind, side: str
) -> None:
    def backwards(data: bytes) -> bytes:
        return data[::-1]

    def ask() -> bytes:
        data = ctx.put(LARGE) if side == "put" else LARGE
        answer: bytes = ctx.get(ctx.run(backwards, data), timeout=30)
        return answer

    before = cluster_storage.count_faults()
    number = 2 if side == "result" else 1
    cluster_storage.set_faults(StorageFault(kind, (operation,), first=number, limit=1, error="503"))
    assert check_answer(ask, LARGE[::-1], cluster_storage.url) == (kind is K.DELAY)
    assert cluster_storage.count_faults() - before == {(kind, operation): 1}
    assert check_answer(ask, LARGE[::-1], cluster_storage.url)


@integration
def test_many_tasks_on_a_storage_that_often_fails_all_end_and_none_of_them_wrongly(
    ctx: JobContext, cluster_storage: FaultyStorage
) -> None:
    def tripled(data: bytes) -> bytes:
        return data * 3

    before = cluster_storage.count_faults()
    cluster_storage.set_faults(
        *(StorageFault(kind, ("write",), share=0.06, error=error) for kind, error in zip(WRITES, ERRORS * 2, strict=False)),
        *(StorageFault(kind, ("read",), share=0.06, error=error) for kind, error in zip(READS, ERRORS, strict=False)),
    )
    futures = {}
    for number in range(90):
        data = bytes([number]) * 150_000  # small, and large when it comes back
        futures[ctx.run(tripled, data)] = data * 3
    right = sum(check_answer(partial(ctx.get, future, 60), data, cluster_storage.url) for future, data in futures.items())
    assert 20 < right < 80
    struck = Counter(kind for kind, _ in (cluster_storage.count_faults() - before).elements())
    assert set(struck) == set(WRITES) | set(READS)


# --- checkpoints


def random_faults(rng: random.Random) -> list[StorageFault]:
    """Return a few rules, of each kind that a checkpoint can meet."""
    possible: list[tuple[Operation, list[StorageFaultKind]]] = [
        ("write", WRITES),
        ("read", READS),
        ("remove", REMOVALS),
        ("list", LISTS),
    ]
    rules = []
    for _ in range(rng.randint(1, 4)):
        operation, kinds = rng.choice(possible)
        share = rng.choice([0.2, 0.5, 1.0])
        limit = rng.choice([1, 2, 3]) if operation == "read" else rng.choice([1, 4, None])
        fault = StorageFault(
            rng.choice(kinds),
            (operation,),
            share=share,
            limit=limit,
            error=rng.choice(ERRORS),
            seconds=0.001,
        )
        rules.append(fault)
    return rules


class Lives:
    """An actor's lives on a storage, and which states may come back: the newest acknowledged, or one tried after it."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/actor"
        self.incarnation = 1
        self.store = self.earlier = CheckpointStore(self.url, b"key", 1)
        self.has_saved = False  # this life
        self.tried: list[int] = []
        self.is_acknowledged = False
        self.outcomes: Counter[str] = Counter()

    def save(self, state: int) -> bool:
        try:
            self.store.save(state)
        except OSError as error:
            assert f"{self.url}/{self.incarnation:010d}" in words_of(error)
            assert "while saving a checkpoint" in words_of(error)
            self.tried.append(state)
            self.outcomes["refused"] += 1
            return False
        self.tried, self.is_acknowledged, self.has_saved = [state], True, True
        self.outcomes["saved"] += 1
        return True

    def save_late(self) -> None:
        """Let the life before save once more, as one that is not quite dead."""
        if self.earlier is not self.store and self.has_saved:
            try:
                self.earlier.save(-1)
            except OSError:
                return

    def begin_another(self) -> bool:
        """Restore as a new life does, and tell whether it could."""
        self.incarnation += 1
        self.earlier, self.store, self.has_saved = self.store, CheckpointStore(self.url, b"key", self.incarnation), False
        try:
            found = self.store.load()
        except (OSError, DecodeError) as error:
            assert self.url in words_of(error)
            assert "heck that storage" in words_of(error) or "Put the file back" in words_of(error)
            self.outcomes["named"] += 1
            return False
        if found is None:
            assert not self.is_acknowledged, f"lost: {self.tried}"
            return self.save(0)
        assert found[0] in self.tried
        self.outcomes["restored"] += 1
        if self.save(found[0]):
            self.store.drop_earlier()
            return True
        return False


@unit
def test_checkpoints_of_random_lives_on_a_faulty_storage_are_the_newest_or_an_error(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    struck: Counter[tuple[StorageFaultKind, str]] = Counter()
    for seed in range(SEEDS):
        rng = random.Random(f"checkpoints {seed}")
        storage = FaultyStorage.create(tmp_path / f"{seed}", str(tmp_path / f"target-{seed}"), seed=seed)
        lives = Lives(storage.url)
        storage.set_faults(*random_faults(rng))
        for state in range(1, 25):
            step = rng.random()
            if step < 0.7:
                lives.save(state)
            elif step < 0.8:
                lives.save_late()
            elif not lives.begin_another() and rng.random() < 0.5:
                break  # an actor that cannot begin ends
        outcomes += lives.outcomes
        struck += storage.count_faults()
    assert {"refused", "saved", "named", "restored"} <= set(outcomes), outcomes
    if SEEDS >= 25:
        assert {kind for kind, _ in struck} == {*WRITES, *READS, *REMOVALS, *LISTS}


@unit
@pytest.mark.parametrize("kind", [K.LOSE, K.TRUNCATE, K.ERROR_HALFWAY])
def test_a_checkpoint_that_storage_did_not_keep_is_not_acknowledged_and_the_one_before_comes_back(
    storage: FaultyStorage, kind: StorageFaultKind
) -> None:
    store = CheckpointStore(f"{storage.url}/actor", b"key", 1)
    for state in ("one", "two", "three"):
        store.save(state)
    storage.set_faults(StorageFault(kind, ("write",), limit=1))
    with pytest.raises(OSError, match=r"does not hold it|Input/output") as caught:
        store.save("four" * 1000)
    assert f"while saving a checkpoint to {storage.url}/actor/" in words_of(caught.value)
    assert CheckpointStore(f"{storage.url}/actor", b"key", 2).load() == ("three",)
    store.save("five")
    assert CheckpointStore(f"{storage.url}/actor", b"key", 2).load() == ("five",)


@unit
def test_a_checkpoint_that_was_stored_damaged_is_refused_and_none_before_it_taken_in_its_place(storage: FaultyStorage) -> None:
    url = f"{storage.url}/actor"
    store = CheckpointStore(url, b"key", 1)
    store.save("one")
    storage.set_faults(StorageFault(K.FLIP, ("write",), limit=1))
    store.save("two" * 1000)
    with pytest.raises(DecodeError, match=rf"{url}/0000000001-2.checkpoint is damaged.*Put the file back"):
        CheckpointStore(url, b"key", 2).load()


@unit
@pytest.mark.parametrize("saves", [1, 2, 7])
def test_a_checkpoint_that_a_late_listing_does_not_show_is_found(storage: FaultyStorage, saves: int) -> None:
    url = f"{storage.url}/actor"
    first = CheckpointStore(url, b"key", 1)
    first.save("first")
    second = CheckpointStore(url, b"key", 2)
    for number in range(saves):
        second.save(number)
    storage.set_faults(StorageFault(K.HIDE, ("list",), path="actor/0000000002-*"), StorageFault(K.ERROR, ("look",)))
    assert CheckpointStore(url, b"key", 3).load() == (saves - 1,)
    storage.set_faults(StorageFault(K.HIDE, ("list",)))
    assert CheckpointStore(url, b"key", 3).load() == (saves - 1,)


@unit
def test_a_checkpoint_that_many_lives_did_not_live_to_save_again_is_found(storage: FaultyStorage) -> None:
    url = f"{storage.url}/actor"
    CheckpointStore(url, b"key", 3).save("state")
    assert CheckpointStore(url, b"key", 1000).load() == ("state",)


@unit
@pytest.mark.parametrize("kind", [K.ERROR, K.TRUNCATE, K.FLIP])
def test_a_checkpoint_that_fails_to_be_read_at_first_is_read_again(storage: FaultyStorage, kind: StorageFaultKind) -> None:
    url = f"{storage.url}/actor"
    CheckpointStore(url, b"key", 1).save("state")
    storage.set_faults(StorageFault(kind, ("read",), limit=1, error="503"))
    assert CheckpointStore(url, b"key", 2).load() == ("state",)


@unit
@pytest.mark.parametrize("operation", ["read", "list"])
def test_a_checkpoint_that_cannot_be_read_is_an_error_that_names_it_and_no_fresh_start(
    storage: FaultyStorage, operation: Any
) -> None:
    url = f"{storage.url}/actor"
    CheckpointStore(url, b"key", 1).save("state")
    storage.set_faults(StorageFault(K.ERROR, (operation,), error="EACCES"))
    with pytest.raises(PermissionError, match=rf"cannot read the checkpoint .*{url}.*Check that storage"):
        CheckpointStore(url, b"key", 2).load()


def make_keeper() -> Any:
    class Keeper:
        """Counts, saves itself after every call, and dies when it is told to."""

        def __init__(self) -> None:
            self.value = 0

        def add(self) -> int:
            self.value += 1
            return self.value

        def look(self) -> int:
            return self.value

        def grow(self, size: int) -> int:
            self.weight = os.urandom(size)
            return len(self.weight)

        def die(self) -> None:
            os._exit(1)

    return Keeper


def die(ctx: JobContext, keeper: Any) -> None:
    with pytest.raises(ActorDied):
        ctx.get(keeper.die.remote(), timeout=60)


@integration
def test_an_actor_on_a_storage_that_refuses_its_states_says_so_and_comes_back_with_the_last_that_was_kept(
    ctx: JobContext, cluster_storage: FaultyStorage
) -> None:
    keeper = ctx.options(max_restarts=-1, checkpoint_every=1).create_actor(make_keeper())
    assert ctx.get([keeper.add.remote() for _ in range(3)], timeout=60) == [1, 2, 3]
    cluster_storage.set_faults(StorageFault(K.ERROR, ("write",), limit=1, error="ENOSPC"))
    with pytest.raises(OSError, match="No space left") as full:
        ctx.get(keeper.add.remote(), timeout=60)
    assert "the call was carried out, but the state after it could not be saved" in words_of(full.value)
    assert f"while saving a checkpoint to {cluster_storage.url}" in words_of(full.value)
    die(ctx, keeper)
    assert ctx.get(keeper.look.remote(), timeout=60) == 3
    cluster_storage.set_faults(StorageFault(K.LOSE, ("write",), limit=1))
    with pytest.raises(OSError, match="does not hold it"):
        ctx.get(keeper.add.remote(), timeout=60)
    assert ctx.get(keeper.add.remote(), timeout=60) == 5  # it has gone on, and is saved again
    cluster_storage.set_faults(StorageFault(K.HIDE, ("list",)), StorageFault(K.FLIP, ("read",), limit=1))
    die(ctx, keeper)
    assert ctx.get(keeper.look.remote(), timeout=60) == 5


@integration
def test_an_actor_whose_state_cannot_be_read_ends_and_names_the_file(ctx: JobContext, cluster_storage: FaultyStorage) -> None:
    keeper = ctx.options(max_restarts=1, checkpoint_every=1).create_actor(make_keeper())
    assert ctx.get(keeper.add.remote(), timeout=60) == 1
    cluster_storage.set_faults(StorageFault(K.ERROR, ("read",), path="*.checkpoint", error="TIMEOUT"))
    die(ctx, keeper)
    with pytest.raises(ActorDied, match=rf"cannot read the checkpoint {cluster_storage.url}.*-1\.checkpoint"):
        ctx.get(keeper.look.remote(), timeout=60)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs a small file system: {made.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def story(cluster: LocalCluster) -> str:
    """Return what the story of the only actor tells."""
    client = ControllerClient(cluster.address, cluster.token)
    try:
        (actor,) = client.call("list_actors", pb.Empty()).actors
        return "\n".join(client.call("explain_task", pb.TaskHandle(task_id=actor.actor_id)).story)
    finally:
        client.close()


@integration
def test_a_full_disk_refuses_states_and_values_and_all_goes_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with LocalCluster(workers=1, num_cpus=2, storage=str(small_disk)) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAY_TOKEN", cluster.token)
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            keeper = ctx.options(max_restarts=-1, checkpoint_every=1).create_actor(make_keeper())
            assert ctx.get(keeper.grow.remote(200_000), timeout=60) == 200_000
            assert ctx.get(keeper.add.remote(), timeout=60) == 1
            ballast.write_bytes(bytes(500_000))
            for ask in (keeper.add.remote, lambda: ctx.put(LARGE), lambda: ctx.run(bytes, 500_000)):
                with pytest.raises(OSError, match="No space left on device") as full:
                    ctx.get(ask(), timeout=60)
                assert str(small_disk) in words_of(full.value)
            assert not list(small_disk.rglob("*.draft"))
            ballast.write_bytes(bytes(700_000))
            die(ctx, keeper)
            looked = keeper.look.remote()
            eventually(lambda: "No space left" in story(cluster), what="the actor's story tells why it does not begin")
            ballast.unlink()
            assert ctx.get(looked, timeout=60) == 1
            assert ctx.get(ctx.run(bytes, 500_000), timeout=60) == bytes(500_000)
    eventually(lambda: not [path for path in small_disk.rglob("*") if path.is_file()], what="the disk is empty")
