"""Zephyr: lazy datasets in shards that pass data as inline values or as files on any storage."""

from zephyr.dataset import Dataset
from zephyr.errors import (
    ChunkCorrupted,
    ChunkMissing,
    OutputConflict,
    PlanError,
    StageError,
    StorageError,
    ZephyrError,
)
from zephyr.execution import Backend, BackendConfig
from zephyr.io.text import load_text
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
    "ExecutionHint",
    "OutputConflict",
    "PhysicalPlan",
    "PhysicalStage",
    "PlanError",
    "Shard",
    "StageContext",
    "StageError",
    "StageType",
    "StorageError",
    "ZephyrError",
    "compute_plan",
    "load_text",
    "run_stage",
]
