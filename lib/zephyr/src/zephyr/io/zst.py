"""Read zstd streams, and notice when one is cut short: zstandard's own stream reader takes that for the end."""

from __future__ import annotations

import io
from typing import IO, Any

import zstandard


class ZstdReader(io.RawIOBase):
    """The decompressed bytes of all frames of a file. The file stays its owner's to close."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False  # whether the current frame has had any input
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; 0 at the end.

        Raises:
            EOFError: if the file ends within a frame.
        """
        while not self._ready and self._decompress():
            pass
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _decompress(self) -> bool:
        data = self._frame.unused_data if self._frame.eof else b""
        data = data or self._file.read(zstandard.DECOMPRESSION_RECOMMENDED_INPUT_SIZE)
        if self._frame.eof:
            self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
        if not data:
            if self._begun:
                raise EOFError("the zstd stream ends before its end: the file was cut short")
            return False
        self._begun = True
        self._ready = memoryview(self._frame.decompress(data))
        return True
