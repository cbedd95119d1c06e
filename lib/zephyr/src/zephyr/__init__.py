"""Zephyr: lazy datasets in shards that pass data as inline values or as files on any storage."""

from zephyr import counters
from zephyr.bad_records import ErrorPolicy
from zephyr.dataset import Dataset
from zephyr.errors import (
    ChunkCorrupted,
    ChunkMissing,
    OutputConflict,
    PlanChanged,
    PlanError,
    StageError,
    StorageError,
    TooManyBadRecords,
    ZephyrError,
)
from zephyr.execution import Backend, BackendConfig
from zephyr.expr import Expr, col, lit
from zephyr.io.load import load_csv, load_file, load_jsonl, load_parquet, load_text, load_vortex
from zephyr.plan import ExecutionHint, PhysicalPlan, PhysicalStage, StageType, compute_plan
from zephyr.shard import Shard
from zephyr.stage import ChunkHeader, StageContext, run_stage

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendConfig",
    "ChunkCorrupted",
    "ChunkHeader",
    "ChunkMissing",
    "Dataset",
    "ErrorPolicy",
    "ExecutionHint",
    "Expr",
    "OutputConflict",
    "PhysicalPlan",
    "PhysicalStage",
    "PlanChanged",
    "PlanError",
    "Shard",
    "StageContext",
    "StageError",
    "StageType",
    "StorageError",
    "TooManyBadRecords",
    "ZephyrError",
    "col",
    "compute_plan",
    "counters",
    "lit",
    "load_csv",
    "load_file",
    "load_jsonl",
    "load_parquet",
    "load_text",
    "load_vortex",
    "run_stage",
]
