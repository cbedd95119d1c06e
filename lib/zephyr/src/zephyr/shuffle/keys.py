"""Keys as bytes: equal keys have equal bytes, in every process and on every machine, and bytes have an order.

Python's own ``hash`` is no use here: that of strings differs between processes.

Numbers are equal across their types, as in Python; so are strings, bytes and tuples and their subclasses. NaN equals itself.
Objects of other types are taken apart as pickle would, and are equal when type and content are.
"""

from __future__ import annotations

import cmath
import copyreg
import hashlib
import numbers
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import xxhash

from zephyr.errors import StageError

_LENGTH = struct.Struct(">I")
_SMALL = 10**15
MAX_KEY_BYTES = 64
"""Keys with longer bytes are told apart by a cryptographic digest: texts as keys should not travel twice."""


def encode_key(key: Any) -> bytes:
    """Return the bytes of a key, at most ``MAX_KEY_BYTES``.

    Raises:
        StageError: if the key can neither be taken apart nor named.
    """
    if type(key) is int and -_SMALL < key < _SMALL:
        return b"n%d" % key
    encoded = _encode_any(key)
    return encoded if len(encoded) <= MAX_KEY_BYTES else b"#" + hashlib.blake2b(encoded, digest_size=32).digest()


def _encode_any(key: Any) -> bytes:
    kind = type(key)
    if kind is str:
        return b"s" + str(key).encode("utf-8", "surrogatepass")
    if kind is int:
        return b"n%d" % key if abs(key) < _SMALL else b"n%xx" % key
    try:
        return _encode(key)
    except RecursionError:
        raise StageError(f"a key of type {kind.__name__} contains itself, or is nested too deeply") from None
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise StageError(f"a key of type {kind.__name__} cannot be told from others by content: {error}") from error


def partition_of(encoded_key: bytes, num_shards: int) -> int:
    """Return the shard of a key."""
    return xxhash.xxh3_64_intdigest(encoded_key) % num_shards


def is_plain(key: Any) -> bool:
    """Tell whether Python's own equality and hash of the key agree with its bytes, so that a dict may hold it as it is."""
    if isinstance(key, (str, int, bytes)) or key is None:
        return True
    if isinstance(key, tuple):
        return all(map(is_plain, key))
    return isinstance(key, numbers.Number) and bool(key == key)


def _encode(key: Any) -> bytes:
    for test, encoder in _ENCODERS:
        if test(key):
            return encoder(key)
    return _encode_object(key)


def _encode_number(key: Any) -> bytes:
    if hasattr(key, "dtype"):  # of numpy
        key = key.item()
    if isinstance(key, complex):
        if key.imag == 0:
            return _encode_number(key.real)
        return b"nnan" if cmath.isnan(key) else b"c" + _join((_encode_number(key.real), _encode_number(key.imag)))
    if key != key:
        return b"nnan"
    try:
        over, under = key.as_integer_ratio()
    except OverflowError:
        return b"ninf" if key > 0 else b"n-inf"
    return _encode_any(int(over)) if under == 1 else b"n%x/%x" % (over, under)


def _encode_datetime(key: datetime) -> bytes:
    if key.utcoffset() is None:
        return b"d" + key.replace(fold=0).isoformat().encode()
    return b"D" + key.astimezone(UTC).isoformat().encode()


def _encode_object(key: Any) -> bytes:
    kind = type(key)
    if isinstance(key, type) or (callable(key) and hasattr(key, "__qualname__")):
        return b"q" + f"{key.__module__}.{key.__qualname__}".encode()
    name = b"o" + f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(key, Enum):
        return name + b"." + key.name.encode()
    if is_dataclass(key):
        return name + _join(_encode(getattr(key, f.name)) for f in fields(key) if f.compare)
    reducer = copyreg.dispatch_table.get(kind)
    parts = reducer(key) if reducer is not None else key.__reduce_ex__(4)
    if isinstance(parts, str):
        return b"g" + parts.encode()
    contents: list[Any] = [list(part) if isinstance(part, Iterator) else part for part in parts[:5]]  # may end in its items
    return name + _join(map(_encode, contents))


def _join(parts: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _is_number(key: Any) -> bool:
    return isinstance(key, numbers.Number) or (getattr(key, "shape", None) == () and key.dtype.kind == "b")  # numpy.bool


_ENCODERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], bytes]], ...] = (
    (lambda key: key is None, lambda key: b"0"),
    (lambda key: isinstance(key, str), lambda key: b"s" + str.encode(key, "utf-8", "surrogatepass")),
    (lambda key: isinstance(key, int), lambda key: _encode_any(int(key))),
    (_is_number, _encode_number),
    (lambda key: isinstance(key, (bytes, bytearray, memoryview)), lambda key: b"b" + bytes(key)),
    (lambda key: isinstance(key, tuple), lambda key: b"t" + _join(map(_encode, key))),
    (lambda key: isinstance(key, list), lambda key: b"l" + _join(map(_encode, key))),
    (lambda key: isinstance(key, (set, frozenset)), lambda key: b"u" + _join(sorted(map(_encode, key)))),
    (
        lambda key: isinstance(key, dict),
        lambda key: b"m" + _join(sorted(_join((_encode(name), _encode(value))) for name, value in key.items())),
    ),
    (lambda key: isinstance(key, datetime), _encode_datetime),
)
