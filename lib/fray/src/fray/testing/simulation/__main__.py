"""``python -m fray.testing.simulation``: the command line."""

from __future__ import annotations

import sys

from fray.testing.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
