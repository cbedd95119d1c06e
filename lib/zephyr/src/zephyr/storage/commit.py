"""Objects that appear once, whole, under a name that several attempts may want.

A commit is a small object that the first attempt creates and no other can. An output is a draft, complete under its attempt's
name, that is published under its final one. Names that begin with a dot are drafts of commits: they are never listed.

On local disks a commit is flushed to the disk before it appears, for one that a power failure emptied would hold its name for
ever. Outputs and chunks are not: that would wait for all their bytes, and their checksums tell when some were lost.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from zephyr.errors import OutputConflict, StorageError
from zephyr.storage.files import answer_of, check_kept, explained, find_length, is_bucket_missing, is_local, locate, not_kept

logger = logging.getLogger(__name__)

CREATE_ATTEMPTS = 3
"""How often a creation is tried when the storage says that another one is under way."""
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})
REFUSALS = frozenset({"PreconditionFailed", "412"})
CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})

_honours: dict[tuple[str, ...], bool] = {}


def create_exclusive(path: str, data: bytes) -> bool:
    """Create an object if nothing is at ``path``, and tell whether what is there now is ours. Thread-safe.

    Readers see nothing or all of it. A client library may repeat a request whose answer was lost, and be refused because of its
    own first try; so what is there is read back and compared. Two attempts must therefore not write the same bytes: put an id
    of the attempt into them. On a place for which `honours_exclusive_create` is false an earlier object is replaced: there only
    one process may commit.

    Raises:
        ValueError: if ``data`` is empty.
        StorageError: if nothing could be created and nothing is there.
    """
    if not data:
        raise ValueError("a commit must not be empty: put the attempt's id into it")
    fs, inner = locate(path)
    try:
        return _create_or_compare(fs, inner, data)
    except Exception as error:
        raise explained("create", path, error) from error


def _create_or_compare(fs: Any, inner: str, data: bytes) -> bool:
    for attempt in range(CREATE_ATTEMPTS):
        try:
            _create(fs, inner, data)
            break
        except Exception as error:
            there = _read_back(fs, inner)
            if there is not None:
                return there == data
            if not _is_conflict(error) or attempt == CREATE_ATTEMPTS - 1:
                raise
    return True


def _create(fs: Any, inner: str, data: bytes) -> None:
    if is_local(fs):
        _create_local(Path(inner), data)
        return
    try:
        fs.pipe_file(inner, data, mode="create")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        fs.pipe_file(inner, data)  # a store without conditions; the probe finds that it overwrites


def _create_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _draft_beside(target) as draft:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, target)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            draft.replace(target)  # a mount without hard links; the probe finds that it overwrites


@contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.draft")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _read_back(fs: Any, inner: str) -> bytes | None:
    """Return what is there; None also if that cannot be told, for the caller has the error that matters."""
    try:
        return _read(fs, inner)
    except Exception as error:
        logger.info("could not read %s back: %s", inner, error)
        return None


def _read(fs: Any, inner: str) -> bytes:
    # A range, because s3fs asks for the size first when it reads a whole object, and believes its cached listing about it.
    data: bytes = fs.cat_file(inner, start=0)
    return data


def read_commit(path: str) -> bytes | None:
    """Return a commit's bytes; None if there is none.

    Raises:
        StorageError: if it cannot be read, or its bucket is missing.
    """
    fs, inner = locate(path)
    try:
        return _read(fs, inner)
    except FileNotFoundError as error:
        if is_bucket_missing(error):
            raise explained("read", path, error) from error
        return None
    except Exception as error:
        raise explained("read", path, error) from error


def list_commits(directory: str) -> dict[str, bytes]:
    """Return the commits directly in a directory, by name, in the order of names; none if there is no such directory.

    Raises:
        StorageError: if the directory or a commit cannot be read, or the bucket is missing.
    """
    fs, inner = locate(directory)
    try:
        found = {name: path for path in _list_files(fs, inner) if not (name := _name(path)).startswith(".")}
        contents = fs.cat_ranges(list(found.values()), 0, None) if found else []
    except Exception as error:
        raise explained("list", directory, error) from error
    commits = dict(zip(found, contents, strict=True))
    for name, data in commits.items():
        if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
            raise explained("read", f"{directory}/{name}", data) from data
    return {name: data for name, data in commits.items() if isinstance(data, bytes)}


def _list_files(fs: Any, directory: str) -> list[str]:
    """Return the paths of the files directly in a directory, as they are now, sorted."""
    fs.invalidate_cache(directory)
    try:
        return sorted(info["name"] for info in fs.ls(directory, detail=True) if info["type"] == "file")
    except FileNotFoundError as error:
        if is_bucket_missing(error):
            raise
        return []
    finally:
        fs.invalidate_cache(directory)  # what we saw must not be what others see later


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def honours_exclusive_create(root: str) -> bool:
    """Tell whether `create_exclusive` has one winner below ``root``; tried once per process and storage. Thread-safe.

    A storage is a local mount, or a bucket of an object store. If false, only one process may commit.

    Raises:
        StorageError: if nothing can be written there; the next call tries again.
    """
    fs, inner = locate(root)
    directory = str(_existing(Path(inner))) if is_local(fs) else inner.rstrip("/")
    storage = _storage_of(fs, directory)
    if storage not in _honours:  # two threads may both try: their answers are equal
        try:
            _honours[storage] = _probe(fs, directory)
        except Exception as error:
            raise explained("write to", root, error) from error
    return _honours[storage]


def _existing(path: Path) -> Path:
    return path if path.exists() or path == path.parent else _existing(path.parent)


def _storage_of(fs: Any, directory: str) -> tuple[str, ...]:
    if is_local(fs):
        return "file", str(os.stat(directory).st_dev)  # noqa: PTH116
    return type(fs).__qualname__, repr(fs.storage_options), directory.lstrip("/").split("/")[0]


def _probe(fs: Any, directory: str) -> bool:
    if not is_local(fs) and not fs.async_impl and type(fs).pipe_file is AbstractFileSystem.pipe_file:
        return False  # it looks first and writes then
    path = f"{directory}/.zephyr-probe-{uuid.uuid4().hex}"
    _create_or_compare(fs, path, b"first")
    try:
        _create(fs, path, b"second")
    except Exception as error:
        if not _is_refusal(error):
            raise
        return _read(fs, path) == b"first"
    finally:
        _remove(fs, path)
    return False


def publish(draft: str, final: str) -> bool:
    """Make a complete object appear under its final name, in the place of what is there. Idempotent, after a crash too.

    ``draft`` is beside ``final``. If it is gone and ``final`` is there, it was published before, or ``final`` is another's:
    then the answer is False.

    Raises:
        OutputConflict: if a directory is at ``final``.
        StorageError: if neither exists, or the storage refuses, or has copied a part only: that is removed.
    """
    fs, source = locate(draft)
    target = locate(final)[1]
    try:
        if is_local(fs):
            Path(source).replace(target)
        else:
            _copy_whole(fs, source, target, final)
    except IsADirectoryError as error:
        raise OutputConflict(final) from error
    except FileNotFoundError as error:
        if is_bucket_missing(error):
            raise explained("publish", final, error) from error
        if not fs.exists(target):
            text = f"cannot publish {final}: its draft {draft} is gone, and it is not there itself. Run the dataset again"
            raise StorageError(text) from error
        return False
    except StorageError:
        raise
    except Exception as error:
        raise explained("publish", final, error) from error
    return True


def _copy_whole(fs: Any, source: str, target: str, final: str) -> None:
    fs.invalidate_cache(source)
    size = fs.size(source)
    fs.cp_file(source, target)
    found = find_length("publish", final)
    if found != size:
        if found is not None:
            _remove(fs, target)
        raise not_kept("publish", final, size, found)
    _remove(fs, source)  # if it stays, it goes with the drafts of the run


def remove_drafts(directory: str, marker: str) -> None:
    """Remove the files directly in a directory whose names contain ``marker``; log, and do not raise, when one stays.

    Raises:
        ValueError: if the marker is empty, which would remove all.
    """
    if not marker:
        raise ValueError("an empty marker is in every name: give the attempt's")
    fs, inner = locate(directory)
    try:
        drafts = [path for path in _list_files(fs, inner) if marker in _name(path)]
    except Exception as error:
        logger.warning("could not look for drafts in %s: %s", directory, error)
        return
    for path in drafts:
        _remove(fs, path)


def _remove(fs: Any, path: str) -> None:
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        pass
    except Exception as error:
        logger.warning("could not remove %s: %s; remove it by hand", path, error)


def upload(local_path: str, remote_path: str) -> None:
    """Put a local file on a storage as one object, in the place of what is there; in parts where it is large.

    Raises:
        OutputConflict: if a directory is at ``remote_path``.
        StorageError: if there is no such file, or the storage refuses; what was there before is still there. Or if the storage
            has kept a part only.
    """
    if not Path(local_path).is_file():
        raise StorageError(f"cannot upload {local_path} to {remote_path}: there is no such file")
    fs, inner = locate(remote_path)
    try:
        if is_local(fs):
            _copy(Path(local_path), Path(inner))
        else:
            fs.put_file(local_path, inner)
            check_kept(f"upload {local_path} to", remote_path, Path(local_path).stat().st_size)
    except IsADirectoryError as error:
        raise OutputConflict(remote_path) from error
    except StorageError:
        raise
    except Exception as error:
        raise explained(f"upload {local_path} to", remote_path, error) from error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _draft_beside(target) as draft:
        shutil.copyfile(source, draft)
        draft.replace(target)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, FileExistsError) or answer_of(error) in REFUSALS


def _is_conflict(error: Exception) -> bool:
    return answer_of(error) in CONFLICTS or (isinstance(error, OSError) and error.errno == errno.EBUSY)
