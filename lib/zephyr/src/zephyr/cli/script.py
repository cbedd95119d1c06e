"""A user's script as the main module of this process.

The functions of a script must arrive on workers, which do not have its file. What is in ``__main__`` travels by value on every
context, so that is what the script becomes. But its tests of ``__name__ == "__main__"`` are false: what it does when it is run
by itself must not run beside its entry point.
"""

from __future__ import annotations

import ast
import inspect
import symtable
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import decode_source
from pathlib import Path
from typing import Any

import typer
from fray import ContextConfig, FrayError, fray_default_job_ctx

from zephyr.cli.exits import FAILED
from zephyr.errors import ZephyrError
from zephyr.execution.defaults import Defaults, use_defaults

MAIN = "__main__"


@contextmanager
def open_script(
    path: Path, entry_point: str, args: Sequence[str], context: ContextConfig, defaults: Defaults
) -> Iterator[Callable[[], Any]]:
    """Load a script and yield its entry point, within a default context and defaults of runs that end with the body.

    An exception of the script's is printed as Python does, and turned into an exit code.

    Raises:
        typer.BadParameter: if there is no such entry point, before anything of the script has run; or if it needs arguments.
        FrayError: if there is no such context, or if a task ends other than by its own exception.
        ZephyrError: if the dataset or the storage is to blame.
    """
    with _shown_errors(path):
        code = _compile(path, entry_point)
        with context.create() as ctx, fray_default_job_ctx(ctx), use_defaults(defaults), _main_module(path, args) as module:
            exec(code, module.__dict__)
            yield _find_entry_point(module, entry_point)


def _compile(path: Path, entry_point: str) -> types.CodeType:
    source, name = path.read_bytes(), str(path.absolute())
    tree = ast.parse(source, name)
    symbols = symtable.symtable(decode_source(source), name, "exec").get_symbols()
    if not any(symbol.get_name() == entry_point and (symbol.is_assigned() or symbol.is_imported()) for symbol in symbols):
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        known = f"it has {', '.join(functions)}" if functions else "it has no function"
        raise typer.BadParameter(f"{path} has no {entry_point}(): {known}; name the one to call", param_hint="--entry-point")
    return compile(ast.fix_missing_locations(_NotMain().visit(tree)), name, "exec", dont_inherit=True)


class _NotMain(ast.NodeTransformer):
    """Makes comparisons of ``__name__`` with ``"__main__"`` false."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        sides = [node.left, *node.comparators]
        named = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
        if named and any(isinstance(side, ast.Constant) and side.value == MAIN for side in sides):
            return ast.Constant(isinstance(node.ops[0], ast.NotEq))
        return node


@contextmanager
def _main_module(path: Path, args: Sequence[str]) -> Iterator[types.ModuleType]:
    module = types.ModuleType(MAIN)
    module.__file__ = str(path.absolute())
    before = sys.modules[MAIN], sys.argv, list(sys.path)
    sys.modules[MAIN], sys.argv = module, [str(path), *args]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        yield module
    finally:
        sys.modules[MAIN], sys.argv, sys.path[:] = before


def _find_entry_point(module: types.ModuleType, name: str) -> Callable[[], Any]:
    found: Callable[[], Any] | None = getattr(module, name, None)
    if not callable(found):
        raise typer.BadParameter(f"{name} of {module.__file__} is {found!r:.80}, not a function", param_hint="--entry-point")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        text = f"{name}() cannot be called without arguments: {error}; what the script needs to know is in sys.argv"
        raise typer.BadParameter(text, param_hint="--entry-point") from error
    return found


@contextmanager
def _shown_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (ZephyrError, FrayError, typer.BadParameter, typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        traceback.print_exception(type(error), error, _from_script(error, str(path.absolute())))
        raise typer.Exit(FAILED) from error


def _from_script(error: Exception, path: str) -> types.TracebackType | None:
    """Return the traceback without what happened before the script's code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != path:
        frame = frame.tb_next
    return error.__traceback__ if frame is None else frame
