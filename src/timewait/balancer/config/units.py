"""Durations and sizes, as a balancer's file writes them. A duration without a unit is refused: 75 of what?"""

from __future__ import annotations

import re

from timewait import durations

_SIZE = re.compile(r"([0-9]{1,15})([kKmMgG]?)", re.ASCII)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def seconds(value: object) -> float:
    """`"75s"` -> 75.0, `"500ms"` -> 0.5, 0 -> 0.0. Raises ValueError saying what to write."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    if isinstance(value, str) and (found := durations.seconds(value.strip())) is not None:
        return found
    text = str(value).strip()
    if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text, re.ASCII):
        raise ValueError(f'has no unit; write "{text}s" for seconds, or as "500ms", "5m"')
    raise ValueError('is no duration; write it as "500ms", "75s" or "5m"')


def size(value: object) -> int:
    """`"64k"` -> 65536, `"60M"` -> 62914560, 4096 -> 4096 bytes. Raises ValueError saying what to write."""
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None or isinstance(value, bool):
        raise ValueError('is no size; write bytes, or as "64k" or "60M"')
    return int(match[1]) * _FACTORS[match[2].lower()]


def duration_text(value: float) -> str:
    """75.0 -> `75s`, as seconds() reads it: the unit that was written is kept where it is common."""
    if value == int(value) and 0 < value < 120:
        return f"{int(value)}s"
    return durations.written(value)


def size_text(value: int) -> str:
    """65536 -> `64k`, as size() reads it."""
    for unit in ("M", "k"):
        factor = _FACTORS[unit.lower()]
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)
