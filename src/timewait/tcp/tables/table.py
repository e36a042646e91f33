"""A table, and the columns of kernels that answer alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from timewait.tcp import counters
from timewait.tcp.action import Action
from timewait.tcp.kernels import KERNELS, Kernel

Ask = Callable[[Kernel], str]
Question = tuple[str, Ask]

LEAVES = {
    Action.ACCEPT: "SYN-ACK",
    Action.DROP: "nothing",
    Action.ACK: "ACK",
    Action.RESET: "RST",
    Action.KILL: "nothing; TIME_WAIT ends",
    Action.IGNORE: "nothing",
    Action.COOKIE: "SYN-ACK with a cookie",
}


class Table(NamedTuple):
    """A heading, what stands in it, and where that was read."""

    title: str
    intro: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str


def by_version(title: str, intro: str, first: str, questions: Sequence[Question], source: str) -> Table:
    """A row for each question, a column for each group of kernels with the same answers."""
    columns: dict[tuple[str, ...], list[Kernel]] = {}
    for kernel in KERNELS:
        columns.setdefault(tuple(ask(kernel) for _, ask in questions), []).append(kernel)
    headings = (first, *(names(group) for group in columns.values()))
    rows = tuple((label, *(answers[place] for answers in columns)) for place, (label, _) in enumerate(questions))
    return Table(title, intro, headings, rows, source)


def names(group: Sequence[Kernel]) -> str:
    """ "2.6.32, el6, 4.19 to 6.14": three neighbours and more in one word."""
    places = [KERNELS.index(kernel) for kernel in group]
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    words: list[str] = []
    for run in runs:
        found = [KERNELS[place].name for place in run]
        words += [f"{found[0]} to {found[-1]}"] if len(found) > 2 else found
    return ", ".join(words)


def moved(bits: int) -> str:
    """ "; PAWSEstab +1"."""
    return "".join(f"; {name} +1" for name in counters.names(bits))


def lasts(low_ms: int, high_ms: int) -> str:
    """ "0.768 s", "52.5-60 s"."""
    return f"{low_ms / 1000:g} s" if low_ms == high_ms else f"{low_ms / 1000:g}-{high_ms / 1000:g} s"


def yes(truth: bool) -> str:
    return "yes" if truth else "no"
