"""Types that hold more: what two schemas become together, and batches in the wider one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zephyr.io.kinds import NOTHING, REMEDY, type_kind


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
        merged.append(pa.field(name, merge_types(a.type, b.type, path + name), nullable))
    return merged


def merge_types(a: pa.DataType, b: pa.DataType, name: str) -> pa.DataType:
    """Return a type that holds the values of both; raises ``ValueError`` naming the column and both types."""
    if a.equals(b) or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    kinds = {type_kind(a), type_kind(b)}
    if kinds == {"struct"}:
        return pa.struct(_merge_fields([*a], [*b], f"{name}."))
    if kinds == {"list"}:
        values = merge_types(a.value_type, b.value_type, f"{name}[]")
        return pa.large_list(values) if pa.types.is_large_list(a) or pa.types.is_large_list(b) else pa.list_(values)
    if kinds == {"map"}:
        return pa.map_(merge_types(a.key_type, b.key_type, name), merge_types(a.item_type, b.item_type, name))
    merged = _merge_leaves(a, b) if len(kinds) == 1 or kinds in ({"int", "float"}, {"int", "decimal"}) else None
    if merged is None:
        raise ValueError(f"column {name!r} has type {a}, which cannot be widened to hold {b} too; {REMEDY}")
    return merged


def _merge_leaves(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    a, b = (_without_views(t.value_type if pa.types.is_dictionary(t) else t) for t in (a, b))
    if pa.types.is_timestamp(a) and a.tz and b.tz:
        b = pa.timestamp(b.unit, a.tz)  # the same instants
    if pa.uint64() in (a, b) and (pa.types.is_signed_integer(a) or pa.types.is_signed_integer(b)):
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
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    fields = [type_.field(i).with_type(_without_views(type_.field(i).type)) for i in range(type_.num_fields)]
    if pa.types.is_struct(type_):
        return pa.struct(fields)
    if pa.types.is_list(type_):
        return pa.list_(fields[0])
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(fields[0], type_.list_size)
    return pa.map_(_without_views(type_.key_type), _without_views(type_.item_type)) if pa.types.is_map(type_) else type_


def holds(type_: pa.DataType, other: pa.DataType) -> bool:
    """Tell whether values of the other type can be values of this one as far as kinds and nested names go."""
    if pa.types.is_null(other):
        return True
    kind = type_kind(type_)
    if kind != type_kind(other):
        return type_kind(other) == "int" and kind in ("float", "decimal")
    if kind == "struct":
        return all(type_.get_field_index(f.name) >= 0 and holds(type_.field(f.name).type, f.type) for f in other)
    if kind == "timestamp":
        return (type_.tz is None) == (other.tz is None)
    if kind in ("list", "map"):
        return all(holds(type_.field(i).type, other.field(i).type) for i in range(type_.num_fields))
    return True


def fit_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with the schema's columns; those it lacks are null.

    Raises:
        ValueError: naming the column that is not in the schema, or whose values its type cannot hold.
    """
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    check_known(batch.schema.names, schema)
    return make_batch([_fit_column(batch, field) for field in schema], schema, batch.num_rows)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch without rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _fit_column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    indices = batch.schema.get_all_field_indices(field.name)
    if not indices:
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(indices[-1])
    if not holds(field.type, column.type):
        raise ValueError(f"column {field.name!r} has type {field.type}, which cannot hold {column.type}; {REMEDY}")
    try:
        return _cast(column, field.type)
    except pa.ArrowException as error:
        raise ValueError(f"column {field.name!r} has type {field.type}: {error}; {REMEDY}") from error


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Convert exactly; Arrow's own cast makes invalid arrays of lists of nulls that stay such."""
    if array.type.equals(type_):
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_)
    kinds = {type_kind(array.type), type_kind(type_)}
    if kinds == {"struct"} and type_.num_fields:
        children = [_cast_child(array, field) for field in type_]
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=array.is_null())
    if kinds == {"list"} and not pa.types.is_fixed_size_list(type_):
        return make_list(
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


def make_list(lengths: pa.Array, items: pa.Array, type_: Any, nulls: pa.Array) -> pa.Array:
    """Return the array of lists of these lengths."""
    large = pa.types.is_large_list(type_)
    maker, width = (pa.LargeListArray, pa.int64()) if large else (pa.ListArray, pa.int32())
    return maker.from_arrays(offsets_of(lengths, width), items, type=type_, mask=nulls)


def offsets_of(lengths: pa.Array, width: pa.DataType) -> pa.Array:
    """Return where each list begins, and the end of the last."""
    return pa.concat_arrays([pa.array([0], width), pc.cumulative_sum_checked(lengths.cast(width))])


def check_known(names: Iterable[Any], fields: Iterable[pa.Field], path: str = "") -> None:
    """Raise ``ValueError`` for names that no field has."""
    unknown = set(names).difference(field.name for field in fields)
    if unknown:
        keys = ", ".join(sorted(repr(f"{path}{name}") for name in unknown))
        raise ValueError(f"the schema has no column for {keys}; add it to the schema, or drop the key before")


def make_batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    """Return a batch of these columns; one without columns has its rows still."""
    if not arrays:
        return pa.RecordBatch.from_struct_array(pa.array([NOTHING] * rows, pa.struct([])))
    for array, field in zip(arrays, schema, strict=True):
        if array.null_count and not field.nullable:
            raise ValueError(f"column {field.name!r} is not nullable, but a value is missing or None")
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
