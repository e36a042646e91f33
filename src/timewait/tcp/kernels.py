"""Kernels and knobs as people name them: the row for a name or a `uname -r`, knobs from words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from timewait.tcp.knobs import SPANS, Knobs, Span
from timewait.tcp.profiles import KERNELS, Kernel, Rules
from timewait.tcp.release import Release, parse_release

__all__ = [
    "KERNELS",
    "Kernel",
    "Knobs",
    "Rules",
    "UnknownKernelError",
    "UnknownKnobError",
    "has_knob",
    "kernel",
    "knobs",
    "running",
]


class UnknownKernelError(ValueError):
    """No row stands for this kernel; the message names the nearest."""


class UnknownKnobError(ValueError):
    """This kernel has no such sysctl, or not with this value; the message says which it has."""


def kernel(name: str) -> Kernel:
    """The row for "2.6.32", "el7", "6.18", or an exact version such as "6.18.44". Raises UnknownKernelError."""
    word = name.strip().lower().removeprefix("linux-").removeprefix("v")
    for row in KERNELS:
        if word in (row.name, row.version, *row.aliases):
            return row
    marked = re.search(r"\.?(el[0-9]+)", word)
    found = [row for row in KERNELS if row.name == marked[1]] if marked else _same_series(parse_release(word))
    if not found:
        raise UnknownKernelError(f"kernel {name!r}: no rules were read for it; nearest: {', '.join(_nearest(word))}")
    return found[-1]


def _same_series(release: Release) -> list[Kernel]:
    """Rows of the same minor release, up to this patch level; the series' first where all are later."""
    rows = [row for row in _mainline() if row.release[:2] == release[:2] and release[0] > 0]
    if release[0] == 2:  # 2.6.x: the series is the third number
        rows = [row for row in rows if row.release == release]
    return [row for row in rows if row.release <= release] or rows[:1]


def _mainline() -> list[Kernel]:
    return [row for row in KERNELS if not row.name.startswith("el")]


def _nearest(word: str) -> list[str]:
    release = parse_release(word)
    if release > (0, 0, 0):
        rows = _mainline()
        below = [row.name for row in rows if row.release < release][-1:]
        above = [row.name for row in rows if row.release > release][:1]
        return below + above
    names = [row.name for row in KERNELS]
    return difflib.get_close_matches(word, names, n=3, cutoff=0.3) or names


def running(text: str) -> Kernel:
    """The row that stands for `uname -r`: the last one not newer; the newest where the text says nothing."""
    if re.search(r"\.el6\b", text):
        return kernel("el6")
    if re.search(r"\.el7\b", text):
        return kernel("el7")
    release = parse_release(text)
    if release == (0, 0, 0):
        return KERNELS[-1]
    older = [row for row in _mainline() if row.release[:2] <= release[:2]]
    same = [row for row in older if row.release[:2] < release[:2] or row.release <= release]
    return (same or older or [KERNELS[0]])[-1]


def has_knob(row: Kernel, name: str) -> bool:
    """Whether this kernel has the sysctl."""
    span = SPANS[name]
    return row.name in span.also or span.since <= row.release[:2] < span.until


def knobs(row: Kernel, settings: Mapping[str, str | int]) -> Knobs:
    """The row's defaults with `settings` over them; names may carry "net.ipv4.". Raises UnknownKnobError."""
    changed: dict[str, Any] = {}
    for given, value in settings.items():
        name = given.strip().removeprefix("net.ipv4.").removeprefix("net/ipv4/")
        if name not in SPANS:
            known = [knob for knob in SPANS if has_knob(row, knob)]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
            raise UnknownKnobError(f"{given}: the rules know no such sysctl; nearest: {', '.join(near)}")
        if not has_knob(row, name):
            raise UnknownKnobError(f"{name}: Linux {row.version} does not have it; it {_exists(SPANS[name])}")
        changed[name] = _value(row, name, str(value))
    return row.defaults._replace(**changed)


def _exists(span: Span) -> str:
    """'came with 6.14'; 'was removed in 4.12'."""
    if span.since > (0, 0):
        return f"came with {span.since[0]}.{span.since[1]}"
    return f"was removed in {span.until[0]}.{span.until[1]}"


def _value(row: Kernel, name: str, text: str) -> int | tuple[int, int]:
    span, high = SPANS[name], SPANS[name].high
    if name == "tcp_tw_reuse" and not row.rules.reuse_loopback:
        high = 1
    words = re.split(r"[\s,-]+", text.strip()) if name == "ip_local_port_range" else [text.strip()]
    wanted = 2 if name == "ip_local_port_range" else 1
    numbers = [int(word) for word in words if re.fullmatch(r"-?[0-9]{1,10}", word)]
    if len(numbers) != len(words) or len(words) != wanted:
        form = "two ports, as 32768-60999" if wanted == 2 else "a whole number"
        raise UnknownKnobError(f"{name}={text}: write {form}")
    if not all(span.low <= number <= high for number in numbers):
        raise UnknownKnobError(f"{name}={text}: Linux {row.version} takes {span.low} to {high}")
    if wanted == 1:
        return numbers[0]
    if numbers[0] > numbers[1]:
        raise UnknownKnobError(f"{name}={text}: the first port is above the last")
    return numbers[0], numbers[1]
