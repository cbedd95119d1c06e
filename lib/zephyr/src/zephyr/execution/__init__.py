"""Carry out a plan on a context."""

from zephyr.execution.backend import Backend, BackendConfig

__all__ = ["Backend", "BackendConfig"]
