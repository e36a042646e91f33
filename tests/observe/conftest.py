"""Fixtures of the tests of timewait.observe."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator

import pytest

from observe.traffic import Traffic


@pytest.fixture
def traffic() -> Iterator[Callable[..., Traffic]]:
    """Makes `Traffic` at an address, and cleans up after it."""
    made: list[Traffic] = []

    def make(host: str, **options: int) -> Traffic:
        made.append(Traffic(host, **options))
        return made[-1]

    yield make
    for one in made:
        one.reset()


_numbers = itertools.count(random.Random(os.getpid()).randrange(1 << 20))


@pytest.fixture
def loopback() -> Callable[[], str]:
    """A loopback address of one's own each time, so that what earlier tests left in TIME_WAIT is not counted."""

    def address() -> str:
        number = next(_numbers)
        return f"127.{64 + (number >> 16) % 64}.{number >> 8 & 255}.{number & 255}"

    return address
