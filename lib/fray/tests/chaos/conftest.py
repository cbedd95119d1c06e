"""The modules beside these tests are a package of their own, and use the witness of the tests of actors."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(_TESTS), str(_TESTS / "actors")]
