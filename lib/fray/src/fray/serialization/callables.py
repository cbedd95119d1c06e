"""Functions as bytes, named by their content, so that each is sent and kept once.

A packed function carries the sender's import path: an importable function travels as its name, and the executor can import
the same files when it sees the same disk. Functions of ``__main__``, lambdas and closures travel by value.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fray.errors import DecodeError
from fray.serialization.envelope import _pickle, decode

ENTRYPOINT_PREFIX = "entrypoint:"
"""A function id such as ``entrypoint:math:sqrt`` names a function by module and attribute; it needs no code."""


@dataclass(frozen=True, slots=True)
class PackedCallable:
    """A function ready to travel."""

    function_id: str
    """Digest of the code: the same code has the same id."""
    name: str
    """What to call it in messages."""
    code: bytes
    """The pickled function and the import path it was made under."""


_packed: weakref.WeakKeyDictionary[Any, tuple[tuple[str, ...], PackedCallable]] = weakref.WeakKeyDictionary()
"""Packed functions with the import path they were packed under."""


def encode_callable(fn: Callable[..., Any]) -> PackedCallable:
    """Return ``fn`` packed. Cached for functions that read nothing which could change between two calls.

    Raises:
        EncodeError: if it cannot be pickled; names the function and the reason.
        TypeError: if it is not callable.
    """
    path = tuple(sys.path)
    try:
        cached = _packed.get(fn)
    except TypeError:  # not hashable, or no weak references: never cached
        cached = None
    if cached is not None and cached[0] == path:
        return cached[1]
    if not callable(fn):
        raise TypeError(f"run() takes a function first, then its arguments; {type(fn).__name__} is not callable")
    body = _pickle(fn)
    code = pickle.dumps((_import_path(path), body), 5)
    digest = hashlib.blake2b(code, digest_size=16).hexdigest()
    packed = PackedCallable(digest, callable_name(fn), code)
    if isinstance(fn, types.FunctionType) and (_is_importable(fn) or _is_constant(fn)):
        _packed[fn] = path, packed
    return packed


def decode_callable(function_id: str, code: bytes) -> Callable[..., Any]:
    """Return the function; directories of the sender's import path that exist here are appended to ``sys.path``.

    Raises:
        DecodeError: if it cannot be rebuilt, usually because a module is missing in this process.
    """
    if function_id.startswith(ENTRYPOINT_PREFIX):
        return _load_entrypoint(function_id.removeprefix(ENTRYPOINT_PREFIX))
    paths, body = pickle.loads(code)
    known = set(sys.path)
    sys.path.extend(path for path in paths if path not in known and Path(path).exists())
    fn: Callable[..., Any] = decode(b"P" + body)
    return fn


def callable_name(fn: Callable[..., Any]) -> str:
    """Return a readable name; partials are unwrapped."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__qualname__", None) or type(fn).__name__


@functools.lru_cache(maxsize=8)
def _import_path(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries another process would not have by itself: not the interpreter's own directories."""
    own = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    cwd = str(Path.cwd())
    return tuple(entry or cwd for entry in path if not entry.startswith(own))


def _is_importable(fn: types.FunctionType) -> bool:
    """Tell whether the function travels as its name alone."""
    target: Any = sys.modules.get(fn.__module__) if fn.__module__ != "__main__" else None
    for part in fn.__qualname__.split("."):
        target = getattr(target, part, None)
    return target is fn


def _is_constant(fn: types.FunctionType) -> bool:
    """Tell whether the function's bytes cannot change: no closure, no defaults, no globals but modules and builtins."""
    if fn.__closure__ or fn.__defaults__ or fn.__kwdefaults__ or fn.__dict__:
        return False
    codes = [fn.__code__]
    for part in codes:
        if any(not isinstance(fn.__globals__.get(name, types), types.ModuleType) for name in part.co_names):
            return False
        codes.extend(const for const in part.co_consts if isinstance(const, types.CodeType))
    return True


def _load_entrypoint(entrypoint: str) -> Callable[..., Any]:
    module_name, _, attribute = entrypoint.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise DecodeError(f"entrypoint {entrypoint!r} cannot be loaded: {error}; write it as module:function") from error
    if not callable(target):
        raise DecodeError(f"entrypoint {entrypoint!r} is a {type(target).__name__}, not a function")
    result: Callable[..., Any] = target
    return result
