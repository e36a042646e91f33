"""What one worker counts. The hot loop appends durations to lists; they are poured into histograms many times a
second, so nothing grows with the length of the run."""

from __future__ import annotations

import resource
import time

from timewait.histogram import Histogram
from timewait.run import Cause, Phase, Tick, error_key

MOST_DETAILS = 20

_COUNTERS = tuple(
    "started connected requests failed unfinished unsent bytes_in bytes_out closed_us closed_peer closed_reset "
    "reset_by_us close_asked close_ignored kept_ended syn_slow syn_slow_reused syn_slow_known fresh_known "
    "reused_known sampled sampled_timestamps sampled_retrans sampled_rtt resumed waited".split()
)


class Meters:
    """Counters, and lists of seconds waiting to be poured: `quick` holds connects that were established when
    connect() returned (the call is then the whole connect), `whole` holds answers that came in one piece (their
    first byte is their end)."""

    __slots__ = (
        *_COUNTERS, "_connect", "_cpu", "_first", "_late", "_search", "_tls", "_total", "connect", "details", "errors",
        "first", "lag_max", "late", "quick", "search", "status", "succeeded", "tls", "total", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self._connect, self._search, self._tls = Histogram(), Histogram(), Histogram()
        self._first, self._total, self._late = Histogram(), Histogram(), Histogram()
        self.quick: list[float] = []
        self.connect: list[float] = []
        self.search: list[float] = []
        self.tls: list[float] = []
        self.whole: list[float] = []
        self.first: list[float] = []
        self.total: list[float] = []
        self.late: list[float] = []
        self._cpu = _cpu_seconds()
        self.details: dict[str, int] = {}
        self._reset()

    def _reset(self) -> None:
        for name in _COUNTERS:
            setattr(self, name, 0)
        self.succeeded = 0
        self.lag_max = 0.0
        self.errors: dict[str, int] = {}
        self.status: dict[int, int] = {}

    def error(self, phase: Phase, errno: str, cause: Cause, detail: str = "") -> None:
        key = error_key(phase, errno, cause)
        self.errors[key] = self.errors.get(key, 0) + 1
        if detail:
            self.detail(detail)

    def detail(self, text: str) -> None:
        if text in self.details or len(self.details) < MOST_DETAILS:
            self.details[text] = self.details.get(text, 0) + 1

    def pour(self) -> None:
        """Empties the lists into the histograms."""
        self.succeeded += len(self.whole) + len(self.total)
        for histograms, values in (
            ((self._connect, self._search), self.quick),
            ((self._connect,), self.connect),
            ((self._search,), self.search),
            ((self._tls,), self.tls),
            ((self._first, self._total), self.whole),
            ((self._first,), self.first),
            ((self._total,), self.total),
            ((self._late,), self.late),
        ):
            if values:
                for histogram in histograms:
                    histogram.record(values)
                values.clear()

    def tick(self, at: float, seconds: float, held: int, asked: int) -> Tick:
        """What happened since the last tick, and a fresh start. Times in seconds since the run began."""
        self.pour()
        cpu, self._cpu = self._cpu, _cpu_seconds()
        tick = Tick(
            at=at, seconds=seconds, open=held, asked=asked, workers=1, succeeded=self.succeeded,
            cpu=self._cpu - cpu, lag_max=self.lag_max, errors=self.errors, status=self.status,
            details={text: count for text, count in self.details.items() if count},
            connect=self._connect.sparse(), search=self._search.sparse(), tls=self._tls.sparse(),
            first_byte=self._first.sparse(), total=self._total.sparse(), late=self._late.sparse(),
            **{name: getattr(self, name) for name in _COUNTERS},
        )  # fmt: skip
        for histogram in (self._connect, self._search, self._tls, self._first, self._total, self._late):
            histogram.clear()
        self.details = dict.fromkeys(self.details, 0)  # the texts stay known, so their number stays bounded
        self._reset()
        return tick


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


clock = time.monotonic
