"""Settings of this process: the only reader of the environment."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from zephyr.errors import StorageError


def resolve_base_path(base_path: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return where intermediate data goes: the argument, ``FRAY_STORAGE``, ``MARIN_PREFIX``, or a private temporary directory.

    Raises:
        StorageError: if the temporary directory belongs to somebody else.
    """
    env = os.environ if environ is None else environ
    if base_path:
        return base_path.rstrip("/") if "://" in base_path else str(Path(base_path).absolute())
    for variable in ("FRAY_STORAGE", "MARIN_PREFIX"):
        if env.get(variable):
            return f"{env[variable].rstrip('/')}/zephyr"
    return _private_directory(Path(env.get("TMPDIR") or tempfile.gettempdir()) / f"zephyr-{os.getuid()}")


def _private_directory(path: Path) -> str:
    # Chunks are pickles: whoever can write here can run code as this user.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise StorageError(
            f"{path} is not a private directory of yours (mode 0700); remove it, or pass storage_path or set FRAY_STORAGE"
        )
    return str(path)


MAX_DEFAULT_MEMORY_BYTES = 512 * 1024 * 1024
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def default_memory_bytes() -> int:
    """Return what a task on this machine may hold: a quarter of the memory per CPU, at most 512 MiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such file, or "max"
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return min(MAX_DEFAULT_MEMORY_BYTES, memory // (os.cpu_count() or 1) // 4)
