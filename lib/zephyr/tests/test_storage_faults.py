"""Runs on a storage that fails, waits, truncates and lies: the right files, or an error that says where and what to do.

``ZEPHYR_STORAGE_SAMPLES`` says how many moments to try for each kind of fault instead of one; 99 is all of them.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xxhash
from fray import JobContext, create_job_ctx
from fray.job.rpc.local import LocalCluster
from fray.testing import FaultyStorage, StorageFault, StorageFaultKind
from fray.testing.faulty_storage import OPERATIONS, Operation
from zephyr import Backend, Dataset, StorageError
from zephyr.execution.manifest import read_manifest
from zephyr.storage.commit import honours_exclusive_create

unit = pytest.mark.unit
integration = pytest.mark.integration

K = StorageFaultKind
SAMPLES = int(os.environ.get("ZEPHYR_STORAGE_SAMPLES", "1"))
ERRORS = ["EIO", "ENOSPC", "EACCES", "TIMEOUT", "503"]
REMEDIES = ("Check the storage", "un the dataset again", "run it again", "Make room", "Check the credentials", "Remove it")
BESIDE = {"_manifest.json", "_SUCCESS"}
ROWS = 30
EXPECTED = {"part-0.jsonl", "part-1.jsonl"}


def is_possible(operation: Operation, kind: StorageFaultKind) -> bool:
    try:
        StorageFault(kind, (operation,))
    except ValueError:
        return False
    return kind is not K.DELAY and (operation, kind) != ("copy", K.ERROR_HALFWAY)  # object stores copy all or nothing


STRIKES = [(operation, kind) for operation in OPERATIONS for kind in K if is_possible(operation, kind)]


@pytest.fixture
def storage(tmp_path: Path) -> FaultyStorage:
    """A storage that is well until a test gives it rules."""
    return FaultyStorage.create(tmp_path / "control", str(tmp_path / "target"))


class Calls:
    """Counts calls. No plain value, so what it holds is no part of a plan."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()


CALLS = Calls()


def make_dataset(url: str, scale: int = 1) -> Dataset[Any]:
    """Return a dataset with a shuffle that writes two files; with another scale it is another plan."""

    def numbers(begin: int) -> Iterator[dict[str, int]]:
        CALLS.counts[begin] += 1
        yield from ({"key": n % 5, "n": n} for n in range(begin, begin + 10))

    def total(key: int, rows: Iterator[dict[str, int]]) -> dict[str, int]:
        return {"key": key, "sum": scale * sum(row["n"] for row in rows)}

    starts = Dataset.from_list(list(range(0, ROWS, 10)))
    grouped = starts.flat_map(numbers).group_by(lambda row: row["key"], total, num_output_shards=2)
    return grouped.write_jsonl(f"{url}/out/part-{{shard}}.jsonl")


def run(storage: FaultyStorage, ctx: JobContext, resume: bool = True, scale: int = 1) -> list[Any]:
    """Run the dataset with every chunk on the storage."""
    dataset = make_dataset(storage.url, scale)
    place = f"{storage.url}/runs"
    return Backend.execute(
        dataset, ctx, storage_path=place, spill_threshold_bytes=0, resume=resume, name="job" if resume else None
    )


def files_of(storage: FaultyStorage, directory: str) -> dict[str, bytes]:
    """Return what really is in a directory of a storage."""
    root = Path(storage.target) / directory
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def sums_of(found: dict[str, bytes]) -> dict[int, int]:
    """Return what outputs say."""
    rows = [json.loads(line) for name in EXPECTED for line in found[name].splitlines()]
    assert len(rows) == 5
    return {row["key"]: row["sum"] for row in rows}


class Whole:
    """The files of a run to which nothing happened, and how many operations of each kind it made."""

    def __init__(self, place: Path) -> None:
        count = StorageFault(K.DELAY, seconds=0)
        storage = FaultyStorage.create(place / "control", str(place / "target"), count)
        with create_job_ctx("sync") as ctx:
            run(storage, ctx)
        found = files_of(storage, "out")
        self.outputs = {name: found[name] for name in EXPECTED}
        assert sums_of(found) == {key: sum(range(key, ROWS, 5)) for key in range(5)}
        assert set(found) == EXPECTED | BESIDE
        assert files_of(storage, "runs") == {}
        self.counts = {operation: storage.count_faults()[K.DELAY, operation] for operation in OPERATIONS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def entries_of(found: dict[str, bytes]) -> dict[str, str]:
    """Return the checksums that a manifest tells."""
    (write,) = json.loads(found["_manifest.json"])["writes"].values()
    return {entry["name"]: entry["checksum"] for entry in write["files"]}


def check_right(storage: FaultyStorage, whole: Whole, may_flip: bool = False) -> None:
    """Make sure that all files are there and right; of those that were stored damaged, that the manifest tells which."""
    found = files_of(storage, "out")
    drafts = {name for name in found if name.startswith(".")}
    assert set(found) - drafts == EXPECTED | BESIDE
    checksums = entries_of(found)
    for name, data in whole.outputs.items():
        is_told = xxhash.xxh3_128(found[name]).hexdigest() != checksums[name]
        assert (found[name] == data) is not is_told
        assert may_flip or not is_told


def words_of(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def check_run(storage: FaultyStorage, whole: Whole, ctx: JobContext, may_flip: bool = False, resume: bool = True) -> str:
    """Run the dataset, and make sure that it comes to the right files or to a clear error; return which."""
    try:
        run(storage, ctx, resume)
    except StorageError as error:
        words = words_of(error)
        assert storage.url in words
        assert any(remedy in words for remedy in REMEDIES), words
        found = files_of(storage, "out")
        for name in EXPECTED & set(found):
            assert may_flip or found[name] == whole.outputs[name], "a half-written output is visible"
        assert "_SUCCESS" not in found or set(found) >= EXPECTED
        return words
    check_right(storage, whole, may_flip)
    return "right"


def repair(storage: FaultyStorage, words: str) -> None:
    """Do what an error that repeats has told."""
    fs, root = fsspec.url_to_fs(storage.url)
    if "_manifest.json is" in words:
        fs.rm_file(f"{root}/out/_manifest.json")
    else:
        fs.rm(f"{root}/runs", recursive=True)


def check_goes_on(storage: FaultyStorage, whole: Whole, ctx: JobContext) -> None:
    """Make sure that the next run, on a storage that is well again, comes to the right files, at most after repairs."""
    storage.set_faults()
    for _ in range(3):
        words = check_run(storage, whole, ctx)
        if words == "right":
            return
        assert "if it repeats" in words or "emove it" in words, words
        repair(storage, words)
    assert check_run(storage, whole, ctx) == "right"


def moments(operation: Operation, kind: StorageFaultKind, whole: Whole) -> list[int]:
    """Return the numbers of the operations to strike."""
    every = range(1, whole.counts[operation] + 1)
    return sorted(random.Random(f"{operation} {kind}").sample(every, min(SAMPLES, len(every))))


@unit
@pytest.mark.parametrize(("operation", "kind"), STRIKES)
def test_a_run_that_meets_one_fault_is_right_or_says_where_and_its_next_run_is_right(
    operation: Operation, kind: StorageFaultKind, whole: Whole, sync: JobContext, tmp_path: Path
) -> None:
    may_flip = kind is K.FLIP and operation in ("write", "copy")
    for number in moments(operation, kind, whole):
        control, target = tmp_path / f"control-{number}", tmp_path / f"target-{number}"
        error = ERRORS[number % len(ERRORS)]
        fault = StorageFault(kind, (operation,), first=number, limit=1, error=error)
        storage = FaultyStorage.create(control, str(target), fault)
        check_run(storage, whole, sync, may_flip)
        if kind not in (K.HIDE, K.GHOST):
            assert storage.count_faults() == {(kind, operation): 1}
        if not may_flip or rows_are_right(storage, whole):
            check_goes_on(storage, whole, sync)


def rows_are_right(storage: FaultyStorage, whole: Whole) -> bool:
    found = files_of(storage, "out")
    return all(found.get(name, data) == data for name, data in whole.outputs.items())


# A task on a thread that is cancelled is interrupted anywhere, also right after it has opened a file.
@pytest.mark.filterwarnings("ignore:(?s).*unclosed file:pytest.PytestUnraisableExceptionWarning")
@unit
@pytest.mark.parametrize("seed", range(3 * SAMPLES))
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_meets_many_faults_is_right_or_says_where(
    seed: int, resume: bool, whole: Whole, storage: FaultyStorage, ctx: JobContext
) -> None:
    rng = random.Random(f"many {seed}")
    # Of a copy that is cut short the output goes at once, unless that fails too.
    strikes = [strike for strike in STRIKES if strike not in (("write", K.FLIP), ("copy", K.FLIP), ("copy", K.TRUNCATE))]
    faults = []
    for operation, kind in rng.sample(strikes, 6):
        share, error = rng.choice([0.02, 0.1, 0.5]), rng.choice(ERRORS)
        faults.append(StorageFault(kind, (operation,), share=share, limit=rng.choice([1, 3]), error=error))
    storage.set_faults(*faults, StorageFault(K.DELAY, share=0.1, seconds=0.001))
    for _ in range(4):
        check_run(storage, whole, ctx, resume=resume)
    check_goes_on(storage, whole, ctx)


@unit
@pytest.mark.parametrize("kind", [K.LOSE, K.TRUNCATE])
def test_a_chunk_that_storage_did_not_keep_is_named_by_its_writer_and_written_anew(
    kind: StorageFaultKind, whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    storage.set_faults(StorageFault(kind, ("write",), path="runs/*.zep", first=2, limit=1))
    with pytest.raises(StorageError, match=r"cannot write the chunk .*\.zep: the storage took \d+ bytes and kept \d+") as lost:
        run(storage, sync)
    assert "stage 1 of 2" in words_of(lost.value)
    assert check_run(storage, whole, sync) == "right"


@unit
@pytest.mark.parametrize(
    ("operation", "kind"), [("write", K.TRUNCATE), ("write", K.LOSE), ("copy", K.TRUNCATE), ("copy", K.LOSE)]
)
def test_an_output_that_storage_kept_half_of_is_not_there_and_the_next_run_puts_it_there(
    operation: Operation, kind: StorageFaultKind, whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    storage.set_faults(StorageFault(kind, (operation,), path="out/*part-1*", limit=1))
    with pytest.raises(StorageError, match=rf"{storage.url}/out/.*kept"):
        run(storage, sync)
    assert "part-1.jsonl" not in files_of(storage, "out")
    assert not BESIDE & set(files_of(storage, "out"))
    assert check_run(storage, whole, sync) == "right"


@unit
@pytest.mark.parametrize("name", sorted(BESIDE))
def test_a_manifest_that_storage_did_not_keep_fails_the_run_and_the_next_one_writes_it(
    name: str, whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    storage.set_faults(StorageFault(K.LOSE, ("write",), path=f"out/{name}", limit=1))
    with pytest.raises(StorageError, match=rf"{storage.url}/out/{name}: the storage took it and does not have it"):
        run(storage, sync)
    assert check_run(storage, whole, sync) == "right"


@unit
@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (StorageFault(K.ERROR, ("read",), path="out/_manifest.json", limit=1), "_manifest.json"),
        (StorageFault(K.ERROR, ("write",), path="out/_manifest.json", limit=1), "_manifest.json"),
        (StorageFault(K.LOSE, ("write",), path="out/_manifest.json", limit=1), "_manifest.json"),
        (StorageFault(K.ERROR, ("remove",), path="out/_SUCCESS", limit=1), "_SUCCESS"),
        (StorageFault(K.ERROR, ("list",), path="out", limit=1), ""),
    ],
)
def test_another_run_that_cannot_take_files_out_of_the_manifest_is_named_and_replaces_none(
    fault: StorageFault, name: str, whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    run(storage, sync)
    storage.set_faults(fault)
    with pytest.raises(StorageError, match=f"{storage.url}/out/?{name}"):
        run(storage, sync, scale=2)
    assert {name: data for name, data in files_of(storage, "out").items() if name in EXPECTED} == whole.outputs
    run(storage, sync, scale=2)
    found = files_of(storage, "out")
    assert set(found) == EXPECTED | BESIDE
    assert sorted(json.loads(line)["sum"] for name in EXPECTED for line in found[name].splitlines()) == [
        150,
        162,
        174,
        186,
        198,
    ]
    assert entries_of(found) == {name: xxhash.xxh3_128(found[name]).hexdigest() for name in EXPECTED}


@unit
def test_a_manifest_with_a_bit_flipped_says_the_same_or_is_refused(
    whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    run(storage, sync)
    path = Path(storage.target) / "out" / "_manifest.json"
    right, data = read_manifest(str(path.parent)), path.read_bytes()
    refused = 0
    for number in range(0, len(data), 3):
        path.write_bytes(data[:number] + bytes([data[number] ^ 1]) + data[number + 1 :])
        try:
            assert read_manifest(str(path.parent)).writes == right.writes
        except StorageError as error:
            assert str(path) in str(error)
            assert "emove" in str(error) or "knows 1" in str(error)
            refused += 1
    assert refused > len(data) / 6


@unit
def test_a_commit_that_is_damaged_is_named_and_its_task_is_carried_out_anew_when_it_is_removed(
    whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    CALLS.counts.clear()
    copy = StorageFault(K.ERROR, ("copy",), limit=1)
    storage.set_faults(StorageFault(K.TRUNCATE, ("create",), path="*/commits/000001-*", limit=1), copy)
    with pytest.raises(StorageError, match="cannot publish"):
        run(storage, sync)
    (name,) = [name for name in files_of(storage, "runs") if "stage-001" in name and "commits/000001" in name]
    with pytest.raises(StorageError, match=rf"the commit {storage.url}/runs/{name} is damaged.*remove that file"):
        run(storage, sync)
    fs, root = fsspec.url_to_fs(storage.url)
    fs.rm_file(f"{root}/runs/{name}")
    run(storage, sync)
    check_right(storage, whole)
    assert CALLS.counts == {0: 1, 10: 2, 20: 1}


@unit
@pytest.mark.parametrize("look", range(1, 9))
def test_a_record_that_is_misread_once_costs_a_run_nothing_that_was_committed(
    look: int, whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    misread = StorageFault(K.TRUNCATE, ("read",), path="*/plan", first=look, limit=1)
    storage.set_faults(StorageFault(K.ERROR, ("copy",), limit=2), misread)
    with pytest.raises(StorageError):
        run(storage, sync)
    storage.set_faults()
    assert check_run(storage, whole, sync) == "right"


@unit
@pytest.mark.parametrize("kind", [K.ERROR, K.LOSE])
def test_a_run_whose_record_cannot_be_removed_keeps_the_rest_and_is_right_again(
    kind: StorageFaultKind, storage: FaultyStorage, sync: JobContext, caplog: pytest.LogCaptureFixture
) -> None:
    def items() -> list[int]:
        starts = Dataset.from_list([0, 10, 20]).flat_map(lambda begin: range(begin, begin + 10))
        dataset = starts.group_by(lambda n: n % 5, lambda key, ns: sum(ns), num_output_shards=2)
        place = f"{storage.url}/runs"
        return sorted(Backend.execute(dataset, sync, storage_path=place, spill_threshold_bytes=0, resume=True, name="items"))

    storage.set_faults(StorageFault(kind, ("remove",), path="*/plan"), StorageFault(K.ERROR, ("remove",), path="*/commits/*"))
    with caplog.at_level(logging.WARNING):
        assert items() == [75, 81, 87, 93, 99]
    assert f"{storage.url}/runs/run-items" in caplog.text
    storage.set_faults()
    assert items() == [75, 81, 87, 93, 99]
    assert files_of(storage, "runs") == {}


@unit
@pytest.mark.parametrize(
    "fault",
    [
        StorageFault(K.ERROR, ("remove",), path="out/.part-0*", limit=1),
        StorageFault(K.ERROR, ("list",), path="runs/run-job-????????", first=2, limit=1),
    ],
)
def test_a_run_that_cannot_tidy_up_at_its_end_is_right(
    fault: StorageFault, whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    storage.set_faults(fault)
    assert check_run(storage, whole, sync) == "right"
    assert sum(storage.count_faults().values()) == 1
    assert set(files_of(storage, "out")) == EXPECTED | BESIDE


@unit
def test_a_storage_whose_looks_fail_is_left_as_empty_as_another(whole: Whole, storage: FaultyStorage, sync: JobContext) -> None:
    storage.set_faults(
        StorageFault(K.ERROR, ("look",), path="runs/run-job-????????*/plan"),
        StorageFault(K.HIDE, ("look",), path="runs/*-????????"),
    )
    assert check_run(storage, whole, sync) == "right"
    assert files_of(storage, "runs") == {}


@unit
def test_commits_that_a_late_listing_does_not_show_are_found_when_their_tasks_end_again(
    whole: Whole, storage: FaultyStorage, sync: JobContext
) -> None:
    storage.set_faults(StorageFault(K.ERROR, ("copy",), limit=1))
    assert check_run(storage, whole, sync) != "right"
    storage.set_faults(StorageFault(K.HIDE, ("list",), path="*/commits/*"), StorageFault(K.GHOST, ("list",)))
    assert check_run(storage, whole, sync) == "right"


@unit
def test_a_storage_that_overwrites_what_must_be_new_is_found_out(
    whole: Whole, storage: FaultyStorage, sync: JobContext, caplog: pytest.LogCaptureFixture
) -> None:
    storage.set_faults(StorageFault(K.OVERWRITE))
    with caplog.at_level(logging.WARNING):
        assert check_run(storage, whole, sync) == "right"
    assert "make sure that only one driver" in caplog.text
    assert not honours_exclusive_create(f"{storage.url}/runs")


@integration
def test_executors_meet_the_same_faults_and_the_run_is_right_in_the_end(whole: Whole, storage: FaultyStorage) -> None:
    with LocalCluster(workers=1, num_cpus=2, storage=storage.url) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAY_TOKEN", cluster.token)
        with create_job_ctx("fray", controller_address=cluster.address) as ctx:
            storage.set_faults(
                StorageFault(K.LOSE, ("write",), path="runs/*.zep", limit=1),
                StorageFault(K.ERROR, ("read",), path="runs/*.zep", limit=1, error="503"),
                StorageFault(K.TRUNCATE, ("write",), path="out/.part*", limit=1),
            )
            told = [check_run(storage, whole, ctx) for _ in range(4)]
    assert "cannot write the chunk" in told[0]
    assert told[-1] == "right"
    assert set(storage.count_faults()) == {(K.LOSE, "write"), (K.ERROR, "read"), (K.TRUNCATE, "write")}


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


@integration
@pytest.mark.parametrize("room", range(0, 500_000, 60_000))
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk: Path, room: int, sync: JobContext) -> None:
    def rows(shard: int) -> list[dict[str, Any]]:
        rng = random.Random(shard)
        return [{"key": n % 7, "n": n, "noise": rng.randbytes(400).hex()} for n in range(shard, 300, 3)]

    def total(key: int, found: Iterator[dict[str, Any]]) -> dict[str, Any]:
        ns, noise = zip(*((row["n"], row["noise"]) for row in found), strict=True)
        return {"key": key, "sum": sum(ns), "noise": sorted(noise)}

    def write() -> None:
        grouped = Dataset.from_list([0, 1, 2]).flat_map(rows).group_by(lambda row: row["key"], total, num_output_shards=2)
        dataset = grouped.write_jsonl(f"{small_disk}/out/part-{{shard}}.jsonl")
        Backend.execute(dataset, sync, storage_path=f"{small_disk}/runs", spill_threshold_bytes=0, resume=True, name="job")

    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024 - 4096 * 8 - room))
    try:
        write()
    except (StorageError, OSError) as error:
        words = words_of(error)
        assert str(small_disk) in words
        assert "Make room" in words
        assert not (small_disk / "out" / "_SUCCESS").exists()
        assert not list(small_disk.glob("out/part-1.jsonl"))
        ballast.unlink()
        write()
    else:
        assert room > 300_000
    found = [json.loads(line) for path in sorted(small_disk.glob("out/part-*.jsonl")) for line in path.read_text().splitlines()]
    assert {row["key"]: row["sum"] for row in found} == {key: sum(range(key, 300, 7)) for key in range(7)}
    assert {path.name for path in (small_disk / "out").iterdir()} == EXPECTED | BESIDE
    assert not (small_disk / "runs").exists() or not list((small_disk / "runs").iterdir())
