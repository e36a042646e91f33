"""When each arrival of the open loop is due. Fixed before the run: a slow answer never moves the next arrival."""

from __future__ import annotations

from math import sqrt


class Schedule:
    """Arrival k of one worker out of several: the workers' arrivals interleave, so together they are even.

    With a ramp the rate grows linearly from 0 to `rate` during `ramp_up` seconds. Times are seconds since the start.
    """

    __slots__ = ("_area", "_ramp", "_rate", "_step", "_worker")

    def __init__(self, rate: float, ramp_up: float = 0.0, worker: int = 0, workers: int = 1) -> None:
        self._rate = rate
        self._ramp = ramp_up
        self._area = rate * ramp_up / 2  # arrivals of the whole ramp
        self._worker = worker
        self._step = workers

    def due(self, k: int) -> float:
        """Seconds after the start at which this worker's arrival `k` (from 0) is due."""
        nth = k * self._step + self._worker
        if nth < self._area:
            return sqrt(2 * self._ramp * nth / self._rate)
        return self._ramp + (nth - self._area) / self._rate

    def count(self, elapsed: float) -> int:
        """How many of this worker's arrivals are due before `elapsed` seconds."""
        if elapsed <= 0:
            return 0
        if elapsed < self._ramp:
            whole = self._rate * elapsed * elapsed / (2 * self._ramp)
        else:
            whole = self._area + (elapsed - self._ramp) * self._rate
        guess = max(0, int((whole - self._worker) / self._step) - 1)
        while self.due(guess) < elapsed:  # two steps at most; the closed form alone rounds either way
            guess += 1
        return guess


def share(total: int, worker: int, workers: int) -> int:
    """This worker's part of a whole number: parts differ by at most one and add up."""
    return total // workers + (1 if worker < total % workers else 0)
