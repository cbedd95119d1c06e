"""Kinds of Python values and of Arrow types: what may go where without loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa

REMEDY = "give the writer a schema= that holds all values, or convert the values before"

_PYTHON_KINDS: tuple[tuple[type, str], ...] = (
    (type(None), "null"),
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (bytes, "bytes"),
    (bytearray, "bytes"),
    (memoryview, "bytes"),
    (datetime, "timestamp"),
    (date, "date"),
    (time, "time"),
    (timedelta, "duration"),
    (Decimal, "decimal"),
    (UUID, "uuid"),
    (Mapping, "struct"),
    (msgspec.Struct, "struct"),
    (list, "list"),
    (tuple, "list"),
)
_NUMPY_KINDS = {
    "bool": "bool",
    "bool_": "bool",
    "datetime64": "timestamp",
    "timedelta64": "duration",
    "integer": "int",
    "floating": "float",
    "ndarray": "list",
}
_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_TYPE_KINDS = (
    (pa.types.is_null, "null"),
    (pa.types.is_boolean, "bool"),
    (pa.types.is_integer, "int"),
    (pa.types.is_floating, "float"),
    (pa.types.is_decimal, "decimal"),
    (lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t), "str"),
    (
        lambda t: (
            pa.types.is_binary(t)
            or pa.types.is_large_binary(t)
            or pa.types.is_binary_view(t)
            or pa.types.is_fixed_size_binary(t)
        ),
        "bytes",
    ),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "duration"),
    (lambda t: t == pa.uuid(), "uuid"),
    (lambda t: pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t), "list"),
    (pa.types.is_struct, "struct"),
    (pa.types.is_map, "map"),
)
ALSO_HELD = {"float": {"int"}, "decimal": {"int"}, "map": {"struct", "list"}}
"""Kinds of values that types of another kind hold too, as far as they are exact."""
SIMPLE_TYPES = {
    "bool": pa.bool_(),
    "float": pa.float64(),
    "str": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "uuid": pa.uuid(),
}
TEMPORAL = ("timestamp", "time", "duration")
NOTHING: Mapping[str, Any] = {}


@lru_cache(1024)
def class_kind(cls: type) -> str:
    """Return the kind of the values of a class; ``object`` and its name if Arrow has none."""
    for known, kind in _PYTHON_KINDS:
        if issubclass(cls, known):
            return kind
    for base in cls.__mro__:  # numpy is not imported for those who do not use it
        if base.__module__ == "numpy" and base.__name__ in _NUMPY_KINDS:
            return _NUMPY_KINDS[base.__name__]
    return "struct" if dataclasses.is_dataclass(cls) else f"object {cls.__qualname__}"


@lru_cache(1024)
def type_kind(type_: pa.DataType) -> str:
    """Return the kind of the values of an Arrow type; ``type`` and its name for others."""
    if pa.types.is_dictionary(type_):
        return type_kind(type_.value_type)
    return next((kind for belongs, kind in _TYPE_KINDS if belongs(type_)), f"type {type_}")


def kinds_of(values: list[Any]) -> set[str]:
    """Return the kinds of some values."""
    return set(map(class_kind, set(map(type, values))))


def sample_of(values: list[Any], kind: str) -> str:
    """Return the first of the values that is of a kind, for messages."""
    value = next(value for value in values if kinds_of([value]) == {kind})
    return f"{value!r:.80} ({type(value).__name__})"
