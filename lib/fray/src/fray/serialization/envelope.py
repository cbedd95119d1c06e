"""The payload format: one tag byte, then a body.

    P  pickle protocol 5
    B  pickle protocol 5 with out-of-band buffers, each on a 64-byte boundary, so that a mapped file is read without a copy
    J  JSON, for callers in other languages
    S  JSON text that says where the payload is stored (see ``fray.payloads``)

Layout of B: tag, 7 zero bytes, u64 number of parts, u64 length of each part, then the parts (the pickle first), every
part padded to begin on a multiple of 64 bytes from the start.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import cloudpickle

from fray.errors import DecodeError, EncodeError

PICKLE, BUFFERS, JSON, STORED = b"P", b"B", b"J", b"S"
ALIGNMENT = 64

Part = bytes | memoryview


def encode(obj: object) -> bytes:
    """Return ``obj`` as one payload.

    Raises:
        EncodeError: if it cannot be pickled; names the type and the reason.
    """
    parts = encode_parts(obj)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)


def encode_parts(obj: object) -> list[Part]:
    """Return ``obj`` as the pieces of one payload, large buffers (numpy arrays, say) uncopied.

    Raises:
        EncodeError: if it cannot be pickled; names the type and the reason.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = _pickle(obj, buffers)
    if not buffers:
        return [PICKLE + body]
    pieces: list[Part] = [body, *(buffer.raw() for buffer in buffers)]
    lengths = [piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in pieces]
    header = BUFFERS + bytes(7) + struct.pack(f"<Q{len(pieces)}Q", len(pieces), *lengths)
    parts: list[Part] = [header + _padding(len(header))]
    for piece, length in zip(pieces, lengths, strict=True):
        parts.append(piece)
        if pad := _padding(length):
            parts.append(pad)
    return parts


def encode_json(obj: object) -> bytes:
    """Return ``obj`` as a JSON payload.

    Raises:
        EncodeError: if JSON cannot hold it.
    """
    try:
        return JSON + json.dumps(obj, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise EncodeError(f"the result {type(obj).__name__} cannot be written as JSON: {error}") from error


def encode_stored(url: str, size: int) -> bytes:
    """Return the payload that says: the real one, of ``size`` bytes, is at ``url``."""
    return STORED + json.dumps({"url": url, "size": size}).encode()


def stored_location(payload: Part) -> tuple[str, int] | None:
    """Return (url, size) if the payload is kept on storage, else None."""
    if bytes(payload[:1]) != STORED:
        return None
    try:
        where = json.loads(bytes(payload[1:]))
        return where["url"], where["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise DecodeError(f"a payload's storage reference is damaged: {error}") from error


def decode(payload: Part) -> Any:
    """Return the object of a payload that is not on storage; its buffers stay views of ``payload``.

    Raises:
        DecodeError: if the bytes are damaged, or name code that cannot be imported here.
    """
    tag = bytes(payload[:1])
    try:
        if tag == PICKLE:
            return pickle.loads(memoryview(payload)[1:])
        if tag == BUFFERS:
            body, *buffers = _split(memoryview(payload))
            return pickle.loads(body, buffers=buffers)
        if tag == JSON:
            return json.loads(bytes(payload[1:]))
    except ImportError as error:
        raise DecodeError(
            f"{error}: a value needs a module that this process ({_where()}) does not have; install it there, or ship the "
            "module's code with cloudpickle.register_pickle_by_value(module)"
        ) from error
    except Exception as error:
        raise DecodeError(f"cannot rebuild a value from its bytes: {type(error).__name__}: {error}") from error
    raise DecodeError(f"a payload of {len(payload)} bytes begins with the unknown tag {tag!r}: damaged, or not Fray's")


def decode_json_call(payload: Part) -> tuple[list[Any], dict[str, Any]] | None:
    """Return (args, kwargs) of a call that was made in JSON, or None if the payload is of another kind.

    Raises:
        DecodeError: if it is neither a JSON list (args) nor an object (kwargs).
    """
    if bytes(payload[:1]) != JSON:
        return None
    value = decode(payload)
    if isinstance(value, list):
        return value, {}
    if isinstance(value, dict):
        return [], value
    raise DecodeError(f"the arguments of a JSON call must be a list or an object, not {type(value).__name__}")


def _pickle(obj: object, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle with the fast pickler; with cloudpickle where that refuses or where a name of ``__main__`` would be lost."""
    callback = buffers.append if buffers is not None else None
    try:
        body = pickle.dumps(obj, 5, buffer_callback=callback)
        if b"__main__" not in body:
            return body
    except Exception:  # whatever a reducer raises: cloudpickle gets its chance, and its error is the one to show
        pass
    if buffers is not None:
        buffers.clear()
    try:
        return bytes(cloudpickle.dumps(obj, 5, buffer_callback=callback))
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise EncodeError(
            f"cannot pickle {_describe(obj)}: {reason}. Objects such as open files, sockets, locks and connections cannot "
            "travel: create them inside the task"
        ) from error


def _split(view: memoryview) -> Iterable[memoryview]:
    (count,) = struct.unpack_from("<Q", view, 8)
    if count > len(view):
        raise ValueError("the part count is larger than the payload")
    lengths: Sequence[int] = struct.unpack_from(f"<{count}Q", view, 16)
    at = 16 + 8 * count
    for length in lengths:
        at += -at % ALIGNMENT
        if at + length > len(view):
            raise ValueError(f"the payload ends early: {len(view)} bytes of at least {at + length}")
        yield view[at : at + length]
        at += length


def _padding(length: int) -> bytes:
    return bytes(-length % ALIGNMENT)


def _describe(obj: object) -> str:
    if isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[0], tuple) and isinstance(obj[1], dict):
        return f"the arguments ({', '.join(type(value).__name__ for value in (*obj[0], *obj[1].values()))})"
    name = getattr(obj, "__qualname__", None)
    return f"the function {name}" if callable(obj) and name else f"a value of type {type(obj).__name__}"


def _where() -> str:
    return f"pid {os.getpid()}, {sys.executable}"
