"""Write chunks: in memory until their encoded size reaches the threshold, to a file from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zephyr.storage.codec import TARGET_FRAME_BYTES, FrameSize, encode_batch, encode_frame
from zephyr.storage.files import SpillFile
from zephyr.storage.refs import InlineRef, StorageRef

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_SPILL_THRESHOLD_BYTES = 1024 * 1024


class ChunkWriter:
    """Builds one chunk. Not thread-safe.

    A chunk is inline when its encoded size is below ``spill_threshold_bytes``: 0 spills everything, infinity nothing. The file
    at ``spill_path`` means something only once ``finish`` has returned its reference.
    """

    def __init__(
        self,
        spill_path: str,
        spill_threshold_bytes: float = DEFAULT_SPILL_THRESHOLD_BYTES,
        frame_bytes: int = TARGET_FRAME_BYTES,
    ) -> None:
        """Write nothing yet.

        Args:
            spill_path: where the chunk goes if it is too large to be inline.
            spill_threshold_bytes: encoded size from which it is.
            frame_bytes: pickled size of a frame; readers hold one at a time.
        """
        self._file = SpillFile(spill_path)
        self._threshold_bytes = spill_threshold_bytes
        self._frames: list[bytes] = []
        self._pending: list[Any] = []
        self._frame_size = FrameSize(frame_bytes)
        self._columnar = False
        self.count = 0
        """Items written."""
        self.encoded_bytes = 0
        """Bytes they have become so far."""

    def write(self, item: Any) -> None:
        """Add an item.

        Raises:
            StageError: now or later, if it cannot be pickled.
        """
        self._pending.append(item)
        self.count += 1
        if len(self._pending) >= self._frame_size.items:
            self._flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a record batch. A chunk holds either items or batches."""
        assert not self._pending
        self._columnar = True
        self.count += batch.num_rows
        self._add(encode_batch(batch))

    def finish(self) -> InlineRef | StorageRef:
        """Return the reference to the chunk; nothing is written for an empty one. Call it once.

        Raises:
            StageError: if an item cannot be pickled.
            StorageError: if the storage refuses, or has not kept all.
        """
        if self._pending:
            self._flush()
        self._file.close()
        if self._file.length:
            return StorageRef(self._file.path, self.count, 0, self._file.length, self._columnar)
        return InlineRef(b"".join(self._frames), self.count, self._columnar)

    def abort(self) -> None:
        """Release the file without a reference to it. Idempotent."""
        self._frames, self._pending = [], []
        self._file.abort()

    def _flush(self) -> None:
        frame, raw_bytes = encode_frame(self._pending)
        self._frame_size.observe(len(self._pending), raw_bytes)
        self._pending = []
        self._add(frame)

    def _add(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.encoded_bytes += len(frame)
        if self.encoded_bytes >= self._threshold_bytes:
            for buffered in self._frames:
                self._file.append(buffered)
            self._frames = []
