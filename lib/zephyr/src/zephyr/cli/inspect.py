"""``zephyr inspect``: what is at a path."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zephyr.cli.contents import ENCODINGS, describe_chunk, describe_parquet, describe_records
from zephyr.cli.directories import describe_directory
from zephyr.cli.exits import FAILED
from zephyr.cli.options import AsJson
from zephyr.cli.output import print_json, print_record
from zephyr.errors import StorageError, ZephyrError
from zephyr.execution.manifest import NAME
from zephyr.io.files import absolute_path
from zephyr.storage.files import locate, read_head

HEAD_BYTES = 8


def inspect_path(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A chunk, manifest, output, job or file of records; any fsspec URL.", show_default=False
        ),
    ],
    limit: Annotated[
        int, typer.Option(metavar="N", min=0, help="List so many frames, items, records, files of a write or row groups.")
    ] = 10,
    items: Annotated[
        bool,
        typer.Option("--items", help="Decode items of a chunk. This runs code of whoever wrote it: only for your own jobs."),
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read the files of a manifest and compare their checksums.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what is at a path; end with 1 if it is damaged.

    Of a chunk (.zep): frames, with verified checksums. Of a directory with _manifest.json: writes, and whether their files
    are there with the right size. Of a job's directory: stages, chunks and commits; a stage of a run that can be resumed is
    complete if a later one has begun. Of other files: schema or first records.

    JSON keys: kind (chunk, manifest, job, parquet, jsonl, ...), path, and those that the words are called after.
    """
    record = _describe(absolute_path(path), limit, items, verify)
    if items and record["kind"] != "chunk":
        raise typer.BadParameter(f"{path} is no chunk but {record['kind']}", param_hint="--items")
    if verify and record["kind"] != "manifest":
        raise typer.BadParameter(f"{path} is no manifest but {record['kind']}", param_hint="--verify")
    (print_json if as_json else print_record)(record)
    if record.get("damage"):
        raise typer.Exit(FAILED)


def _describe(path: str, limit: int, items: bool, verify: bool) -> dict[str, Any]:
    try:
        return _describe_any(path.rstrip("/") or "/", limit, items, verify)
    except ZephyrError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"there is nothing at {path}") from error
    except Exception as error:  # whatever client libraries and readers raise
        explained = StorageError(f"cannot read {path}: {type(error).__name__}: {error}")
        explained.__notes__ = list(getattr(error, "__notes__", ()))
        raise explained from error


def _describe_any(path: str, limit: int, items: bool, verify: bool) -> dict[str, Any]:
    fs, inner = locate(path)
    fs.invalidate_cache()
    if fs.info(inner)["type"] == "directory":
        return describe_directory(path, limit, verify)
    directory, _, name = path.rpartition("/")
    if name == NAME:
        return describe_directory(directory, limit, verify)
    head = read_head(path, HEAD_BYTES)
    if head[:4] in ENCODINGS or name.endswith(".zep"):
        return describe_chunk(path, limit, items)
    return describe_parquet(path, limit) if head.startswith(b"PAR1") else describe_records(path, limit)
