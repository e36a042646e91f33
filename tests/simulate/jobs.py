"""Work for tests of where work runs: plain functions that any process can import."""

from __future__ import annotations

import os
import time


def square(number: int) -> int:
    return number * number


def slowly(number: int) -> int:
    time.sleep(0.3)
    return number


def dies(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def fails(number: int) -> int:
    raise ArithmeticError("no such number")
