"""How late arrivals begin at 80 % of the highest rate."""

from __future__ import annotations

import statistics

from bench.figures import Figure, Result, Values
from bench.place import TIMEWAIT, Place
from bench.recorded import Recorded, recorded
from bench.settings import Settings
from bench.tools import CONNECTIONS, timewait
from bench.window import look

SHARE = 0.8


def schedule(settings: Settings) -> Result:
    figures, details = [], []
    for kind, unit, closing in (("new connections", "cps", ["--close", "server"]), ("kept connections", "rps", [])):
        highest, runs = [], []
        for _ in range(settings.rounds):
            highest.append(_highest(settings, closing))
            # The highest rate so far, not this round's alone: what disturbed the round must not set the aim.
            runs.append(_paced(settings, SHARE * statistics.median(highest), unit, closing))
        name = f"schedule error at 80 % of the highest rate, {kind}"
        p99 = [run.late(0.99) * 1e3 for run in runs]
        figures.append(Figure(what=f"{name}: p99", unit="ms", values=p99, asked="<= 1"))
        p50 = [run.late(0.5) * 1e3 for run in runs]
        details += [
            Values(name=f"{kind}, highest rate", unit="/s", values=highest),
            Values(name=f"{kind}, rate reached", unit="/s", values=[run.rate for run in runs]),
            Values(name=f"{kind}, late p50", unit="ms", values=p50),
            Values(name=f"{kind}, late p99", unit="ms", values=p99),
            Values(name=f"{kind}, late p99.9", unit="ms", values=[run.late(0.999) * 1e3 for run in runs]),
        ]
    return Result(
        name="schedule",
        title="Keeping to the schedule",
        how="Open loop at 80 % of the highest rate of the closed loop, which is measured right before each round; "
        "lateness is the start of an arrival minus its due time, of every arrival, in timewait's own histogram.",
        figures=figures,
        details=details,
    )


def _highest(settings: Settings, closing: list[str]) -> float:
    with Place(settings.cores) as place:
        sample = look(place, timewait(*closing)(place), warm=settings.warm, window=settings.window)
    return sample.requests


def _paced(settings: Settings, rate: float, unit: str, closing: list[str]) -> Recorded:
    seconds = 0.5 if settings.quick else settings.window + 1
    with Place(settings.cores, connections=20_000) as place:
        words = [TIMEWAIT, "stress", place.url, "-R", f"{rate:.0f}{unit}", "-d", f"{seconds:g}s", "--workers", "1"]
        return recorded(place, [*words, *closing, *(["-c", str(CONNECTIONS)] if not closing else [])])
