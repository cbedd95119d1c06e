"""``zephyr inspect`` and what it tells of each kind of file and directory."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fray import JobContext
from zephyr import Backend, Dataset, counters
from zephyr.storage import ChunkWriter

pytestmark = pytest.mark.unit

Command = Callable[..., Any]


class Trap:
    """Tells by a file that it was unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("unpickled",)


def make_chunk(path: str, items: list[Any], batches: int = 0) -> str:
    """Write a chunk with a frame per 16 items at first, or with one per batch of two rows."""
    writer = ChunkWriter(path, 0)
    for item in items:
        writer.write(item)
    for _ in range(batches):
        writer.write_batch(pa.record_batch({"x": [1, 2]}))
    writer.finish()
    return path


def count(x: int) -> dict[str, int]:
    counters.increment("seen")
    return {"x": x}


@pytest.fixture
def output(sync: JobContext, tmp_path: Path) -> Path:
    """A directory with what a write has left: two files of Parquet."""
    directory = tmp_path / "out"
    Backend.execute(Dataset.from_list([1, 2]).map(count).write_parquet(f"{directory}/{{shard}}-of-{{total}}.parquet"), sync)
    return directory


# Chunks


def test_chunk_is_described_by_its_frames_without_decoding_items(zephyr: Command, tmp_path: Path) -> None:
    path = make_chunk(f"{tmp_path}/c.zep", [*range(20), Trap()])
    told = zephyr("inspect", path, "--json").json
    assert (told["kind"], told["path"], told["items"], told["frames"]) == ("chunk", path, 21, 3)
    assert told["bytes"] == Path(path).stat().st_size == sum(frame["bytes"] for frame in told["first_frames"])
    assert told["encodings"] == {"pickle": 3}
    first, second, third = told["first_frames"]
    assert (first["at_byte"], first["encoding"], first["items"], first["intact"]) == (0, "pickle", 1, True)
    assert (second["at_byte"], second["items"], third["items"]) == (first["bytes"], 8, 12)
    assert told["damage"] == []
    assert "first_items" not in told
    assert not Path("unpickled").exists()


def test_items_of_a_chunk_are_decoded_if_that_is_wanted(zephyr: Command, tmp_path: Path) -> None:
    path = make_chunk(f"{tmp_path}/c.zep", [("a", 1), {"b": 2}, 3])
    assert zephyr("inspect", path, "--items", "--json").json["first_items"] == ["('a', 1)", "{'b': 2}", "3"]
    assert zephyr("inspect", path, "--items", "--limit", 1, "--json").json["first_items"] == ["('a', 1)"]


def test_chunk_of_record_batches_is_told_from_one_of_items(zephyr: Command, tmp_path: Path) -> None:
    path = make_chunk(f"{tmp_path}/c.zep", [], batches=3)
    told = zephyr("inspect", path, "--json", "--items", "--limit", 3).json
    assert (told["items"], told["encodings"]) == (6, {"arrow": 3})
    assert told["first_items"] == ["{'x': 1}", "{'x': 2}", "{'x': 1}"]


def test_limit_bounds_the_frames_that_are_listed(zephyr: Command, tmp_path: Path) -> None:
    path = make_chunk(f"{tmp_path}/c.zep", list(range(20)))
    told = zephyr("inspect", path, "--json", "--limit", 1).json
    assert (told["frames"], len(told["first_frames"])) == (3, 1)


@pytest.mark.parametrize(
    ("damage", "hint"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        (lambda data: data[:-1], "of"),
        (lambda data: data + b"more", "header"),
        (lambda data: b"what" + data, "begins with"),
    ],
    ids=["flipped bit", "cut off", "too long", "other beginning"],
)
def test_damaged_chunk_ends_with_1_and_names_the_damage(
    damage: Callable[[bytes], bytes], hint: str, zephyr: Command, tmp_path: Path
) -> None:
    path = Path(make_chunk(f"{tmp_path}/c.zep", list(range(20))))
    path.write_bytes(damage(path.read_bytes()))
    for args in (["--json"], []):
        done = zephyr("inspect", path, "--items", "--limit", 100, *args)
        assert done.code == 1
        assert hint in done.out
    assert hint in json.loads(zephyr("inspect", path, "--json").out)["damage"][0]


# Outputs


def test_manifest_tells_writes_files_and_schema(zephyr: Command, output: Path) -> None:
    told = zephyr("inspect", output, "--json").json
    assert told == zephyr("inspect", f"{output}/_manifest.json", "--json").json | {"writes": told["writes"]}
    assert (told["kind"], told["success"], told["damage"]) == ("manifest", True, [])
    (write,) = told["writes"]
    assert write["pattern"] == f"{output}/{{shard}}-of-{{total}}.parquet"
    assert (write["files"], write["rows"], write["counters"], write["bad_records"]) == (2, 2, {"seen": 2}, 0)
    assert write["schema"] == [{"column": "x", "type": "int64"}]
    assert 0 <= write["age_s"] < 600
    assert [file["state"] for file in write["first_files"]] == ["there", "there"]
    assert write["bytes"] == sum(file["bytes"] for file in write["first_files"])


def test_missing_and_resized_files_of_an_output_end_with_1(zephyr: Command, output: Path) -> None:
    (output / "0-of-2.parquet").unlink()
    (output / "1-of-2.parquet").write_bytes(b"short")
    done = zephyr("inspect", output, "--json", "--limit", 0)
    assert done.code == 1
    told = json.loads(done.out)
    assert told["writes"][0]["first_files"] == []
    missing, resized = told["damage"]
    assert missing == f"{output}/0-of-2.parquet is missing"
    assert "1-of-2.parquet has 5 bytes instead of" in resized


def test_changed_bytes_of_an_output_are_found_by_verify_alone(zephyr: Command, output: Path) -> None:
    assert zephyr("inspect", output, "--verify").code == 0
    data = bytearray((output / "0-of-2.parquet").read_bytes())
    data[10] ^= 1
    (output / "0-of-2.parquet").write_bytes(data)
    assert zephyr("inspect", output).code == 0
    done = zephyr("inspect", output, "--verify")
    assert done.code == 1
    assert "0-of-2.parquet has another checksum" in done.out


def test_output_without_success_is_told(zephyr: Command, output: Path) -> None:
    (output / "_SUCCESS").unlink()
    assert zephyr("inspect", output, "--json").json["success"] is False


def test_file_that_is_no_manifest_is_an_error(zephyr: Command, tmp_path: Path) -> None:
    (tmp_path / "_manifest.json").write_text("[]")
    zephyr("inspect", tmp_path).assert_fails(1, "is no manifest")


# Jobs


def fail(*_: Any) -> None:
    raise KeyError("stage 2")


def test_run_to_be_resumed_tells_which_stages_are_complete(zephyr: Command, sync: JobContext, tmp_path: Path) -> None:
    groups = Dataset.from_list([1, 2, 3]).map(str).group_by(len, fail, num_output_shards=1)
    with pytest.raises(KeyError):
        Backend.execute(groups, sync, storage_path=str(tmp_path / "place"), spill_threshold_bytes=0, name="words", resume=True)
    (job,) = (tmp_path / "place").iterdir()
    told = zephyr("inspect", job, "--json").json
    assert (told["kind"], told["job"], told["resumable"]) == ("job", job.name, True)
    assert told["files"] == 7
    assert told["bytes"] == sum(path.stat().st_size for path in job.rglob("*") if path.is_file())
    assert 0 <= told["age_s"] < 600
    first, second = told["stages"]
    assert first == {
        "stage": "stage-001",
        "chunks": 3,
        "bytes": sum(path.stat().st_size for path in job.rglob("*.zep")),
        "commits": 3,
        "inputs_done": 3,
        "inputs_missing": 0,
        "complete": True,
    }
    assert (second["stage"], second["commits"], second["complete"]) == ("stage-002", 0, None)
    next(job.glob("stage-001-*/commits/000001-000001")).unlink()
    shutil.rmtree(next(job.glob("stage-002-*")))
    (only,) = zephyr("inspect", job, "--json").json["stages"]
    assert (only["inputs_done"], only["inputs_missing"], only["complete"]) == (2, 1, False)


def test_age_of_a_job_is_that_of_its_latest_change(zephyr: Command, tmp_path: Path) -> None:
    for name, age_s in (("stage-001", 7200), ("stage-002", 3600)):
        stage = tmp_path / "job" / name
        stage.mkdir(parents=True)
        for path in (make_chunk(f"{stage}/x.zep", [1]), stage):
            os.utime(path, (time.time() - age_s,) * 2)
    told = zephyr("inspect", tmp_path / "job", "--json").json
    assert told["resumable"] is False
    assert 3600 <= told["age_s"] < 4000
    assert [stage["complete"] for stage in told["stages"]] == [None, None]


# Files of records


def test_parquet_file_tells_schema_and_row_groups(zephyr: Command, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2, 3], "s": ["a", "b", None]}), tmp_path / "x", row_group_size=2)
    told = zephyr("inspect", tmp_path / "x", "--json").json
    assert (told["kind"], told["rows"], told["row_groups"]) == ("parquet", 3, 2)
    assert told["schema"] == [{"column": "n", "type": "int64"}, {"column": "s", "type": "string"}]
    assert [group["rows"] for group in told["first_row_groups"]] == [2, 1]
    assert len(zephyr("inspect", tmp_path / "x", "--json", "--limit", 1).json["first_row_groups"]) == 1


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_jsonl_file_tells_its_first_records(name: str, zephyr: Command, tmp_path: Path) -> None:
    data = b'{"n": 1}\n{"n": 2}\nnonsense\n'
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    told = zephyr("inspect", tmp_path / name, "--limit", 2, "--json").json
    assert (told["kind"], told["first_records"]) == ("jsonl", [{"n": 1}, {"n": 2}])
    assert '{"n": 2}' in zephyr("inspect", tmp_path / name, "--limit", 2).out
    zephyr("inspect", tmp_path / name).assert_fails(1, "cannot read", "line 3")


def test_words_cannot_steer_the_terminal(zephyr: Command, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("\x1b[31mred\n")
    out = zephyr("inspect", tmp_path / "x.txt").out
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out


# Places and errors


def test_remote_places_are_inspected_as_local_ones(zephyr: Command, memory: str, sync: JobContext) -> None:
    Backend.execute(Dataset.from_list(["a"]).write_text(f"{memory}/out/{{shard}}.txt"), sync)
    told = zephyr("inspect", f"{memory}/out/", "--verify", "--json").json
    assert told["writes"][0]["first_files"][0]["state"] == "verified"
    assert zephyr("inspect", f"{memory}/out/0.txt", "--json").json["first_records"] == ["a"]
    with fsspec.open(f"{memory}/job/stage-001/x.zep", "wb") as file:
        file.write(b"")
    assert zephyr("inspect", f"{memory}/job", "--json").json["stages"][0]["chunks"] == 1


@pytest.mark.parametrize("path", ["absent", "memory://absent-at-all/x.zep"])
def test_nothing_at_a_path_ends_with_1(path: str, zephyr: Command) -> None:
    zephyr("inspect", path).assert_fails(1, "there is nothing at", path)


def test_what_is_of_no_known_kind_ends_with_1(zephyr: Command, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"binary")
    zephyr("inspect", tmp_path / "x.bin").assert_fails(1, "x.bin is neither")
    zephyr("inspect", tmp_path).assert_fails(1, "is neither the directory of an output")
    zephyr("inspect", "nonsense://x").assert_fails(1, "cannot read nonsense://x", "nonsense")


def test_options_for_another_kind_are_usage_errors(zephyr: Command, output: Path, tmp_path: Path) -> None:
    zephyr("inspect", output, "--items").assert_fails(2, "manifest", "--items")
    chunk = make_chunk(f"{tmp_path}/c.zep", [1])
    zephyr("inspect", chunk, "--verify").assert_fails(2, "chunk", "--verify")
    zephyr("inspect", chunk, "--limit", "-1").assert_fails(2, "--limit")
