"""Fray: Python tasks and actors on this thread, on threads, on Ray, or on Fray's own controller and workers."""

from fray.errors import FrayError
from fray.job.actors import save_checkpoint
from fray.job.context import (
    ContextConfig,
    JobContext,
    create_job_ctx,
    fray_default_job_ctx,
    get_actor,
    get_default_job_ctx,
    kill,
)
from fray.job.executor import FrayExecutor
from fray.job.futures import JobFuture, Ref
from fray.types import ActorOptions, ActorStatus, TaskOptions

__version__ = "0.1.0"

__all__ = [
    "ActorOptions",
    "ActorStatus",
    "ContextConfig",
    "FrayError",
    "FrayExecutor",
    "JobContext",
    "JobFuture",
    "Ref",
    "TaskOptions",
    "create_job_ctx",
    "fray_default_job_ctx",
    "get_actor",
    "get_default_job_ctx",
    "kill",
    "save_checkpoint",
]
