"""Kernels by name, for tests that go through versions."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from timewait.tcp.kernels import KERNELS, Kernel, Knobs, kernel, knobs
from timewait.tcp.recycle import Record
from timewait.tcp.timewait import TimeWait

T0 = TimeWait(rcv_nxt=5000, snd_nxt=9000, ts=100_000, stamp=1000)
R = Record(100_000, 1000)
NOW = 1010

ALL = [row.name for row in KERNELS]
FROM_EL7 = ALL[ALL.index("el7") :]


def upto(name: str) -> list[str]:
    return ALL[: ALL.index(name) + 1]


def since(name: str) -> list[str]:
    return ALL[ALL.index(name) :]


def between(first: str, last: str) -> list[str]:
    return ALL[ALL.index(first) : ALL.index(last) + 1]


def on(name: str, **sysctls: int) -> tuple[Kernel, Knobs]:
    row = kernel(name)
    return row, knobs(row, sysctls)


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", list(names))
