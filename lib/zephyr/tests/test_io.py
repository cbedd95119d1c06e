from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy
import pytest
import zstandard
from fray import JobContext
from zephyr import Backend, Dataset, OutputConflict, StorageError, load_text
from zephyr.io.formats import raise_bad_record
from zephyr.io.jsonl import JsonlWriter
from zephyr.io.publish import publish_output, write_draft

pytestmark = pytest.mark.unit


@dataclass
class Row:
    name: str
    at: datetime


def read(path: str) -> list[Any]:
    return [json.loads(line) for line in load_text(path)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_json_lines_come_back_whatever_the_compression(ctx: JobContext, tmp_path: Path, suffix: str) -> None:
    rows = Dataset.from_list([3000, 0, 5]).flat_map(range).map(lambda x: {"x": x})
    paths = Backend.execute(rows.write_jsonl(f"{tmp_path}/o/{{shard:05d}}-of-{{total:02d}}.jsonl{suffix}"), ctx)
    assert paths == [f"{tmp_path}/o/{shard:05d}-of-03.jsonl{suffix}" for shard in range(3)]
    assert [read(path) for path in paths] == [[{"x": x} for x in range(n)] for n in (3000, 0, 5)]
    assert sorted(str(path) for path in (tmp_path / "o").iterdir() if not path.name.startswith("_")) == paths


def test_gzip_output_is_read_by_the_standard_library(sync: JobContext, tmp_path: Path) -> None:
    (path,) = Backend.execute(Dataset.from_list([1]).write_jsonl(f"{tmp_path}/a.gz"), sync)
    assert gzip.decompress(Path(path).read_bytes()) == b"1\n"


def test_dataclasses_datetimes_and_numpy_values_are_written(sync: JobContext, tmp_path: Path) -> None:
    row = {
        "row": Row("é", datetime.fromisoformat("2020-01-01")),
        "n": numpy.int64(3),
        "f": numpy.float32(0.5),
        "a": numpy.arange(2),
        "s": {1},
    }
    (path,) = Backend.execute(Dataset.from_list([row]).write_jsonl(f"{tmp_path}/a"), sync)
    assert read(path) == [{"row": {"name": "é", "at": "2020-01-01T00:00:00"}, "n": 3, "f": 0.5, "a": [0, 1], "s": [1]}]


def test_the_path_may_be_a_function(ctx: JobContext, tmp_path: Path) -> None:
    dataset = Dataset.from_list([1, 2]).write_jsonl(lambda shard, total: f"{tmp_path}/{shard}of{total}")
    assert [read(path) for path in Backend.execute(dataset, ctx)] == [[1], [2]]


def test_written_files_can_be_loaded_in_the_same_dataset(ctx: JobContext, tmp_path: Path) -> None:
    dataset = Dataset.from_list(["a", "b"]).write_jsonl(f"{tmp_path}/{{shard}}").load_text().map(json.loads)
    assert Backend.execute(dataset, ctx) == ["a", "b"]


def test_a_failure_publishes_nothing_and_keeps_what_was_there(ctx: JobContext, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.jsonl.gz"
    target.parent.mkdir()
    target.write_bytes(b"old")

    def fail(x: int) -> int:
        return 1 // (2500 - x)

    with pytest.raises(ZeroDivisionError):
        Backend.execute(Dataset.from_list([5000]).flat_map(range).map(fail).write_jsonl(str(target)), ctx)
    assert target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]


def test_a_record_that_json_cannot_hold_is_named(sync: JobContext, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="complex") as caught:
        Backend.execute(Dataset.from_list([[1, 2, 3j]]).flat_map(iter).write_jsonl(f"{tmp_path}/out/a"), sync)
    assert any("record 3" in note for note in caught.value.__notes__)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_directory_in_place_of_the_output_is_a_conflict(sync: JobContext, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputConflict, match="directory"):
        Backend.execute(Dataset.from_list([1]).write_jsonl(f"{tmp_path}/a"), sync)
    assert list((tmp_path / "a").iterdir()) == []


def test_outputs_on_other_storage_are_put_at_once_or_not_at_all(sync: JobContext) -> None:
    (path,) = Backend.execute(Dataset.from_list([1]).write_jsonl("memory://out/a.jsonl"), sync)
    assert path == "memory://out/a.jsonl" and read(path) == [1]
    with pytest.raises(ZeroDivisionError):
        Backend.execute(Dataset.from_list([0]).map(lambda x: 1 // x).write_jsonl("memory://out/b.jsonl"), sync)
    assert not fsspec.filesystem("memory").exists("/out/b.jsonl")
    assert Backend.execute(Dataset.from_files("memory://out/*.jsonl").load_text(), sync) == ["1"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard.compress)],
)
def test_text_is_decompressed_by_suffix(tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress("é\r\n\nlast".encode()))
    assert list(load_text(str(path))) == ["é", "", "last"]


def test_bytes_that_are_no_utf8_name_the_file_unless_replaced(ctx: JobContext, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\xff\n")
    files = Dataset.from_files(f"{tmp_path}/a.txt")
    with pytest.raises(UnicodeDecodeError) as caught:
        Backend.execute(files.load_text(), ctx)
    assert any(f"while reading {tmp_path}/a.txt" in note for note in caught.value.__notes__)
    assert Backend.execute(files.load_text(errors="replace"), ctx) == ["one", "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_cut_short_names_the_file(sync: JobContext, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    compress = gzip.compress if suffix == ".gz" else zstandard.compress
    path.write_bytes(compress(bytes(range(256)) * 50)[:-20])
    with pytest.raises(Exception) as caught:
        Backend.execute(Dataset.from_files(str(path)).load_text("replace"), sync)
    assert any(str(path) in note for note in caught.value.__notes__)


def test_a_file_that_is_gone_names_itself(sync: JobContext, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Backend.execute(Dataset.from_list([f"{tmp_path}/gone"]).load_text(), sync)
    assert any("gone" in note for note in caught.value.__notes__)


def test_files_of_several_zstd_frames_are_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    path.write_bytes(zstandard.compress(b"one\n" * 50_000) + zstandard.compress(b"") + zstandard.compress(b"two\n"))
    assert list(load_text(str(path))) == ["one"] * 50_000 + ["two"]


def test_an_output_whose_draft_is_gone_is_not_taken_for_what_is_in_its_place(tmp_path: Path) -> None:
    path = str(tmp_path / "out.jsonl")
    output = write_draft(0, path, "marker", JsonlWriter(), [1, 2], raise_bad_record)
    publish_output(output)
    publish_output(output)  # published before
    Path(path).write_text("3\n4\n")
    with pytest.raises(StorageError, match="another file is in its place"):
        publish_output(output)
    Path(path).unlink()
    with pytest.raises(StorageError, match="not there itself"):
        publish_output(output)
