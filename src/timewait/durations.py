"""Durations as people write them: `500ms`, `75s`, `1h30m`."""

from __future__ import annotations

import re
from decimal import Decimal

_STEP = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OF_A_SECOND = {"us": 1_000_000, "ms": 1_000}  # divided by, so that 0.05 ms is 50 us to the last bit
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def seconds(text: str) -> float | None:
    """`1m30s` -> 90.0; None where the text is no duration, or a number without its unit."""
    steps = list(_STEP.finditer(text))
    if not steps or "".join(step[0] for step in steps) != text:
        return None
    return sum(float(one[1]) * _SECONDS.get(one[2], 1) / _OF_A_SECOND.get(one[2], 1) for one in steps)


def written(value: float) -> str:
    """5400 -> `1h30m`, 0.01 -> `10ms`; seconds() of it is the same number."""
    if value != int(value):
        for unit, parts in (("ms", 1_000), ("us", 1_000_000)):
            count = round(value * parts)
            if value < 1 and count / parts == value:
                return f"{count}{unit}"
        return f"{Decimal(repr(value)):f}s"
    left, whole = int(value), []
    for unit, size in _UNITS:
        if left >= size:
            whole.append(f"{left // size}{unit}")
            left %= size
    return "".join(whole) or "0s"
