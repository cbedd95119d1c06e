"""``python -m load``: all scenarios at full size, as ``make load`` starts them. Ends with 1 if a bound was not kept."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from load.figures import Report, show_table, to_records
from load.sizes import LOADS


def main() -> int:
    """Run as the command line says."""
    names = [load.name for load in LOADS]
    parser = argparse.ArgumentParser(prog="python -m load", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="NAME", help=f"some of {', '.join(names)}")
    parser.add_argument("--small", action="store_true", help="the sizes of the everyday tests")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    reports: list[Report] = []
    for load in LOADS:
        if load.name in options.only:
            reports.append(load.run(**(load.small if options.small else load.full)))
            print(show_table(reports[-1:]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(to_records(reports), indent=1) + "\n")
    problems = [problem for report in reports for problem in report.problems]
    print(f"\n{len(problems)} bounds not kept", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
