"""Expressions over the columns of a record: what they mean (``nodes``), and how Arrow computes them.

Needs pyarrow only where a name that has to do with Arrow is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zephyr.expr.nodes import Expr, col, combine, extract_columns, lit

if TYPE_CHECKING:
    from zephyr.expr.filters import prune_expr
    from zephyr.expr.mask import compute_mask, is_vectorised

_ARROW = {"compute_mask": "mask", "is_vectorised": "mask", "prune_expr": "filters"}


def __getattr__(name: str) -> Any:
    if name not in _ARROW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ARROW[name]}"), name)


__all__ = ["Expr", "col", "combine", "compute_mask", "extract_columns", "is_vectorised", "lit", "prune_expr"]
