"""How far it is, and how long it will take: a bar for whoever watches a terminal, now and then a line otherwise."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from timewait.report.words import duration

Told = Callable[[float, str], None]
"""Called with the share done, 0..1, and what is being done."""

_EVERY = 5.0  # seconds between two lines


@contextmanager
def progress(quiet: bool) -> Iterator[Told]:
    """On stderr, so that what is piped stays clean."""
    from timewait.cli.consoles import Console

    console = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda share, text: None
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as told:
            yield told
    else:
        yield _lines()


@contextmanager
def _bar(console: Console) -> Iterator[Told]:  # type: ignore[name-defined]  # noqa: F821
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("simulating", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)


def _lines() -> Told:
    last, first = time.monotonic(), (0.0, 0.0)  # `first`: when something was done, and how much: compiled by then

    def told(share: float, text: str) -> None:
        nonlocal last, first
        now = time.monotonic()
        if share == 0 and text.startswith("compiling"):
            print(text, file=sys.stderr, flush=True)
        if not 0 < share < 1:
            return
        if not first[0]:
            first = (now, share)
        if now - last < _EVERY or share == first[1]:
            return
        last = now
        left = (now - first[0]) * (1 - share) / (share - first[1])
        print(f"{text}: {share:.0%}, about {duration(round(left))} left", file=sys.stderr, flush=True)

    return told


class Interrupt:
    """Ctrl-C and SIGTERM ask for an end; what was done is kept. The second one ends at once."""

    def __init__(self) -> None:
        self.name = ""
        self._before = {one: signal.signal(one, self._on) for one in (signal.SIGINT, signal.SIGTERM)}

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def __call__(self) -> bool:
        return bool(self.name)

    def restore(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
