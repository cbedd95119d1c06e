"""A storage that fails, waits, truncates and lies on purpose, by rule, for every process of this machine that has its URL.

``FaultyStorage.create`` makes a directory that holds the rules, and what they have done so far; the storage's URL
``faulty://DIRECTORY/path`` names that directory (its slashes quoted), so that it means the same in every process in which
``fray.payloads`` or this module was imported: all of Fray's. Behind it is any other fsspec storage. Objects appear there as
they do in an object store: whole, when their writer closes them, and a creation has one winner.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote, unquote

import fsspec
from fsspec.spec import AbstractFileSystem

PROTOCOL = "faulty"
_DRAFT_SUFFIX = ".faulty-draft"
_STATE = "state.json"

Operation = Literal["read", "write", "create", "copy", "remove", "list", "look"]
"""``create`` is a write that must not replace anything; ``look`` asks for one object's size, or whether it is there."""
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

_STORES: tuple[Operation, ...] = ("write", "create", "copy")
_LOOKS: tuple[Operation, ...] = ("list", "look")


class StorageFaultKind(StrEnum):
    """What may happen to an operation."""

    ERROR = "error"
    """It raises and has done nothing. ``exists`` answers False then, as those of many storages do."""
    ERROR_AFTER = "error_after"
    """It is done, and raises nevertheless."""
    ERROR_HALFWAY = "error_halfway"
    """Half of the bytes are stored under the final name, and it raises."""
    DELAY = "delay"
    """It is done later."""
    TRUNCATE = "truncate"
    """Half of the bytes are stored, or returned, and nothing is said."""
    FLIP = "flip"
    """One bit of what is stored, or returned, is another."""
    LOSE = "lose"
    """It is acknowledged and not done."""
    OVERWRITE = "overwrite"
    """A creation replaces what is there."""
    HIDE = "hide"
    """What is there is not seen: listings leave out the objects whose path matches."""
    GHOST = "ghost"
    """What was removed is still seen."""


_APPLIES: dict[StorageFaultKind, tuple[Operation, ...]] = {
    StorageFaultKind.ERROR: OPERATIONS,
    StorageFaultKind.ERROR_AFTER: (*_STORES, "remove"),
    StorageFaultKind.ERROR_HALFWAY: _STORES,
    StorageFaultKind.DELAY: OPERATIONS,
    StorageFaultKind.TRUNCATE: ("read", *_STORES),
    StorageFaultKind.FLIP: ("read", *_STORES),
    StorageFaultKind.LOSE: (*_STORES, "remove"),
    StorageFaultKind.OVERWRITE: ("create",),
    StorageFaultKind.HIDE: _LOOKS,
    StorageFaultKind.GHOST: _LOOKS,
}

ERRORS: dict[str, Callable[[], OSError]] = {
    "EIO": lambda: OSError(errno.EIO, "Input/output error"),
    "ENOSPC": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "EACCES": lambda: PermissionError(errno.EACCES, "Permission denied"),
    "TIMEOUT": lambda: TimeoutError("the request timed out"),
    "503": lambda: OSError("503 Slow Down: please reduce your request rate"),
}
"""What ``StorageFault.error`` may be. They tell no path, as those of many storages do not."""


@dataclass(frozen=True, slots=True)
class StorageFault:
    """A rule. The first rule that strikes an operation counts.

    Raises:
        ValueError: if the kind never strikes these operations, or the error is unknown; says what is right.
    """

    kind: StorageFaultKind
    """What happens."""
    operations: tuple[Operation, ...] = ()
    """Which operations it may strike; none for all that it can."""
    path: str = "*"
    """Glob of the paths, below the storage's root, that it strikes; a star stands for slashes too."""
    share: float = 1.0
    """Of the operations that match: above 0, at most 1."""
    first: int = 1
    """The number, in all processes, of the first operation that matches and may be struck."""
    limit: int | None = None
    """How often it strikes at most, in all processes; None for no limit."""
    error: str = "EIO"
    """A name in ``ERRORS``: what is raised."""
    seconds: float = 0.05
    """How much later."""

    def __post_init__(self) -> None:
        possible = _APPLIES[StorageFaultKind(self.kind)]
        if wrong := set(self.operations) - set(possible):
            raise ValueError(f"{self.kind} cannot strike {', '.join(sorted(wrong))}, only {', '.join(possible)}")
        if self.error not in ERRORS:
            raise ValueError(f"error={self.error!r} is none of {', '.join(ERRORS)}")
        if not 0 < self.share <= 1 or self.first < 1:
            raise ValueError("share is above 0 and at most 1, and first is 1 or more")

    def matches(self, operation: str, path: str) -> bool:
        """Tell whether an operation may be struck. Listings that hide or add objects are asked for each of them."""
        of_names = operation == "list" and self.kind in (StorageFaultKind.HIDE, StorageFaultKind.GHOST)
        wanted = self.operations or _APPLIES[self.kind]
        return operation in wanted and (of_names or fnmatchcase(path, self.path))


@dataclass(frozen=True, slots=True)
class FaultyStorage:
    """The rules of one faulty storage. Thread-safe, and shared by all processes."""

    control: Path
    """A local directory of its own for the rules, and what they have done."""

    @staticmethod
    def create(control: Path | str, target: str, *faults: StorageFault, seed: int = 0) -> FaultyStorage:
        """Make a storage over the fsspec URL or path ``target``. Its rules and counts are kept in the directory ``control``.

        With the same seed, the nth operation that matches a rule meets the same fate.
        """
        storage = FaultyStorage(Path(control).absolute())
        storage.control.mkdir(parents=True)
        state = {"target": str(target), "seed": seed, "seen": {}, "struck": {}, "total": {}, "removed": {}}
        (storage.control / _STATE).write_text(json.dumps(state | {"faults": [asdict(fault) for fault in faults]}))
        fsspec.register_implementation(PROTOCOL, FaultyFileSystem, clobber=True)
        return storage

    @property
    def url(self) -> str:
        """The root of the storage, for any process of this machine."""
        return f"{PROTOCOL}://{quote(str(self.control), safe='')}"

    def set_faults(self, *faults: StorageFault) -> None:
        """Put other rules, or none, in the place of those that there are. They count from the start."""
        with self._state() as state:
            state.update(faults=[asdict(fault) for fault in faults], seen={}, struck={})

    def count_faults(self) -> Counter[tuple[StorageFaultKind, str]]:
        """Return how often which kind has struck which operation so far, in all processes."""
        with self._state() as state:
            pairs = ((key.split(" "), number) for key, number in state["total"].items())
            return Counter({(StorageFaultKind(kind), operation): number for (kind, operation), number in pairs})

    def draw(self, operation: Operation, path: str, seen: tuple[str, ...] | None = None) -> StorageFault | None:
        """Return the rule that strikes an operation now, and count it. ``seen`` are the paths that a listing would name."""
        with self._state() as state:
            for number, fields in enumerate(state["faults"]):
                fault = _fault(fields)
                if not fault.matches(operation, path) or not _concerns(fault, state["removed"] if seen is None else seen):
                    continue
                if _strikes(state, number, fault):
                    key = f"{fault.kind} {operation}"
                    state["total"][key] = state["total"].get(key, 0) + 1
                    return fault
        return None

    def locate(self, path: str) -> tuple[Any, str]:
        """Return (file system, path on it) of what is behind a path."""
        fs, root = fsspec.url_to_fs(self.target)
        fs.invalidate_cache()
        return fs, f"{root.rstrip('/')}/{path}".rstrip("/")

    @property
    def target(self) -> str:
        """What is behind it."""
        found: str = self._read()["target"]
        return found

    def note_removed(self, path: str, size: int) -> None:
        """Remember what was there, for ghosts."""
        with self._state() as state:
            state["removed"][path] = size

    def find_removed(self) -> dict[str, int]:
        """Return the sizes of what was removed, by path."""
        found: dict[str, int] = self._read()["removed"]
        return found

    def _read(self) -> dict[str, Any]:
        with self._state() as state:
            return state

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """Give the state to one process at a time; what is in it at the end is kept."""
        fd = os.open(self.control / _STATE, os.O_RDWR)  # no file object: a task on a thread may be interrupted anywhere
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            before = os.pread(fd, os.fstat(fd).st_size, 0)
            state, _ = json.JSONDecoder().raw_decode(before.decode())
            yield state
            after = json.dumps(state).encode()
            if after != before:
                os.pwrite(fd, after, 0)  # one call: a process that is killed leaves the one or the other
                os.ftruncate(fd, len(after))
        finally:
            os.close(fd)


def _fault(fields: dict[str, Any]) -> StorageFault:
    return StorageFault(**fields | {"kind": StorageFaultKind(fields["kind"]), "operations": tuple(fields["operations"])})


def _concerns(fault: StorageFault, paths: Any) -> bool:
    """Tell whether a rule that changes what is seen would change anything."""
    if fault.kind not in (StorageFaultKind.HIDE, StorageFaultKind.GHOST):
        return True
    return any(fnmatchcase(path, fault.path) for path in paths)


def _strikes(state: dict[str, Any], number: int, fault: StorageFault) -> bool:
    name = str(number)
    nth = state["seen"][name] = state["seen"].get(name, 0) + 1
    struck = state["struck"].get(name, 0)
    if nth < fault.first or (fault.limit is not None and struck >= fault.limit):
        return False
    if random.Random(f"{state['seed']}:{number}:{nth}").random() >= fault.share:
        return False
    state["struck"][name] = struck + 1
    return True


class FaultyFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The file system of all faulty storages; which one is told by the first part of a path."""

    protocol = PROTOCOL
    root_marker = ""

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        storage, inner = self._split(path)
        fs, place = storage.locate(inner)
        try:
            infos = [self._info(storage, fs, place, inner, info) for info in fs.ls(place, detail=True)]
        except FileNotFoundError:
            infos = []
            missing = True
        else:
            missing = False
        infos = [info for info in infos if not info["name"].endswith(_DRAFT_SUFFIX)]
        infos = self._as_listed(storage, inner, infos)
        if missing and not infos:
            raise FileNotFoundError(path)
        return infos if detail else [info["name"] for info in infos]

    def _as_listed(self, storage: FaultyStorage, inner: str, infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the entries of a directory as a rule lets them be seen."""
        there = {self._split(info["name"])[1]: info for info in infos}
        gone = {path: size for path, size in storage.find_removed().items() if path.rpartition("/")[0] == inner}
        fault = self._begin(storage, "list", inner, (*there, *gone))
        if fault is None:
            return infos
        if fault.kind is StorageFaultKind.GHOST:
            ghosts = [path for path in gone if path not in there and fnmatchcase(path, fault.path)]
            return infos + [self._entry(storage, path, gone[path]) for path in ghosts]
        return [info for path, info in there.items() if not fnmatchcase(path, fault.path)]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        storage, inner = self._split(path)
        fault = self._begin(storage, "look", inner, (inner,))
        if fault is not None and fault.kind is StorageFaultKind.HIDE:
            raise FileNotFoundError(path)
        removed = storage.find_removed()
        if fault is not None and inner in removed:
            return self._entry(storage, inner, removed[inner])
        fs, place = storage.locate(inner)
        return self._info(storage, fs, place, inner, fs.info(place))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        storage, inner = self._split(path)
        fault = self._begin(storage, "read", inner)
        fs, place = storage.locate(inner)
        data: bytes = fs.cat_file(place, start=start, end=end)
        return _changed(data, fault)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        self._store("create" if mode == "create" else "write", path, lambda: bytes(value))

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        storage, inner = self._split(path1)
        fs, place = storage.locate(inner)
        self._store("copy", path2, lambda: fs.cat_file(place))

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **kwargs: Any) -> None:
        if not Path(lpath).is_dir():
            self._store("create" if mode == "create" else "write", rpath, Path(lpath).read_bytes)

    def get_file(self, rpath: str, lpath: str, callback: Any = None, outfile: Any = None, **kwargs: Any) -> None:
        Path(lpath).write_bytes(self.cat_file(rpath))

    def rm_file(self, path: str) -> None:
        storage, inner = self._split(path)
        fault = self._begin(storage, "remove", inner)
        if fault is not None and fault.kind is StorageFaultKind.LOSE:
            return
        fs, place = storage.locate(inner)
        size = fs.size(place)
        fs.rm_file(place)
        storage.note_removed(inner, size or 0)
        _raise_if(fault, StorageFaultKind.ERROR_AFTER)

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        for single in path if isinstance(path, list) else [path]:
            if not recursive:
                self.rm_file(single)
                continue
            storage, inner = self._split(single)
            fs, place = storage.locate(inner)
            for file in fs.find(place):
                self.rm_file(f"{self._strip_protocol(single)}{file.removeprefix(place)}")
            if not fs.find(place):
                with suppress(FileNotFoundError):  # object stores have no directories
                    fs.rm(place, recursive=True)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: objects need no directories."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: objects need no directories."""

    def rmdir(self, path: str) -> None:
        """Do nothing: objects need no directories."""

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> io.BytesIO:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        if mode not in ("wb", "xb"):
            raise ValueError(f"an object cannot be opened with mode={mode!r}: read it, or write it anew")
        return _Upload(lambda data: self.pipe_file(path, data, mode="create" if mode == "xb" else "overwrite"))

    def _store(self, operation: Operation, path: str, read: Callable[[], bytes]) -> None:
        storage, inner = self._split(path)
        fault = self._begin(storage, operation, inner)
        if fault is not None and fault.kind is StorageFaultKind.LOSE:
            return
        is_exclusive = operation == "create" and (fault is None or fault.kind is not StorageFaultKind.OVERWRITE)
        fs, place = storage.locate(inner)
        _put(fs, place, _changed(read(), fault), is_exclusive)
        for kind in (StorageFaultKind.ERROR_HALFWAY, StorageFaultKind.ERROR_AFTER):
            _raise_if(fault, kind)

    def _begin(
        self, storage: FaultyStorage, operation: Operation, inner: str, seen: tuple[str, ...] | None = None
    ) -> StorageFault | None:
        """Draw, wait, and fail if that is what is drawn."""
        fault = storage.draw(operation, inner, seen)
        if fault is not None and fault.kind is StorageFaultKind.DELAY:
            time.sleep(fault.seconds)
            return None
        _raise_if(fault, StorageFaultKind.ERROR)
        return fault

    def _split(self, path: str) -> tuple[FaultyStorage, str]:
        control, _, inner = str(self._strip_protocol(path)).partition("/")
        return FaultyStorage(Path(unquote(control))), inner

    def _info(self, storage: FaultyStorage, fs: Any, place: str, inner: str, info: dict[str, Any]) -> dict[str, Any]:
        below = info["name"].rstrip("/").removeprefix(place.rstrip("/")).lstrip("/")
        return info | {"name": self._name(storage, f"{inner}/{below}".strip("/"))}

    def _entry(self, storage: FaultyStorage, inner: str, size: int) -> dict[str, Any]:
        return {"name": self._name(storage, inner), "size": size, "type": "file"}

    def _name(self, storage: FaultyStorage, inner: str) -> str:
        return f"{storage.url.removeprefix(f'{PROTOCOL}://')}/{inner}".rstrip("/")


class _Upload(io.BytesIO):
    """An object that is being written: it is stored when it is closed."""

    def __init__(self, store: Callable[[bytes], None]) -> None:
        super().__init__()
        self._pending: Callable[[bytes], None] | None = store

    def close(self) -> None:
        store, self._pending = self._pending, None
        try:
            if store is not None:
                store(self.getvalue())
        finally:
            super().close()


def _put(fs: Any, place: str, data: bytes, is_exclusive: bool) -> None:
    """Make an object appear as a whole."""
    if "file" not in fs.protocol:
        fs.pipe_file(place, data, mode="create" if is_exclusive else "overwrite")
        return
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}{_DRAFT_SUFFIX}")
    try:
        draft.write_bytes(data)
        if is_exclusive:
            os.link(draft, path)
        else:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _changed(data: bytes, fault: StorageFault | None) -> bytes:
    if fault is None:
        return data
    if fault.kind in (StorageFaultKind.TRUNCATE, StorageFaultKind.ERROR_HALFWAY):
        return data[: len(data) // 2]
    if fault.kind is StorageFaultKind.FLIP and data:
        return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    return data


def _raise_if(fault: StorageFault | None, kind: StorageFaultKind) -> None:
    if fault is not None and fault.kind is kind:
        raise ERRORS[fault.error]()
