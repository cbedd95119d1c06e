"""What executors run. Each execution writes down that it began and ended, and its result tells which execution it is of.

What a task gives depends on its arguments alone, the execution's nonce apart: so a client can tell what must come.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fray import get_default_job_ctx

from chaos.ledger import Book

Mark = tuple[str, str, str, bytes]
"""A result: the task's key, its value, the execution's nonce, and padding."""

LARGE_BYTES = 400_000
"""More than travels inline: such a result goes to the storage."""


def compute_value(*words: str) -> str:
    """Return what a task gives that was given these words."""
    return hashlib.blake2b("/".join(words).encode(), digest_size=8).hexdigest()


@contextmanager
def execution(book: Book, key: str, inputs: tuple[Mark, ...] = ()) -> Iterator[str]:
    """Write down an execution; give its nonce."""
    nonce = secrets.token_hex(6)
    book.write("began", key, nonce=nonce, inputs={mark[0]: mark[2] for mark in inputs})
    yield nonce
    book.write("ended", key, nonce=nonce)


def rest(seconds: float) -> None:
    """Let time pass."""
    threading.Event().wait(seconds)


def nap(book: Book, key: str, word: str, seconds: float, padding_bytes: int = 0) -> Mark:
    """Rest, and return the value of a word."""
    with execution(book, key) as nonce:
        rest(seconds)
        return key, compute_value(word), nonce, bytes(padding_bytes)


def combine(book: Book, key: str, word: str, seconds: float, *inputs: Mark) -> Mark:
    """Rest, and return the value of a word and of other tasks' values."""
    with execution(book, key, inputs) as nonce:
        rest(seconds)
        return key, compute_value(word, *(mark[1] for mark in inputs)), nonce, b""


def split(book: Book, key: str, word: str, seconds: float, width: int) -> Mark:
    """Run tasks of one's own and return the value of theirs."""
    with execution(book, key) as nonce:
        ctx = get_default_job_ctx()
        parts = [ctx.run(nap, book, f"{key}+{nonce}/{i}", f"{word}/{i}", seconds) for i in range(width)]
        values = [mark[1] for mark in ctx.get(parts)]
        return key, compute_value(*values), nonce, b""


def split_value(word: str, width: int) -> str:
    """Return the value of ``split``."""
    return compute_value(*(compute_value(f"{word}/{i}") for i in range(width)))


def raise_word(book: Book, key: str, word: str, seconds: float) -> Any:
    """Rest, and raise an error that tells a word."""
    with execution(book, key):
        rest(seconds)
    raise ValueError(word)


def start_child(book: Book, key: str, word: str, seconds: float) -> Mark:
    """Have a process of its own for a while; it must end with the task's process, however that ends."""
    with execution(book, key) as nonce:
        child = subprocess.Popen(["sleep", "1000"])
        try:
            rest(seconds)
        finally:
            child.kill()
            child.wait()
        return key, compute_value(word), nonce, str(os.getpid()).encode()
