"""The program: its commands, ``--version``, and how errors leave it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fray import __version__
from fray.cli import actors, cancel, controller, exits, kill, local, run, status, tasks, why, worker, workers
from fray.errors import FrayError

app = typer.Typer(
    name="fray",
    help="Run Python tasks and actors on a controller and workers, and see what they do.",
    epilog=exits.HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("controller")(controller.serve_controller)
app.command("worker")(worker.serve_worker)
app.command("local")(local.serve_local)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run_script)
app.command("status")(status.show_status)
app.command("tasks")(tasks.list_tasks)
app.command("actors")(actors.list_actors)
app.command("workers")(workers.list_workers)
app.command("why")(why.explain)
app.command("cancel")(cancel.cancel_tasks)
app.command("kill")(kill.kill_actor)


def main() -> None:
    """Run the command line and end the process with an exit code."""
    try:
        app(prog_name="fray")
    except FrayError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(exits.find_exit_code(error))
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fray {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Take the options before the command."""
