"""What one worker counts. The hot loop appends durations to lists; they are poured into histograms many times a
second, so nothing grows with the length of the run."""

from __future__ import annotations

import resource
import time

from timewait.histogram import Histogram
from timewait.run import Cause, Phase, Tick, error_key

MOST_DETAILS = 20


class Meters:
    """Counters, and lists of seconds waiting to be poured: `quick` holds connects that were established when
    connect() returned (the call is then the whole connect), `whole` holds answers that came in one piece (their
    first byte is their end)."""

    # Named and meant as in Tick.
    started: int
    connected: int
    requests: int
    failed: int
    unfinished: int
    unsent: int
    bytes_in: int
    bytes_out: int
    closed_us: int
    closed_peer: int
    closed_reset: int
    reset_by_us: int
    close_asked: int
    close_ignored: int
    kept_ended: int
    syn_slow: int
    syn_slow_reused: int
    syn_slow_known: int
    fresh_known: int
    reused_known: int
    sampled: int
    sampled_timestamps: int
    sampled_retrans: int
    resumed: int
    sampled_rtt: float
    waited: float

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
        for name in COUNTERS:
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
            **{name: getattr(self, name) for name in COUNTERS},
        )  # fmt: skip
        for histogram in (self._connect, self._search, self._tls, self._first, self._total, self._late):
            histogram.clear()
        self.details = dict.fromkeys(self.details, 0)  # the texts stay known, so their number stays bounded
        self._reset()
        return tick


COUNTERS = tuple(Meters.__annotations__)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


clock = time.monotonic
