"""The state file: what was written is read again, exactly or not at all, whatever becomes of the file or the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import ballast, small_disk
from fray import create_job_ctx
from fray.errors import StateError
from fray.job.rpc.controller import FrayControllerServer
from fray.job.rpc.controller.core import apply
from fray.job.rpc.controller.core import events as ev
from fray.job.rpc.controller.core.changes import Changes
from fray.job.rpc.controller.core.model import ActorSpec, Outcome, OutcomeKind, State, TaskSpec
from fray.job.rpc.controller.core.records import Cut, Rows, SessionRow, TaskRow, take
from fray.job.rpc.controller.functions import FunctionCut, FunctionStore
from fray.job.rpc.controller.journal import Journal, Saved
from fray.job.rpc.controller.saver import Saver
from fray.job.rpc.proto import fray_pb as pb
from fray.job.rpc.wire.client import ControllerClient
from fray.job.rpc.worker import FrayWorker
from fray.testing import eventually
from fray.testing.simulation.disk import Disk

pytestmark = pytest.mark.integration

OFFSET_S = 1e9
NO_FUNCTIONS = FunctionCut()
TOKEN = "journal"


class Book:
    """A state, and what a journal of it must hold."""

    def __init__(self) -> None:
        self.state = State(changes=Changes())
        self.functions = FunctionStore()
        self.disk = Disk()
        self.code: dict[str, bytes] = {}
        self.users: set[tuple[str, str]] = set()
        self.count = 0

    def post(self, event: Any) -> None:
        apply(self.state, event)

    def submit(self, count: int, payload: bytes = b"arguments", session: str = "s", **options: Any) -> list[str]:
        names = [f"{session}-{self.count + i}" for i in range(count)]
        self.count += count
        specs = [TaskSpec(name, session, "f", "work", payload, **options) for name in names]
        self.post(ev.TasksSubmitted(1.0, session, specs, self.count))
        return names

    def end(self, name: str, kind: OutcomeKind = OutcomeKind.FINISHED, **fields: Any) -> None:
        task = self.state.tasks[name]
        self.post(ev.WorkerReported(2.0, task.worker, [Outcome(name, task.attempt, kind, **fields)]))

    def take(self) -> tuple[Cut, FunctionCut]:
        """Return what has changed, and note that it will be written."""
        cut, functions = take(self.state.changes, OFFSET_S), self.functions.take_changes()
        self.disk.write(cut)
        self.code.update(functions.code)
        for gone in functions.gone_code:
            self.code.pop(gone, None)
        self.users = (self.users | set(functions.users)) - set(functions.gone_users)
        return cut, functions

    def save(self, journal: Journal) -> None:
        journal.commit(*self.take())

    def fill(self) -> None:
        """Let some of everything be there."""
        self.post(ev.SessionOpened(0.0, "s", "a client", logs=True))
        self.post(ev.SessionOpened(0.0, "child", "a task's", parent="s"))
        self.post(ev.WorkerRegistered(0.0, "w.1", "w", {"cpu": 2.0}, "http://a", "http://b", {"zone": "é"}))
        self.post(ev.WorkerAttached(0.0, "w.1"))
        self.functions.add("s", "f", b"code \x00\xff")
        self.functions.add("child", "f", b"")
        first, second, third = self.submit(3, bytes(range(256)), retry_on=("ValueError",), max_retries=-1, deadline_s=50.0)
        self.submit(2, b"", dependencies=(third,), shape=(("cpu", 0.5), ("gpu", 1.0)), priority=-2)
        self.end(first, payload=b"value \x00\x01")
        self.end(second, OutcomeKind.FAILED, message="ValueError: 'nö'\n\"x\"", retryable=True)
        actor = TaskSpec("act", "act", "C", "C", b"arguments", shape=(), actor=ActorSpec("one", -1, True))
        self.post(ev.ActorRequested(3.0, "s", actor))
        self.post(ev.WorkerReported(4.0, "w.1", created=[("act", 1)]))


def parts(saved: Saved) -> tuple[Any, ...]:
    """Return what was loaded, in a form that can be compared."""
    rows = saved.rows
    sessions, workers = sorted(rows.sessions), sorted(rows.workers)
    return rows.tasks, sessions, workers, dict(saved.code), set(saved.users)


def expected(book: Book) -> tuple[Any, ...]:
    rows = book.disk.read()
    return rows.tasks, sorted(rows.sessions), sorted(rows.workers), book.code, book.users


def load(path: Path) -> Saved:
    """Open a state file, and close it again."""
    journal = Journal(str(path))
    try:
        return journal.open()
    finally:
        journal.close()


def row(seq: int, payload: bytes = b"arguments", **more: Any) -> TaskRow:
    """Return a task's row that makes sense nowhere but here."""
    texts = dict.fromkeys(TaskRow._fields, "") | {"id": f"t{seq}", "session": "s", "state": "queued"}
    numbers = dict.fromkeys(("attempt", "failures", "losses", "kills", "acknowledged"), 0)
    times = dict.fromkeys(("submitted_at", "until", "ended_at"), 1.5)
    return TaskRow(**{**texts, **numbers, **times, "seq": seq, "payload": payload, "result": b"", **more})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "controller.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """An open one with a new file."""
    made = Journal(str(path))
    made.open()
    yield made
    made.close()


@pytest.fixture
def written(path: Path) -> Book:
    """A file with some of everything, closed; and what it holds."""
    journal, book = Journal(str(path)), Book()
    journal.open()
    book.fill()
    book.save(journal)
    journal.close()
    return book


# --- what was written is read again


def test_a_new_file_holds_nothing_and_has_an_owner_s_mode(path: Path, journal: Journal) -> None:
    journal.commit(Cut([row(1)]), NO_FUNCTIONS)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_everything_is_read_again_as_it_was_written(written: Book, path: Path) -> None:
    found = load(path)
    assert parts(found) == expected(written)
    assert all(parts(found)), "the example must hold some of each"


def test_changes_and_removals_are_read_again_as_they_were_left(path: Path, journal: Journal) -> None:
    book = Book()
    book.fill()
    book.save(journal)
    book.post(ev.ResultsAcknowledged(5.0, "s", 1))
    book.post(ev.SessionClosed(5.0, "child"))
    book.functions.release("child")
    book.end("s-2", payload=b"another value")
    book.post(ev.CancelRequested(6.0, ["s-3", "act"], "enough"))
    book.save(journal)
    book.post(ev.WorkerRegistered(7.0, "w.2", "w", {"cpu": 1.0}))
    book.functions.release("s")
    book.save(journal)
    journal.close()
    assert parts(load(path)) == expected(book)


def test_random_lives_of_tasks_are_read_again_after_every_cut(path: Path) -> None:
    rng, book = random.Random(4), Book()
    book.fill()
    for _ in range(12):
        journal = Journal(str(path))
        assert parts(journal.open()) == ([], [], [], {}, set()) or parts_match(journal, book)
        for _ in range(rng.randrange(1, 4)):
            book.submit(rng.randrange(4), rng.randbytes(rng.randrange(40)))
            running = [name for name, task in book.state.tasks.items() if task.worker and task.actor is None]
            for name in rng.sample(running, min(2, len(running))):
                book.end(name, rng.choice(list(OutcomeKind)), payload=rng.randbytes(8), message="m", retryable=True)
            book.post(ev.ResultsAcknowledged(5.0, "s", rng.randrange(30)))
            book.post(ev.TimePassed(5.0 + rng.random()))
            book.save(journal)
        journal.close()
        assert parts(load(path)) == expected(book)


def parts_match(journal: Journal, book: Book) -> bool:
    journal.close()
    found = journal.open()
    return parts(found) == expected(book)


def test_the_controller_of_a_file_keeps_its_id_and_its_lives_are_numbered(path: Path) -> None:
    first, second, third = load(path), load(path), load(path)
    assert first.controller_id == second.controller_id == third.controller_id
    assert (second.generation, third.generation) == (first.generation + 1, first.generation + 2)
    assert load(path.with_name("other")).controller_id != first.controller_id


def test_the_same_cut_may_be_written_twice(path: Path, journal: Journal) -> None:
    book = Book()
    book.fill()
    cut = book.take()
    journal.commit(*cut)
    journal.commit(*cut)
    book.post(ev.SessionClosed(5.0, "s"))
    book.end("s-2", OutcomeKind.CANCELLED)
    cut = book.take()
    journal.commit(*cut)
    journal.commit(*cut)
    journal.close()
    assert parts(load(path)) == expected(book)


def test_a_cut_that_fails_half_way_leaves_nothing_of_it_and_can_be_written_again(path: Path, journal: Journal) -> None:
    journal.commit(Cut([row(1)]), NO_FUNCTIONS)
    bad = Cut([row(2), row(3)._replace(attempt=2**70)], gone_tasks=[1])
    with pytest.raises((StateError, OverflowError)):
        journal.commit(bad, FunctionCut([("f", b"code")]))
    assert [task.seq for task in reopened(journal).rows.tasks] == [1]
    journal.commit(Cut([row(2), row(3)], gone_tasks=[1]), FunctionCut([("f", b"code")]))
    found = reopened(journal)
    assert [task.seq for task in found.rows.tasks] == [2, 3]
    assert found.code == [("f", b"code")]


def reopened(journal: Journal) -> Saved:
    journal.close()
    return journal.open()


def test_space_is_given_back_when_work_is_done(path: Path, journal: Journal) -> None:
    def used() -> int:
        return sum(file.stat().st_size for file in path.parent.iterdir())

    count = 40
    for at in range(0, count, 10):
        journal.commit(Cut([row(seq, os.urandom(2**20)) for seq in range(at, at + 10)]), NO_FUNCTIONS)
    full = used()
    assert full >= count * 2**20
    journal.commit(Cut(gone_tasks=list(range(count))), NO_FUNCTIONS)
    journal.tidy()
    assert used() <= 6 * 2**20
    journal.commit(Cut([row(1)]), NO_FUNCTIONS)
    assert [task.seq for task in reopened(journal).rows.tasks] == [1]


def test_the_log_beside_the_file_does_not_grow_for_ever(path: Path, journal: Journal) -> None:
    for seq in range(36):
        journal.commit(Cut([row(seq, os.urandom(2**20))], gone_tasks=[seq - 1]), NO_FUNCTIONS)
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 24 * 2**20  # 36 MB were written


# --- the end of the process, at any moment

CRASHES = textwrap.dedent(
    """
    import os, pickle, shutil, sys
    from fray.job.rpc.controller.journal import Journal

    folder, what = sys.argv[1:]
    STATEMENTS = ("execute", "executemany", "executescript")

    def work(path, count):
        '''Do it, and end before the statement of that number.'''
        journal, done = Journal(path), 0
        if what == "commit":
            journal.open()

        def count_down(frame, event, arg):
            nonlocal done
            if event == "c_call" and getattr(arg, "__name__", "") in STATEMENTS:
                done += 1
                if done > count:
                    os._exit(9)

        sys.setprofile(count_down)
        if what == "open":
            journal.open()
        else:
            with open(f"{folder}/rows", "rb") as file:
                journal.commit(*pickle.load(file))

    for count in range(100):
        path = f"{folder}/{count}.sqlite"
        if what == "commit":
            shutil.copy(f"{folder}/before", path)
        child = os.fork()
        if not child:
            code = 1
            try:
                work(path, count)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), code
        if code == 0:
            break
    print(count)
    """
)


def crash_everywhere(folder: Path, what: str) -> list[Path]:
    """Let a process end at every statement of an operation; return the files that it left, the last by one that did not."""
    script = [sys.executable, "-c", CRASHES, str(folder), what]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    count = int(ended.stdout)
    assert 5 < count < 200
    return [folder / f"{number}.sqlite" for number in range(count + 1)]


def test_a_process_that_ends_anywhere_in_a_first_start_leaves_a_file_that_can_be_used(tmp_path: Path) -> None:
    for path in crash_everywhere(tmp_path, "open"):
        first, second = load(path), load(path)
        assert (first.controller_id, first.generation + 1) == (second.controller_id, second.generation)
        assert parts(first) == ([], [], [], {}, set())


def test_a_process_that_ends_anywhere_in_a_cut_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "before"))
    journal.open()
    before = Cut([row(1), row(2)], sessions=[SessionRow("s", "", "", 0, 0, 0, 0, 0)])
    journal.commit(before, FunctionCut([("f", b"code")]))
    journal.close()
    cut = Cut([row(8), row(9)], gone_tasks=[1], gone_sessions=["s"]), FunctionCut([("g", b"code")], ["f"])
    (tmp_path / "rows").write_bytes(pickle.dumps(cut))
    seen = []
    for path in crash_everywhere(tmp_path, "commit"):
        found = load(path)
        seen.append(([task.seq for task in found.rows.tasks], [s.id for s in found.rows.sessions], found.code))
    nothing, everything = ([1, 2], ["s"], [("f", b"code")]), ([2, 8, 9], [], [("g", b"code")])
    assert seen[0] == nothing
    assert seen[-1] == everything
    assert all(one in (nothing, everything) for one in seen), seen


# --- files that are not what they should be


def assert_refused(path: Path, *words: str) -> None:
    """It is refused with a message that names the file; and the file can be opened once the cause is gone."""
    with pytest.raises(StateError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_foreign_database_is_refused_and_stays_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE tasks (id)")
        db.commit()
    before = path.read_bytes()
    assert_refused(path, "not the state of a Fray controller", "--state")
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 2, 999])
def test_another_format_is_refused_and_stays_as_it_is(written: Book, path: Path, version: int) -> None:
    edit(path, f"PRAGMA user_version={version}")
    before = path.read_bytes()
    assert_refused(path, f"format {version}", "reads format 1", "--state")
    assert path.read_bytes() == before


def edit(path: Path, *statements: str) -> None:
    """Change a state file behind its controller's back."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    "content", [b"not a database, and long enough to look like one" * 100, bytes(8192)], ids=["text", "zeros"]
)
def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert_refused(path, "damaged", "move it away")
    assert path.read_bytes() == content


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert parts(load(path)) == ([], [], [], {}, set())


@pytest.mark.parametrize("column", ["payload", "result"])
def test_data_that_are_not_what_was_written_are_refused(written: Book, path: Path, column: str) -> None:
    edit(path, f"UPDATE tasks SET {column} = CAST({column} || x'00' AS BLOB) WHERE seq = (SELECT min(seq) FROM tasks)")
    assert_refused(path, "damaged", "is not what was written", "copy")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta WHERE key = 'generation'",
        "UPDATE meta SET value = 'many' WHERE key = 'generation'",
        "DELETE FROM meta",
        "DROP TABLE functions",
        "ALTER TABLE tasks RENAME COLUMN payload TO data",
        "ALTER TABLE tasks ADD COLUMN further",
        "ALTER TABLE sessions ADD COLUMN further",
        "ALTER TABLE workers DROP COLUMN tags",
        "UPDATE tasks SET result = 5",
    ],
)
def test_a_file_with_other_tables_or_values_is_refused(written: Book, path: Path, statement: str) -> None:
    edit(path, statement)
    assert_refused(path)


def test_a_refused_file_is_not_kept_locked(written: Book, path: Path) -> None:
    edit(path, "PRAGMA user_version=2")
    journal = Journal(str(path))
    with pytest.raises(StateError, match="format 2"):
        journal.open()
    edit(path, "PRAGMA user_version=1")
    assert parts(load(path)) == expected(written)


def test_a_truncated_file_is_refused_or_as_it_was(written: Book, path: Path) -> None:
    whole = path.read_bytes()
    refused = 0
    for size in range(0, len(whole), 1024):
        path.write_bytes(whole[:size])
        if size == 0:
            continue
        try:
            assert parts(load(path)) == expected(written), size
        except StateError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= len(whole) // 1024 - 5


def test_bits_flipped_anywhere_are_refused_or_change_nothing(written: Book, path: Path) -> None:
    whole, rng = path.read_bytes(), random.Random(7)
    refused = 0
    for at in rng.sample([at for at, byte in enumerate(whole) if byte], 120):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert parts(load(path)) == expected(written), at
        except StateError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 60


@pytest.mark.parametrize("page", range(1, 6))
def test_a_page_of_noise_is_refused(written: Book, path: Path, page: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[page * 4096 : (page + 1) * 4096] = random.Random(page).randbytes(4096)
    path.write_bytes(whole)
    try:
        assert parts(load(path)) == expected(written)  # a page that nothing uses
    except StateError as error:
        assert str(path) in str(error)


def test_a_damaged_log_gives_a_whole_number_of_cuts(path: Path, tmp_path: Path) -> None:
    """What is behind the damage is lost, as after a torn write; what is loaded is the state of a moment."""
    journal, book = Journal(str(path)), Book()
    journal.open()
    moments = [([], [], [], {}, set())]
    for _ in range(6):
        book.fill() if book.count == 0 else book.submit(3, os.urandom(3000))
        book.save(journal)
        moments.append(expected(book))
    copies = tmp_path / "copies"
    shutil.copytree(path.parent, copies)
    journal.close()
    log, rng = (copies / f"{path.name}-wal").read_bytes(), random.Random(3)
    assert len(log) > 50_000
    found = set()
    for number in range(40):
        damaged = bytearray(log)
        damaged[rng.randrange(32, len(log))] ^= 0x10
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(copies, copy)
        (copy / f"{path.name}-wal").write_bytes(damaged)
        try:
            found.add(moments.index(parts(load(copy / path.name))))
        except StateError as error:  # the log held the tables too
            assert str(copy) in str(error)
    assert len(found) > 3


def test_a_log_that_is_whole_gives_all_that_was_written(path: Path, tmp_path: Path, journal: Journal) -> None:
    book = Book()
    book.fill()
    book.save(journal)
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)
    assert parts(load(copy / path.name)) == expected(book)


# --- places where there can be no file


def test_a_file_in_use_is_refused_and_its_user_goes_on(path: Path, journal: Journal) -> None:
    assert_refused(path, "another controller uses", "--state")
    journal.commit(Cut([row(1)]), NO_FUNCTIONS)
    journal.close()
    assert [task.seq for task in load(path).rows.tasks] == [1]


def test_a_file_in_use_by_another_process_is_refused(path: Path, journal: Journal) -> None:
    code = f"from fray.job.rpc.controller.journal import Journal; Journal({str(path)!r}).open()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "StateError: another controller uses the state file" in ended.stderr


def test_a_missing_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "state.sqlite"
    load(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "cannot open")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(tmp_path / "file" / "state.sqlite", "cannot open")


NOBODY = textwrap.dedent(
    """
    import os, sys
    from fray.errors import StateError
    from fray.job.rpc.controller.journal import Journal

    if os.getuid() == 0:  # to whom nothing is forbidden
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for path in sys.argv[1:]:
        try:
            Journal(path).open()
        except StateError as error:
            print(error)
        else:
            print("opened", path)
    """
)


def test_files_and_directories_without_permission_are_refused(written: Book, path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        open_to_all, closed = Path(name), Path(name, "closed")
        closed.mkdir(mode=0o555)
        open_to_all.chmod(0o755)
        shutil.copy(path, open_to_all / "read-only.sqlite")
        (open_to_all / "read-only.sqlite").chmod(0o444)
        paths = [closed / "new.sqlite", closed / "a" / "new.sqlite", open_to_all / "read-only.sqlite"]
        command = [sys.executable, "-c", NOBODY, *map(str, paths)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = ended.stdout.splitlines()
    assert len(lines) == 3, ended.stderr
    for line, file in zip(lines, paths, strict=True):
        assert line.startswith(f"cannot open the state file {file}")
        assert "ermission denied" in line


# --- the saver


class Trouble(Journal):
    """A journal whose disk obeys only when it is told to."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.error: Exception | None = None
        self.commits = self.failures = 0

    def commit(self, cut: Cut, functions: FunctionCut) -> None:
        if self.error is not None:
            self.failures += 1
            raise self.error
        super().commit(cut, functions)
        self.commits += 1


class Desk:
    """A saver at work on one event loop."""

    def __init__(self, path: Path) -> None:
        self.book = Book()
        self.journal = Trouble(str(path))
        self.journal.open()
        self.saver = Saver(self.journal, self.book.state, self.book.functions, OFFSET_S)
        self.told: list[str] = []
        self.saver.on_trouble = self.told.append

    def change(self, count: int = 1) -> list[str]:
        names = self.book.submit(count)
        self.saver.step()
        return names


def with_desk(path: Path, body: Callable[[Desk], Coroutine[Any, Any, None]]) -> Rows:
    """Run a body with a saver; return what is in the file when it was closed."""

    async def run() -> None:
        desk = Desk(path)
        desk.book.post(ev.SessionOpened(0.0, "s"))
        try:
            await body(desk)
        finally:
            await desk.saver.close()

    asyncio.run(run())
    return load(path).rows


async def until(condition: Callable[[], object]) -> None:
    """Wait on the loop until something is so."""
    await asyncio.to_thread(eventually, condition)


def test_saved_counts_what_is_on_the_disk_and_nothing_else(path: Path) -> None:
    async def body(desk: Desk) -> None:
        desk.change()
        mark = desk.saver.mark()
        assert not desk.saver.is_saved(mark)
        await desk.saver.wait_saved()
        assert desk.saver.is_saved(mark)
        assert desk.journal.commits == 1
        assert desk.saver.is_saved(desk.saver.mark())

    assert [task.id for task in with_desk(path, body).tasks] == ["s-0"]


def test_actions_wait_for_the_disk_and_keep_their_order(path: Path) -> None:
    done: list[tuple[str, int]] = []

    async def body(desk: Desk) -> None:
        desk.saver.when_saved(lambda: done.append(("first", desk.journal.commits)))
        desk.change()
        desk.saver.when_saved(lambda: done.append(("second", desk.journal.commits)))
        desk.saver.when_saved(lambda: 1 / 0)  # a defect, which keeps nobody else waiting
        desk.change()
        desk.saver.when_saved(lambda: done.append(("third", desk.journal.commits)))
        desk.saver.step()
        await until(lambda: len(done) == 3)

    with_desk(path, body)
    assert [name for name, _ in done] == ["first", "second", "third"]
    assert all(commits > 0 for _, commits in done)


def test_what_changes_while_a_cut_is_written_goes_into_the_next(path: Path) -> None:
    async def body(desk: Desk) -> None:
        for _ in range(20):
            desk.change(5)
            await asyncio.sleep(0)
        await desk.saver.wait_saved()
        assert desk.journal.commits < 20

    assert len(with_desk(path, body).tasks) == 100


def test_changes_that_nobody_waits_for_are_saved_soon(path: Path) -> None:
    async def body(desk: Desk) -> None:
        for count in (1, 2, 3):
            desk.change()
            await until(lambda: desk.saver.is_saved(desk.saver.mark()))
            assert desk.journal.commits == count

    with_desk(path, body)


def test_the_rest_is_saved_on_closing(path: Path) -> None:
    async def body(desk: Desk) -> None:
        desk.change(3)
        await asyncio.sleep(0)
        desk.change(3)

    assert len(with_desk(path, body).tasks) == 6


@pytest.mark.parametrize(
    ("error", "failures"),
    [(StateError("cannot write the state file: disk full"), 2), (OverflowError("Python int too large"), 1)],
    ids=["disk", "defect"],
)
def test_a_cut_that_cannot_be_written_is_kept_told_of_and_written_later(path: Path, error: Exception, failures: int) -> None:
    async def body(desk: Desk) -> None:
        desk.journal.error = error
        desk.change()
        first = desk.saver.mark()
        await until(lambda: desk.saver.trouble and desk.journal.failures >= failures)
        assert str(error) in desk.saver.trouble
        assert len(desk.told) == 1
        desk.change()
        second = desk.saver.mark()
        assert not desk.saver.is_saved(first)
        desk.journal.error = None
        await until(lambda: desk.saver.is_saved(second))
        assert (desk.saver.trouble, len(desk.told)) == ("", 1)

    assert [task.id for task in with_desk(path, body).tasks] == ["s-0", "s-1"]


def test_a_journal_that_cannot_be_written_does_not_keep_the_controller_from_stopping(path: Path) -> None:
    async def body(desk: Desk) -> None:
        desk.change()
        await desk.saver.wait_saved()
        desk.journal.error = StateError("the disk is gone")
        desk.change()
        await until(lambda: desk.saver.trouble)

    assert [task.id for task in with_desk(path, body).tasks] == ["s-0"]


def test_without_a_journal_everything_counts_as_saved() -> None:
    async def run() -> None:
        book = Book()
        saver = Saver(None, book.state, book.functions, OFFSET_S)
        book.fill()
        saver.step()
        done: list[int] = []
        saver.when_saved(lambda: done.append(1))
        await saver.wait_saved()
        assert done == [1]
        assert saver.is_saved(saver.mark())
        assert not book.functions.has_changes()
        await saver.close()

    asyncio.run(run())


# --- a disk that is full


def test_a_full_disk_refuses_new_work_loses_nothing_and_is_used_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAY_TOKEN", TOKEN)
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk", "8m"))
        server = FrayControllerServer(token=TOKEN, state=str(disk / "state.sqlite"), storage=str(tmp_path / "storage"))
        server.start()
        stack.callback(server.stop)
        client = ControllerClient(server.address, TOKEN)
        stack.callback(client.close)
        ctx = stack.enter_context(create_job_ctx("fray", controller_address=server.address))
        before = [ctx.run(len, "a" * 200_000) for _ in range(3)]  # nobody runs them yet
        eventually(lambda: len(saved_tasks(disk, tmp_path)) == 3, what="they are saved")
        full = ballast(disk)
        unsaved = [ctx.run(len, "b" * 200_000) for _ in range(3)]
        eventually(lambda: client.call("get_status", pb.Empty()).trouble, what="the controller notices")
        assert "cannot write the state file" in client.call("get_status", pb.Empty()).trouble
        later = ctx.run(len, "c" * 200_000)
        eventually(lambda: "takes no new work until it can save its state" in capfd.readouterr().err)
        worker = FrayWorker(server.address, "w", token=TOKEN, num_cpus=1)
        full.unlink()
        worker.start()
        stack.callback(worker.stop, 0.0)
        assert ctx.get([*before, *unsaved, later], timeout=60) == [200_000] * 7
        eventually(lambda: not client.call("get_status", pb.Empty()).trouble)
        eventually(lambda: not saved_tasks(disk, tmp_path), what="acknowledged results are forgotten")


def saved_tasks(disk: Path, scratch: Path) -> list[str]:
    """Return the tasks that a controller killed now would find."""
    copy = scratch / "copied"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("state.sqlite", "state.sqlite-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(disk / name, copy)
    return [task.id for task in load(copy / "state.sqlite").rows.tasks]


def test_a_full_disk_at_the_start_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        ballast(disk)
        assert_refused(disk / "state.sqlite")


def test_a_read_only_file_system_is_named(written: Book, path: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        shutil.copy(path, disk / "state.sqlite")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert_refused(disk / "state.sqlite", "cannot open")
