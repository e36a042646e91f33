"""One rule, two ways to run it: plain functions compiled by numba as they are, with everything they call.

`compiler(functions)` gives copies whose globals name compiled copies of the functions they call, and so on down into
`timewait.tcp`; the originals stay plain Python. The machine code is cached in the user's cache directory under a
digest of all the code and constants it comes from, so that a changed rule is never answered by old code.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Function = Callable[..., Any]
PACKAGE = "timewait."


def compiler(functions: Sequence[Function]) -> list[Function]:
    """The functions, each compiled at its first call with each combination of types. Imports numba."""
    import numba

    # Read when a function is decorated: the one moment at which numba asks where to keep its code.
    folder = cache_folder() / digest(functions, numba.__version__)
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    # Without reference counts: nothing here makes or keeps an array, and counting costs more than the rest.
    options: dict[str, Any] = {"cache": can_keep(folder), "error_model": "numpy", "_nrt": False}
    # One function in the end: each array handed over to another is seven numbers on the stack, which costs more than
    # most functions here do.
    options["forceinline"] = True
    done: dict[Function, Function] = {prefetch: _prefetch(), bare: _bare()}
    return [_compile(function, numba.njit(**options), done) for function in functions]


def _compile(function: Function, njit: Function, done: dict[Function, Function]) -> Function:
    if function not in done:
        assert isinstance(function, types.FunctionType)
        names = dict(function.__globals__)
        for name, used in _calls(function):
            names[name] = _compile(used, njit, done)
        twin = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
        twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
        done[function] = njit(twin)
    return done[function]


def bare(numbers: Any) -> Any:
    """Compiled, the address of the first number in place of the array: an index into an array may be negative and
    count from its end, and to look for that costs three instructions each time. Here nothing changes."""
    return numbers


def _bare() -> Function:
    """The compiled one."""
    from numba import types as kinds
    from numba.extending import intrinsic

    def address(_context: Any, array: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
            return context.make_array(array)(context, builder, given[0]).data

        pointer: Any = kinds.CPointer
        return pointer(array.dtype)(array), emit

    found: Function = intrinsic(address)
    return found


def prefetch(numbers: Any, at: int) -> None:
    """Asks for numbers[at] to be brought from memory, which takes as long as hundreds of instructions. Compiled it is
    one instruction; here nothing."""


def _prefetch() -> Function:
    """The compiled one."""
    from llvmlite import ir
    from numba import types as kinds
    from numba.core import cgutils
    from numba.extending import intrinsic

    def instruction(_context: Any, numbers: Any, _at: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
            at = builder.bitcast(builder.gep(given[0], [given[1]]), cgutils.voidptr_t)
            i32 = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
            insert: Any = cgutils.get_or_insert_function
            wanted = insert(builder.module, kind, "llvm.prefetch.p0i8")
            builder.call(wanted, [at, i32(1), i32(3), i32(1)])  # to write, into every cache, data
            return context.get_dummy_value()

        return kinds.none(numbers, kinds.int64), emit

    found: Function = intrinsic(instruction)
    return found


def _calls(function: types.FunctionType) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions of ours that it names."""
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, types.FunctionType) and used.__module__.startswith(PACKAGE):
            yield name, used


def digest(functions: Sequence[Function], version: str) -> str:
    """Of the code of these and all they call, as it was loaded, and of the constants they name."""
    found, waiting, seen = hashlib.sha256(version.encode()), list(functions), set()
    while waiting:
        function = waiting.pop()
        assert isinstance(function, types.FunctionType)
        if function in seen:
            continue
        seen.add(function)
        found.update(marshal.dumps(function.__code__))
        found.update(repr([(name, _constant(function, name)) for name in function.__code__.co_names]).encode())
        waiting += [used for _, used in _calls(function)]
    return found.hexdigest()[:16]


def _constant(function: types.FunctionType, name: str) -> str:
    """What a name stands for, where that becomes part of the machine code: a number, or a number of a module."""
    used = function.__globals__.get(name)
    if isinstance(used, types.ModuleType):
        named = {other: getattr(used, other, None) for other in function.__code__.co_names}
        return repr({other: value for other, value in named.items() if isinstance(value, int | float)})
    if isinstance(used, int | float | tuple):
        return repr(used)
    return repr(getattr(used, "_fields", ""))


NEEDED = 16 << 20  # octets of machine code and what numba keeps beside it


def can_keep(folder: Path) -> bool:
    """Whether there is a place for machine code; without one it is compiled at every start."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            space = os.statvfs(folder)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize > NEEDED


def cache_folder() -> Path:
    """Where the machine code is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "timewait" / "compiled"
