"""Words of a script that stand for values: numbers, durations, kernels. Raises ValueError with what to write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from timewait.tcp.kernels import KERNELS, UnknownKernelError, kernel
from timewait.tcp.segment import u32

_TERM = r"[0-9]{1,10}(?:\^[0-9]{1,2})?"
_NUMBER = re.compile(rf"[+-]?{_TERM}(?:[+-]{_TERM})*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_NAMES = tuple(row.name for row in KERNELS)


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean SYN?", or all that is known where nothing is near."""
    words = list(known)
    near = get_close_matches(word, words, 1, 0.5) or get_close_matches(word.upper(), words, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(words)}"


def number(text: str) -> int:
    """`5000`, `2+65537`, `100+2^31-1`, modulo 2^32."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number; write for example 5000, 2+65537 or 100-2^31")
    total = 0
    for term in re.findall(rf"[+-]?{_TERM}", text):
        base, _, power = term.lstrip("+-").partition("^")
        value = pow(int(base), int(power or 1), 1 << 32)
        total += -value if term[0] == "-" else value
    return u32(total)


def bounded(text: str, low: int, high: int) -> int:
    """A plain whole number within bounds."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
        raise ValueError(f"{text!r}: write a whole number, {low} to {high}")
    return int(text)


def duration(text: str) -> float:
    """Seconds: `60s`, `0.3s`, `300ms`, `24d`."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no duration; write for example 60s, 300ms or 24d")
    return round(float(match[1]) * _UNITS[match[2]], 6)


def kernels(words: Sequence[str]) -> tuple[str, ...]:
    """Profiles for `all`, `6.18`, `..6.14`, `el7..4.12`, in the table's order. A range goes by that order."""
    found: set[str] = set()
    for word in words:
        if word == "all":
            found |= set(_NAMES)
            continue
        first, dots, last = word.partition("..")
        if not dots:
            found.add(_name(word))
            continue
        start = _NAMES.index(_name(first)) if first else 0
        stop = _NAMES.index(_name(last)) if last else len(_NAMES) - 1
        if start > stop or (not first and not last):
            raise ValueError(f"{word!r} is no range of kernels; write for example ..6.14, el7..4.12 or 4.19..")
        found |= set(_NAMES[start : stop + 1])
    return tuple(name for name in _NAMES if name in found)


def _name(word: str) -> str:
    try:
        return kernel(word).name
    except UnknownKernelError as error:
        raise ValueError(str(error)) from None
