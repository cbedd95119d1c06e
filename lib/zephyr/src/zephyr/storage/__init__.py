"""Intermediate data: chunks of items, inline while they are small, files on any storage when they are not."""

from zephyr.storage.manager import StorageManager
from zephyr.storage.refs import ChunkRef, InlineRef, SliceRef, StorageRef
from zephyr.storage.writer import DEFAULT_SPILL_THRESHOLD_BYTES, ChunkWriter

__all__ = [
    "DEFAULT_SPILL_THRESHOLD_BYTES",
    "ChunkRef",
    "ChunkWriter",
    "InlineRef",
    "SliceRef",
    "StorageManager",
    "StorageRef",
]
