"""Outputs that appear whole or not at all.

Bytes go to a draft on a local disk: beside the output where that is local, else in a temporary file that one call uploads.
An output is never written in place, so a failure leaves what was there before.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from zephyr.errors import OutputConflict
from zephyr.storage.files import is_local, locate


@contextmanager
def published(path: str) -> Iterator[IO[bytes]]:
    """Give a file to write to, and make it ``path`` when the body ends without an exception; else remove it.

    Raises:
        OutputConflict: if a directory is at ``path``.
        OSError: if the storage refuses.
    """
    fs, inner = locate(path)
    if not is_local(fs):
        with tempfile.NamedTemporaryFile(prefix="zephyr-") as draft_file:
            yield draft_file
            draft_file.flush()
            fs.put_file(draft_file.name, inner)
        return
    target = Path(inner)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.draft")
    try:
        with draft.open("xb") as file:
            yield file
        try:
            draft.replace(target)
        except IsADirectoryError as error:
            raise OutputConflict(path) from error
    finally:
        draft.unlink(missing_ok=True)
