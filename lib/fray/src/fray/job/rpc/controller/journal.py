"""The controller's state on disk: an SQLite database with a row for each live task, session and worker.

Rows are written in groups: a ``Cut`` becomes one transaction, which is on the disk when ``commit`` returns (write-ahead log,
``synchronous=FULL``), so that it survives the end of the process and of the machine. What is forgotten is deleted, and the
space is given back. The file is locked as long as it is open. Blocking; for one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fray.errors import StateError
from fray.job.rpc.controller.core.records import Cut, Rows, SessionRow, TaskRow, WorkerRow
from fray.job.rpc.controller.functions import FunctionCut

FORMAT_VERSION = 1
"""Of the tables below; grows when an older Fray would misread them."""
APPLICATION_ID = 0x46524159
"""Marks the file as ours ("FRAY"), as SQLite provides for."""
CHECKPOINT_PAGES = 4096
"""The log is folded into the database when it has so many pages (16 MB): rows that were deleted meanwhile cost nothing more."""
SPARE_PAGES = 1024
"""Free pages that are kept for the next burst (4 MB)."""

_FIXED = ("seq", "id", "session", "function_id", "name", "options", "submitted_at", "actor_spec")
_MUTABLE = tuple(name for name in TaskRow._fields if name not in (*_FIXED, "payload"))
_FIRST_MUTABLE = TaskRow._fields.index(_MUTABLE[0])

SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT, digest INTEGER) WITHOUT ROWID;
CREATE TABLE tasks (seq INTEGER PRIMARY KEY, {", ".join(TaskRow._fields[1:])}, digest INTEGER);
CREATE TABLE sessions (id TEXT PRIMARY KEY, {", ".join(SessionRow._fields[1:])}, digest INTEGER) WITHOUT ROWID;
CREATE TABLE workers (incarnation TEXT PRIMARY KEY, {", ".join(WorkerRow._fields[1:])}, digest INTEGER) WITHOUT ROWID;
CREATE TABLE functions (id TEXT PRIMARY KEY, code BLOB, digest INTEGER);
CREATE TABLE function_users (function_id TEXT, session TEXT, digest INTEGER, PRIMARY KEY (function_id, session)) WITHOUT ROWID;
"""


def _marks(count: int) -> str:
    return ", ".join("?" * count)


_ADD_TASK = f"INSERT OR REPLACE INTO tasks VALUES ({_marks(len(TaskRow._fields) + 1)})"
_CHANGE_TASK = f"UPDATE tasks SET {', '.join(f'{name}=?' for name in _MUTABLE)}, digest=? WHERE seq=?"
_END_TASK = f"UPDATE tasks SET {', '.join(f'{name}=?' for name in _MUTABLE)}, payload=x'', digest=? WHERE seq=?"
_ADD_SESSION = f"INSERT OR REPLACE INTO sessions VALUES ({_marks(len(SessionRow._fields) + 1)})"
_ADD_WORKER = f"INSERT OR REPLACE INTO workers VALUES ({_marks(len(WorkerRow._fields) + 1)})"


@dataclass(slots=True)
class Saved:
    """What was found on opening."""

    controller_id: str
    """Made once for each file."""
    generation: int
    """How often the file has been opened, this time included."""
    rows: Rows = field(default_factory=Rows)
    """All that was live."""
    code: list[tuple[str, bytes]] = field(default_factory=list)
    """Functions by id."""
    users: list[tuple[str, str]] = field(default_factory=list)
    """Which function is used by which session."""


class Journal:
    """One state file. ``open``, then ``commit`` as often as wanted, then ``close``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def open(self) -> Saved:
        """Lock the file, made if there is none, check it, and return what it holds.

        Raises:
            StateError: if it is damaged, used by another controller, of another version, or cannot be read and written.
        """
        with self._explained("open"):
            try:
                return self._open()
            except BaseException:
                self.close()
                raise

    def _open(self) -> Saved:
        self._prepare_file()
        db = self._db = sqlite3.connect(self.path, timeout=0.0, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        is_new = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if is_new:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        else:
            self._check_version(db)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        db.execute("PRAGMA journal_size_limit=0")
        if is_new:
            self._create(db)
        else:
            self._check_pages(db)
        return self._load(db)

    def commit(self, cut: Cut, functions: FunctionCut) -> None:
        """Write a cut as one transaction; it is on the disk when this returns, and not at all if it raises.

        Raises:
            StateError: if the disk is full or does not obey; the same cut can be given again.
        """
        with self._explained("write"):
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                _write(db, cut, functions)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                with contextlib.suppress(sqlite3.Error):  # if the disk is full, our own log may be what fills it
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                raise

    def tidy(self) -> None:
        """Give back the space of what was deleted; for quiet moments. Raises as ``commit`` does."""
        with self._explained("tidy up"):
            db = self._connection()
            free = db.execute("PRAGMA freelist_count").fetchone()[0]
            if free > SPARE_PAGES:
                db.executescript(f"PRAGMA incremental_vacuum({free - SPARE_PAGES})")  # ``execute`` frees one page only
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Unlock the file. Idempotent."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StateError(f"the state file {self.path} is not open")
        return self._db

    def _prepare_file(self) -> None:
        """Make the file for its owner only: it holds arguments and results."""
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))

    def _create(self, db: sqlite3.Connection) -> None:
        first = draw_generation()
        db.execute("BEGIN")  # all or nothing: a file that was half made would be taken for somebody else's
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        meta = [("controller_id", secrets.token_hex(6)), ("generation", str(first))]
        db.executemany("INSERT INTO meta VALUES (?, ?, ?)", ((*row, _digest(row)) for row in meta))
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={FORMAT_VERSION}")
        db.execute("COMMIT")

    def _check_version(self, db: sqlite3.Connection) -> None:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise StateError(f"{self.path} is a database, but not the state of a Fray controller; give another --state")
        if version != FORMAT_VERSION:
            raise StateError(
                f"the state file {self.path} has format {version}; this Fray reads format {FORMAT_VERSION}. Let the version "
                "that wrote it finish its work, or give another --state"
            )

    def _check_pages(self, db: sqlite3.Connection) -> None:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise self.damaged(found)
        with contextlib.closing(sqlite3.connect(":memory:")) as model:
            model.executescript(SCHEMA)
            if _describe(model) != _describe(db):
                raise self.damaged("it has other tables than it should")

    def _load(self, db: sqlite3.Connection) -> Saved:
        meta = dict(self._read(db, "meta"))
        generation = int(meta["generation"]) + 1
        saved = Saved(meta["controller_id"], generation)
        for *values, digest in db.execute("SELECT * FROM tasks ORDER BY seq"):
            task = TaskRow(*values)
            if digest != _digest_task(task):
                raise self.damaged(f"the data of task {task.id} is not what was written")
            saved.rows.tasks.append(task)
        saved.rows.sessions = [SessionRow(*row) for row in self._read(db, "sessions")]
        saved.rows.workers = [WorkerRow(*row) for row in self._read(db, "workers")]
        saved.code = [(name, code) for name, code in self._read(db, "functions")]
        saved.users = [(name, session) for name, session in self._read(db, "function_users")]
        row = ("generation", str(generation))
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (*row, _digest(row)))
        return saved

    def _read(self, db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
        names = [column[1] for column in db.execute(f"PRAGMA table_info({table})") if column[1] != "digest"]
        for *values, digest in db.execute(f"SELECT {', '.join(names)}, digest FROM {table}"):
            row = tuple(values)
            if digest != _digest(row):
                raise self.damaged(f"the table {table} has a row that is not what was written: {str(row[0])[:60]}")
            yield row

    def damaged(self, what: str) -> StateError:
        """Return the error for a file that does not make sense."""
        return StateError(
            f"the state file {self.path} is damaged: {what}. Restore it from a copy, or move it away (with the files "
            f"{self.path}-wal and -shm beside it) and start without what it held"
        )

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StateError(
                    f"another controller uses the state file {self.path}; stop it, or give another --state"
                ) from error
            if "decode" in str(error):
                raise self.damaged(str(error)) from error
            raise StateError(
                f"cannot {doing} the state file {self.path}: {error}. See that there is space and that it may be written; if "
                "so, it is damaged: restore it from a copy, or move it away and start without what it held"
            ) from error
        except sqlite3.Error as error:
            raise self.damaged(str(error)) from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
            raise self.damaged(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            raise StateError(f"cannot {doing} the state file {self.path}: {error}") from error


def draw_generation() -> int:
    """Return the number of a first life: one that no client takes for that of another controller."""
    return 1 + int.from_bytes(secrets.token_bytes(3), "big")


def _write(db: sqlite3.Connection, cut: Cut, functions: FunctionCut) -> None:
    db.executemany("INSERT OR REPLACE INTO functions VALUES (?, ?, ?)", _with_digests(functions.code))
    db.executemany("INSERT OR REPLACE INTO function_users VALUES (?, ?, ?)", _with_digests(functions.users))
    db.executemany(_ADD_SESSION, _with_digests(cut.sessions))
    db.executemany(_ADD_WORKER, _with_digests(cut.workers))
    db.executemany(_ADD_TASK, ((*row, _digest_task(row)) for row in cut.new_tasks))
    db.executemany(_CHANGE_TASK, _changed(row for row in cut.tasks if row.payload))
    db.executemany(_END_TASK, _changed(row for row in cut.tasks if not row.payload))
    db.executemany("DELETE FROM tasks WHERE seq=?", ((seq,) for seq in cut.gone_tasks))
    db.executemany("DELETE FROM sessions WHERE id=?", ((name,) for name in cut.gone_sessions))
    db.executemany("DELETE FROM workers WHERE incarnation=?", ((name,) for name in cut.gone_workers))
    db.executemany("DELETE FROM function_users WHERE function_id=? AND session=?", functions.gone_users)
    db.executemany("DELETE FROM functions WHERE id=?", ((name,) for name in functions.gone_code))


def _changed(rows: Iterable[TaskRow]) -> Iterator[tuple[object, ...]]:
    return ((*row[_FIRST_MUTABLE:], _digest_task(row), row.seq) for row in rows)


def _with_digests(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    return ((*row, _digest(tuple(row))) for row in rows)


def _digest(row: tuple[object, ...]) -> int:
    """Return a checksum of a row: SQLite checks the structure of its pages only."""
    return zlib.crc32(repr(row).encode())


def _digest_task(row: TaskRow) -> int:
    """Return the same of a task, in a fifth of the time: there are many."""
    counts = (row.seq, row.attempt, row.failures, row.losses, row.kills, row.acknowledged)
    numbers = struct.pack("<6q3d", *counts, row.submitted_at, row.until, row.ended_at)
    words = (row.id, row.session, row.function_id, row.name, row.options, row.actor_spec, row.state, row.worker)
    more = (row.cancelling, row.error_kind, row.message, row.actor, row.story)
    text = "\0".join((*words, *more)).encode()
    return zlib.crc32(row.result, zlib.crc32(row.payload, zlib.crc32(text, zlib.crc32(numbers))))


def _describe(db: sqlite3.Connection) -> list[tuple[str, str]]:
    return db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
