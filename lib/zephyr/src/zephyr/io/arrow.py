"""Records to Arrow without silent loss: every key gets a column, and a value that its column cannot hold exactly is an error.

Arrow's own conversion takes columns from the first record, drops unknown nested keys, cuts 1.5 to 1 and datetimes to dates,
reads bytes as text and mixes naive with aware times; so kinds of values are checked against types before it is used.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache, reduce
from itertools import chain, islice
from operator import itemgetter
from typing import IO, Any, Literal
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from zephyr.io.columnar import ColumnBatches, batch_records
from zephyr.io.formats import OnBadRecord

PIECE_BYTES = 1024 * 1024
"""Arrow bytes to convert at a time."""
PIECE_ROWS = 256
"""Records to convert at a time, at most; bounds what is held when records suddenly become large."""

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
_is = pa.types
_TYPE_KINDS = (
    (_is.is_null, "null"),
    (_is.is_boolean, "bool"),
    (_is.is_integer, "int"),
    (_is.is_floating, "float"),
    (_is.is_decimal, "decimal"),
    (lambda t: _is.is_string(t) or _is.is_large_string(t) or _is.is_string_view(t), "str"),
    (lambda t: _is.is_binary(t) or _is.is_large_binary(t) or _is.is_binary_view(t) or _is.is_fixed_size_binary(t), "bytes"),
    (_is.is_timestamp, "timestamp"),
    (_is.is_date, "date"),
    (_is.is_time, "time"),
    (_is.is_duration, "duration"),
    (lambda t: t == pa.uuid(), "uuid"),
    (lambda t: _is.is_list(t) or _is.is_large_list(t) or _is.is_fixed_size_list(t), "list"),
    (_is.is_struct, "struct"),
    (_is.is_map, "map"),
)
_ALSO_HELD = {"float": {"int"}, "decimal": {"int"}, "map": {"struct", "list"}}
_SIMPLE_TYPES = {
    "bool": pa.bool_(),
    "float": pa.float64(),
    "str": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "uuid": pa.uuid(),
}
_TEMPORAL = ("timestamp", "time", "duration")
_NOTHING: Mapping[str, Any] = {}


def sniff(head: bytes) -> Literal["parquet", "vortex"] | None:
    """Tell the format of a file from its first four bytes or more; None if it is neither."""
    if head.startswith(b"PAR1"):
        return "parquet"
    return "vortex" if head.startswith(b"VTXF") else None


# Kinds


@lru_cache(1024)
def _class_kind(cls: type) -> str:
    for known, kind in _PYTHON_KINDS:
        if issubclass(cls, known):
            return kind
    for base in cls.__mro__:  # numpy is not imported for those who do not use it
        if base.__module__ == "numpy" and base.__name__ in _NUMPY_KINDS:
            return _NUMPY_KINDS[base.__name__]
    return "struct" if dataclasses.is_dataclass(cls) else f"object {cls.__qualname__}"


@lru_cache(1024)
def _type_kind(type_: pa.DataType) -> str:
    if _is.is_dictionary(type_):
        return _type_kind(type_.value_type)
    return next((kind for belongs, kind in _TYPE_KINDS if belongs(type_)), f"type {type_}")


def _kinds(values: list[Any]) -> set[str]:
    return set(map(_class_kind, set(map(type, values))))


def _sample(values: list[Any], kind: str) -> str:
    value = next(value for value in values if _kinds([value]) == {kind})
    return f"{value!r:.80} ({type(value).__name__})"


# Types that hold more


def merge_schemas(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Return a schema that holds the values of both: the columns of the first, then the new ones, as nullable.

    Raises:
        ValueError: naming a column and its two types where there is none.
    """
    return first if first.equals(second) else pa.schema(_merge_fields(list(first), list(second), ""))


def _merge_fields(first: list[pa.Field], second: list[pa.Field], path: str) -> list[pa.Field]:
    known, new = {field.name: field for field in first}, {field.name: field for field in second}
    merged = []
    for name, field in (known | new).items():
        a, b = known.get(name, field), new.get(name, field)
        nullable = a.nullable or b.nullable or name not in known or name not in new
        merged.append(pa.field(name, _merge_types(a.type, b.type, path + name), nullable))
    return merged


def _merge_types(a: pa.DataType, b: pa.DataType, name: str) -> pa.DataType:
    if a.equals(b) or _is.is_null(b):
        return a
    if _is.is_null(a):
        return b
    kinds = {_type_kind(a), _type_kind(b)}
    if kinds == {"struct"}:
        return pa.struct(_merge_fields([*a], [*b], f"{name}."))
    if kinds == {"list"}:
        values = _merge_types(a.value_type, b.value_type, f"{name}[]")
        return pa.large_list(values) if _is.is_large_list(a) or _is.is_large_list(b) else pa.list_(values)
    if kinds == {"map"}:
        return pa.map_(_merge_types(a.key_type, b.key_type, name), _merge_types(a.item_type, b.item_type, name))
    merged = _merge_leaves(a, b) if len(kinds) == 1 or kinds in ({"int", "float"}, {"int", "decimal"}) else None
    if merged is None:
        raise ValueError(f"column {name!r} has type {a}, which cannot be widened to hold {b} too; {REMEDY}")
    return merged


def _merge_leaves(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    a, b = (_without_views(t.value_type if _is.is_dictionary(t) else t) for t in (a, b))
    if _is.is_timestamp(a) and a.tz and b.tz:
        b = pa.timestamp(b.unit, a.tz)  # the same instants
    if pa.uint64() in (a, b) and (_is.is_signed_integer(a) or _is.is_signed_integer(b)):
        return None
    try:
        schemas = [pa.schema([("", a)]), pa.schema([("", b)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def without_views(schema: pa.Schema) -> pa.Schema:
    """Return the schema with plain text and binary types in the place of views."""
    return pa.schema([field.with_type(_without_views(field.type)) for field in schema])


def _without_views(type_: pa.DataType) -> pa.DataType:
    if _is.is_string_view(type_):
        return pa.string()
    if _is.is_binary_view(type_):
        return pa.binary()
    fields = [type_.field(i).with_type(_without_views(type_.field(i).type)) for i in range(type_.num_fields)]
    if _is.is_struct(type_):
        return pa.struct(fields)
    if _is.is_list(type_):
        return pa.list_(fields[0])
    if _is.is_fixed_size_list(type_):
        return pa.list_(fields[0], type_.list_size)
    return pa.map_(_without_views(type_.key_type), _without_views(type_.item_type)) if _is.is_map(type_) else type_


def _holds(type_: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether values of the other type can be values of this one as far as kinds and nested names go."""
    if _is.is_null(other):
        return True
    kind = _type_kind(type_)
    if kind != _type_kind(other):
        return _type_kind(other) == "int" and kind in ("float", "decimal")
    if kind == "struct":
        return all(type_.get_field_index(f.name) >= 0 and _holds(type_.field(f.name).type, f.type) for f in other)
    if kind == "timestamp":
        return (type_.tz is None) == (other.tz is None)
    if kind in ("list", "map"):
        return all(_holds(type_.field(i).type, other.field(i).type) for i in range(type_.num_fields))
    return True


def fit_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with the schema's columns; those it lacks are null.

    Raises:
        ValueError: naming the column that is not in the schema, or whose values its type cannot hold.
    """
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    _check_known(batch.schema.names, schema)
    return _make_batch([_fit_column(batch, field) for field in schema], schema, batch.num_rows)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch without rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _fit_column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    indices = batch.schema.get_all_field_indices(field.name)
    if not indices:
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(indices[-1])
    if not _holds(field.type, column.type):
        raise ValueError(f"column {field.name!r} has type {field.type}, which cannot hold {column.type}; {REMEDY}")
    try:
        return _cast(column, field.type)
    except pa.ArrowException as error:
        raise ValueError(f"column {field.name!r} has type {field.type}: {error}; {REMEDY}") from error


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Convert exactly; Arrow's own cast makes invalid arrays of lists of nulls that stay such."""
    if array.type.equals(type_):
        return array
    if _is.is_null(array.type):
        return pa.nulls(len(array), type_)
    kinds = {_type_kind(array.type), _type_kind(type_)}
    if kinds == {"struct"} and type_.num_fields:
        children = [_cast_child(array, field) for field in type_]
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=array.is_null())
    if kinds == {"list"} and not _is.is_fixed_size_list(type_):
        return _make_list(
            pc.list_value_length(array).fill_null(0), _cast(array.flatten(), type_.value_type), type_, array.is_null()
        )
    if kinds == {"map"}:
        offsets = pc.add(array.offsets, 0)  # a copy: a slice cannot be combined with a mask
        keys, items = _cast(array.keys, type_.key_type), _cast(array.items, type_.item_type)
        return pa.MapArray.from_arrays(offsets, keys, items, type=type_, mask=array.is_null())
    return array.cast(type_)


def _cast_child(array: pa.StructArray, field: pa.Field) -> pa.Array:
    index = array.type.get_field_index(field.name)
    return pa.nulls(len(array), field.type) if index < 0 else _cast(array.field(index), field.type)


def _make_list(lengths: pa.Array, items: pa.Array, type_: Any, nulls: pa.Array) -> pa.Array:
    large = _is.is_large_list(type_)
    maker, width = (pa.LargeListArray, pa.int64()) if large else (pa.ListArray, pa.int32())
    return maker.from_arrays(_offsets(lengths, width), items, type=type_, mask=nulls)


def _offsets(lengths: pa.Array, width: pa.DataType) -> pa.Array:
    return pa.concat_arrays([pa.array([0], width), pc.cumulative_sum_checked(lengths.cast(width))])


def _check_known(names: Iterable[Any], fields: Iterable[pa.Field], path: str = "") -> None:
    unknown = set(names).difference(field.name for field in fields)
    if unknown:
        keys = ", ".join(sorted(repr(f"{path}{name}") for name in unknown))
        raise ValueError(f"the schema has no column for {keys}; add it to the schema, or drop the key before")


def _make_batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if not arrays:
        return pa.RecordBatch.from_struct_array(pa.array([_NOTHING] * rows, pa.struct([])))
    for array, field in zip(arrays, schema, strict=True):
        if array.null_count and not field.nullable:
            raise ValueError(f"column {field.name!r} is not nullable, but a value is missing or None")
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# Values to arrays


def infer_type(values: list[Any], name: str = "") -> pa.DataType:
    """Return a type that holds all values exactly; ``name`` tells errors what they are.

    Raises:
        ValueError: if there is none.
    """
    kinds = sorted(_kinds(values) - {"null"})
    if len(kinds) > 1:
        groups = ([value for value in values if _kinds([value]) == {kind}] for kind in kinds)
        return reduce(lambda a, b: _merge_types(a, b, name), (infer_type(group, name) for group in groups))
    if not kinds:
        return pa.null()
    if kinds == ["struct"]:
        return pa.struct(_infer_fields([_as_mapping(value) for value in values if value is not None], f"{name}."))
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
    if kind in _SIMPLE_TYPES:
        return _SIMPLE_TYPES[kind]
    if kind == "int":
        return _infer_integer([value for value in values if value is not None], name)
    if kind.startswith("object"):
        raise ValueError(f"column {name!r} has no type that holds {_sample(values, kind)}; {REMEDY}")
    with _explained(name, "no type for its values"):
        return _temporal(values).type if kind in _TEMPORAL else pa.array(values).type


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
    if _is.is_dictionary(type_):
        return build_array(values, type_.value_type, name, rounding).dictionary_encode().cast(type_)
    kind = _type_kind(type_)
    unfit = _kinds(values) - {"null", kind} - _ALSO_HELD.get(kind, set())
    if unfit and not kind.startswith("type"):
        raise ValueError(f"column {name!r} has type {type_}, which cannot hold {_sample(values, min(unfit))}; {REMEDY}")
    if kind == "struct":
        return _build_struct(values, type_, name, rounding)
    if kind == "map":
        return _build_map(values, type_, name, rounding)
    if kind == "list":
        return _build_list(values, type_, name, rounding)
    with _explained(name, f"type {type_}"):
        return _build_leaf(values, type_, kind, rounding)


def _build_leaf(values: list[Any], type_: pa.DataType, kind: str, rounding: bool) -> pa.Array:
    if kind in _TEMPORAL:
        return _build_temporal(values, type_)
    if kind == "float" and not _is.is_float64(type_):
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
    kinds = {_class_kind(cls) for cls in set(map(type, values)) if cls.__module__ == "numpy"}
    if not kinds:
        return pa.array(values)
    import numpy

    array = pa.array(numpy.array(values, "timedelta64" if kinds == {"duration"} else "datetime64"))
    return array.cast(pa.timestamp("s")) if _is.is_date(array.type) else array


def _build_temporal(values: list[Any], type_: pa.DataType) -> pa.Array:
    zoned = {getattr(value, "tzinfo", None) is not None for value in values if value is not None}
    if zoned - {getattr(type_, "tz", None) is not None}:
        raise ValueError(f"a time {'with' if True in zoned else 'without'} a time zone")
    return _temporal(values).cast(type_)


def _build_struct(values: list[Any], type_: pa.StructType, name: str, rounding: bool) -> pa.Array:
    rows = [_NOTHING if value is None else _as_mapping(value) for value in values]
    columns = _build_columns(rows, list(type_), f"{name}.", rounding)
    if not columns:
        return pa.array([None if value is None else _NOTHING for value in values], type_)
    return pa.StructArray.from_arrays(columns, fields=list(type_), mask=_null_mask(values))


def _build_columns(rows: list[Mapping[str, Any]], fields: list[pa.Field], path: str, rounding: bool) -> list[pa.Array]:
    _check_known(set().union(*rows), fields, path)
    columns = _columns(rows, [field.name for field in fields])
    return [build_array(values, f.type, path + f.name, rounding) for values, f in zip(columns, fields, strict=True)]


def _columns(rows: list[Mapping[str, Any]], names: list[str]) -> list[list[Any]]:
    if len(names) > 1 and rows:
        with suppress(KeyError):  # several times as fast if no key is missing
            return [list(column) for column in zip(*map(itemgetter(*names), rows), strict=True)]
    return [[row.get(name) for row in rows] for name in names]


def _build_list(values: list[Any], type_: Any, name: str, rounding: bool) -> pa.Array:
    if _is.is_fixed_size_list(type_):
        return _build_fixed_list(values, type_, name, rounding)
    flat = _flat_numpy(values)
    if flat is not None and (flat.type == type_.value_type or (rounding and _holds(type_.value_type, flat.type))):
        with _explained(name, f"type {type_}"):
            items = flat.cast(type_.value_type)
    else:
        items = build_array(_flatten(values), type_.value_type, f"{name}[]", rounding)
    return _make_list(_lengths(values), items, type_, _null_mask(values))


def _build_fixed_list(values: list[Any], type_: Any, name: str, rounding: bool) -> pa.Array:
    if any(value is not None and len(value) != type_.list_size for value in values):
        raise ValueError(f"column {name!r} has type {type_}, but a list has another length; {REMEDY}")
    filled = [[None] * type_.list_size if value is None else value for value in values]
    items = build_array(_flatten(filled), type_.value_type, f"{name}[]", rounding)
    return pa.FixedSizeListArray.from_arrays(items, type=type_, mask=_null_mask(values))


def _build_map(values: list[Any], type_: Any, name: str, rounding: bool) -> pa.Array:
    if {"struct"} & _kinds(values):
        values = [value and list(_as_mapping(value).items()) for value in values]
    with _explained(name, f"type {type_}"):
        pairs = [(key, item) for key, item in _flatten(values)]
    keys = build_array([key for key, _ in pairs], type_.key_type, f"{name} (keys)", rounding)
    items = build_array([item for _, item in pairs], type_.item_type, f"{name} (values)", rounding)
    offsets = _offsets(_lengths(values), pa.int32())
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


def _as_mapping(value: Any) -> Mapping[str, Any]:
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


# Streams of records


class Converter:
    """Turns records, or batches of any schemas, into batches of one schema, which widens when later records need it.

    ``schema`` is the widest so far. With a given schema it is that: nothing widens, and floats may be rounded to its width.
    """

    def __init__(self, schema: pa.Schema | None, on_bad: OnBadRecord) -> None:
        self.schema: pa.Schema = pa.schema([]) if schema is None else schema
        self._fixed = schema is not None
        self._on_bad = on_bad
        self._number = 1

    def convert(self, items: Iterable[Any]) -> Iterator[pa.RecordBatch]:
        """Yield batches, each of the schema as it is then, without what ``on_bad`` leaves out."""
        if isinstance(items, ColumnBatches):
            for batch in items.iter_batches():
                yield from self._adopt(batch)
            return
        iterator, size = iter(items), 16
        while records := list(islice(iterator, size)):
            found = self._convert(records, self._number)
            self._number += len(records)
            yield from found
            if arrow_bytes := sum(batch.nbytes for batch in found):
                size = max(1, min(PIECE_ROWS, PIECE_BYTES * len(records) // arrow_bytes))

    def _adopt(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        number, self._number = self._number, self._number + batch.num_rows
        try:
            schema = self.schema if self._fixed else merge_schemas(self.schema, batch.schema)
            fitted = fit_batch(batch, schema)
        except ValueError:
            return self._convert(batch_records(batch), number)
        self.schema = schema
        return [fitted] if fitted.num_rows else []

    def _convert(self, records: list[Any], number: int) -> list[pa.RecordBatch]:
        """Convert all at once, or halves of them, down to the records that cannot be converted."""
        try:
            return [self._convert_all(records)]
        except (ValueError, TypeError) as error:
            failure = error
        if len(records) == 1:
            self._on_bad(number, records[0], failure)
            return []
        middle = len(records) // 2
        return self._convert(records[:middle], number) + self._convert(records[middle:], number + middle)

    def _convert_all(self, records: list[Any]) -> pa.RecordBatch:
        rows = _record_mappings(records)
        with suppress(*(() if self._fixed else (ValueError,))):
            return _build_batch(rows, self.schema, self._fixed)
        schema = merge_schemas(self.schema, infer_schema(rows))
        batch = _build_batch(rows, schema, self._fixed)
        self.schema = schema
        return batch


def _record_mappings(records: list[Any]) -> list[Mapping[str, Any]]:
    for cls in set(map(type, records)):
        if _class_kind(cls) != "struct":
            raise TypeError(f"a record must be a mapping, a dataclass or a msgspec Struct to have columns, not {cls.__name__}")
    return records if set(map(type, records)) == {dict} else [_as_mapping(record) for record in records]


def _build_batch(rows: list[Mapping[str, Any]], schema: pa.Schema, rounding: bool) -> pa.RecordBatch:
    return _make_batch(_build_columns(rows, list(schema), "", rounding), schema, len(rows))


class Spool:
    """Batches of any schemas, kept in a temporary local file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="zephyr-")  # noqa: SIM115
        self._starts: list[int] = []

    def append(self, batches: list[pa.RecordBatch]) -> None:
        """Keep batches of one schema."""
        self._starts.append(self._file.tell())
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._file, batches[0].schema, options=options) as stream:
            for batch in batches:
                stream.write_batch(batch)

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield what was kept, in order."""
        for start in self._starts:
            self._file.seek(start)
            with pa.ipc.open_stream(self._file) as stream:
                yield from stream

    def close(self) -> None:
        """Remove the file. Idempotent."""
        self._file.close()
