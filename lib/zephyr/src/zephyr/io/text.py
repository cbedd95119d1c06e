"""Read text files, line by line."""

from __future__ import annotations

import io
from collections.abc import Iterator

from zephyr.io.files import open_binary


def load_text(path: str, errors: str = "strict") -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their line ends, decompressed by suffix.

    Args:
        path: local path or fsspec URL.
        errors: what to do with bytes that are no UTF-8, as for ``bytes.decode``; ``strict`` raises.

    Raises:
        OSError, UnicodeDecodeError: with a note that names the file, and the line where it is known.
    """
    number = 0
    try:
        with open_binary(path) as file, io.TextIOWrapper(file, "utf-8", errors) as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007
                yield line.rstrip("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        error.add_note(f"while reading {path}, after line {number}")
        raise
