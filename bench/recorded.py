"""Runs of timewait to their end, read back from what they saved."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.place import PATIENCE, Place
from timewait.histogram import quantiles
from timewait.run import Run, load


class Recorded(msgspec.Struct):
    """A finished run."""

    run: Run

    @property
    def rate(self) -> float:
        """Successes a second, as timewait itself says."""
        return self.run.total.succeeded / self.run.total.seconds

    @property
    def search(self) -> float:
        """Seconds inside connect(), median."""
        return quantiles(self.run.total.search, (0.5,))[0]

    def late(self, share: float) -> float:
        """Start of an arrival after its due time, seconds, at this quantile."""
        return quantiles(self.run.total.late, (share,))[0]


def recorded(place: Place, words: Sequence[str], patience: float = PATIENCE) -> Recorded:
    """Runs `timewait stress ...` inside the place, to its end. Raises RuntimeError when it leaves no record."""
    file = place.folder / "run.jsonl"
    process = place.start([*words, "--no-tui", "--save", str(file)])
    try:
        process.wait(patience)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if not file.exists():
        raise RuntimeError(f"{' '.join(words)} left no record: {place.words_of_client()}")
    with file.open("rb") as stream:
        found = load(stream, str(file))
    file.unlink()
    if not found.total.succeeded:
        raise RuntimeError(f"{' '.join(words)} had no success: {place.words_of_client()}")
    return Recorded(found)
