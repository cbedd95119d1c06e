from __future__ import annotations

import datetime
import io
import math
import operator
import pickle
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from zephyr.errors import PlanError
from zephyr.expr import Expr, col, combine, compute_mask, extract_columns, is_vectorised, lit, prune_expr

pytestmark = pytest.mark.unit

a, b, s = col("a"), col("b"), col("s")
NAN = math.nan
BIG = 2**53


# Building


EXPRESSIONS: list[tuple[Expr, str]] = [
    (a > 1, "(col('a') > lit(1))"),
    (operator.lt(1, a), "(col('a') > lit(1))"),
    ((a + 1) * 2 - -b == s, "((((col('a') + lit(1)) * lit(2)) - (-col('b'))) == col('s'))"),
    (1 - a / 2 // 3 % 4, "(lit(1) - (((col('a') / lit(2)) // lit(3)) % lit(4)))"),
    ((a == 1) & (b != 2) & s.is_null(), "((col('a') == lit(1)) & (col('b') != lit(2)) & col('s').is_null())"),
    (~a | b.is_not_null(), "((~col('a')) | (~col('b').is_null()))"),
    (a["x"][0].is_in([1, "y"]), "col('a')['x'][0].is_in([1, 'y'])"),
    (a.cast(int) <= s.cast("float"), "(col('a').cast('int') <= col('s').cast('float'))"),
]


@pytest.mark.parametrize(("expr", "text"), EXPRESSIONS)
def test_an_expression_reads_as_it_is_written_and_survives_pickling(expr: Expr, text: str) -> None:
    assert repr(expr) == text
    assert eval(text, {"col": col, "lit": lit}).equals(expr)
    assert pickle.loads(pickle.dumps(expr)).equals(expr)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: 2 + x,
        lambda x: 2 - x,
        lambda x: 2 * x,
        lambda x: 2 / x,
        lambda x: 2 // x,
        lambda x: 2 % x,
        lambda x: -x,
        lambda x: x + 2,
        lambda x: x - 2,
        lambda x: x * 2,
        lambda x: x / 2,
        lambda x: x // 2,
        lambda x: x % 2,
        lambda x: x == 5,
        lambda x: x != 5,
        lambda x: x < 5,
        lambda x: x <= 5,
        lambda x: x > 5,
        lambda x: x >= 5,
    ],
)
def test_an_operator_means_what_python_means(make: Callable[[Any], Any]) -> None:
    for value in (4, 5, 6, 2.5):
        assert make(a).evaluate({"a": value}) == make(value)


def test_an_expression_used_as_a_truth_value_tells_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"use & \| ~ with parentheses instead of and, or, not"):
        bool(a > 1)
    with pytest.raises(TypeError, match="use &"):
        assert 1 < a < 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_an_expression_is_no_sequence() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(a)
    with pytest.raises(TypeError):
        1 in a  # noqa: B015
    with pytest.raises(TypeError, match="takes a key or an index"):
        a[1:2]  # type: ignore[index]


def test_an_expression_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        a.name = "b"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (a == 1, a == 1, True),
        (a == 1, a == 1.0, False),
        (a == 1, a == True, False),  # noqa: E712
        (a == 1, a != 1, False),
        (a == 1, b == 1, False),
        (a == NAN, a == float("nan"), True),
        (a == 0.0, a == -0.0, False),
        (a.is_in([1, 2]), a.is_in((1, 2)), True),
        (a.is_in([1, 2]), a.is_in([2, 1]), False),
        (a == [1], a == [True], False),
        ((a & b) & s, a & (b & s), True),
        (a & b, a | b, False),
        (a, "a", False),
        (a["x"], a["y"], False),
        (a.cast(int), a.cast("int"), True),
    ],
)
def test_equals_compares_the_structure(one: Expr, other: object, same: bool) -> None:
    assert one.equals(other) is same


def test_is_in_and_cast_refuse_what_cannot_be_meant() -> None:
    with pytest.raises(PlanError, match="single characters"):
        a.is_in("abc")
    with pytest.raises(PlanError, match="not expressions"):
        a.is_in([b])
    with pytest.raises(PlanError, match="one of int, float, str, bool"):
        a.cast(list)
    with pytest.raises(PlanError, match="one of int, float, str, bool"):
        a.cast("list")


def test_is_in_of_a_set_reads_the_same_in_every_process() -> None:
    assert repr(a.is_in(set("hgfedcba"))) == f"col('a').is_in({list('abcdefgh')})"


def test_columns_are_extracted_from_every_part() -> None:
    expr = (col("p")["x"] + col("q") > 1) & ~col("r").is_in([col]) | (-col("s")).cast(int).is_null() | (lit(1) == col("t"))
    assert extract_columns(expr) == {"p", "q", "r", "s", "t"}
    assert extract_columns(lit((1, 2))) == frozenset()


def test_combine_asks_left_to_right_and_stops() -> None:
    both = combine([a != 0, 1 / a > 0.1])
    assert both.equals((a != 0) & (1 / a > 0.1))
    assert [both.evaluate({"a": value}) for value in (0, 1, 100)] == [False, True, False]
    assert combine([]).evaluate({}) is True
    assert combine(iter([a])) is a


def test_many_parts_make_no_deep_tree() -> None:
    parts = [a == i for i in range(3000)]
    any_of = parts[0]
    for part in parts[1:]:
        any_of = any_of | part
    assert any_of.evaluate({"a": 2999}) is True
    assert combine(parts).evaluate({"a": 0}) is False


# The meaning on one record


def value(expr: Expr, **record: Any) -> Any:
    return expr.evaluate(record)


@pytest.mark.parametrize("op", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_a_comparison_with_none_is_false(op: Callable[[Any, Any], Expr]) -> None:
    assert value(op(a, 1)) is False
    assert value(op(a, 1), a=None) is False
    assert value(op(a, None), a=1) is False
    assert value(op(a, b), a=None, b=None) is False
    assert value(~op(a, 1)) is True


def test_arithmetic_with_none_is_none() -> None:
    assert [value(e) for e in (a + 1, 1 - a, a * 2, a / 0, a // 0, a % 0, -a)] == [None] * 7
    assert value(a + "x") is None


def test_arithmetic_with_none_still_evaluates_the_other_side() -> None:
    with pytest.raises(ZeroDivisionError):
        value(a + 1 / b, a=None, b=0)
    with pytest.raises(ZeroDivisionError):
        value(a == 1 / b, a=None, b=0)


def test_a_key_or_index_that_is_not_there_is_none() -> None:
    assert value(a["x"], a={"x": 1}) == 1
    assert value(a["x"]["y"][0], a={"x": {"y": [7]}}) == 7
    assert value(a[-1], a=[1, 2]) == 2
    assert [value(e, a=v) for e, v in ((a["x"], {}), (a["x"], None), (a[2], [1, 2]), (a[-3], [1, 2]), (a[0], {}))] == [None] * 5
    with pytest.raises(TypeError):
        value(a["x"], a=[1])
    with pytest.raises(TypeError):
        value(a["x"], a=1)


def test_looking_at_a_key_adds_none_to_a_defaultdict() -> None:
    record = defaultdict(list, a=defaultdict(list))
    assert (a["x"].is_null() & b.is_null()).evaluate(record) is True
    assert record == {"a": {}}


def test_is_null_and_is_in_know_none_and_nan() -> None:
    assert [value(a.is_null(), a=v) for v in (None, NAN, 0, "")] == [True, False, False, False]
    assert [value(a.is_not_null(), a=v) for v in (None, NAN)] == [False, True]
    assert value(a.is_null()) is True
    assert [value(a.is_in([1, None, "x", NAN]), a=v) for v in (1, 1.0, True, 2, "x", None, NAN)] == [True] * 3 + [
        False,
        True,
        False,
        False,
    ]
    assert value(a.is_in([1]), a=[1]) is False
    assert value(a.is_in([[1], 2]), a=[1]) is True
    assert value(a.is_in([[1], 2]), a=2) is True
    assert value(a.is_in([[1], [NAN]]), a=NAN) is False
    assert value(a.is_in([]), a=1) is False


def test_logic_works_on_truth_values_and_protects_the_right_side() -> None:
    assert value(a & b, a=2, b="x") is True
    assert value(a & b, a=2, b=None) is False
    assert value(a | b, a=None, b=[]) is False
    assert value(~a, a=None) is True
    assert value((a != 0) & (1 / a > 0), a=0) is False
    assert value((a == 0) | (1 / a > 0), a=0) is True
    assert value(True & a, a=1) is True
    assert value(False | a, a=0) is False
    with pytest.raises(ZeroDivisionError):
        value((1 / a > 0) & (a != 0), a=0)


def test_cast_is_pythons_own_and_keeps_none() -> None:
    assert [value(a.cast(t), a=None) for t in (int, float, str, bool)] == [None] * 4
    assert [value(a.cast(t), a=" 12 ") for t in ("int", "float", "str", "bool")] == [12, 12.0, " 12 ", True]
    assert value(a.cast(int), a=-1.5) == -1
    with pytest.raises(ValueError, match="invalid literal"):
        value(a.cast(int), a="x")


def test_what_python_refuses_is_its_own_exception() -> None:
    with pytest.raises(TypeError, match="'<' not supported"):
        value(a < 1, a="x")
    with pytest.raises(ZeroDivisionError):
        value(a % 0, a=1)
    with pytest.raises(TypeError, match=r"needs a record that is a mapping, not list; map the items"):
        (a > 1).evaluate([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not str"):
        lit(True).evaluate("x")  # type: ignore[arg-type]


# Masks


def records_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [column.to_pylist() for column in batch.columns]
    return [{name: column[i] for name, column in zip(batch.schema.names, columns, strict=True)} for i in range(batch.num_rows)]


def outcome(compute: Callable[[], list[bool]]) -> Any:
    try:
        return compute()
    except Exception as error:
        return type(error), str(error)


def naive(expr: Expr, batch: pa.RecordBatch) -> Any:
    return outcome(lambda: [bool(expr.evaluate(record)) for record in records_of(batch)])


def mask(expr: Expr, batch: pa.RecordBatch) -> Any:
    def compute() -> list[bool]:
        found = compute_mask(expr, batch)
        assert found.type == pa.bool_() and len(found) == batch.num_rows
        return list(found.to_pylist())

    return outcome(compute)


def one_column(values: list[Any], type_: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch({"a": pa.array(values, type_)})


PLAIN = pa.schema([("i", pa.int32()), ("u", pa.uint64()), ("f", pa.float32()), ("s", pa.string()), ("t", pa.bool_())])
i, u, f, t = col("i"), col("u"), col("f"), col("t")


@pytest.mark.parametrize(
    "expr",
    [
        i > 1,
        i >= 1.5,
        i == u,
        (f != NAN) & (s < "x") & t,
        ~(t == False) | (f / 2 - i > -u),  # noqa: E712
        s.is_in(["x", None]),
        i.is_in([1, 2.0, "x"]),
        f.is_in([1, NAN]),
        f.is_null() | s.is_not_null(),
        col("missing") == 1,
        i.cast(float) / f > 1,
        t + t == 2,
    ],
)
def test_a_simple_expression_on_simple_columns_is_left_to_arrow(expr: Expr) -> None:
    assert is_vectorised(expr, PLAIN)


@pytest.mark.parametrize(
    ("expr", "type_"),
    [
        (a < 1, pa.string()),
        (a % 2 == 0, pa.int64()),
        (a // 2 == 0, pa.int64()),
        (a == 2**63, pa.int64()),
        (a == Decimal(1), pa.int64()),
        (a == "\ud800", pa.string()),
        (a.cast(int) == 1, pa.string()),
        (a.cast(float) == 1, pa.string()),
        (a.cast(int) == 1, pa.float64()),
        (a.cast(str) == "1.0", pa.float64()),
        (a[0] == 1, pa.list_(pa.int64())),
        (a == 1, pa.decimal128(5, 2)),
        (a == datetime.date(2024, 1, 1), pa.date32()),
        (a.is_in([Decimal(1)]), pa.int64()),
        (-a == 1, pa.string()),
        (a == 1.5, pa.float16()),
        (a.is_null(), pa.dense_union([pa.field("x", pa.int64())])),
    ],
)
def test_what_arrow_might_see_differently_is_left_to_the_rows(expr: Expr, type_: pa.DataType) -> None:
    assert not is_vectorised(expr, pa.schema([("a", type_)]))


def test_a_field_of_a_struct_and_a_dictionary_are_left_to_arrow() -> None:
    struct = pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])
    assert is_vectorised((a["x"] > 1) & a["y"].is_null() & a["z"].is_null() & a.is_not_null(), pa.schema([("a", struct)]))
    assert is_vectorised(a == "x", pa.schema([("a", pa.dictionary(pa.int8(), pa.string()))]))


@pytest.mark.parametrize(
    ("expr", "batch", "expected"),
    [
        (~(a == 1), one_column([1, None, 2]), [False, True, True]),
        (a != 1, one_column([1, None, 2]), [False, False, True]),
        ((a == 1) == lit(False), one_column([1, None, 2]), [False, True, True]),
        ((a == 1).is_null(), one_column([1, None, 2]), [False, False, False]),
        (~(a != NAN), one_column([NAN, None, 1.0]), [False, True, False]),
        (a.is_in([NAN, 0.0]), one_column([NAN, -0.0, 0.0]), [False, True, True]),
        (a.is_in([2**63, BIG + 1]), one_column([float(2**63), float(BIG)]), [True, False]),
        (a == True, one_column([1, 2, None]), [True, False, False]),  # noqa: E712
        (a + a == 2, one_column([True, False, None]), [True, False, False]),
        (a > float(BIG), one_column([BIG + 1, BIG, BIG - 1]), [True, False, False]),
        (a == BIG + 1, one_column([float(BIG), float(BIG + 2)]), [False, False]),
        (a / 3 == (BIG + 1) / 3, one_column([BIG + 1, BIG]), [True, False]),
        (a + 1 > 0, one_column([2**63 - 1, -(2**63)]), [True, False]),
        (-a > 0, one_column([-(2**63), 1]), [True, False]),
        (a * a > 0, one_column([2**62, 0]), [True, False]),
        (a > 2**63, one_column([2**64 - 1, 0], pa.uint64()), [True, False]),
        (a > 2**63 - 2, one_column([2**64 - 1, None], pa.uint64()), [True, False]),
        (a < 2**70, one_column([2**63 - 1, None]), [True, False]),
        (a == 0.1, one_column([0.1], pa.float32()), [False]),
        (a == 1, one_column(["1", None]), [False, False]),
        (a != 1, one_column(["1", None]), [True, False]),
        (a == Decimal("1.50"), one_column([Decimal("1.5"), None]), [True, False]),
        (a == 1.5, one_column([Decimal("1.5"), None]), [True, False]),
        (a > datetime.date(2024, 1, 1), one_column([datetime.date(2024, 1, 2), None]), [True, False]),
        (
            a == "x",
            one_column(["x", None, "y"]).cast(pa.schema([("a", pa.dictionary(pa.int8(), pa.string()))])),
            [True, False, False],
        ),
        (a["x"] == 1, one_column([{"x": 1}, None, {"x": None}]), [True, False, False]),
        (a["x"].is_null(), one_column([{"x": 1}, None, {"x": None}]), [False, True, True]),
        (a[0].is_null(), one_column([{"x": 1}, None]), [True, True]),
        (a[1] == 2, one_column([[1, 2], [1], None]), [True, False, False]),
        (a & True, one_column([NAN, 0.0, None]), [True, False, False]),
        (a | False, one_column(["", "x", None]), [False, True, False]),
        (a, one_column([0, 5, None]), [False, True, False]),
        (lit(2) > 1, one_column([1, 2]), [True, True]),
        (lit(None) | b, one_column([1, 2]), [False, False]),
        (a > "\U00010000", one_column(["\uffff", "\U00010001"]), [False, True]),
        (1 / a > 0, one_column([], pa.int64()), []),
    ],
)
def test_a_mask_is_what_the_rows_say(expr: Expr, batch: pa.RecordBatch, expected: list[bool]) -> None:
    assert mask(expr, batch) == naive(expr, batch) == expected


def test_the_first_failing_row_raises_its_own_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        compute_mask(1 / a > 0, one_column([1, 0]))
    with pytest.raises(TypeError, match="'<' not supported between instances of 'str' and 'int'"):
        compute_mask(a < 1, one_column([None, "x"]))
    with pytest.raises(ZeroDivisionError):
        compute_mask(lit(1.0) / a > 0, one_column([-0.0]))


def test_a_left_side_protects_the_right_side_in_a_mask() -> None:
    batch = one_column([0, 1, None, 100])
    assert mask((a != 0) & (1 / a > 0.1), batch) == [False, True, False, False]
    assert mask((a == 0) | (1 / a > 0.1), batch) == [True, True, False, False]
    assert mask((lit(1) == 2) & (1 / a > 0.1), batch) == [False] * 4


def test_rows_that_a_leading_conjunct_rules_out_are_never_made() -> None:
    batch = pa.record_batch({"a": [1, 2, 3], "s": ["x", "7", "y"]})
    assert mask((a == 2) & (s.cast(int) == 7), batch) == [False, True, False]


def test_columns_that_are_not_needed_are_never_converted() -> None:
    far = pa.array([10**15], pa.timestamp("s"))  # no datetime can hold it
    batch = pa.record_batch({"a": [4], "far": far})
    assert mask(a % 2 == 0, batch) == [True]
    with pytest.raises((OverflowError, ValueError)):
        far.to_pylist()


def test_the_last_of_equally_named_columns_counts() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert mask(a == 2, batch) == mask(a % 3 == 2, batch) == [True]


def test_a_struct_with_two_fields_of_a_name_is_refused_as_by_the_rows() -> None:
    struct = pa.StructArray.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["x", "x", "y"])
    with pytest.raises(ValueError, match="duplicate field names"):
        compute_mask(a["y"] == 3, pa.record_batch({"a": struct}))


def test_a_slice_of_a_batch_is_masked_alone() -> None:
    batch = one_column([1, None, 3, 4]).slice(1, 2)
    assert mask(a > 2, batch) == mask(a % 2 == 1, batch) == [False, True]


# Filters and pruning


def kept(expr: Expr, values: list[Any], type_: pa.DataType | None = None) -> list[Any]:
    return list(pa.table({"a": pa.array(values, type_)}).filter(expr.to_pyarrow_expr())["a"].to_pylist())


@pytest.mark.parametrize(
    ("expr", "values", "expected"),
    [
        (a > 1, [1, 2, None], [2]),
        (~(a > 1), [1, 2, None], [1, None]),
        (~(~(a > 1)), [1, 2, None], [2]),
        (~((a > 1) & (a < 3)), [1, 2, None], [1, None]),
        ((a == 1) == lit(False), [1, 2, None], [2, None]),
        (a.is_null() | (a * 2 - 1 + 0 == 3), [1, 2, None], [2, None]),
        (a.is_not_null(), [1, None], [1]),
        (a.is_in([1, None, 5]), [1, 2, None], [1]),
        (~a.is_in([1]), [1, 2, None], [2, None]),
        (~a.is_in([None]), ["x", None], ["x", None]),
        (a / 2 == 0.5, [1, 2, None], [1]),
        (-a == -1, [1, 2, None], [1]),
        (a.cast(float) == 1.0, [1, 2, None], [1]),
        ((a - 1) & True, [1, 2, None], [2]),
        (lit(0) | (a == 1), [1, 2], [1]),
        (a["x"] == 1, [{"x": 1}, {"x": 2}, None], [{"x": 1}]),
        (a == "x", ["x", "y", None], ["x"]),
        (~a, [True, False, None], [False, None]),
    ],
)
def test_an_arrow_filter_keeps_the_same_rows(expr: Expr, values: list[Any], expected: list[Any]) -> None:
    assert kept(expr, values) == expected == [v for v in values if expr.evaluate({"a": v})]


@pytest.mark.parametrize(
    "expr",
    [
        a // 2 == 1,
        a % 2 == 1,
        a[0] == 1,
        lit([1])["x"] == 1,
        a.cast(str) == "1",
        a.cast(bool),
        a == object(),
        a == 2**70,
        a.is_in([1, "x"]),
    ],
)
def test_what_arrow_cannot_express_is_named(expr: Expr) -> None:
    with pytest.raises(PlanError, match=r"Arrow has no expression with the meaning of .*; filter the records"):
        expr.to_pyarrow_expr()


def surviving_rows(expr: Expr, batch: pa.RecordBatch, rows_per_group: int = 1) -> set[int]:
    """Return the rows that remain of a Parquet file when row groups are skipped by statistics and then rows by the filter."""
    pruned = prune_expr(expr, batch.schema)
    if pruned is None:
        return set(range(batch.num_rows))
    table = pa.Table.from_batches([batch]).append_column("#", pa.array(range(batch.num_rows), pa.int64()))
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=rows_per_group)
    fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(file.getvalue()))
    by_groups = {row for part in fragment.split_by_row_group(pruned) for row in part.to_table(columns=["#"])["#"].to_pylist()}
    return by_groups & set(table.filter(pruned)["#"].to_pylist())


SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.float32()), ("s", pa.string()), ("t", pa.bool_()), ("d", pa.int8())])


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (a > 1, "(a > 1)"),
        (a < 1, "(a < 1)"),
        (operator.gt(lit(1), a), "(a < 1)"),
        (operator.le(lit(1), a), "(a >= 1)"),
        (b < NAN, None),
        ((a > 1) & (s.cast(int) == 1), "(a > 1)"),
        ((a % 2 == 1) & (s == "x"), None),
        ((1 / a > 1) & (s == "x"), None),
        ((a + 1 > 1) & (s == "x"), '(s == "x")'),
        ((a > 1) | (s == "x"), '((a > 1) or (s == "x"))'),
        ((a > 1) | (a % 2 == 1), None),
        (a > 1.5, "(a >= 2)"),
        (a == 1.5, None),
        (a > float("inf"), None),
        (a != 1, "(a != 1)"),
        (b != 1, None),
        (b == NAN, None),
        (b < 1, "(b < 1)"),
        (~(b < 1), None),
        (a.is_null(), "is_null(a, {nan_is_null=false})"),
        (a.is_not_null(), "is_valid(a)"),
        (t & (a > 1), "(t and (a > 1))"),
        (col("d") < 1000, None),
        (a == "x", None),
        (a == None, None),  # noqa: E711
        (col("missing") == 1, None),
        (a == b, None),
    ],
)
def test_only_what_is_certain_prunes(expr: Expr, text: str | None) -> None:
    pruned = prune_expr(expr, SCHEMA)
    assert (None if pruned is None else str(pruned)) == text


def test_pruning_skips_row_groups_by_their_statistics() -> None:
    batch = pa.record_batch({"a": [1, 2, 3, 4, None, None], "s": ["a", "b", "c", "d", "e", "f"]})
    assert surviving_rows((a > 2) & (a % 2 == 0), batch, 2) == {2, 3}
    assert surviving_rows(a.is_in([4, 9]), batch, 2) == {3}
    assert surviving_rows(a.is_null() | (s == "b"), batch, 2) == {1, 4, 5}


def test_pruning_for_zero_keeps_minus_zero() -> None:
    batch = pa.record_batch({"a": [-0.0, 1.0]})
    assert surviving_rows(a.is_in([0.0]), batch) == surviving_rows(a == 0.0, batch) == {0}


def test_pruning_with_two_columns_of_a_name_says_nothing() -> None:
    assert prune_expr(a > 1, pa.schema([("a", pa.int64()), ("a", pa.int64())])) is None


# Properties


INTS = st.sampled_from([0, 1, -1, 2, 3, 127, BIG, BIG + 1, -BIG - 1, 2**62, 2**63 - 1, -(2**63)])
FLOATS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.5, 0.1, NAN, math.inf, -math.inf, float(BIG), float(BIG + 2), 1e300, 2.0**63, 5e-324]
)
TEXTS = st.sampled_from(["", "a", "b", "1", " 2", "0x1", "ß", "\uffff", "\U00010001"])
DATES = st.sampled_from([datetime.date(2024, 1, 1), datetime.date(1969, 12, 31)])
NAIVE_TIMES = st.sampled_from([datetime.datetime(2024, 1, 1), datetime.datetime(1969, 12, 31, 23)])  # noqa: DTZ001
UTC_TIMES = NAIVE_TIMES.map(lambda time: time.replace(tzinfo=datetime.UTC))
DECIMALS = st.sampled_from([Decimal("1.00"), Decimal("-1.50"), Decimal(0)])
SMALL = st.integers(0, 3)


def _narrow(value: float) -> float:
    return float(pa.scalar(value, pa.float32()).as_py())


COLUMNS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), INTS),
    (pa.int8(), st.sampled_from([-128, -1, 0, 1, 127])),
    (pa.uint64(), st.sampled_from([0, 1, BIG + 1, 2**63 - 1, 2**63, 2**64 - 1])),
    (pa.float64(), FLOATS),
    (pa.float32(), FLOATS.map(_narrow)),
    (pa.bool_(), st.booleans()),
    (pa.string(), TEXTS),
    (pa.large_string(), TEXTS),
    (pa.binary(), st.sampled_from([b"", b"a", b"\xff"])),
]
ODD_COLUMNS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.dictionary(pa.int8(), pa.string()), TEXTS),
    (pa.date32(), DATES),
    (pa.timestamp("us"), NAIVE_TIMES),
    (pa.timestamp("us", "Europe/Berlin"), UTC_TIMES),
    (pa.decimal128(5, 2), DECIMALS),
    (pa.list_(pa.int64()), st.lists(INTS, max_size=2)),
    (
        pa.struct([("x", pa.int64()), ("y", pa.string())]),
        st.fixed_dictionaries({"x": st.none() | INTS, "y": st.none() | TEXTS}),
    ),
]
LITERALS = st.one_of(
    st.none(),
    st.booleans(),
    INTS,
    FLOATS,
    TEXTS,
    SMALL,
    st.sampled_from([2**64, 10**400, b"a", "\ud800"]),
    DATES,
    UTC_TIMES,
    DECIMALS,
)
NAMES = ["a", "b", "c", "missing"]


@st.composite
def batches(draw: st.DrawFn, columns: list[tuple[pa.DataType, st.SearchStrategy[Any]]], names: list[str]) -> pa.RecordBatch:
    rows = draw(st.integers(0, 4))
    arrays = []
    for _ in names:
        type_, values = draw(st.sampled_from(columns))
        arrays.append(pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), type_))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def _comparison(op: str, left: Expr, right: Any) -> Expr:
    compare = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
    return compare[op](left, right)  # type: ignore[no-any-return]


def _calculation(op: str, left: Expr, right: Any) -> Expr:
    calculate = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": operator.floordiv,
        "%": operator.mod,
    }
    return calculate[op](left, right)  # type: ignore[no-any-return]


OPS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
COLUMN = st.sampled_from(NAMES).map(col)
LITERAL = LITERALS.map(lit)


def _grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(_comparison, OPS, inner, inner),
        st.builds(operator.and_, inner, inner),
        st.builds(operator.or_, inner, inner),
        st.builds(_calculation, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner, inner),
        st.builds(operator.invert, inner),
        st.builds(operator.neg, inner),
        st.builds(Expr.is_null, inner),
        st.builds(Expr.is_in, inner, st.lists(LITERALS, max_size=3)),
        st.builds(Expr.cast, inner, st.sampled_from(["int", "float", "str", "bool"])),
        st.builds(operator.getitem, inner, st.sampled_from(["x", "y", "z", 0, -1])),
    )


SIMPLE = st.one_of(
    st.builds(_comparison, OPS, COLUMN, LITERAL),
    st.builds(_comparison, OPS, LITERAL, COLUMN),
    st.builds(_comparison, OPS, COLUMN, COLUMN),
    st.builds(Expr.is_in, COLUMN, st.lists(LITERALS, max_size=3)),
    st.builds(Expr.is_null, COLUMN),
)
ANY = st.recursive(COLUMN | LITERAL | SIMPLE, _grow, max_leaves=6)
FEW = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(ANY, batches(COLUMNS + ODD_COLUMNS, ["a", "b", "c"]))
@example((a != 0) & (1 / a > 0), pa.record_batch({"a": [0, 1]}))
def test_a_mask_agrees_with_evaluating_every_record(expr: Expr, batch: pa.RecordBatch) -> None:
    assert mask(expr, batch) == naive(expr, batch)


@FEW
@given(SIMPLE, batches(COLUMNS, ["a", "b", "c"]))
def test_a_mask_of_one_comparison_agrees_with_evaluating_every_record(expr: Expr, batch: pa.RecordBatch) -> None:
    assert mask(expr, batch) == naive(expr, batch)
    assert mask(~expr, batch) == naive(~expr, batch)


PRUNABLE = st.recursive(
    SIMPLE | COLUMN,
    lambda inner: (
        st.builds(operator.and_, inner, inner | ANY) | st.builds(operator.or_, inner, inner) | st.builds(operator.invert, inner)
    ),
    max_leaves=4,
)


@FEW
@given(PRUNABLE, batches(COLUMNS, ["a", "b", "c"]), st.integers(1, 3))
def test_pruning_drops_no_row_that_is_true_or_raises(expr: Expr, batch: pa.RecordBatch, rows_per_group: int) -> None:
    answers = [naive(expr, batch.slice(row, 1)) for row in range(batch.num_rows)]
    wanted = {row for row, answer in enumerate(answers) if answer != [False]}
    assert wanted <= surviving_rows(expr, batch, rows_per_group)


NUMBER = st.sampled_from(["a", "b"]).map(col) | SMALL.map(lit)
TYPED = st.recursive(
    st.builds(_comparison, OPS, NUMBER, st.builds(_calculation, st.sampled_from(["+", "-", "*"]), NUMBER, NUMBER))
    | st.builds(_comparison, OPS, st.just(s), st.sampled_from(["x", "y"]))
    | st.builds(Expr.is_in, st.just(a), st.lists(SMALL, min_size=1))
    | st.builds(Expr.is_null, st.sampled_from([a, b, s]))
    | st.just(t),
    lambda inner: (
        st.builds(operator.and_, inner, inner) | st.builds(operator.or_, inner, inner) | st.builds(operator.invert, inner)
    ),
)
TYPED_RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | SMALL,
            "b": st.none() | st.sampled_from([0.0, 1.0, 1.5, NAN]),
            "s": st.none() | st.sampled_from(["x", "y"]),
            "t": st.none() | st.booleans(),
        }
    ),
    max_size=4,
)


@FEW
@given(TYPED, TYPED_RECORDS)
def test_an_arrow_filter_agrees_with_evaluating_every_record(expr: Expr, records: list[dict[str, Any]]) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.float64()), ("s", pa.string()), ("t", pa.bool_()), ("#", pa.int64())])
    table = pa.Table.from_pylist([{**record, "#": row} for row, record in enumerate(records)], schema)
    expected = [row for row, record in enumerate(records) if expr.evaluate(record)]
    assert table.filter(expr.to_pyarrow_expr())["#"].to_pylist() == expected
