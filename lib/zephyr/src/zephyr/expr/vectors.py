"""Expressions over a record batch by Arrow's kernels, where these provably mean the same as Python.

Every value is brought to one of few kinds, in which Arrow and Python agree: 64-bit integers, 64-bit floats, booleans, strings,
bytes. Where they might not agree for the values at hand (overflow, integers that a float cannot hold, division by zero) the
kernels used here raise one of ``FAILURES``, and the rows must decide.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zephyr.expr.nodes import (
    And,
    Arithmetic,
    Cast,
    Column,
    Compare,
    Expr,
    IsIn,
    IsNull,
    Item,
    Literal,
    Negate,
    Not,
    Or,
)

COMPARE = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
CALCULATE = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked, "/": pc.divide_checked}


class Kind(Enum):
    """What a vector holds."""

    NULL = auto()
    """Nothing but None."""
    BOOL = auto()
    """Booleans."""
    INT = auto()
    """int64."""
    FLOAT = auto()
    """float64."""
    STR = auto()
    """string or large_string."""
    BYTES = auto()
    """binary or large_binary."""
    STRUCT = auto()
    """Structs, asked for a field or whether they are null."""
    OTHER = auto()
    """Anything of which is only asked whether it is null."""


NUMBERS = {Kind.BOOL, Kind.INT, Kind.FLOAT}
LITERALS = {
    type(None): (Kind.NULL, pa.null()),
    bool: (Kind.BOOL, pa.bool_()),
    int: (Kind.INT, pa.int64()),
    float: (Kind.FLOAT, pa.float64()),
    str: (Kind.STR, pa.string()),
    bytes: (Kind.BYTES, pa.binary()),
}
ZEROS = {Kind.BOOL: False, Kind.INT: 0, Kind.FLOAT: 0.0, Kind.STR: "", Kind.BYTES: b""}


@dataclass(frozen=True, slots=True)
class Vector:
    """The values of an expression for the rows of a batch."""

    kind: Kind
    """What they are; nulls may be among them."""
    data: Any
    """An array, or a scalar that stands for as many rows as there are."""


class RowsNeeded(Exception):
    """Arrow cannot compute this, or not with certainty the same."""


FAILURES = (RowsNeeded, pa.lib.ArrowException, OverflowError, UnicodeEncodeError)
"""What ``vector_of`` and ``truth_of`` raise; the last two are literals that Arrow cannot hold."""
_NULL = Vector(Kind.NULL, pa.scalar(None))
_FALSE = pa.scalar(False)


def vector_of(expr: Expr, batch: pa.RecordBatch) -> Vector:
    """Return the values of the expression for all rows, also for those that a short-circuit would spare."""
    match expr:
        case Column(name):
            indices = batch.schema.get_all_field_indices(name)
            return _normalised(batch.column(indices[-1])) if indices else _NULL
        case Literal(value):
            return _literal(value)
        case Item(operand, key):
            return _item(vector_of(operand, batch), key)
        case Compare(op, left, right):
            return _comparison(op, vector_of(left, batch), vector_of(right, batch))
        case Arithmetic(op, left, right):
            return _arithmetic(op, vector_of(left, batch), vector_of(right, batch))
        case Negate(operand):
            return _negated(vector_of(operand, batch))
        case And(operands):
            return Vector(Kind.BOOL, reduce(pc.and_, [truth_of(vector_of(part, batch)) for part in operands]))
        case Or(operands):
            return Vector(Kind.BOOL, reduce(pc.or_, [truth_of(vector_of(part, batch)) for part in operands]))
        case Not(operand):
            return Vector(Kind.BOOL, pc.invert(truth_of(vector_of(operand, batch))))
        case IsNull(operand):
            return Vector(Kind.BOOL, pc.is_null(vector_of(operand, batch).data))
        case IsIn(operand, values):
            return Vector(Kind.BOOL, _is_in(vector_of(operand, batch), values))
        case Cast(operand, type_):
            return _cast(vector_of(operand, batch), type_)
    raise RowsNeeded


def _normalised(values: pa.Array) -> Vector:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = kind_of(values.type)
    if kind is None:
        raise RowsNeeded
    if kind is Kind.INT:
        return Vector(kind, values.cast(pa.int64()))  # an ArrowInvalid if an unsigned one is too large
    if kind is Kind.FLOAT:
        return Vector(kind, values.cast(pa.float64()))
    return Vector(kind, values)


def kind_of(type_: pa.DataType) -> Kind | None:
    """Return the kind to which values of an Arrow type can be brought; None if to none."""
    is_ = pa.types
    if is_.is_null(type_):
        return Kind.NULL
    if is_.is_boolean(type_):
        return Kind.BOOL
    if is_.is_integer(type_):
        return Kind.INT
    if is_.is_float32(type_) or is_.is_float64(type_):
        return Kind.FLOAT
    if is_.is_string(type_) or is_.is_large_string(type_):
        return Kind.STR
    if is_.is_binary(type_) or is_.is_large_binary(type_):
        return Kind.BYTES
    if is_.is_struct(type_):
        return Kind.STRUCT
    if is_.is_temporal(type_) or is_.is_decimal(type_) or is_.is_list(type_) or is_.is_large_list(type_) or is_.is_map(type_):
        return Kind.OTHER
    return None


def _literal(value: Any) -> Vector:
    if type(value) not in LITERALS:
        raise RowsNeeded
    kind, type_ = LITERALS[type(value)]
    return Vector(kind, pa.scalar(value, type_))


def _item(vector: Vector, key: str | int) -> Vector:
    if vector.kind is Kind.NULL:
        return _NULL
    if vector.kind is not Kind.STRUCT:
        raise RowsNeeded
    names = [field.name for field in vector.data.type]
    if len(set(names)) < len(names):
        raise RowsNeeded
    return _normalised(pc.struct_field(vector.data, [names.index(key)])) if key in names else _NULL


def _comparison(op: str, left: Vector, right: Vector) -> Vector:
    if Kind.NULL in (left.kind, right.kind):
        return Vector(Kind.BOOL, _FALSE)
    if left.kind is right.kind and left.kind in ZEROS:
        found = COMPARE[op](left.data, right.data)
    elif left.kind in NUMBERS and right.kind in NUMBERS:
        found = COMPARE[op](*_common_numbers(left, right, exact=True))
    else:
        raise RowsNeeded
    return Vector(Kind.BOOL, pc.fill_null(found, False))


def _arithmetic(op: str, left: Vector, right: Vector) -> Vector:
    if op not in CALCULATE:
        raise RowsNeeded
    if Kind.NULL in (left.kind, right.kind):
        return _NULL
    if left.kind not in NUMBERS or right.kind not in NUMBERS:
        raise RowsNeeded
    if Kind.FLOAT in (left.kind, right.kind):
        return Vector(Kind.FLOAT, CALCULATE[op](*_common_numbers(left, right, exact=False)))
    if op == "/":  # the quotient of two integers is rounded once if both are exact as floats
        floats = [pc.cast(_as_int(side), pa.float64()) for side in (left, right)]
        return Vector(Kind.FLOAT, CALCULATE[op](*floats))
    return Vector(Kind.INT, CALCULATE[op](_as_int(left), _as_int(right)))


def _common_numbers(left: Vector, right: Vector, exact: bool) -> list[Any]:
    """Return both as int64, or both as float64 if one is; an ArrowInvalid if that changes an integer and must be ``exact``."""
    if Kind.FLOAT not in (left.kind, right.kind):
        return [_as_int(left), _as_int(right)]
    return [_as_float(left, exact), _as_float(right, exact)]


def _as_int(vector: Vector) -> Any:
    return pc.cast(vector.data, pa.int64()) if vector.kind is Kind.BOOL else vector.data


def _as_float(vector: Vector, exact: bool) -> Any:
    return vector.data if vector.kind is Kind.FLOAT else pc.cast(_as_int(vector), pa.float64(), safe=exact)


def _negated(vector: Vector) -> Vector:
    if vector.kind is Kind.NULL:
        return _NULL
    if vector.kind is Kind.FLOAT:
        return Vector(Kind.FLOAT, pc.negate(vector.data))
    if vector.kind not in NUMBERS:
        raise RowsNeeded
    return Vector(Kind.INT, pc.negate_checked(_as_int(vector)))


def truth_of(vector: Vector) -> Any:
    """Return the truth of the values as booleans without nulls."""
    return _FALSE if vector.kind is Kind.NULL else pc.fill_null(_nullable_truth(vector), False)


def _nullable_truth(vector: Vector) -> Any:
    if vector.kind is Kind.BOOL:
        return vector.data
    if vector.kind not in ZEROS:
        raise RowsNeeded
    return pc.not_equal(vector.data, pa.scalar(ZEROS[vector.kind], vector.data.type))


def _cast(vector: Vector, type_: str) -> Vector:
    if vector.kind is Kind.NULL:
        return _NULL
    if type_ == "bool":
        return Vector(Kind.BOOL, _nullable_truth(vector))
    if type_ == "int" and vector.kind in (Kind.BOOL, Kind.INT):
        return Vector(Kind.INT, _as_int(vector))
    if type_ == "float" and vector.kind in NUMBERS:
        return Vector(Kind.FLOAT, _as_float(vector, exact=False))
    if type_ == "str" and vector.kind is Kind.STR:
        return vector
    raise RowsNeeded


def _is_in(vector: Vector, values: tuple[Any, ...]) -> Any:
    if vector.kind is Kind.NULL:
        return _FALSE
    if vector.kind not in ZEROS or any(type(value) not in LITERALS for value in values):
        raise RowsNeeded
    if vector.kind in (Kind.BOOL, Kind.INT):
        return pc.is_in(_as_int(vector), value_set=pa.array(integers_among(values), pa.int64()))
    if vector.kind is Kind.FLOAT:  # adding zero makes 0.0 of -0.0, which Arrow would not find
        return pc.is_in(pc.add(vector.data, 0.0), value_set=pa.array(floats_among(values), pa.float64()))
    same = [value for value in values if LITERALS[type(value)][0] is vector.kind]
    return pc.is_in(vector.data, value_set=pa.array(same, vector.data.type))


def integers_among(values: tuple[Any, ...]) -> list[int]:
    """Return as integers those of the numbers among the values that an int64 can hold."""
    numbers = [int(v) for v in values if isinstance(v, int) or (isinstance(v, float) and v.is_integer())]
    return [v for v in numbers if -(2**63) <= v < 2**63]


def floats_among(values: tuple[Any, ...]) -> list[float]:
    """Return as floats, none of them -0.0, those of the numbers among the values that a float can hold; without NaN."""
    found = []
    for value in values:
        with suppress(OverflowError):
            if isinstance(value, (int, float)) and float(value) == value:
                found.append(float(value) + 0.0)
    return found
