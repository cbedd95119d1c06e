"""``zephyr run``: a script on a context."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Annotated, Any, TextIO

import typer
from fray import ContextConfig

from zephyr.cli.options import AsJson, EntryPoint, ScriptArgs, ScriptFile
from zephyr.cli.output import reserved_stdout
from zephyr.cli.script import open_script
from zephyr.dataset import Dataset
from zephyr.execution.backend import Backend
from zephyr.execution.defaults import Defaults
from zephyr.io.jsonl import JsonlWriter


class ContextName(enum.Enum):
    """What ``--context`` takes."""

    AUTO = "auto"
    THREADPOOL = "threadpool"
    FRAY = "fray"
    RAY = "ray"
    SYNC = "sync"


def run_script(
    script: ScriptFile,
    args: ScriptArgs = None,
    context: Annotated[
        ContextName, typer.Option(help="Where tasks run; auto is Fray if a controller is known, else threads.")
    ] = ContextName.AUTO,
    controller: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Fray's controller, or local[N] for a private one with N slots. Else FRAY_ADDRESS."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Tasks at a time: threads, Ray's CPUs, or the slots of a private Fray cluster."),
    ] = None,
    max_parallelism: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Tasks of a run under way at a time. Default: 1024.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where intermediate data goes. Else FRAY_STORAGE, else a temporary directory."),
    ] = None,
    entry_point: EntryPoint = "main",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plans; run no tasks and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a script.

    The script's function main() is called. Its datasets run on the context that the options name; if it returns a Dataset,
    that is run too and its items are printed, one a line. With --json they are JSON, and what the script itself prints goes
    to standard error. Options for the script come after --.
    """
    chosen = choose_context(context.value, controller, workers)
    if dry_run and as_json:
        raise typer.BadParameter("a dry run prints text; use zephyr explain --json", param_hint="--json")
    defaults = Defaults(max_parallelism, storage, dry_run)
    place = ContextConfig("sync") if dry_run else chosen
    with reserved_stdout(as_json) as out, open_script(script, entry_point, args or [], place, defaults) as call:
        _print_result(call(), out, as_json)


def choose_context(context: Any, controller: str | None, workers: int | None) -> ContextConfig:
    """Return the context that the options name.

    Raises:
        typer.BadParameter: if they contradict each other.
    """
    if context == "sync" and workers not in (None, 1):
        raise typer.BadParameter("the sync context runs one task at a time; use --context threadpool", param_hint="--workers")
    if controller is not None and context not in ("auto", "fray"):
        raise typer.BadParameter(f"a controller is for --context fray, not {context}", param_hint="--controller")
    if controller is not None and workers is not None and not controller.startswith("local"):
        raise typer.BadParameter("the workers of a controller decide how many tasks they take", param_hint="--workers")
    if context == "fray" and controller is None and workers is not None:
        return ContextConfig("fray", None, f"local[{workers}]")
    return ContextConfig(context, workers, controller)


def _print_result(result: Any, out: TextIO, as_json: bool) -> None:
    items: Iterable[Any]
    if isinstance(result, Dataset):
        items = Backend.iterate(result)
    else:
        items = () if result is None else (result,)
    if as_json:
        out.flush()
        JsonlWriter().write(out.buffer, "standard output", items)
        return
    for item in items:
        print(_line(item), file=out)


def _line(item: Any) -> str:
    return item if isinstance(item, str) and item.replace("\t", "").isprintable() else repr(item)
