"""What ``zephyr inspect`` tells of a single file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import xxhash

from zephyr.errors import ChunkCorrupted, StorageError
from zephyr.io.load import load_file, reader_for
from zephyr.storage.codec import ARROW_MAGIC, HEADER, MAGIC, decode_frame, frame_length
from zephyr.storage.files import file_length, iter_stored_frames, locate

ENCODINGS = {MAGIC: "pickle", ARROW_MAGIC: "arrow"}
"""How the items of a frame are encoded."""


def describe_chunk(path: str, limit: int, with_items: bool) -> dict[str, Any]:
    """Return what a chunk holds by the headers of its frames, whose checksums are verified; items only if they are wanted.

    To decode items is to run code of whoever wrote the file.
    """
    frames: list[dict[str, Any]] = []
    items: list[str] = []
    damage: list[str] = []
    counts = {"frames": 0, "items": 0}
    encodings = dict.fromkeys(ENCODINGS.values(), 0)
    for frame, where in _iter_frames(path, damage.append):
        record = _describe_frame(frame, where, damage.append)
        counts["frames"] += 1
        counts["items"] += record["items"]
        encodings[record["encoding"]] += 1
        frames += [record] if len(frames) < limit else []
        if with_items and record["intact"] and len(items) < limit:
            items += map(repr, decode_frame(frame, where)[: limit - len(items)])
    return {
        "kind": "chunk",
        "path": path,
        "bytes": file_length(path),
        "items": counts["items"],
        "frames": counts["frames"],
        "encodings": {name: count for name, count in encodings.items() if count},
        "first_frames": frames,
        **({"first_items": items} if with_items else {}),
        "damage": damage,
    }


def _iter_frames(path: str, on_damage: Callable[[str], None]) -> Iterator[tuple[memoryview, str]]:
    try:
        yield from iter_stored_frames(path, 0, file_length(path))
    except ChunkCorrupted as error:
        on_damage(str(error))


def _describe_frame(frame: memoryview, where: str, on_damage: Callable[[str], None]) -> dict[str, Any]:
    magic, _, count, checksum = HEADER.unpack_from(frame)
    wanted = frame_length(frame, where)
    intact = len(frame) == wanted and xxhash.xxh3_64_intdigest(frame[HEADER.size :], count) == checksum
    if not intact:
        on_damage(
            f"{where}: the frame has {len(frame)} of {wanted} bytes"
            if len(frame) != wanted
            else f"{where}: the checksum of the frame does not match"
        )
    at = int(where.rpartition(" ")[2])
    return {"at_byte": at, "encoding": ENCODINGS[magic], "items": count, "bytes": len(frame), "intact": intact}


def describe_parquet(path: str, limit: int) -> dict[str, Any]:
    """Return what the footer of a Parquet file tells."""
    import pyarrow.parquet as pq

    fs, inner = locate(path)
    with fs.open(inner, "rb") as file:
        footer = pq.read_metadata(file)
    groups = [footer.row_group(number) for number in range(min(limit, footer.num_row_groups))]
    return {
        "kind": "parquet",
        "path": path,
        "bytes": file_length(path),
        "rows": footer.num_rows,
        "row_groups": footer.num_row_groups,
        "created_by": footer.created_by,
        "schema": [{"column": field.name, "type": str(field.type)} for field in footer.schema.to_arrow_schema()],
        "first_row_groups": [{"rows": group.num_rows, "uncompressed_bytes": group.total_byte_size} for group in groups],
    }


def describe_records(path: str, limit: int) -> dict[str, Any]:
    """Return the first records of a file whose format its suffix tells.

    Raises:
        StorageError: if it does not tell.
    """
    try:
        reader = reader_for(path)
    except ValueError as error:
        raise StorageError(
            f"{path} is neither a chunk nor a manifest, nor does its suffix tell what it holds: there are .jsonl, .csv, .tsv, "
            ".txt, .parquet and .vortex"
        ) from error
    kind = type(reader).__name__.removesuffix("Reader").lower()
    return {"kind": kind, "path": path, "bytes": file_length(path), "first_records": list(islice(load_file(path), limit))}
