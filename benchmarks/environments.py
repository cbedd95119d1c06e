"""One virtual environment per engine, made once and used again while its requirements stay the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVS = ROOT / "benchmarks" / ".envs"
ENGINES = ROOT / "benchmarks" / "engines"
FRAY = "fray"
DATA = "data"
"""Makes the inputs and checks the outputs of the data workloads."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How to get and run an engine."""

    name: str
    script: str
    """File in ``engines/``."""
    environment: str
    """Name of its environment; engines may share one."""
    arguments: tuple[str, ...] = ()
    """Given to the script."""
    needs: str = ""
    """A command that must be on this machine, else the engine is skipped."""


TASK_SPECS = {
    spec.name: spec
    for spec in (
        EngineSpec("fray", "fray_engine.py", FRAY),
        EngineSpec("ray", "ray_engine.py", "ray"),
        EngineSpec("dask", "dask_engine.py", "dask"),
        EngineSpec("floor", "floor_engine.py", FRAY),
        EngineSpec("threadpool", "fray_engine.py", FRAY, ("threadpool",)),
        EngineSpec("fray-memory", "fray_engine.py", FRAY, ("memory",)),
        EngineSpec("fray-durable", "fray_engine.py", FRAY, ("durable",)),
    )
}
"""Engines for tasks and actors."""

DATA_SPECS = {
    spec.name: spec
    for spec in (
        EngineSpec("zephyr", "data_zephyr.py", FRAY),
        EngineSpec("dask", "data_dask.py", "dask-data"),
        EngineSpec("datatrove", "data_datatrove.py", "datatrove"),
        EngineSpec("ray", "data_ray.py", "ray-data"),
        EngineSpec("spark", "data_spark.py", "spark", needs="java"),
        EngineSpec("daft", "data_daft.py", "daft"),
        EngineSpec("polars", "data_polars.py", "polars"),
        EngineSpec("floor", "data_floor.py", DATA),
    )
}
"""Engines for data; some go by the name of a task engine, with an environment of their own."""

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    FRAY: ("-c", "constraints.txt", "-e", "lib/fray", "-e", "lib/zephyr"),
    "ray": ("ray==2.60.0",),
    "dask": ("dask==2026.8.0", "distributed==2026.8.0"),
    DATA: ("isal==1.9.1", "msgspec==0.22.0", "numpy==2.4.6", "pyarrow==26.0.1"),
    "dask-data": (
        "dask[bag,dataframe]==2026.8.0",
        "distributed==2026.8.0",
        "isal==1.9.1",
        "orjson==3.13.0",
        "pandas==3.1.1",
        "pyarrow==26.0.1",
    ),
    "datatrove": (
        "datatrove[io]==0.10.1",
        "isal==1.9.1",
        "orjson==3.13.0",
        "pyarrow==26.0.1",
        "regex==2026.11.19",
        "tokenizers==0.23.3",
    ),
    "ray-data": ("ray[data]==2.60.0", "isal==1.9.1", "orjson==3.13.0", "pandas==3.1.1", "pyarrow==26.0.1"),
    "spark": ("pyspark==4.3.0",),
    "daft": ("daft==0.7.26", "pyarrow==25.0.1"),
    "polars": ("polars==2.1.0",),
}


def ensure_environment(name: str) -> Path:
    """Return the Python of an environment, making it first if it is missing or its requirements have changed.

    The project's own ``.venv`` serves Fray when there is one.
    """
    own = ROOT / ".venv" / "bin" / "python"
    if name == FRAY and own.exists():
        return own
    home = ENVS / name
    python = home / "bin" / "python"
    stamp = home / "requirements.stamp"
    wanted = _fingerprint(name)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making the environment for {name}: {' '.join(REQUIREMENTS[name])}", file=sys.stderr)
    venv.create(home, clear=True, with_pip=True, symlinks=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]], cwd=ROOT, check=True)
    stamp.write_text(wanted)
    return python


def clean_environ() -> dict[str, str]:
    """Return an environment without settings that would favour or hinder an engine.

    Byte code is written as anywhere else: else whatever is not installed with it pays for compiling at every start.
    """
    dropped = ("FRAY_", "MARIN_", "RAY_", "DASK_", "DAFT_", "POLARS_", "SPARK_", "PYTHON", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)}


def _fingerprint(name: str) -> str:
    text = "\n".join((sys.version, *REQUIREMENTS[name]))
    if name == FRAY:
        text += (ROOT / "constraints.txt").read_text() + "".join(
            (ROOT / "lib" / name / "pyproject.toml").read_text() for name in ("fray", "zephyr")
        )
    return hashlib.sha256(text.encode()).hexdigest()
