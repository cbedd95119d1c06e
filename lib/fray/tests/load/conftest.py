"""The modules beside these tests are a package of their own."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))
