"""Where a write puts its shards."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import PurePosixPath

from zephyr.errors import PlanError
from zephyr.io.files import absolute_path
from zephyr.io.formats import Writer
from zephyr.ops import PathPattern, name_of

FIELDS = {"shard", "total", "basename"}
_SUFFIXES = {".gz", ".zst", ".zstd", ".bz2", ".xz"}


def compute_paths(pattern: PathPattern, shards: int, basenames: Sequence[str] | None, writer: Writer) -> list[str]:
    """Return the path of each shard.

    Args:
        pattern: as users give it.
        shards: how many there are.
        basenames: names of the shards' input files; None when a shard is not one file.
        writer: must be able to write such files.

    Raises:
        PlanError: naming the pattern, and what is wrong with it; two shards must not have one path.
    """
    if isinstance(pattern, str):
        _check_fields(pattern, shards, basenames)
    paths = [format_path(pattern, shard, shards, basenames[shard] if basenames else None) for shard in range(shards)]
    seen: dict[str, int] = {}
    for shard, path in enumerate(paths):
        if path in seen:
            raise PlanError(f"{name_of(pattern)} names {path!r} for both shard {seen[path]} and shard {shard} of {shards}")
        seen[path] = shard
        writer.check_path(path)
    if isinstance(pattern, str) and not shards:
        writer.check_path(pattern)
    return paths


def format_path(pattern: PathPattern, shard: int, total: int, basename: str | None) -> str:
    """Return the path of a shard."""
    if not isinstance(pattern, str):
        return absolute_path(pattern(shard, total))
    return pattern.format(shard=shard, total=total, basename=basename)


def common_directory(pattern: PathPattern) -> str:
    """Return the directory of all shards: as much of it as they have in common."""
    if not isinstance(pattern, str):
        return format_path(pattern, 0, 1, None).rpartition("/")[0]
    return pattern.partition("{")[0].rpartition("/")[0] if "{" in pattern else pattern.rpartition("/")[0]


def basename_of(path: str) -> str:
    """Return a file's name without directory, compression suffix and format suffix: ``a`` for ``in/a.jsonl.gz``."""
    name = PurePosixPath(path.rsplit("://", 1)[-1])
    if name.suffix in _SUFFIXES:
        name = name.with_suffix("")
    return name.stem


def _check_fields(pattern: str, shards: int, basenames: Sequence[str] | None) -> None:
    try:
        named = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        unknown = sorted(named - FIELDS)
        if unknown:
            raise PlanError(f"the pattern {pattern!r} uses {{{unknown[0]}}}; there are {{shard}}, {{total}} and {{basename}}")
        format_path(pattern, 0, max(1, shards), "name")
    except (ValueError, IndexError, KeyError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"the pattern {pattern!r} is malformed: {error}") from error
    if "basename" in named and basenames is None:
        raise PlanError(f"the pattern {pattern!r} uses {{basename}}, but here a shard is not one input file: use {{shard}}")
    if shards > 1 and not named & {"shard", "basename"}:
        raise PlanError(f"the pattern {pattern!r} names one file for {shards} shards: put {{shard}} into it, or reshard(1)")
