"""The helpers beside these tests are modules that actors can import too: the path travels with their classes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
