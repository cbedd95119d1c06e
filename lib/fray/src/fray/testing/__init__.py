"""Public help for testing code that runs on Fray, and contexts of one's own."""

from fray.testing.checks import CHECKS
from fray.testing.contract import check_context
from fray.testing.faulty_storage import FaultyStorage, StorageFault, StorageFaultKind
from fray.testing.polling import eventually

__all__ = ["CHECKS", "FaultyStorage", "StorageFault", "StorageFaultKind", "check_context", "eventually"]
