"""Expressions as frozen values, and their meaning: ``evaluate`` on one record at a time is the definition.

What a record lacks is None: a column, a key, an index. A comparison with None is False, arithmetic with None is None. All else
is Python's own, exceptions included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from zephyr.errors import PlanError

if TYPE_CHECKING:
    import pyarrow.compute as pc

Record = Mapping[str, Any]

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
CASTS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "str": str, "bool": bool}


class Expr:
    """An expression over the columns of a record; made by ``col`` and ``lit`` and the operators on them.

    ``==`` makes an expression too: use ``equals`` to compare expressions, and ``is`` to find one. Expressions have no hash.

    Example:
        >>> expr = (col("a") > 1) & col("meta")["lang"].is_in(["en", "de"])
        >>> expr
        ((col('a') > lit(1)) & col('meta')['lang'].is_in(['en', 'de']))
        >>> expr.evaluate({"a": 2, "meta": {"lang": "en"}}), expr.evaluate({"a": 2})
        (True, False)
    """

    __slots__ = ()

    def evaluate(self, record: Record) -> Any:
        """Return the value for a record; comparisons and logic return something true or false, never None.

        Raises:
            TypeError: if the record is no mapping.
            ZeroDivisionError, TypeError, ValueError, ...: whatever Python raises for the values of this record.
        """
        if type(record) is not dict and not isinstance(record, Mapping):
            raise TypeError(
                f"{self!r} needs a record that is a mapping, not {type(record).__name__}; map the items to dicts first"
            )
        return self.value_in(record)

    def value_in(self, record: Record) -> Any:
        """Return the value for a record that is known to be a mapping."""
        raise NotImplementedError

    def children(self) -> Iterator[Expr]:
        """Yield the expressions that this one is made of, left to right."""
        for name in _field_names(self):
            value = getattr(self, name)
            yield from (part for part in (value if type(value) is tuple else (value,)) if isinstance(part, Expr))

    def equals(self, other: object) -> bool:
        """Tell whether the other is the same expression, with literals of the same types and values."""
        return _same(self, other)

    def to_pyarrow_expr(self) -> pc.Expression:
        """Return an Arrow expression that keeps the same rows when used as a filter, also where columns are null.

        Without a schema some of Arrow's own ways remain: it rounds integers that it compares with floats, raises when they
        overflow, tells -0.0 from 0.0 in ``is_in``, protects no right side, and wants the operands of ``&``, ``|`` and ``~`` to
        be boolean. When row groups are skipped by their statistics, rows with NaN are lost under ``!=`` and ``~``:
        ``prune_expr`` is for that, and ``compute_mask`` is exact.

        Raises:
            PlanError: naming the part for which Arrow has no equal: ``//``, ``%``, an index, a cast to str or bool, or a
                literal of a type that Arrow lacks.
        """
        from zephyr.expr.filters import to_filter

        return to_filter(self)

    def is_null(self) -> Expr:
        """Tell whether the value is None or missing; NaN is neither."""
        return IsNull(self)

    def is_not_null(self) -> Expr:
        """Tell whether there is a value other than None."""
        return Not(IsNull(self))

    def is_in(self, values: Iterable[Any]) -> Expr:
        """Tell whether the value equals one of the values. None and NaN never do.

        Raises:
            PlanError: for a string, which would be taken apart, and for expressions among the values.
        """
        if isinstance(values, (str, bytes)):
            raise PlanError(f"is_in({values!r}) would look for single characters; pass a list of values")
        kept = tuple(sorted(values, key=repr) if isinstance(values, (set, frozenset)) else values)
        if any(isinstance(value, Expr) for value in kept):
            raise PlanError("is_in takes values, not expressions; write (x == a) | (x == b)")
        return IsIn(self, kept)

    def cast(self, type: type | str) -> Expr:
        """Convert the value by Python's ``int``, ``float``, ``str`` or ``bool``, given as such or by name. None stays None.

        Raises:
            PlanError: for another type.
        """
        for name, function in CASTS.items():
            if type is function or type == name:
                return Cast(self, name)
        raise PlanError(f"cannot cast to {type!r}; cast to one of int, float, str, bool")

    def __getitem__(self, key: str | int) -> Expr:
        if not isinstance(key, (str, int)):
            raise TypeError(f"{self!r} takes a key or an index, not {key!r}")
        return Item(self, key)

    __iter__ = None  # else [] would make expressions endless sequences
    __contains__ = None

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} has no truth value before it is evaluated; use & | ~ with parentheses instead of and, or, not, and "
            "(a < b) & (b < c) instead of a < b < c"
        )

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return Compare("==", self, lit(other))

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return Compare("!=", self, lit(other))

    def __lt__(self, other: Any) -> Expr:
        return Compare("<", self, lit(other))

    def __le__(self, other: Any) -> Expr:
        return Compare("<=", self, lit(other))

    def __gt__(self, other: Any) -> Expr:
        return Compare(">", self, lit(other))

    def __ge__(self, other: Any) -> Expr:
        return Compare(">=", self, lit(other))

    def __add__(self, other: Any) -> Expr:
        return Arithmetic("+", self, lit(other))

    def __radd__(self, other: Any) -> Expr:
        return Arithmetic("+", lit(other), self)

    def __sub__(self, other: Any) -> Expr:
        return Arithmetic("-", self, lit(other))

    def __rsub__(self, other: Any) -> Expr:
        return Arithmetic("-", lit(other), self)

    def __mul__(self, other: Any) -> Expr:
        return Arithmetic("*", self, lit(other))

    def __rmul__(self, other: Any) -> Expr:
        return Arithmetic("*", lit(other), self)

    def __truediv__(self, other: Any) -> Expr:
        return Arithmetic("/", self, lit(other))

    def __rtruediv__(self, other: Any) -> Expr:
        return Arithmetic("/", lit(other), self)

    def __floordiv__(self, other: Any) -> Expr:
        return Arithmetic("//", self, lit(other))

    def __rfloordiv__(self, other: Any) -> Expr:
        return Arithmetic("//", lit(other), self)

    def __mod__(self, other: Any) -> Expr:
        return Arithmetic("%", self, lit(other))

    def __rmod__(self, other: Any) -> Expr:
        return Arithmetic("%", lit(other), self)

    def __neg__(self) -> Expr:
        return Negate(self)

    def __and__(self, other: Any) -> Expr:
        return And((*_parts(And, self), *_parts(And, lit(other))))

    def __rand__(self, other: Any) -> Expr:
        return lit(other) & self

    def __or__(self, other: Any) -> Expr:
        return Or((*_parts(Or, self), *_parts(Or, lit(other))))

    def __ror__(self, other: Any) -> Expr:
        return lit(other) | self

    def __invert__(self) -> Expr:
        return Not(self)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Column(Expr):
    """A top-level column."""

    name: str
    """Its name."""

    def value_in(self, record: Record) -> Any:
        return record.get(self.name)

    def __repr__(self) -> str:
        return f"col({self.name!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Literal(Expr):
    """A constant."""

    value: Any
    """Any value that can be pickled."""

    def value_in(self, record: Record) -> Any:
        return self.value

    def children(self) -> Iterator[Expr]:
        return iter(())

    def __repr__(self) -> str:
        return f"lit({self.value!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Item(Expr):
    """What is under a key of a mapping, or at an index of a sequence."""

    operand: Expr
    """The mapping or sequence."""
    key: str | int
    """A negative index counts from the end."""

    def value_in(self, record: Record) -> Any:
        value = self.operand.value_in(record)
        if value is None:
            return None
        if isinstance(value, Mapping):
            return value.get(self.key)
        try:
            return value[self.key]
        except LookupError:
            return None

    def __repr__(self) -> str:
        return f"{self.operand!r}[{self.key!r}]"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Compare(Expr):
    """A comparison; False when a side is None."""

    op: str
    """A key of ``COMPARISONS``."""
    left: Expr
    """Left side, evaluated first."""
    right: Expr
    """Right side, evaluated even if the left is None."""

    def value_in(self, record: Record) -> Any:
        left, right = self.left.value_in(record), self.right.value_in(record)
        return False if left is None or right is None else COMPARISONS[self.op](left, right)

    def __repr__(self) -> str:
        return f"({self.left!r} {self.op} {self.right!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Arithmetic(Expr):
    """An operation on two values; None when a side is None."""

    op: str
    """A key of ``ARITHMETIC``."""
    left: Expr
    """Left side, evaluated first."""
    right: Expr
    """Right side, evaluated even if the left is None."""

    def value_in(self, record: Record) -> Any:
        left, right = self.left.value_in(record), self.right.value_in(record)
        return None if left is None or right is None else ARITHMETIC[self.op](left, right)

    def __repr__(self) -> str:
        return f"({self.left!r} {self.op} {self.right!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Negate(Expr):
    """Minus a value."""

    operand: Expr
    """The value."""

    def value_in(self, record: Record) -> Any:
        value = self.operand.value_in(record)
        return None if value is None else -value

    def __repr__(self) -> str:
        return f"(-{self.operand!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Expr):
    """Whether all are true; those behind the first that is not are not evaluated."""

    operands: tuple[Expr, ...]
    """In the order of evaluation; None counts as False."""

    def value_in(self, record: Record) -> bool:
        return all(operand.value_in(record) for operand in self.operands)

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.operands))})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Expr):
    """Whether any is true; those behind the first that is are not evaluated."""

    operands: tuple[Expr, ...]
    """In the order of evaluation; None counts as False."""

    def value_in(self, record: Record) -> bool:
        return any(operand.value_in(record) for operand in self.operands)

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.operands))})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expr):
    """Whether a value is false or None."""

    operand: Expr
    """The value."""

    def value_in(self, record: Record) -> bool:
        return not self.operand.value_in(record)

    def __repr__(self) -> str:
        return f"(~{self.operand!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsNull(Expr):
    """Whether a value is None."""

    operand: Expr
    """The value."""

    def value_in(self, record: Record) -> bool:
        return self.operand.value_in(record) is None

    def __repr__(self) -> str:
        return f"{self.operand!r}.is_null()"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsIn(Expr):
    """Whether a value equals one of some values."""

    operand: Expr
    """The value."""
    values: tuple[Any, ...]
    """The values."""
    lookup: frozenset[Any] | None = field(init=False)
    """The values without NaN, which is in nothing; None if one cannot be hashed."""

    def __post_init__(self) -> None:
        try:
            lookup = frozenset(value for value in self.values if value == value)
        except TypeError:
            lookup = None
        object.__setattr__(self, "lookup", lookup)

    def value_in(self, record: Record) -> bool:
        value = self.operand.value_in(record)
        if value is None:
            return False
        try:
            if self.lookup is not None:
                return value in self.lookup
        except TypeError:
            pass  # the value cannot be hashed
        return any(value == other for other in self.values)

    def __repr__(self) -> str:
        return f"{self.operand!r}.is_in({list(self.values)!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cast(Expr):
    """A value converted; None stays None."""

    operand: Expr
    """The value."""
    type: str
    """A key of ``CASTS``."""

    def value_in(self, record: Record) -> Any:
        value = self.operand.value_in(record)
        return None if value is None else CASTS[self.type](value)

    def __repr__(self) -> str:
        return f"{self.operand!r}.cast({self.type!r})"


def col(name: str) -> Expr:
    """Return the expression for a top-level column."""
    return Column(name)


def lit(value: Any) -> Expr:
    """Return the expression for a constant; an expression is returned as it is."""
    return value if isinstance(value, Expr) else Literal(value)


def combine(exprs: Iterable[Expr]) -> Expr:
    """Return the expression that all are true, asked left to right; ``lit(True)`` for none, the expression itself for one."""
    parts = tuple(part for expr in exprs for part in conjuncts(expr))
    if not parts:
        return lit(True)
    return parts[0] if len(parts) == 1 else And(parts)


def conjuncts(expr: Expr) -> tuple[Expr, ...]:
    """Return expressions that are all true exactly when the expression is, in the order of evaluation."""
    return _parts(And, expr)


def extract_columns(expr: Expr) -> frozenset[str]:
    """Return the names of the top-level columns that the expression looks at."""
    if isinstance(expr, Column):
        return frozenset((expr.name,))
    return frozenset().union(*map(extract_columns, expr.children()))


def _parts(kind: type[And] | type[Or], expr: Expr) -> tuple[Expr, ...]:
    return expr.operands if isinstance(expr, kind) else (expr,)


def _field_names(expr: Expr) -> list[str]:
    return [f.name for f in fields(expr) if f.init]  # type: ignore[arg-type]


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Expr):
        return all(_same(getattr(a, name), getattr(b, name)) for name in _field_names(a))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float):
        return repr(a) == repr(b)  # NaN is NaN, 0.0 is not -0.0
    return a is b or bool(a == b)
