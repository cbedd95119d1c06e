"""Options that several commands share, so that the same word means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScriptFile = Annotated[
    Path, typer.Argument(metavar="SCRIPT", exists=True, dir_okay=False, help="A Python file.", show_default=False)
]
ScriptArgs = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGS", help="What the script finds in sys.argv; put -- before options of its own."),
]
EntryPoint = Annotated[
    str, typer.Option(metavar="NAME", help="The function of the script to call, without arguments. It may return a Dataset.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
