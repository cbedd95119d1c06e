"""What all engine scripts for data share: the verb ``do`` and the stopwatch around it. Standard library only.

Inputs and outputs are folders. What an engine writes is checked afterwards and elsewhere, by ``data/checks.py``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

from protocol import Script

SLOTS = 2
FILES = 16
"""Of every input, and of every output that says so."""
GZIP_LEVEL = 6
"""Of zlib, where one level is asked for from all."""


class DataEngine(Script):
    """An engine with two slots. Subclasses do each piece of work as their own documentation recommends.

    An engine leaves out what it cannot do; ``data/workloads.py`` knows and says why. A record of D1 is ``{id, url, text, score,
    n, lang, tags}``, one of D2 ``{bucket, n, payload}``.
    """

    memory_bytes: int | None = None
    """What the whole engine may use; those that can be told are, in ``start``."""

    @abstractmethod
    def rewrite(self, source: str, target: str, fastest: bool) -> None:
        """Add ``len``, the number of characters of ``text``; drop records whose ``n`` is a multiple of ten; write 16 jsonl.gz.

        With zlib at level 6, or as the engine does it fastest.
        """

    def to_parquet(self, source: str, target: str) -> None:
        """Write all records to 16 Parquet files, compressed by zstd, with a column per field."""
        raise NotImplementedError

    def read_ids(self, source: str) -> list[str]:
        """Return ``id`` of what ``to_parquet`` wrote, where ``n`` is below 1000, in any order."""
        raise NotImplementedError

    def count_words(self, source: str, target: str) -> None:
        """Write how often each word of ``text`` occurs, split at spaces, to Parquet: ``word`` and ``count``."""
        raise NotImplementedError

    def deduplicate(self, source: str, target: str, state: str, begun: str | None) -> None:
        """Write one record per distinct text to 16 jsonl.gz, as fast as the engine can; if it can choose, the first one.

        ``state`` is a folder of the engine's own, from which the same call in another process goes on. Every piece of work
        adds a line to ``begun`` when it begins, if there is such a file to keep.
        """
        raise NotImplementedError

    def sort_groups(self, source: str, target: str) -> None:
        """Bring equal ``bucket`` together and add ``rank``, the number of the record in its bucket by ``n``, from 0.

        Writes jsonl in which every bucket is in one file, in one piece, in order of ``rank``.
        """
        raise NotImplementedError

    def verb_start(self, memory_bytes: int | None = None) -> dict[str, Any]:
        """Start the engine, with a limit for its memory if it takes one."""
        self.memory_bytes = memory_bytes
        return super().verb_start()

    def verb_do(self, work: str, **arguments: Any) -> dict[str, Any]:
        """Do a piece of work by name."""
        began = time.perf_counter()
        answer = getattr(self, work)(**arguments)
        return {"wall_s": time.perf_counter() - began, "answer": answer}


def note_begun(begun: str | None, what: str) -> None:
    """Add a line to the list of what was begun, whatever happens to the process next."""
    if begun:
        with Path(begun).open("a") as file:  # a short append is one write: it arrives whole
            file.write(f"{what}\n")
