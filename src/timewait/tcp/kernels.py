"""Kernels and knobs as people name them: the row for a name or a `uname -r`, knobs from words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from timewait.tcp.knobs import SPANS, Knobs, Span
from timewait.tcp.profiles import CHANGES, KERNELS, Kernel, Rules
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
    found = _distribution(word) or _same_series(parse_release(word))
    if not found:
        raise UnknownKernelError(f"kernel {name!r}: no rules were read for it; {_nearest(word)}")
    return found[-1]


EARLY_EL6 = 358  # 2.6.32-358.el6 and before lack what later ones took over: they are like 2.6.32


def _distribution(word: str) -> list[Kernel]:
    """The row of a distribution whose mark the version bears: "3.10.0-957.el7.x86_64"."""
    build = re.search(r"2\.6\.32-([0-9]+)[^ ]*\.el6", word)
    if build and int(build[1]) <= EARLY_EL6:
        return [KERNELS[0]]
    mark = re.search(r"(?<![a-z])el[0-9]+", word)
    return [row for row in KERNELS if mark and row.name == mark[0]]


def _same_series(release: Release) -> list[Kernel]:
    """Rows of the same minor release, up to this patch level; the series' first where all are later."""
    rows = [row for row in _mainline() if row.release[:2] == release[:2] and release[0] > 0]
    if release[0] == 2:  # 2.6.x: the series is the third number
        rows = [row for row in rows if row.release == release]
    return [row for row in rows if row.release <= release] or rows[:1]


def _mainline() -> list[Kernel]:
    return [row for row in KERNELS if not row.name.startswith("el")]


def _nearest(word: str) -> str:
    """ "nearest: 5.4, 5.10"; every name where the word is like none."""
    import difflib

    release, names = parse_release(word), [row.name for row in KERNELS]
    if release > (0, 0, 0):
        rows = _mainline()
        below = [row.name for row in rows if row.release < release][-1:]
        near = below + [row.name for row in rows if row.release > release][:1]
    else:
        near = difflib.get_close_matches(word, names, n=3, cutoff=0.3)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(names)}"


def running(text: str) -> Kernel:
    """The row that stands for `uname -r`: that of its series, or else the last one before it, with what is known to
    have changed since. The newest where the text says nothing.
    """
    release = parse_release(text)
    if release == (0, 0, 0):
        return KERNELS[-1]
    found = _distribution(text) or _same_series(release)
    if found:
        return found[-1]
    older = [row for row in _mainline() if row.release <= release]
    return _changed_since((older or [KERNELS[0]])[-1], release)


def _changed_since(row: Kernel, release: Release) -> Kernel:
    """The row with the changes between it and a later release that no row of its own stands for."""
    for since, rules, defaults in CHANGES:
        if row.release[:2] < since <= release[:2]:
            row = row._replace(rules=row.rules._replace(**rules), defaults=row.defaults._replace(**defaults))
    return row._replace(release=max(release, row.release))


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
            import difflib

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
