"""A sweep of sixteen points on two cores against one: the same figures, in half of the time."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from bench.figures import Result, Values, ratio
from bench.place import TIMEWAIT, pinned
from bench.settings import Settings

POINTS = 16
WORLD = ("nat", "--clients", "100k", "--addresses", "16", "--ports", "16k")


def sweeping(settings: Settings) -> Result:
    """Sweeps by one and by two worker processes in turn; what they say must be the same."""
    two = settings.cores.usable[:2]
    took: dict[int, list[float]] = {1: [], 2: []}
    first = _sweep(settings, 1, two)[1]  # compiled and in the page cache from here on
    for number in range(1 if settings.quick else min(3, settings.rounds)):
        for workers in (1, 2) if number % 2 else (2, 1):
            seconds, points = _sweep(settings, workers, two)
            took[workers].append(seconds)
            if points != first:
                raise RuntimeError("two workers and one say different things")
    return Result(
        name="sweeping",
        title="A sweep on two cores",
        how=f"`timewait simulate` with a sweep of {POINTS} points, behind 16 addresses with 16,000 ports each, from "
        "start to end of the program; the figures of all runs were the same to the last bit.",
        figures=[ratio("speed of a sweep of 16 points on two cores, over one", took[1], took[2], ">= 1.8")]
        if len(two) > 1
        else [],
        details=[Values(name=f"{workers} worker(s)", unit="s", values=values) for workers, values in took.items()],
        notes=[] if len(two) > 1 else ["this machine has one core"],
    )  # fmt: skip


def _sweep(settings: Settings, workers: int, cores: tuple[int, ...]) -> tuple[float, Any]:
    rates = ",".join(str((1 if settings.quick else 100) * (10 + at)) for at in range(POINTS))
    words = [
        TIMEWAIT, "simulate", *WORLD, "--duration", "20s" if settings.quick else "20m",
        "--sweep", f"arrivals.rate={rates}", "--workers", str(workers), "--json", "--quiet",
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(pinned(words, *cores), capture_output=True, text=True, timeout=600)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"timewait simulate: {done.stderr}")
    return seconds, json.loads(done.stdout)["points"]
