"""The inputs of the data workloads, made once and kept, and the checks of outputs; both in an environment of their own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from environments import DATA, ENVS, REQUIREMENTS, ensure_environment
from processes import EngineFailed

FOLDER = ENVS / ".data"
"""Beside the environments: as big, as easily made again, and ignored as they are."""
HERE = Path(__file__).resolve().parent
NAMES = ("D1", "D2", "D2s")
TINY = 0.0001
"""The scale of what engines warm up with: a few records a file."""


def ensure_inputs(scale: float) -> Path:
    """Return the folder with D1, D2 and D2s at a scale, making it first if it is missing or how it is made has changed."""
    home = FOLDER / f"{scale:g}-{_fingerprint()}"
    stamp = home / "made"
    if stamp.exists():
        return home
    for stale in FOLDER.glob(f"{scale:g}-*"):
        shutil.rmtree(stale)
    print(f"making the inputs at scale {scale:g}, and what must become of them", file=sys.stderr)
    for name in NAMES:
        (home / name).mkdir(parents=True)
        _run_script("generate.py", f"{scale:g}", name, str(home / name)).check_returncode()
        _run_script("checks.py", "compute", str(home / name)).check_returncode()
    stamp.touch()
    return home


def verify(work: str, source: Path, output: Path, files: str) -> dict[str, Any]:
    """Return what an output holds.

    Raises:
        EngineFailed: if that is not what it must be.
    """
    result = _run_script("checks.py", "verify", work, str(source), str(output), files, capture_output=True, text=True)
    if result.returncode:
        raise EngineFailed(f"wrong answer: {(result.stderr.strip().splitlines() or ['the check ended'])[-1][:300]}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def _run_script(script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ensure_environment(DATA), HERE / script, *arguments], check=False, **options)


def _fingerprint() -> str:
    texts = [(HERE / name).read_text() for name in ("generate.py", "checks.py")]
    return hashlib.sha256("\n".join((*texts, *REQUIREMENTS[DATA])).encode()).hexdigest()[:12]
