"""The program: its commands, ``--version``, and how errors leave it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from fray import FrayError

from zephyr import __version__
from zephyr.cli import clean, exits, explain, inspect, run
from zephyr.errors import ZephyrError

app = typer.Typer(
    name="zephyr",
    help="Run scripts that define datasets, and see what runs have left on storage.",
    epilog=exits.HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run_script)
app.command("explain")(explain.explain_script)
app.command("inspect")(inspect.inspect_path)
app.command("clean")(clean.clean_prefix)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of the process, and end the process with an exit code."""
    try:
        app(args, prog_name="zephyr")
    except (ZephyrError, FrayError) as error:
        notes = getattr(error, "__notes__", ())
        print("\n".join((f"Error: {error}", *notes)), file=sys.stderr)
        sys.exit(exits.find_exit_code(error))
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"zephyr {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Take the options before the command."""
