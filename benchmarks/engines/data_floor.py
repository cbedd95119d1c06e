"""The floor: what the codecs alone cost. Two processes with isal, zlib and msgspec, no engine. W1 only."""

from __future__ import annotations

import gzip
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
from data_protocol import GZIP_LEVEL, SLOTS, DataEngine
from isal import igzip
from protocol import serve

ISAL_LEVEL = 0
"""The fastest."""
BLOCK = 1024
"""Records that are encoded at once."""


def rewrite_file(path: Path, target: Path, fastest: bool) -> None:
    """Read a file, change its records, write them."""
    decoder, encoder = msgspec.json.Decoder(), msgspec.json.Encoder()
    with igzip.open(path, "rb") as lines, _create(target / path.name, fastest) as file:
        records = (record | {"len": len(record["text"])} for record in map(decoder.decode, lines) if record["n"] % 10)
        while block := list(islice(records, BLOCK)):
            file.write(encoder.encode_lines(block))


def _create(path: Path, fastest: bool) -> Any:
    return igzip.open(path, "wb", ISAL_LEVEL) if fastest else gzip.open(path, "wb", GZIP_LEVEL)


class FloorEngine(DataEngine):
    """A process pool."""

    packages = ("isal", "msgspec")

    def start(self) -> None:
        self._pool = get_context("fork").Pool(SLOTS)

    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        Path(target).mkdir()
        work = partial(rewrite_file, target=Path(target), fastest=fastest)
        self._pool.map(work, sorted(Path(source).iterdir()), chunksize=1)

    def stop(self) -> None:
        self._pool.close()
        self._pool.join()


if __name__ == "__main__":
    serve(FloorEngine())
