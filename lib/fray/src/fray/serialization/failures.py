"""Exceptions as bytes: type, text and traceback always arrive; the exception itself where it survives a round trip."""

from __future__ import annotations

import json
import pickle
import traceback
from base64 import b64decode, b64encode
from dataclasses import dataclass
from types import TracebackType

from fray.errors import DecodeError, FrayError, RemoteTraceback, TaskFailed
from fray.serialization.envelope import _pickle

MAX_TEXT_CHARS = 64_000
MAX_PICKLED_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it was where it was raised."""

    type_name: str
    """Qualified name of its type, ``builtins`` left out."""
    message: str
    """Its text."""
    traceback_text: str
    """The formatted traceback, causes included, shortened in the middle when very long."""
    pickled: bytes
    """The exception, or empty when it does not survive pickling."""


def capture_failure(error: BaseException, skip_frames: int = 0) -> Failure:
    """Return what can be told of ``error`` in another process.

    The pickled form is tried out here, where it was raised: an exception that unpickles wrongly or not at all, or that
    is no ``Exception`` (SystemExit, say, would end the receiver), travels as text alone.
    """
    tb: TracebackType | None = error.__traceback__
    for _ in range(skip_frames):
        tb = tb.tb_next if tb is not None else None
    text = _shorten("".join(traceback.format_exception(type(error), error, tb)))
    pickled = b""
    if isinstance(error, Exception):
        try:
            candidate = _pickle(error)
            rebuilt = pickle.loads(candidate)
            if type(rebuilt) is type(error) and str(rebuilt) == str(error) and len(candidate) <= MAX_PICKLED_BYTES:
                pickled = candidate
        except Exception:  # user code in __reduce__ or __init__ may raise anything; the text still travels
            pickled = b""
    return Failure(type_name(type(error)), _shorten(_text(error)), text, pickled)


def encode_failure(failure: Failure) -> bytes:
    """Return the failure as bytes that can be read without unpickling, the exception itself aside."""
    return json.dumps(
        {
            "type": failure.type_name,
            "message": failure.message,
            "traceback": failure.traceback_text,
            "pickled": b64encode(failure.pickled).decode(),
        }
    ).encode()


def decode_failure(data: bytes) -> BaseException:
    """Return the exception to raise: the original where it can be rebuilt, else a ``TaskFailed`` with its words."""
    try:
        fields = json.loads(data)
        failure = Failure(fields["type"], fields["message"], fields["traceback"], b64decode(fields["pickled"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DecodeError(f"the report of a failure is damaged: {error}") from error
    return rebuild(failure)


def rebuild(failure: Failure) -> BaseException:
    """Return the exception to raise for a captured failure, with the remote traceback as its cause."""
    if failure.pickled:
        try:
            rebuilt = pickle.loads(failure.pickled)
            if isinstance(rebuilt, Exception):
                rebuilt.__cause__ = RemoteTraceback(failure.traceback_text)
                if not isinstance(getattr(rebuilt, "__notes__", []), list):
                    del rebuilt.__notes__  # else nobody can add one
                return rebuilt
        except Exception:  # its class may be missing here, or its code may fail here: its words are enough
            pass
    text = f"{failure.type_name}: {failure.message}" if failure.message else failure.type_name
    return TaskFailed(text, failure.type_name, failure.traceback_text)


def type_name(kind: type[BaseException]) -> str:
    """Return the qualified name of an exception type, ``builtins`` left out."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error.args[0]) if isinstance(error, FrayError) and error.args else str(error)
    except Exception as failure:  # a user's __str__ may raise
        return f"<no text: __str__ raised {type(failure).__name__}>"


def _shorten(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARS:
        return text
    half = MAX_TEXT_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
