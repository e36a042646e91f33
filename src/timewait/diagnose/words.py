"""Numbers as the findings' sentences use them. Nothing is rounded into a claim: only none is 0%, only all is 100%.

A number that is none (a damaged record, a division by what was not measured) is shown as `?`.
"""

from __future__ import annotations

from math import isfinite


def count(number: float) -> str:
    """28232 -> `28,232`."""
    return f"{number:,.0f}" if isfinite(number) else "?"


def plural(number: int, noun: str) -> str:
    """1 -> `1 connection`, 28232 -> `28,232 connections`; `address` -> `addresses`, `entry` -> `entries`."""
    if number != 1:
        noun = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("s") else "s")
    return f"{count(number)} {noun}"


def verb(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def share(part: float, whole: float) -> str:
    """`12%` of a whole; an empty whole has no share."""
    if not isfinite(part) or not isfinite(whole):
        return "?"
    percent = 100 * part / whole if whole else 0.0
    if percent in (0.0, 100.0) or percent > 100:
        return f"{percent:.0f}%"
    if percent < 0.01:
        return "<0.01%"
    if percent > 99.99:
        return ">99.99%"
    return f"{percent:.2f}%" if percent < 1 or percent > 99 else f"{percent:.0f}%"


def rate(per_second: float) -> str:
    """470.53 -> `470/s`, rounded down: a rate that is sustainable must not be rounded up into one that is not."""
    if not isfinite(per_second):
        return "?/s"
    return f"{count(int(per_second))}/s" if per_second >= 100 else f"{int(per_second * 10) / 10:g}/s"


def asked(per_second: float) -> str:
    """A rate somebody wants, rounded to what matters."""
    return f"{count(per_second)}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def seconds(value: float) -> str:
    """0.00123 -> `1.23 ms`; 28.2 -> `28 s`."""
    if not isfinite(value):
        return "? s"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 10:
        return f"{value:.2g} s"
    return f"{count(value)} s"
