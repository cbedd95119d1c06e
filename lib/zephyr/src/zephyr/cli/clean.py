"""``zephyr clean``: remove what runs that were killed have left behind."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from zephyr.cli.exits import FAILED
from zephyr.cli.options import AsJson
from zephyr.cli.output import SECONDS, format_age, print_json, print_table
from zephyr.errors import StorageError
from zephyr.execution.janitor import Leftover, find_leftovers, remove_leftover
from zephyr.io.files import absolute_path
from zephyr.plan.explain import format_bytes

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def parse_age(text: str) -> float:
    """Return the seconds of an age such as ``7d``."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a number and one of s, m, h, d, w, such as 7d")
    return float(match[1]) * SECONDS[match[2]]


def clean_prefix(
    prefix: Annotated[
        str,
        typer.Argument(metavar="PREFIX", help="The storage path of runs, or the directory of an output.", show_default=False),
    ],
    older_than: Annotated[
        float,
        typer.Option(
            metavar="AGE", parser=parse_age, help="Keep what has changed within this time, such as 7d.", show_default=False
        ),
    ],
    resumable: Annotated[
        bool, typer.Option("--resumable", help="Remove what runs with resume=True have left, too: they begin anew then.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what runs that were killed have left directly below a prefix.

    That is: directories of jobs whose latest file is older than the age, and drafts beside outputs. What a run with resume=True
    has left (run-...) stays unless you say otherwise; dead letters and outputs always stay, and so does a directory that holds
    anything Zephyr has not made.

    JSON keys: prefix, older_than_s, dry_run, removed (each with path, kind: job, run, draft or probe, files, bytes, age_s),
    bytes, kept (how many are too new or can be resumed), failed (messages).
    """
    if not prefix.strip():
        raise typer.BadParameter("it is empty", param_hint="PREFIX")
    if as_json and not (yes or dry_run):
        raise typer.BadParameter("JSON is for programs, which cannot be asked; add --yes or --dry-run", param_hint="--json")
    now = time.time()
    found = find_leftovers(absolute_path(prefix))
    chosen = [each for each in found if _is_chosen(each, now - older_than, resumable)]
    if not as_json:
        _show([_describe(each, now) for each in chosen], len(found) - len(chosen), older_than)
    if chosen and not (yes or dry_run):
        typer.confirm(f"Remove {len(chosen)}?", abort=True, err=True)
    failed = {} if dry_run else _remove_all(chosen)
    removed = [_describe(each, now) for each in chosen if each not in failed]
    size_bytes = sum(row["bytes"] for row in removed)
    if as_json:
        record = {"prefix": prefix, "older_than_s": older_than, "dry_run": dry_run, "removed": removed, "bytes": size_bytes}
        print_json({**record, "kept": len(found) - len(chosen), "failed": list(failed.values())})
    elif chosen:
        print(f"{'would remove' if dry_run else 'removed'} {len(removed)}, {format_bytes(size_bytes)}")
    for message in failed.values():
        print(f"Error: {message}", file=sys.stderr)
    if failed:
        raise typer.Exit(FAILED)


def _is_chosen(leftover: Leftover, changed_before: float, resumable: bool) -> bool:
    old = leftover.modified_at is not None and leftover.modified_at < changed_before
    return old and (resumable or leftover.kind != "run")


def _describe(leftover: Leftover, now: float) -> dict[str, Any]:
    return {
        "path": leftover.path,
        "kind": leftover.kind,
        "files": leftover.files,
        "bytes": leftover.size_bytes,
        "age_s": None if leftover.modified_at is None else now - leftover.modified_at,
    }


def _show(rows: Sequence[dict[str, Any]], kept: int, older_than: float) -> None:
    if rows:
        print_table(rows)
    else:
        print("nothing to remove")
    if kept:
        print(f"{kept} stay: they have changed within {format_age(older_than)}, or can be resumed")


def _remove_all(leftovers: Sequence[Leftover]) -> dict[Leftover, str]:
    """Return why some could not be removed."""
    failed = {}
    for each in leftovers:
        try:
            remove_leftover(each)
        except StorageError as error:
            failed[each] = str(error)
    return failed
