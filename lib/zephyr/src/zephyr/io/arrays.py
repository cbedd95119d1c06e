"""Python values to Arrow arrays of given or inferred types, each value checked against its type first.

Arrow's own conversion cuts 1.5 to 1 and datetimes to dates, reads bytes as text and mixes naive with aware times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from zephyr.io.kinds import ALSO_HELD, NOTHING, REMEDY, SIMPLE_TYPES, TEMPORAL, class_kind, kinds_of, sample_of, type_kind
from zephyr.io.widening import check_known, holds, make_list, merge_types, offsets_of


def infer_type(values: list[Any], name: str = "") -> pa.DataType:
    """Return a type that holds all values exactly; ``name`` tells errors what they are.

    Raises:
        ValueError: if there is none.
    """
    kinds = sorted(kinds_of(values) - {"null"})
    if len(kinds) > 1:
        groups = ([value for value in values if kinds_of([value]) == {kind}] for kind in kinds)
        return reduce(lambda a, b: merge_types(a, b, name), (infer_type(group, name) for group in groups))
    if not kinds:
        return pa.null()
    if kinds == ["struct"]:
        return pa.struct(_infer_fields([as_mapping(value) for value in values if value is not None], f"{name}."))
    if kinds == ["list"]:
        flat = _flat_numpy(values)
        return pa.list_(infer_type(_flatten(values), f"{name}[]") if flat is None else flat.type)
    return _infer_leaf(values, kinds[0], name)


def infer_schema(rows: list[Mapping[str, Any]]) -> pa.Schema:
    """Return a schema with the keys of all rows, in the order in which they first appear.

    Raises:
        ValueError: if there is none.
    """
    return pa.schema(_infer_fields(rows, ""))


def _infer_fields(rows: list[Mapping[str, Any]], path: str) -> list[pa.Field]:
    names = dict.fromkeys(chain.from_iterable(rows))
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"the key {name!r} in {path or 'a record'!r} names no column, as it is no string; {REMEDY}")
    columns = _columns(rows, list(names))
    return [pa.field(name, infer_type(values, path + name)) for name, values in zip(names, columns, strict=True)]


def _infer_leaf(values: list[Any], kind: str, name: str) -> pa.DataType:
    if kind in SIMPLE_TYPES:
        return SIMPLE_TYPES[kind]
    if kind == "int":
        return _infer_integer([value for value in values if value is not None], name)
    if kind.startswith("object"):
        raise ValueError(f"column {name!r} has no type that holds {sample_of(values, kind)}; {REMEDY}")
    with _explained(name, "no type for its values"):
        return _temporal(values).type if kind in TEMPORAL else pa.array(values).type


def _infer_integer(values: list[int], name: str) -> pa.DataType:
    low, high = min(values), max(values)
    if low >= -(2**63) and high < 2**63:
        return pa.int64()
    if low < 0 or high >= 2**64:
        raise ValueError(f"column {name!r} has no type that holds integers from {low} to {high}; {REMEDY}")
    return pa.uint64()


def build_array(values: list[Any], type_: pa.DataType, name: str = "", rounding: bool = False) -> pa.Array:
    """Convert values to an array of just this type.

    Args:
        values: anything; None is null.
        type_: what to make.
        name: tells errors what the values are.
        rounding: whether numbers may be rounded to 32 or 16 bit floats.

    Raises:
        ValueError: naming a value that the type cannot hold.
    """
    if pa.types.is_dictionary(type_):
        return build_array(values, type_.value_type, name, rounding).dictionary_encode().cast(type_)
    kind = type_kind(type_)
    unfit = kinds_of(values) - {"null", kind} - ALSO_HELD.get(kind, set())
    if unfit and not kind.startswith("type"):
        raise ValueError(f"column {name!r} has type {type_}, which cannot hold {sample_of(values, min(unfit))}; {REMEDY}")
    if kind == "struct":
        return _build_struct(values, type_, name, rounding)
    if kind == "map":
        return _build_map(values, type_, name, rounding)
    if kind == "list":
        return _build_list(values, type_, name, rounding)
    with _explained(name, f"type {type_}"):
        return _build_leaf(values, type_, kind, rounding)


def _build_leaf(values: list[Any], type_: pa.DataType, kind: str, rounding: bool) -> pa.Array:
    if kind in TEMPORAL:
        return _build_temporal(values, type_)
    if kind == "float" and not pa.types.is_float64(type_):
        return _build_narrow_floats(values, type_, rounding)
    array = pa.array(values, type_)
    if isinstance(array, pa.ChunkedArray):
        raise ValueError("more than 2 GiB at once")
    return array


def _build_narrow_floats(values: list[Any], type_: pa.DataType, rounding: bool) -> pa.Array:
    dtype = f"float{type_.bit_width}"
    if not rounding and any(value is not None and str(getattr(value, "dtype", "")) != dtype for value in values):
        raise ValueError("a number may be rounded")
    array = pa.array(values, type_)
    if rounding and pc.any(pc.and_(pc.is_inf(array), pc.is_finite(pa.array(values, pa.float64())))).as_py():
        raise ValueError("a number is too large")
    return array


def _temporal(values: list[Any]) -> pa.Array:
    kinds = {class_kind(cls) for cls in set(map(type, values)) if cls.__module__ == "numpy"}
    if not kinds:
        return pa.array(values)
    import numpy

    array = pa.array(numpy.array(values, "timedelta64" if kinds == {"duration"} else "datetime64"))
    return array.cast(pa.timestamp("s")) if pa.types.is_date(array.type) else array


def _build_temporal(values: list[Any], type_: pa.DataType) -> pa.Array:
    zoned = {getattr(value, "tzinfo", None) is not None for value in values if value is not None}
    if zoned - {getattr(type_, "tz", None) is not None}:
        raise ValueError(f"a time {'with' if True in zoned else 'without'} a time zone")
    return _temporal(values).cast(type_)


def _build_struct(values: list[Any], type_: pa.StructType, name: str, rounding: bool) -> pa.Array:
    rows = [NOTHING if value is None else as_mapping(value) for value in values]
    columns = build_columns(rows, list(type_), f"{name}.", rounding)
    if not columns:
        return pa.array([None if value is None else NOTHING for value in values], type_)
    return pa.StructArray.from_arrays(columns, fields=list(type_), mask=_null_mask(values))


def build_columns(rows: list[Mapping[str, Any]], fields: list[pa.Field], path: str, rounding: bool) -> list[pa.Array]:
    """Return an array for each field; raises ``ValueError`` for keys that no field has and values that do not fit."""
    check_known(set().union(*rows), fields, path)
    columns = _columns(rows, [field.name for field in fields])
    return [build_array(values, f.type, path + f.name, rounding) for values, f in zip(columns, fields, strict=True)]


def _columns(rows: list[Mapping[str, Any]], names: list[str]) -> list[list[Any]]:
    if len(names) > 1 and rows:
        with suppress(KeyError):  # several times as fast if no key is missing
            return [list(column) for column in zip(*map(itemgetter(*names), rows), strict=True)]
    return [[row.get(name) for row in rows] for name in names]


def _build_list(values: list[Any], type_: Any, name: str, rounding: bool) -> pa.Array:
    if pa.types.is_fixed_size_list(type_):
        return _build_fixed_list(values, type_, name, rounding)
    flat = _flat_numpy(values)
    if flat is not None and (flat.type == type_.value_type or (rounding and holds(type_.value_type, flat.type))):
        with _explained(name, f"type {type_}"):
            items = flat.cast(type_.value_type)
    else:
        items = build_array(_flatten(values), type_.value_type, f"{name}[]", rounding)
    return make_list(_lengths(values), items, type_, _null_mask(values))


def _build_fixed_list(values: list[Any], type_: Any, name: str, rounding: bool) -> pa.Array:
    if any(value is not None and len(value) != type_.list_size for value in values):
        raise ValueError(f"column {name!r} has type {type_}, but a list has another length; {REMEDY}")
    filled = [[None] * type_.list_size if value is None else value for value in values]
    items = build_array(_flatten(filled), type_.value_type, f"{name}[]", rounding)
    return pa.FixedSizeListArray.from_arrays(items, type=type_, mask=_null_mask(values))


def _build_map(values: list[Any], type_: Any, name: str, rounding: bool) -> pa.Array:
    if {"struct"} & kinds_of(values):
        values = [value and list(as_mapping(value).items()) for value in values]
    with _explained(name, f"type {type_}"):
        pairs = [(key, item) for key, item in _flatten(values)]
    keys = build_array([key for key, _ in pairs], type_.key_type, f"{name} (keys)", rounding)
    items = build_array([item for _, item in pairs], type_.item_type, f"{name} (values)", rounding)
    offsets = offsets_of(_lengths(values), pa.int32())
    return pa.MapArray.from_arrays(offsets, keys, items, type=type_, mask=_null_mask(values))


def _null_mask(values: list[Any]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


def _lengths(values: list[Any]) -> pa.Array:
    return pa.array([0 if value is None else len(value) for value in values], pa.int64())


def _flatten(values: list[Any]) -> list[Any]:
    return list(chain.from_iterable(value for value in values if value is not None))


def _flat_numpy(values: list[Any]) -> pa.Array | None:
    """Return the items of lists that are all numpy vectors of one type of numbers; None if they are not."""
    arrays = [value for value in values if value is not None]
    if not all(hasattr(value, "dtype") and value.ndim == 1 for value in arrays):
        return None
    if len({value.dtype for value in arrays}) != 1 or arrays[0].dtype.kind not in "biuf" or arrays[0].dtype.itemsize > 8:
        return None
    import numpy

    return pa.array(numpy.concatenate(arrays))


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a record as a mapping; raises ``TypeError`` for what is none."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


@contextmanager
def _explained(name: str, has: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"column {name!r} has {has}: {error}; {REMEDY}") from error
