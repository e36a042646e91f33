"""One rule, two ways to run it: plain functions compiled by numba as they are, with everything they call.

`compiler()(function)` makes a copy of the function whose globals name compiled copies of the functions it calls, and
so on down into `timewait.tcp`; the originals stay plain Python. The machine code is cached in the user's cache
directory under a digest of all the sources it came from, so that a changed rule is never answered by old code.
"""

from __future__ import annotations

import hashlib
import os
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

Function = Callable[..., Any]
PACKAGE = "timewait."
ROOMS = ("tcp", "simulate/engine")  # whose sources the machine code depends on


def compiler() -> Callable[[Function], Function]:
    """Compiles functions, each at its first call with each combination of types. Imports numba."""
    return _Compiler().compile


class _Compiler:
    def __init__(self) -> None:
        import numba

        # Read when a function is decorated: the one moment at which numba asks where to keep its code.
        numba.config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]
        options: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
        self._njit = numba.njit(**options)
        self._done: dict[Function, Function] = {}

    def compile(self, function: Function) -> Function:
        if function not in self._done:
            assert isinstance(function, types.FunctionType)
            names = dict(function.__globals__)
            for name in _names(function.__code__):
                used = names.get(name)
                if (
                    isinstance(used, types.FunctionType)
                    and used.__module__.startswith(PACKAGE)
                    and used is not function
                ):
                    names[name] = self.compile(used)
            twin = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
            twin.__module__, twin.__qualname__ = function.__module__, function.__qualname__
            twin.__kwdefaults__ = function.__kwdefaults__
            self._done[function] = self._njit(twin)
        return self._done[function]


def _names(code: types.CodeType) -> set[str]:
    return set(code.co_names)


@cache
def sources() -> str:
    """Digest of every file the machine code comes from, and of numba's version."""
    import numba

    digest = hashlib.sha256(numba.__version__.encode())
    top = Path(__file__).resolve().parents[2]
    for room in ROOMS:
        for path in sorted((top / room).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path:
    """Where the machine code is kept; folders of other sources that nobody has used for a month are removed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "timewait" / "compiled"
    return base / sources()
