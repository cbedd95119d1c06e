"""Turn a dataset into stages. Pure: the same dataset gives the same plan, and nothing is read or written."""

from zephyr.plan.build import compute_plan
from zephyr.plan.values import DEFAULT_CHUNK_SIZE, ExecutionHint, PhysicalPlan, PhysicalStage, SourcePart, StageType

__all__ = [
    "DEFAULT_CHUNK_SIZE",
    "ExecutionHint",
    "PhysicalPlan",
    "PhysicalStage",
    "SourcePart",
    "StageType",
    "compute_plan",
]
