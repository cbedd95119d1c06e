"""Runs: entries sorted by key, one range of bytes for each partition.

All runs of an attempt are in one object; their ranges are in the references that are returned, so no reader opens an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from zephyr.storage import ChunkRef, InlineRef, StorageRef
from zephyr.storage.codec import FrameSize, encode_items
from zephyr.storage.files import SpillFile

FRAME_BYTES = 64 * 1024
"""Pickled size of a frame of a run. Readers hold a frame of each run: a quarter of what other chunks use."""
MAX_VALUES_PER_ENTRY = 1024
"""Values of one key that are encoded as one, or fewer if they are large: longer lists are split, so that no frame grows without
limit."""

ENTRY_BYTES = 4 * FRAME_BYTES
"""What the values of one entry may take in memory."""

Entry = tuple[Any, Any, list[Any]]
"""Order key (bytes for a hash), key, values in their order; a run is a list of entries sorted by the first."""


class RunWriter:
    """Holds encoded runs until they reach the threshold; from then on they go to one file."""

    def __init__(self, spill_path: str, spill_threshold_bytes: float) -> None:
        self._threshold_bytes = spill_threshold_bytes
        self._file = SpillFile(spill_path)
        self._held: list[tuple[int, InlineRef]] = []
        self._held_bytes = 0
        self._spilled: list[tuple[int, ChunkRef]] = []

    def write(self, partitions: dict[int, list[Entry]], value_bytes: int) -> None:
        """Add a run. Sorts the entries, and leaves nothing of them in ``partitions``.

        Args:
            partitions: the entries.
            value_bytes: about what a value takes in memory.

        Raises:
            StageError: if an item cannot be pickled.
        """
        most = values_per_entry(value_bytes)
        for partition in sorted(partitions):
            run = partitions.pop(partition)
            run.sort(key=itemgetter(0))
            if any(len(entry[2]) > most for entry in run):
                run = [part for entry in run for part in split_entry(entry, most)]
            ref = InlineRef(encode_items(run, FrameSize(FRAME_BYTES)), len(run))
            self._held.append((partition, ref))
            self._held_bytes += len(ref.data)
            if self._held_bytes >= self._threshold_bytes or self._spilled:
                self._spill()

    def finish(self) -> list[tuple[int, ChunkRef]]:
        """Return (partition, run) in the order of writing."""
        self._file.close()
        return [*self._spilled, *self._held]

    def close(self) -> None:
        """Release the file, finished or not. Idempotent."""
        self._file.abort()

    def _spill(self) -> None:
        for partition, ref in self._held:
            start = self._file.append(ref.data)
            self._spilled.append((partition, StorageRef(self._file.path, ref.count, start, len(ref.data))))
        self._held = []


def values_per_entry(value_bytes: int) -> int:
    """Return how many values, each of about so many bytes in memory, are encoded as one."""
    return max(1, min(MAX_VALUES_PER_ENTRY, ENTRY_BYTES // value_bytes))


def split_entry(entry: Entry, most: int) -> Iterator[Entry]:
    """Yield the entry in pieces of at most so many values."""
    order, key, values = entry
    for start in range(0, len(values), most):
        yield order, key, values[start : start + most]
