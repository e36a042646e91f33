"""A claim and the experiment that shows it: a closed list, looked up by id."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timewait.verdict import Outcome

if TYPE_CHECKING:
    from timewait.claims.stage import Stage

Experiment = Callable[["Stage"], Outcome]


class UnknownClaimError(ValueError):
    """No claim of that name; the text names the nearest."""


@dataclass(frozen=True)
class Claim:
    id: str
    title: str  # one sentence
    topology: str  # where it is shown
    needs: tuple[str, ...]  # programs; "balancer" stands for the chosen one
    experiment: Experiment
    slow: bool = False  # takes longer than a minute: `run all` leaves it out unless asked
    limit: float = 60.0  # seconds after which it is given up as inconclusive


_claims: dict[str, Claim] = {}


def claim(
    id: str, title: str, *, topology: str, needs: tuple[str, ...] = ("balancer",), slow: bool = False,
    limit: float = 60.0,
) -> Callable[[Experiment], Experiment]:  # fmt: skip
    """Registers the function below as the experiment of a claim."""

    def register(experiment: Experiment) -> Experiment:
        if id in _claims:
            raise ValueError(f"two claims are named {id}")
        _claims[id] = Claim(id, title, topology, needs, experiment, slow, limit)
        return experiment

    return register


def registered() -> dict[str, Claim]:
    return _claims


def find(names: list[str], known: dict[str, Claim], *, slow: bool) -> list[Claim]:
    """Claims by id, `all` for every one (the slow ones only with `slow`). Raises UnknownClaimError."""
    chosen: dict[str, Claim] = {}
    for name in names:
        if name == "all":
            chosen |= {one.id: one for one in known.values() if slow or not one.slow}
        elif name in known:
            chosen[name] = known[name]
        else:
            near = difflib.get_close_matches(name, [*known, "all"], 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`timewait lab list` shows all"
            raise UnknownClaimError(f"no claim {name!r}; {hint}")
    return list(chosen.values())
