"""Which rows of a record batch fulfil an expression: told by Arrow where it means the same, by evaluating rows where not."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zephyr.expr.nodes import Expr, combine, conjuncts, extract_columns
from zephyr.expr.vectors import FAILURES, truth_of, vector_of
from zephyr.io.columnar import batch_records


def compute_mask(expr: Expr, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Return for each row whether the expression is true for it, without nulls; of equally named columns the last counts.

    Leading conjuncts that Arrow can compute are, and spare the other rows the Python that may follow.

    Raises:
        ZeroDivisionError, TypeError, ...: what ``expr.evaluate`` raises for the first row for which it does.
    """
    mask = None
    parts = conjuncts(expr)
    for position, part in enumerate(parts):
        try:
            found = truth_of(vector_of(part, batch))
        except FAILURES:
            return _mask_by_rows(combine(parts[position:]), batch, mask)
        mask = found if mask is None else pc.and_(mask, found)
    return pa.repeat(mask, batch.num_rows) if isinstance(mask, pa.Scalar) else mask


def is_vectorised(expr: Expr, schema: pa.Schema) -> bool:
    """Tell whether ``compute_mask`` leaves the whole expression to Arrow, as far as types and literals can tell."""
    positions = _needed(expr, schema)
    try:
        columns = [pa.array([], schema.field(i).type) for i in positions]
        truth_of(vector_of(expr, pa.RecordBatch.from_arrays(columns, schema=pa.schema([schema.field(i) for i in positions]))))
    except FAILURES:
        return False
    return True


def _needed(expr: Expr, schema: pa.Schema) -> list[int]:
    found = [schema.get_all_field_indices(name) for name in sorted(extract_columns(expr))]
    return [indices[-1] for indices in found if indices]


def _mask_by_rows(expr: Expr, batch: pa.RecordBatch, among: Any) -> pa.BooleanArray:
    """Evaluate the expression for the rows in the mask ``among``, all if it is None; the others are false."""
    rows = batch.select(_needed(expr, batch.schema))
    if isinstance(among, pa.Scalar):
        among = pa.repeat(among, batch.num_rows)
    if among is not None:
        rows = rows.filter(among)
    found = pa.array([bool(expr.evaluate(record)) for record in batch_records(rows)], pa.bool_())
    return found if among is None else pc.replace_with_mask(among, among, found)
