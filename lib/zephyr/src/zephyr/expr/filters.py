"""Expressions as Arrow expressions: the same as a filter, and what of it may skip row groups by their statistics."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zephyr.errors import PlanError
from zephyr.expr.mask import is_vectorised
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
    conjuncts,
)
from zephyr.expr.vectors import COMPARE, LITERALS, NUMBERS, ZEROS, Kind, floats_among, integers_among, kind_of

CALCULATE = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked}
CASTS = {"int": pa.int64(), "float": pa.float64()}
MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
LOOSER = {"<": "<=", "<=": "<=", ">": ">=", ">=": ">="}


def to_filter(expr: Expr) -> pc.Expression:
    """Return an Arrow expression that is true for the rows for which the expression is, and false or null for the others."""
    match expr:
        case And(operands):
            return reduce(and_, map(to_filter, operands))
        case Or(operands):
            return reduce(or_, map(to_filter, operands))
        case Not(operand):
            return ~pc.coalesce(to_filter(operand), pc.scalar(False))
        case Compare(op, left, right):
            return COMPARE[op](_to_value(left), _to_value(right))
        case IsNull(operand):
            return _to_value(operand).is_null()
        case IsIn(operand, values):
            kept = [v for v in values if v is not None and v == v]
            return _to_value(operand).isin(_array(expr, kept)) if kept else pc.scalar(False)
        case Literal(value):
            return pc.scalar(bool(value))
        case Arithmetic() | Negate() | Cast():
            return pc.not_equal(_to_value(expr), pc.scalar(0))
    return _to_value(expr)


def _to_value(expr: Expr) -> pc.Expression:
    match expr:
        case Column(name):
            return pc.field(name)
        case Literal(value):
            return _scalar(expr, value)
        case Item():
            return pc.field(*_path(expr))
        case Arithmetic("/", left, right):
            return pc.divide_checked(_to_value(left).cast(pa.float64()), _to_value(right).cast(pa.float64()))
        case Arithmetic(op, left, right) if op in CALCULATE:
            return CALCULATE[op](_to_value(left), _to_value(right))
        case Negate(operand):
            return pc.negate_checked(_to_value(operand))
        case Cast(operand, type_) if type_ in CASTS:
            return _to_value(operand).cast(CASTS[type_])
        case Compare() | And() | Or() | Not() | IsNull() | IsIn():
            return pc.coalesce(to_filter(expr), pc.scalar(False))
    raise _inexpressible(expr)


def _path(expr: Expr) -> tuple[str, ...]:
    match expr:
        case Column(name):
            return (name,)
        case Item(operand, str(key)):
            return (*_path(operand), key)
    raise _inexpressible(expr)


def _scalar(expr: Expr, value: Any) -> pc.Expression:
    try:
        return pc.scalar(value)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise _inexpressible(expr) from error


def _array(expr: Expr, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise _inexpressible(expr) from error


def _inexpressible(expr: Expr) -> PlanError:
    return PlanError(f"Arrow has no expression with the meaning of {expr!r}; filter the records with it instead")


def prune_expr(expr: Expr, schema: pa.Schema) -> pc.Expression | None:
    """Return an Arrow expression that is true for every row for which the expression is, and maybe for more; None if for all.

    It is to be trusted where row groups are skipped by minimum, maximum and number of nulls, though these ignore NaN. It skips
    no row that would raise an exception.
    """
    found = []
    for part in conjuncts(expr):
        pruned = _prune(part, schema)
        if pruned is not None:
            found.append(pruned)
        elif not _never_raises(part, schema):
            break
    return reduce(and_, found) if found else None


def _never_raises(expr: Expr, schema: pa.Schema) -> bool:
    return is_vectorised(expr, schema) and not _divides(expr)


def _divides(expr: Expr) -> bool:
    return (isinstance(expr, Arithmetic) and expr.op == "/") or any(map(_divides, expr.children()))


def _prune(expr: Expr, schema: pa.Schema) -> pc.Expression | None:
    match expr:
        case Column(name) if _kind(name, schema) is Kind.BOOL:
            return pc.field(name)
        case Compare(op, Column(name), Literal(value)):
            return _prune_comparison(op, name, value, schema)
        case Compare(op, Literal(value), Column(name)):
            return _prune_comparison(MIRRORED[op], name, value, schema)
        case IsIn(Column(name), values):
            return _prune_is_in(name, values, schema)
        case IsNull(Column(name)) if _kind(name, schema) is not None:
            return pc.field(name).is_null()
        case Not(IsNull(Column(name))) if _kind(name, schema) is not None:
            return pc.field(name).is_valid()
        case Or(operands):
            sides = [prune_expr(part, schema) for part in operands]
            return None if any(side is None for side in sides) else reduce(or_, sides)
    return None


def _kind(name: str, schema: pa.Schema) -> Kind | None:
    """Return the kind of a column of which Arrow knows statistics; None for others, and if several have the name."""
    indices = schema.get_all_field_indices(name)
    kind = kind_of(schema.field(indices[0]).type) if len(indices) == 1 else None
    return kind if kind in ZEROS else None


def _prune_comparison(op: str, name: str, value: Any, schema: pa.Schema) -> pc.Expression | None:
    kind = _kind(name, schema)
    bound = None if kind is None else _closest(value, kind, schema.field(name).type)
    if bound is None:
        return None
    if bound.as_py() != value:  # rounding keeps the order, so x < value implies x <= bound
        return COMPARE[LOOSER[op]](pc.field(name), pc.scalar(bound)) if op in LOOSER else None
    if op == "!=" and kind is Kind.FLOAT:  # true for NaN, which statistics do not show
        return None
    return COMPARE[op](pc.field(name), pc.scalar(bound))


def _closest(value: Any, kind: Kind, type_: pa.DataType) -> pa.Scalar | None:
    """Return the literal rounded to the type of a column, so that Arrow need not convert the column."""
    literal_kind, _ = LITERALS.get(type(value), (None, None))
    if literal_kind is not kind and (literal_kind not in NUMBERS or kind not in (Kind.INT, Kind.FLOAT)):
        return None
    try:
        number = round(value) if kind is Kind.INT else float(value) if kind is Kind.FLOAT else value
        return None if number != number else pa.scalar(number, type_)
    except (pa.ArrowException, ValueError, OverflowError):  # NaN or infinity, or outside of the type's range
        return None


def _prune_is_in(name: str, values: tuple[Any, ...], schema: pa.Schema) -> pc.Expression | None:
    kind = _kind(name, schema)
    if kind is None or any(type(value) not in LITERALS for value in values):
        return None
    same: list[Any] = [value for value in values if LITERALS[type(value)][0] is kind]
    if kind is Kind.INT:
        same = integers_among(values)
    elif kind is Kind.FLOAT:  # Arrow does not find -0.0 by 0.0
        same = [signed for number in floats_among(values) for signed in (number, -number)]
    elif kind is Kind.BOOL:
        same = [bool(number) for number in integers_among(values) if number in (0, 1)]
    bounds = [_closest(value, kind, schema.field(name).type) for value in same]
    return pc.field(name).isin(pa.array([b.as_py() for b in bounds if b is not None], schema.field(name).type))
