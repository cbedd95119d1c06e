"""Public help for testing code that runs on Fray, and contexts of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fray.testing.checks import CHECKS
from fray.testing.contract import check_context
from fray.testing.faulty_storage import FaultyStorage, StorageFault, StorageFaultKind
from fray.testing.polling import eventually

if TYPE_CHECKING:
    from fray.job.rpc.wire.faults import count_faults

__all__ = ["CHECKS", "FaultyStorage", "StorageFault", "StorageFaultKind", "check_context", "count_faults", "eventually"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: it comes with the network stack.
    if name == "count_faults":
        from fray.job.rpc.wire.faults import count_faults

        return count_faults
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
