"""Fingerprints of plans: equal in every process for the same work, different when a function, an option or an input changes.

A function counts by its byte code, constants, defaults and closure, and so does what it names as globals: functions, classes
and modules that are neither installed nor Python's own, and plain data. Of lists, sets and dicts only those count whose names
are in capitals: others may be state. Installed packages are taken as given, and so is what a function reads by itself.
"""

from __future__ import annotations

import copyreg
import functools
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

import xxhash

from zephyr.ops import Join, PhysicalOp, Scatter, Union
from zephyr.plan.values import PhysicalPlan

_ATOMS = (type(None), bool, int, float, complex, str, bytes)
_CONSTANTS = (*_ATOMS, tuple, frozenset, re.Pattern, Enum, functools.partial)
_CONTAINERS = (list, set, dict)


def fingerprint(value: Any) -> str:
    """Return 32 hexadecimal digits that stand for a value: an operation, a function, an item."""
    return _digest(value, set())


def _digest(value: Any, seen: set[int]) -> str:
    digest = xxhash.xxh3_128()
    for piece in _pieces(value, seen):
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return str(digest.hexdigest())


def plan_fingerprints(plan: PhysicalPlan) -> list[tuple[str, str]]:
    """Return (what it is in words, fingerprint) of the source and of every operation, in order."""
    result = [(f"source: {plan.num_shards} items", source_fingerprint(plan))]
    for number, stage in enumerate(plan.stages, 1):
        result += [(f"stage {number}: {op!r}", operation_fingerprint(op)) for op in stage.operations]
        result.append((f"stage {number}: {stage.output_shards} shards", str(stage.output_shards)))
    return result


def source_fingerprint(plan: PhysicalPlan) -> str:
    """Return what stands for the source of a plan."""
    return fingerprint((plan.source_items, plan.source_sizes_bytes, plan.source_versions))


def operation_fingerprint(op: PhysicalOp) -> str:
    """Return what stands for an operation, other datasets that it brings in included."""
    if isinstance(op, Union):
        return fingerprint([plan_fingerprints(other) for other in op.others])
    if isinstance(op, Join):
        return fingerprint((plan_fingerprints(op.right), op.op.left_key, op.op.right_key, op.op.how, op.op.combiner))
    if isinstance(op, Scatter) and op.ranges is not None:
        return fingerprint(replace(op, ranges=replace(op.ranges, bounds=())))  # which follow from the rest
    return fingerprint(op)


def _pieces(value: Any, seen: set[int]) -> Iterator[bytes]:
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if not isinstance(value, type) and _is_own(sys.modules.get(kind.__module__)) and id(kind) not in seen:
        yield from _pieces(kind, seen)  # the methods of an object count as well
    if isinstance(value, Enum):
        yield value.name.encode()
    elif kind in _ATOMS:
        yield repr(value).encode()
    elif id(value) in seen:
        yield b"again"
    else:
        seen.add(id(value))
        yield from _parts(value, seen)
        if not isinstance(value, (types.FunctionType, type)):  # those live on, and are looked at once
            seen.discard(id(value))


def _parts(value: Any, seen: set[int]) -> Iterator[bytes]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _pieces(item, seen)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(_digest(item, set(seen)).encode() for item in value)  # a copy: their order must not matter
    elif isinstance(value, dict):
        yield from sorted((_digest(name, set(seen)) + _digest(item, set(seen))).encode() for name, item in value.items())
    elif isinstance(value, types.FunctionType):
        yield from _function(value, seen)
    elif isinstance(value, functools.partial):
        yield from _pieces((value.func, value.args, value.keywords), seen)
    elif isinstance(value, types.MethodType):
        yield from _pieces((value.__self__, value.__func__), seen)
    elif isinstance(value, types.CodeType):
        yield from _code(value, seen)
    elif isinstance(value, type) and _is_own(sys.modules.get(value.__module__)):
        yield value.__qualname__.encode()
        for name, member in sorted(vars(value).items()):
            if isinstance(member, (types.FunctionType, staticmethod, classmethod, property, *_ATOMS)):
                yield name.encode()
                yield from _pieces(member, seen)
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _pieces(value.__func__, seen)
    elif isinstance(value, property):
        yield from _pieces((value.fget, value.fset), seen)
    elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}".encode()
    elif is_dataclass(value):
        for field in fields(value):
            yield from _pieces((field.name, getattr(value, field.name)), seen)
    else:
        yield from _object(value, seen)


def _function(fn: types.FunctionType, seen: set[int]) -> Iterator[bytes]:
    yield fn.__qualname__.encode()
    cells = [cell.cell_contents if _filled(cell) else None for cell in fn.__closure__ or ()]
    yield from _pieces((fn.__code__, fn.__defaults__, fn.__kwdefaults__, cells), seen)
    names = _global_names(fn.__code__)
    for name in names:
        used = fn.__globals__.get(name)
        if isinstance(used, types.ModuleType):
            for attribute in names if _is_own(used) else ():
                yield from _used(f"{name}.{attribute}", vars(used).get(attribute), seen)
        else:
            yield from _used(name, used, seen)


def _used(name: str, value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield the pieces of a global that a function names, if it is code of the user's or plain data."""
    own = isinstance(value, (types.FunctionType, type)) and _is_own(sys.modules.get(value.__module__))
    constant = isinstance(value, _CONSTANTS) or (isinstance(value, _CONTAINERS) and name.rpartition(".")[2].isupper())
    if own or constant:
        yield name.encode()
        yield from _pieces(value, seen)


def _is_own(module: types.ModuleType | None) -> bool:
    """Tell whether a module is the user's: neither installed nor Python's own."""
    if module is None or module.__name__.partition(".")[0] in ("fray", "zephyr"):
        return False
    file = getattr(module, "__file__", None) or ""
    return module.__name__ == "__main__" or (bool(file) and "-packages/" not in file and not file.startswith(sys.base_prefix))


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a local function that is defined later
        return False
    return True


def _global_names(code: types.CodeType) -> list[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_global_names(constant))
    return sorted(names)


def _code(code: types.CodeType, seen: set[int]) -> Iterator[bytes]:
    yield code.co_code
    yield from _pieces((code.co_names, code.co_varnames, code.co_freevars, code.co_consts), seen)


def _object(value: Any, seen: set[int]) -> Iterator[bytes]:
    reducer = copyreg.dispatch_table.get(type(value))
    try:
        state = reducer(value) if reducer is not None else value.__reduce_ex__(4)
    except Exception:  # what cannot be taken apart counts by its type
        return
    if isinstance(state, str):
        yield state.encode()
        return
    for part in state[1:5]:
        yield from _pieces(list(part) if isinstance(part, Iterator) else part, seen)
