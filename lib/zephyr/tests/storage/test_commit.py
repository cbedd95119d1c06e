from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from zephyr import OutputConflict, StorageError
from zephyr.storage.commit import (
    create_exclusive,
    honours_exclusive_create,
    list_commits,
    publish,
    read_commit,
    remove_drafts,
    upload,
)

unit = pytest.mark.unit
integration = pytest.mark.integration

MEGABYTES = 2 * 2**20
CREATOR = """
import sys
from zephyr.storage.commit import create_exclusive
for line in sys.stdin:
    print(create_exclusive(line.strip(), sys.argv[1].encode()), flush=True)
"""


class FaultyFileSystem(MemoryFileSystem):
    """A store that answers as told."""

    protocol = "faulty"
    cachable = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    answers: ClassVar[list[Exception | None]] = []
    """What the next conditional creations answer; None to carry one out."""
    loses_answers = False
    """Whether they are carried out nevertheless."""
    created: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("faulty://").strip("/")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create":
            self.created.append(path)
            if self.answers and (answer := self.answers.pop(0)) is not None:
                if self.loses_answers:
                    super().pipe_file(path, value)
                raise answer
        super().pipe_file(path, value, mode, **kwargs)

    def _rm(self, path: str) -> None:
        if "stuck" in path:
            raise OSError("it is stuck")
        super()._rm(path)


class LooksFirstFileSystem(FaultyFileSystem):
    """A file system whose creation is fsspec's own: it looks, then writes."""

    protocol = "looksfirst"
    pipe_file = AbstractFileSystem.pipe_file

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("looksfirst://").strip("/")


@pytest.fixture
def faulty() -> Iterator[type[FaultyFileSystem]]:
    for kind in (FaultyFileSystem, LooksFirstFileSystem):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
    yield FaultyFileSystem
    FaultyFileSystem.store.clear()
    FaultyFileSystem.answers, FaultyFileSystem.created, FaultyFileSystem.loses_answers = [], [], False


def names(place: str) -> list[str]:
    """All files below a place, as they are now."""
    fs, inner = fsspec.url_to_fs(place)
    fs.invalidate_cache()
    return sorted(path.removeprefix(inner).lstrip("/") for path in fs.find(inner))


def put(path: str, data: bytes, **options: Any) -> None:
    fs, inner = fsspec.url_to_fs(path, **options)
    if "://" not in path:
        Path(inner).parent.mkdir(parents=True, exist_ok=True)
    fs.pipe_file(inner, data)


def get(path: str) -> bytes:
    fs, inner = fsspec.url_to_fs(path)
    fs.invalidate_cache()
    data: bytes = fs.cat_file(inner)
    return data


def race(path: str, creators: int) -> list[bytes]:
    """Create one object from several threads at once, and return the contents of those who were told that they won."""
    start, winners = threading.Barrier(creators), []

    def create(content: bytes) -> None:
        start.wait()
        if create_exclusive(path, content):
            winners.append(content)

    threads = [threading.Thread(target=create, args=(b"attempt %d" % number,)) for number in range(creators)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


def see(read: Callable[[], bytes | None], act: Callable[[], None]) -> set[bytes | None]:
    """Return all that a reader saw while something was done."""
    seen, done = {read()}, threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(read())

    reader = threading.Thread(target=watch)
    reader.start()
    try:
        act()
    finally:
        done.set()
        reader.join()
    return seen | {read()}


def test_a_commit_that_is_created_is_read_and_leaves_nothing_else(place: str) -> None:
    path = f"{place}/commits/shard-0"
    assert read_commit(path) is None
    assert create_exclusive(path, b"attempt 1")
    assert read_commit(path) == b"attempt 1"
    assert names(place) == ["commits/shard-0"]


def test_a_second_creator_is_refused_and_changes_nothing(exclusive_place: str) -> None:
    path = f"{exclusive_place}/commit"
    assert create_exclusive(path, b"attempt 1")
    assert not create_exclusive(path, b"attempt 2")
    assert read_commit(path) == b"attempt 1"
    assert names(exclusive_place) == ["commit"]


def test_a_creation_that_already_took_place_with_our_content_is_ours(exclusive_place: str) -> None:
    path = f"{exclusive_place}/commit"
    put(path, b"attempt 1")
    assert create_exclusive(path, b"attempt 1")
    assert not create_exclusive(path, b"attempt 2")


@unit
def test_a_creation_whose_answer_is_lost_is_ours(faulty: type[FaultyFileSystem]) -> None:
    faulty.answers, faulty.loses_answers = [OSError("connection reset")], True
    assert create_exclusive("faulty://bucket/commit", b"attempt 1")
    assert read_commit("faulty://bucket/commit") == b"attempt 1"


@unit
def test_a_creation_during_another_is_tried_again_until_the_storage_decides(faulty: type[FaultyFileSystem]) -> None:
    faulty.answers = [OSError(errno.EBUSY, "conflict"), OSError(errno.EBUSY, "conflict")]
    assert create_exclusive("faulty://bucket/commit", b"attempt 1")
    faulty.answers = [OSError(errno.EBUSY, "conflict")] * 3
    with pytest.raises(StorageError, match=r"cannot create faulty://bucket/other: .*conflict"):
        create_exclusive("faulty://bucket/other", b"attempt 1")
    assert read_commit("faulty://bucket/other") is None


@unit
def test_an_empty_commit_is_refused(local: str) -> None:
    with pytest.raises(ValueError, match="attempt's id"):
        create_exclusive(f"{local}/commit", b"")
    assert names(local) == []


@pytest.mark.parametrize("kind", [pytest.param("local", marks=unit), pytest.param("moto", marks=integration)])
def test_of_racing_threads_exactly_one_creates(kind: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    for number in range(10):
        path = f"{place}/{number}"
        winners = race(path, creators=4)
        assert [read_commit(path)] == winners


@integration
@pytest.mark.parametrize("kind", ["local", "moto"])
def test_of_racing_processes_exactly_one_creates(kind: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    commands = [[sys.executable, "-c", CREATOR, f"attempt {number}"] for number in range(3)]
    creators = [
        subprocess.Popen(each, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for each in commands
    ]
    try:
        for number in range(10):
            path = f"{place}/{number}"
            for creator in creators:
                creator.stdin.write(path + "\n")  # type: ignore[union-attr]
            told = [creator.stdout.readline().strip() for creator in creators]  # type: ignore[union-attr]
            assert sorted(told) == ["False", "False", "True"]
            assert read_commit(path) == b"attempt %d" % told.index("True")
    finally:
        for creator in creators:
            creator.communicate(timeout=20)


@pytest.mark.parametrize("kind", [pytest.param("local", marks=unit), pytest.param("moto", marks=integration)])
def test_readers_of_a_commit_see_nothing_or_all_of_it(kind: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    data = b"x" * MEGABYTES
    for number in range(3):
        path = f"{place}/{number}"

        def create(path: str = path) -> None:
            assert create_exclusive(path, data)

        assert see(lambda path=path: read_commit(path), create) == {None, data}


@unit
def test_a_mount_without_hard_links_replaces_and_keeps_commits_whole(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert create_exclusive(f"{local}/commit", b"attempt 1")
    assert create_exclusive(f"{local}/commit", b"attempt 2")
    assert read_commit(f"{local}/commit") == b"attempt 2"
    assert names(local) == ["commit"]


def test_commits_are_listed_by_name_without_drafts_and_directories(place: str) -> None:
    assert list_commits(f"{place}/commits") == {}
    expected = {f"shard-{number:02d}": b"attempt %d" % number for number in range(25)}
    for name in reversed(expected):
        create_exclusive(f"{place}/commits/{name}", expected[name])
    put(f"{place}/commits/.shard-99.draft", b"half")
    put(f"{place}/commits/deeper/shard-98", b"of another")
    put(f"{place}/commits-of-another-stage/shard-97", b"of another")
    assert list(list_commits(f"{place}/commits").items()) == list(expected.items())
    assert list_commits(f"{place}/commits/") == expected


def test_names_that_look_like_patterns_are_only_names(place: str) -> None:
    name = "part[1]-{a,b}?"
    assert create_exclusive(f"{place}/in[0]/{name}", b"attempt 1")
    put(f"{place}/in[0]/part1", b"attempt 2")
    assert list_commits(f"{place}/in[0]") == {name: b"attempt 1", "part1": b"attempt 2"}
    publish(f"{place}/in[0]/{name}", f"{place}/in[0]/final[1]")
    remove_drafts(f"{place}/in[0]", "[1]")
    assert names(place) == ["in[0]/part1"]


def test_what_other_clients_write_is_seen_in_spite_of_a_remembered_listing(bucket: str) -> None:
    ours = fsspec.filesystem("s3")
    put(f"{bucket}/c/1-draft", b"attempt 1")
    for number, see_it in enumerate(
        [
            lambda: read_commit(f"{bucket}/c/2-draft") == b"attempt 2",
            lambda: "3-draft" in list_commits(f"{bucket}/c"),
            lambda: publish(f"{bucket}/c/4-draft", f"{bucket}/c/final"),
            lambda: remove_drafts(f"{bucket}/c", "draft") is None,
        ],
        start=2,
    ):
        ours.ls(f"{bucket}/c", refresh=True)  # as some other code may do
        put(f"{bucket}/c/{number}-draft", b"attempt %d" % number, skip_instance_cache=True)
        assert see_it()
    assert names(f"{bucket}/c") == ["final"]


def test_a_listing_of_commits_is_not_remembered_for_others(bucket: str) -> None:
    create_exclusive(f"{bucket}/c/first", b"attempt 1")
    list_commits(f"{bucket}/c")
    put(f"{bucket}/c/second", b"attempt 2", skip_instance_cache=True)
    assert fsspec.filesystem("s3").exists(f"{bucket}/c/second")


def test_a_probe_of_an_exclusive_storage_says_so_and_leaves_nothing(exclusive_place: str) -> None:
    assert honours_exclusive_create(f"{exclusive_place}/not/there/yet")
    assert names(exclusive_place) == []
    assert not Path(exclusive_place).exists()


@integration
def test_a_probe_of_a_storage_that_overwrites_says_so_and_leaves_nothing(rclone: str) -> None:
    assert not honours_exclusive_create(f"{rclone}/job")
    assert names(rclone) == []


@unit
def test_a_probe_of_a_store_without_conditions_says_so_and_creations_replace(faulty: type[FaultyFileSystem]) -> None:
    def unknown() -> list[Exception | None]:
        return [OSError(errno.ENOSYS, "If-None-Match is not implemented") for _ in range(2)]

    faulty.answers = unknown()
    assert not honours_exclusive_create("faulty://without-conditions")
    faulty.answers = unknown()
    assert create_exclusive("faulty://without-conditions/commit", b"attempt 1")
    assert create_exclusive("faulty://without-conditions/commit", b"attempt 2")
    assert names("faulty://without-conditions") == ["commit"]


@unit
def test_a_probe_of_a_file_system_that_looks_before_it_writes_says_so(faulty: type[FaultyFileSystem]) -> None:
    assert not honours_exclusive_create("looksfirst://bucket")


@unit
def test_a_storage_is_probed_once_for_all_its_directories_and_threads(faulty: type[FaultyFileSystem]) -> None:
    assert honours_exclusive_create("faulty://probed-once/a")
    probes = len(faulty.created)
    threads = [threading.Thread(target=honours_exclusive_create, args=("faulty://probed-once/b",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert honours_exclusive_create("faulty://probed-once")
    assert len(faulty.created) == probes
    assert honours_exclusive_create("faulty://another-bucket")
    assert len(faulty.created) == 2 * probes


@unit
def test_a_probe_that_cannot_write_names_the_root_and_the_reason_and_is_tried_again(faulty: type[FaultyFileSystem]) -> None:
    faulty.answers = [PermissionError("Access Denied")]
    with pytest.raises(StorageError, match=r"cannot write to faulty://denied/job: not permitted \(Access Denied\)"):
        honours_exclusive_create("faulty://denied/job")
    assert honours_exclusive_create("faulty://denied/job")


@unit
def test_a_probe_whose_first_answer_is_lost_goes_on(faulty: type[FaultyFileSystem]) -> None:
    faulty.answers, faulty.loses_answers = [OSError("connection reset")], True
    assert honours_exclusive_create("faulty://first-lost")


@unit
def test_a_probe_whose_second_creation_fails_does_not_take_that_for_a_refusal(faulty: type[FaultyFileSystem]) -> None:
    faulty.answers = [None, OSError("connection reset")]
    with pytest.raises(StorageError, match="connection reset"):
        honours_exclusive_create("faulty://second-fails")
    assert names("faulty://second-fails") == []


def test_a_published_draft_replaces_what_was_there_and_is_gone(place: str) -> None:
    put(f"{place}/out/part-0", b"of an earlier job")
    put(f"{place}/out/part-0.attempt-1", b"complete")
    publish(f"{place}/out/part-0.attempt-1", f"{place}/out/part-0")
    assert get(f"{place}/out/part-0") == b"complete"
    assert names(place) == ["out/part-0"]


def test_a_publication_is_repeated_after_a_crash_at_any_point(place: str) -> None:
    draft, final = f"{place}/part-0.attempt-1", f"{place}/part-0"
    put(draft, b"complete")
    put(final, b"complete")  # copied, not yet removed
    publish(draft, final)
    publish(draft, final)
    assert get(final) == b"complete"
    assert names(place) == ["part-0"]


def test_a_publication_without_draft_and_output_names_both(place: str) -> None:
    with pytest.raises(StorageError, match=r"cannot publish .*/part-0: its draft .*/part-0\.attempt-1 is gone"):
        publish(f"{place}/part-0.attempt-1", f"{place}/part-0")


@unit
def test_a_directory_in_the_place_of_an_output_is_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "part-0").mkdir()
    (tmp_path / "draft").write_bytes(b"complete")
    with pytest.raises(OutputConflict, match="part-0"):
        publish(str(tmp_path / "draft"), str(tmp_path / "part-0"))
    with pytest.raises(OutputConflict, match="part-0"):
        upload(str(tmp_path / "draft"), str(tmp_path / "part-0"))
    assert names(str(tmp_path)) == ["draft"]


@pytest.mark.parametrize("kind", [pytest.param("local", marks=unit), pytest.param("moto", marks=integration)])
def test_readers_of_an_output_see_the_old_or_the_new_one(kind: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    old, new = b"o" * MEGABYTES, b"n" * MEGABYTES
    for _ in range(3):
        put(f"{place}/part-0", old)
        put(f"{place}/part-0.draft", new)
        seen = see(lambda: read_commit(f"{place}/part-0"), lambda: publish(f"{place}/part-0.draft", f"{place}/part-0"))
        assert seen == {old, new}


def test_only_the_drafts_of_an_attempt_are_removed(place: str) -> None:
    for name in ("part-0", "part-0.attempt-1", "part-1.attempt-1", "part-1.attempt-2", "deeper/part-2.attempt-1"):
        put(f"{place}/job.attempt-1/{name}", b"complete")
    remove_drafts(f"{place}/job.attempt-1", ".attempt-1")
    assert names(f"{place}/job.attempt-1") == ["deeper/part-2.attempt-1", "part-0", "part-1.attempt-2"]
    remove_drafts(f"{place}/nothing", ".attempt-1")


@unit
def test_a_draft_that_cannot_be_removed_is_logged_and_the_others_are(
    faulty: type[FaultyFileSystem], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-draft", "stuck-draft", "z-draft"):
        put(f"faulty://bucket/{name}", b"complete")
    with caplog.at_level(logging.WARNING):
        remove_drafts("faulty://bucket", "draft")
    assert names("faulty://bucket") == ["stuck-draft"]
    assert "could not remove /bucket/stuck-draft: it is stuck" in caplog.text


@unit
def test_a_marker_that_every_name_contains_is_refused(local: str) -> None:
    put(f"{local}/part-0", b"complete")
    with pytest.raises(ValueError, match="empty marker"):
        remove_drafts(local, "")
    assert names(local) == ["part-0"]


@pytest.mark.parametrize("data", [b"", b"x" * MEGABYTES], ids=["empty", "large"])
def test_an_uploaded_file_replaces_what_was_there(place: str, tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(data)
    put(f"{place}/deep/er/part-0", b"of an earlier job")
    upload(str(source), f"{place}/deep/er/part-0")
    assert get(f"{place}/deep/er/part-0") == data
    assert names(place) == ["deep/er/part-0"]
    assert source.read_bytes() == data


@unit
def test_an_upload_makes_local_directories(local: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"complete")
    upload(str(tmp_path / "source"), f"{local}/deep/er/part-0")
    assert names(local) == ["deep/er/part-0"]


def test_an_upload_of_a_missing_file_names_both(place: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot upload .*/absent to .*/part-0: there is no such file"):
        upload(str(tmp_path / "absent"), f"{place}/part-0")


def test_a_missing_bucket_is_named_by_each_call(bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "source").write_bytes(b"complete")
    absent = f"{bucket[:-4]}none"
    calls: list[Callable[[], object]] = [
        lambda: create_exclusive(f"{absent}/commit", b"attempt 1"),
        lambda: read_commit(f"{absent}/commit"),
        lambda: list_commits(f"{absent}/commits"),
        lambda: honours_exclusive_create(f"{absent}/job"),
        lambda: publish(f"{absent}/draft", f"{absent}/final"),
        lambda: upload(str(tmp_path / "source"), f"{absent}/part-0"),
    ]
    for call in calls:
        with pytest.raises(StorageError, match=rf"{absent}/.*: there is no such bucket\. Create it"):
            call()
    remove_drafts(absent, "draft")
    assert f"could not look for drafts in {absent}" in caplog.text


@integration
def test_a_wrong_key_is_told_as_such(rclone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError, match=r"cannot create s3://.*/commit: not permitted .* Check the credentials"):
        create_exclusive(f"{rclone}/commit", b"attempt 1")


@unit
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full. Make room"),
        (OSError(errno.EROFS, "Read-only file system"), "not permitted .* who may write there"),
        (RuntimeError("gone mad"), "RuntimeError: gone mad. Check the storage"),
    ],
)
def test_a_storage_that_refuses_is_told_with_what_to_do(faulty: type[FaultyFileSystem], answer: Exception, text: str) -> None:
    faulty.answers = [answer]
    with pytest.raises(StorageError, match=f"cannot create faulty://bucket/commit: {text}"):
        create_exclusive("faulty://bucket/commit", b"attempt 1")


@unit
def test_a_file_where_a_directory_should_be_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot create .*/file/commit: .*Error: .*Check the storage"):
        create_exclusive(f"{tmp_path}/file/commit", b"attempt 1")
