"""What writes leave: all of an output or what was there, and a manifest that can be trusted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import fsspec
import pytest
import xxhash
from drivers import BESIDE, Case, Names, Nursery, read_records
from fray import JobContext, create_job_ctx
from fsspec.implementations.memory import MemoryFileSystem
from zephyr import Backend, Dataset, StorageError, counters

unit = pytest.mark.unit
integration = pytest.mark.integration

RECORDS = 3000
STARTED = Names()
Tree = dict[str, bytes]


@pytest.fixture(autouse=True)
def _nothing_started() -> None:
    STARTED.clear()


def read_tree(directory: Path) -> Tree:
    """Return all that is in a directory, hidden files included."""
    return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.exists() else {}


def read_write(directory: Path, pattern: str) -> dict[str, Any]:
    """Return what the manifest says of a pattern."""
    writes: dict[str, Any] = json.loads((directory / "_manifest.json").read_text())["writes"]
    found: dict[str, Any] = writes[str(directory / pattern)]
    return found


# A writer that fails half-way.


def make_record(n: int) -> dict[str, Any]:
    return {"n": n, "text": f"{n} {n * n}"}


def make_line(n: int) -> str:
    return f"{n} {n * n}"


def make_bytes(n: int) -> bytes:
    return f"{n} {n * n}\n".encode()


def unencodable(n: int) -> Any:
    return object() if n < 0 else n


def raising(n: int) -> NoReturn:
    raise RuntimeError("in the middle")


def spoiled(make: Callable[[int], Any], spoil: Callable[[int], Any], n: int) -> Any:
    """Return a record, of which one in the middle is spoiled."""
    if n != RECORDS * 2 // 3:
        return make(n)
    bad = spoil(-n)
    return {"n": bad, "text": ""} if make is make_record else bad


FORMATS = [
    pytest.param("write_jsonl", ".jsonl", make_record, id="jsonl"),
    pytest.param("write_jsonl", ".jsonl.gz", make_record, id="jsonl.gz"),
    pytest.param("write_jsonl", ".jsonl.zst", make_record, id="jsonl.zst"),
    pytest.param("write_parquet", ".parquet", make_record, id="parquet"),
    pytest.param("write_vortex", ".vortex", make_record, id="vortex"),
    pytest.param("write_text", ".txt", make_line, id="text"),
    pytest.param("write_binary", ".bin", make_bytes, id="binary"),
]


@unit
@pytest.mark.parametrize("spoil", [raising, unencodable])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("verb", "suffix", "make"), FORMATS)
def test_a_write_that_fails_half_way_leaves_what_was_there_and_no_draft(
    ctx: JobContext,
    tmp_path: Path,
    verb: str,
    suffix: str,
    make: Callable[[int], Any],
    before: bool,
    spoil: Callable[[int], Any],
) -> None:
    numbers = Dataset.from_list([range(RECORDS)]).flat_map(iter)
    pattern = f"{tmp_path}/out/{{shard}}{suffix}"
    if before:
        Backend.execute(getattr(numbers.map(make), verb)(pattern), ctx)
    tree = read_tree(tmp_path / "out")
    assert tree.keys() == ({f"0{suffix}"} | BESIDE if before else set())
    with pytest.raises(RuntimeError if spoil is raising else Exception) as raised:
        Backend.execute(getattr(numbers.map(partial(spoiled, make, spoil)), verb)(pattern), ctx)
    assert any("shard 0" in note for note in raised.value.__notes__)
    assert read_tree(tmp_path / "out") == tree


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


OLD = b"old"


@pytest.fixture
def old_outputs(nursery: Nursery, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], set[str]]:
    """Puts files where a job is going to have its outputs, and returns their names."""

    def put(place: Path, job: str) -> set[str]:
        scratch = tmp_path_factory.mktemp("names")
        names = Case(nursery, inputs, str(scratch / "place"), scratch).finish(job).files.keys()
        (place / "out").mkdir(parents=True)
        for name in names:
            (place / "out" / name).write_bytes(OLD)
        return set(names)

    return put


@integration
@pytest.mark.parametrize("job", ["flat", "shuffle"])
def test_a_disk_that_becomes_full_leaves_of_each_output_the_old_or_all_of_the_new_and_no_draft(
    case: Case, old_outputs: Callable[[Path, str], set[str]], tiny_disk: Path, job: str
) -> None:
    names = old_outputs(tiny_disk, job)
    full = case.beside(str(tiny_disk))
    assert full.run(job, padding_bytes=20_000) == 1
    assert "No space left on device" in full.log.read_text()
    tree = read_tree(tiny_disk / "out")
    assert tree.keys() == names
    assert OLD in tree.values()
    assert all(data == OLD or read_records(name, data) for name, data in tree.items())


@integration
@pytest.mark.parametrize("job", ["flat", "shuffle"])
def test_a_file_that_may_not_grow_so_large_leaves_what_was_there_and_can_be_resumed_when_it_may(
    case: Case, old_outputs: Callable[[Path, str], set[str]], job: str
) -> None:
    names = old_outputs(Path(case.place), job)
    assert case.run(job, padding_bytes=20_000, file_limit_bytes=100_000) == 1
    assert "File too large" in case.log.read_text()
    assert read_tree(Path(case.place) / "out") == dict.fromkeys(names, OLD)
    after = case.finish(job, padding_bytes=20_000)
    after.check_manifest()
    assert after.others == BESIDE
    assert after.files.keys() == names
    assert case.leftovers() == set()


class HesitatingFileSystem(MemoryFileSystem):
    """A store that copies an object when one has been removed, or else after a while."""

    protocol = "hesitating"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    removed = threading.Event()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("hesitating://").strip("/")

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        self.removed.wait(0.5)
        super().cp_file(path1, path2, **kwargs)

    def _rm(self, path: str) -> None:
        super()._rm(path)
        self.removed.set()


BROKEN = Names()


def refuse_broken(n: int) -> dict[str, int]:
    if n in BROKEN.found:
        raise RuntimeError("broken")
    return {"n": n}


@unit
def test_a_run_that_fails_while_an_output_is_being_published_on_an_object_store_publishes_it_or_resumes_to_it(
    sync: JobContext, tmp_path: Path
) -> None:
    fsspec.register_implementation("hesitating", HesitatingFileSystem, clobber=True)
    fs = fsspec.filesystem("hesitating")
    fs.pipe_file("/out/0.jsonl", OLD)
    dataset = Dataset.from_list([0, 1]).map(refuse_broken).write_jsonl("hesitating://out/{shard}.jsonl")
    run = partial(Backend.execute, dataset, sync, storage_path=str(tmp_path), name="job", resume=True)
    BROKEN.add(1)
    with pytest.raises(RuntimeError, match="broken"):
        run()
    BROKEN.clear()
    run()
    assert {path.removeprefix("/out/") for path in fs.find("/out")} == {"0.jsonl", "1.jsonl"} | BESIDE
    assert [fs.cat_file(f"/out/{n}.jsonl") for n in (0, 1)] == [b'{"n":0}\n', b'{"n":1}\n']


# skip_existing and the manifest.


def load_and_note(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line["n"] == 0:
            STARTED.add(line["file"])
        counters.increment("lines")
        yield {"file": line["file"], "double": line["n"] * 2}


def load_and_treble(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line["n"] == 0:
            STARTED.add(line["file"])
        yield {"file": line["file"], "double": line["n"] * 3}


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """The names of three files of ten records in ``in``."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        add_input(tmp_path, name)
    return ["a", "b", "c"]


def add_input(tmp_path: Path, name: str) -> None:
    lines = [json.dumps({"file": name, "n": n}) for n in range(10)]
    (tmp_path / "in" / f"{name}.jsonl").write_text("\n".join(lines))


def doubles(
    tmp_path: Path, pattern: str = "{basename}.jsonl", fn: Callable[[Any], Any] = load_and_note, skip_existing: bool = True
) -> Dataset[str]:
    loaded = Dataset.from_files(f"{tmp_path}/in/*.jsonl").load_jsonl().map_shard(fn)
    verb = "write_parquet" if pattern.endswith(".parquet") else "write_jsonl"
    written: Dataset[str] = getattr(loaded, verb)(f"{tmp_path}/out/{pattern}", skip_existing=skip_existing)
    return written


@unit
def test_skip_existing_runs_nothing_a_second_time_and_yields_the_same_paths(
    ctx: JobContext, tmp_path: Path, names: list[str]
) -> None:
    first = Backend.execute(doubles(tmp_path), ctx)
    tree = read_tree(tmp_path / "out")
    assert sorted(STARTED.found) == names
    assert Backend.execute(doubles(tmp_path), ctx) == first == [f"{tmp_path}/out/{name}.jsonl" for name in names]
    assert sorted(STARTED.found) == names
    assert read_tree(tmp_path / "out") == tree


@unit
def test_without_skip_existing_all_is_written_anew(ctx: JobContext, tmp_path: Path, names: list[str]) -> None:
    for _ in range(2):
        Backend.execute(doubles(tmp_path, skip_existing=False), ctx)
    assert sorted(STARTED.found) == sorted(names * 2)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"{}\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@unit
@pytest.mark.parametrize("damage", [truncate, lengthen, empty, Path.unlink])
def test_skip_existing_does_a_file_again_that_is_not_as_the_manifest_says(
    ctx: JobContext, tmp_path: Path, names: list[str], damage: Callable[[Path], None]
) -> None:
    Backend.execute(doubles(tmp_path), ctx)
    before = read_tree(tmp_path / "out")
    write = read_write(tmp_path / "out", "{basename}.jsonl")
    STARTED.clear()
    damage(tmp_path / "out" / "b.jsonl")
    Backend.execute(doubles(tmp_path), ctx)
    assert STARTED.found == ["b"]
    after = read_tree(tmp_path / "out")
    assert {name: after[name] for name in after.keys() - BESIDE} == {name: before[name] for name in before.keys() - BESIDE}
    assert read_write(tmp_path / "out", "{basename}.jsonl")["files"] == write["files"]


@unit
def test_skip_existing_does_a_foreign_file_of_the_right_name_again(ctx: JobContext, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.jsonl").write_text('{"foreign": true}\n')
    Backend.execute(doubles(tmp_path), ctx)
    assert sorted(STARTED.found) == names
    assert "foreign" not in (tmp_path / "out" / "b.jsonl").read_text()


@unit
def test_skip_existing_does_all_again_when_the_function_changes(ctx: JobContext, tmp_path: Path, names: list[str]) -> None:
    Backend.execute(doubles(tmp_path), ctx)
    STARTED.clear()
    Backend.execute(doubles(tmp_path, fn=load_and_treble), ctx)
    assert sorted(STARTED.found) == names
    assert '"double":27' in (tmp_path / "out" / "a.jsonl").read_text()


@unit
def test_skip_existing_does_only_the_input_that_has_changed_or_come_anew(
    ctx: JobContext, tmp_path: Path, names: list[str]
) -> None:
    Backend.execute(doubles(tmp_path), ctx)
    STARTED.clear()
    add_input(tmp_path, "aa")
    Backend.execute(doubles(tmp_path), ctx)
    assert STARTED.found == ["aa"]
    write = read_write(tmp_path / "out", "{basename}.jsonl")
    assert [file["name"] for file in write["files"]] == ["a.jsonl", "aa.jsonl", "b.jsonl", "c.jsonl"]
    STARTED.clear()
    changed = tmp_path / "in" / "c.jsonl"
    at = changed.stat().st_mtime_ns
    changed.write_text(changed.read_text().replace('"n": 9', '"n": 8'))
    os.utime(changed, ns=(at, at + 10**9))
    Backend.execute(doubles(tmp_path), ctx)
    assert STARTED.found == ["c"]


@unit
def test_skip_existing_does_not_take_what_a_failed_run_of_another_function_has_left_for_its_own(
    sync: JobContext, tmp_path: Path, names: list[str]
) -> None:
    def negate(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for line in lines:
            if line["file"] == "b":
                raise RuntimeError("b fails")
            yield {"file": line["file"], "double": line["n"] and 20 - line["n"] * 2}

    Backend.execute(doubles(tmp_path), sync)
    before = read_tree(tmp_path / "out")
    with pytest.raises(RuntimeError, match="b fails"):
        Backend.execute(doubles(tmp_path, fn=negate, skip_existing=False), sync)
    Backend.execute(doubles(tmp_path), sync)
    after = read_tree(tmp_path / "out")
    assert {name: after[name] for name in ("a.jsonl", "b.jsonl")} == {name: before[name] for name in ("a.jsonl", "b.jsonl")}


@unit
def test_writes_of_other_patterns_in_a_directory_keep_their_part_of_the_manifest(
    ctx: JobContext, tmp_path: Path, names: list[str]
) -> None:
    Backend.execute(doubles(tmp_path), ctx)
    first = read_write(tmp_path / "out", "{basename}.jsonl")
    Backend.execute(doubles(tmp_path, "other-{shard}.jsonl.gz", load_and_treble), ctx)
    assert read_write(tmp_path / "out", "{basename}.jsonl") == first
    assert len(read_write(tmp_path / "out", "other-{shard}.jsonl.gz")["files"]) == 3
    STARTED.clear()
    Backend.execute(doubles(tmp_path), ctx)
    assert STARTED.found == []


@unit
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_the_manifest_tells_rows_sizes_checksums_columns_and_counters(
    ctx: JobContext, tmp_path: Path, names: list[str], suffix: str
) -> None:
    Backend.execute(doubles(tmp_path, f"{{basename}}{suffix}"), ctx)
    tree = read_tree(tmp_path / "out")
    assert tree.keys() == {f"{name}{suffix}" for name in names} | BESIDE
    write = read_write(tmp_path / "out", f"{{basename}}{suffix}")
    columns = [["file", "string"], ["double", "int64"]] if suffix == ".parquet" else None
    for shard, (name, file) in enumerate(zip(names, write["files"], strict=True)):
        data = tree[f"{name}{suffix}"]
        told = {field: file[field] for field in ("name", "shard", "rows", "bytes", "checksum", "schema")}
        assert told == {
            "name": f"{name}{suffix}",
            "shard": shard,
            "rows": 10,
            "bytes": len(data),
            "checksum": xxhash.xxh3_128(data).hexdigest(),
            "schema": columns,
        }
    assert write["rows"] == 30
    assert write["bytes"] == sum(file["bytes"] for file in write["files"])
    assert write["counters"] == {"lines": 30}
    assert write["bad_records"] == 0


@unit
def test_what_is_beside_the_outputs_is_no_input(sync: JobContext, tmp_path: Path, names: list[str]) -> None:
    Backend.execute(doubles(tmp_path), sync)
    (tmp_path / "out" / f".b.jsonl.run.{'0' * 32}.draft").write_text("half")
    assert Backend.execute(Dataset.from_files(f"{tmp_path}/out/*"), sync) == [f"{tmp_path}/out/{n}.jsonl" for n in names]


@unit
def test_a_manifest_that_is_none_is_named_and_tells_what_to_do(sync: JobContext, tmp_path: Path, names: list[str]) -> None:
    Backend.execute(doubles(tmp_path), sync)
    (tmp_path / "out" / "_manifest.json").write_text('{"version": "x"')
    with pytest.raises(StorageError, match=r"out/_manifest.json is no manifest.*Remove it"):
        Backend.execute(doubles(tmp_path), sync)


# An attempt that is lost.


def lose_the_first_attempt(marker: Path, records: Iterator[int]) -> Iterator[dict[str, Any]]:
    for record in records:
        if record == RECORDS // 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield make_record(record)


@integration
@pytest.mark.parametrize("suffix", [".jsonl.gz", ".parquet"])
def test_an_attempt_that_dies_while_it_writes_is_made_again_and_leaves_no_draft(tmp_path: Path, suffix: str) -> None:
    numbers = Dataset.from_list([range(RECORDS), range(3)]).flat_map(iter)
    marked = numbers.map_shard(partial(lose_the_first_attempt, tmp_path / "lost"))
    verb = "write_parquet" if suffix == ".parquet" else "write_jsonl"
    with create_job_ctx("fray", controller_address="local[2]") as context:
        (first, second) = Backend.execute(getattr(marked, verb)(f"{tmp_path}/out/{{shard}}{suffix}"), context)
    assert (tmp_path / "lost").exists()
    assert read_tree(tmp_path / "out").keys() == {f"0{suffix}", f"1{suffix}"} | BESIDE
    rows = [file["rows"] for file in read_write(tmp_path / "out", f"{{shard}}{suffix}")["files"]]
    assert rows == [RECORDS, 3]
    with create_job_ctx("sync") as context:
        assert Backend.execute(Dataset.from_list([first]).load_file(), context) == list(map(make_record, range(RECORDS)))
        assert Backend.execute(Dataset.from_list([second]).load_file(), context) == list(map(make_record, range(3)))
