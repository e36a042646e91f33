"""Numbers as the balancer's log and its pages write them."""

from __future__ import annotations


def plural(number: int, noun: str) -> str:
    """1 -> `1 connection`, 1200 -> `1,200 connections`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds(value: float) -> str:
    """0.012 -> `12 ms`, 3.21 -> `3.2 s`, 75 -> `75 s`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def listed(names: list[str], most: int = 8) -> str:
    """`a, b and 3 more`; `none`."""
    shown = ", ".join(names[:most])
    return (f"{shown} and {len(names) - most} more" if len(names) > most else shown) or "none"
