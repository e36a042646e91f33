"""The record of an experiment: predictions beside measurements, and the verdict that follows from them.

The verdict is computed here and nowhere else. It needs measurements: an experiment without any, or one whose host
died under it, is inconclusive, whatever the rules predict.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

HOLDS = "holds"
ONLY_IF = "holds only if"
DOES_NOT_HOLD = "does not hold"
INCONCLUSIVE = "inconclusive"


class Measure(msgspec.Struct, frozen=True):
    """One number of an experiment: what the rules say it is, what the kernel did, and whether the two agree."""

    what: str
    predicted: str
    measured: str
    agrees: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment hands back when it came to its end."""

    measures: tuple[Measure, ...]
    condition: str = ""  # the claim holds only if ...; empty: it holds as it stands
    notes: tuple[str, ...] = ()  # what a reader should know beside the numbers


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `timewait lab run`; with `--json` a list of these."""

    claim: str  # id
    title: str  # the claim in words
    predicted: str  # of the measure that says most: the first, or the first that disagrees
    measured: str
    verdict: str  # "holds", "holds only if ...", "does not hold", "inconclusive"
    why: str = ""  # of an inconclusive one
    seconds: float
    kernel: str  # uname -r
    balancer: str = ""  # the program that played it
    measures: tuple[Measure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The verdict without its condition."""
        return ONLY_IF if self.verdict.startswith(ONLY_IF) else self.verdict


def exactly(what: str, predicted: int, measured: int, unit: str = "") -> Measure:
    """A count that the rules give exactly; `unit` is what is counted, where the number alone would not tell."""
    unit = f" {unit}" if unit else ""
    return Measure(what, f"{predicted:,}{unit}", f"{measured:,}{unit}", predicted == measured)


def between(what: str, low: float, measured: float, high: float, unit: str = "") -> Measure:
    """A figure that the rules give as a range, both ends included."""
    span = f"{_short(low)} to {_short(high)}{unit}"
    return Measure(what, span, f"{_short(measured)}{unit}", low <= measured <= high)


def verdict(outcome: Outcome) -> str:
    """All measures agree: the claim holds, or holds only if its condition does. One disagrees: it does not hold."""
    if not outcome.measures:
        return INCONCLUSIVE
    if not all(measure.agrees for measure in outcome.measures):
        return DOES_NOT_HOLD
    return f"{ONLY_IF} {outcome.condition}" if outcome.condition else HOLDS


def telling(measures: Sequence[Measure]) -> Measure:
    """The measure to show where there is room for one."""
    return next((measure for measure in measures if not measure.agrees), measures[0])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.3g}"
