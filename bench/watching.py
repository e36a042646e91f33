"""What watching, ticks and the live view cost: the whole command on a terminal against the engine alone."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from bench.figures import Figure, Result, Values
from bench.place import TIMEWAIT, Place
from bench.settings import Settings
from bench.speed import details, saturation
from bench.tools import CONNECTIONS, ENDLESS
from bench.window import Sample, look
from timewait.plan import Closing, Plan, parse_url


def watching(settings: Settings) -> Result:
    # Seconds in which the view is drawn and the kernel asked must lie in each window whole.
    window = settings.window if settings.quick else 3.0
    found: dict[str, list[Sample]] = {}
    figures = []
    for kind, closing in (("new connections", "server"), ("kept connections", "")):
        whole, bare = found.setdefault(f"whole, {kind}", []), found.setdefault(f"bare, {kind}", [])
        for turn in range(settings.rounds):
            for view in (True, False) if turn % 2 else (False, True):
                with Place(settings.cores) as place:
                    words = _whole(place, closing) if view else _bare(place, closing)
                    sample = look(place, words, warm=settings.warm, window=window, terminal=view)
                    (whole if view else bare).append(sample)
        rates = zip(whole, bare, strict=True)
        loss = [1 - ours.requests / alone.requests for ours, alone in rates]
        figures.append(
            Figure(
                what=f"watching, ticks and live view: loss of rate, {kind}",
                unit="share",
                values=loss,
                asked="<= 0.03",
            )
        )
    return Result(
        name="watching",
        title="What watching costs",
        how="`timewait stress` with its live view on a terminal of 100x40, parent and worker on one core, against "
        "the worker's loop alone in one process: no parent, no ticks, no questions to the kernel.",
        figures=figures,
        details=[
            *details({name: found[name] for name in found if "new" in name}, by_connection=True),
            *details({name: found[name] for name in found if "kept" in name}, by_connection=False),
            *(
                Values(name=f"{name}: the parent's part of the core", unit="share", values=parent(found[name]))
                for name in found
                if name.startswith("whole")
            ),
        ],
        notes=saturation(found),
    )


def parent(samples: list[Sample]) -> list[float]:
    """What the process that watches and draws used of the core, the worker's own ticks left out."""
    return [one.cpu - one.cpu_children for one in samples]


def _whole(place: Place, closing: str) -> list[str]:
    close = ["--close", closing] if closing else []
    return [TIMEWAIT, "stress", place.url, "-c", str(CONNECTIONS), "-d", ENDLESS, "--workers", "1", *close]


def _bare(place: Place, closing: str) -> list[str]:
    plan = Plan(
        requests_list=(parse_url(place.url),),
        connections=CONNECTIONS,
        duration=float(ENDLESS),
        closing=Closing(closing or "keep"),
        requests_per_connection=1 if closing else None,
    )
    file = place.folder / "plan"
    file.write_bytes(msgspec.msgpack.encode(plan))
    return [sys.executable, "-P", str(Path(__file__).with_name("bare.py")), str(file)]
