"""`timewait balance top`: a balancer that runs, live: listeners, targets, rates, ports; or as lines, or as JSON."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli.balance import balance
from timewait.cli.balance.ctl import Socket, client, refusals

if TYPE_CHECKING:
    from rich.console import Console

    from timewait.balancer.control.client import Client
    from timewait.balancer.views import Stats


@balance.command()
def top(
    socket: Socket = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    once: Annotated[bool, typer.Option("-1", "--once", help="Look once and end; rates are since the start.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two looks: 500ms, 1s, 1m.")] = "1s",
) -> None:
    """Watch a balancer: its listeners and targets, health, rates, who closes first, ports toward each target.

    Ports: in use and in TIME_WAIT toward a target, and when they run out at the present pace. Not a terminal: plain
    lines. Ctrl-C ends it, and so does the balancer's own end.
    """
    from timewait import durations

    seconds = durations.seconds(interval)
    if not seconds or seconds < 0.1:
        raise typer.BadParameter(f"--interval {interval}: write it as 500ms, 1s or 1m; 100ms at least")
    signal.signal(signal.SIGTERM, _interrupt)
    with refusals():
        try:
            _watch(client(socket), json, once, seconds)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # `... | head`; what is still buffered must not be tried again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _watch(asked: Client, json: bool, once: bool, seconds: float) -> None:
    from rich.console import Console

    from timewait.cli.balance import top_view

    console = Console()
    looks = _looks(asked, once, seconds)
    if json or not console.is_terminal or console.is_dumb_terminal:
        for before, now in looks:
            sys.stdout.write((_line(before, now) if json else top_view.text(before, now)) + "\n")
            sys.stdout.flush()
    elif once:
        console.print(top_view.page(*next(looks), console.width))
    else:
        _live(console, looks)


def _line(before: Stats | None, now: Stats) -> str:
    import msgspec

    from timewait.cli.balance.rates import rates

    return msgspec.json.encode({"stats": now, "rates": rates(before, now)}).decode()


def _live(console: Console, looks: Iterator[tuple[Stats | None, Stats]]) -> None:
    """The whole screen, and the last look left behind when it ends."""
    from rich.live import Live

    from timewait.cli.balance import top_view

    last: tuple[Stats | None, Stats] | None = None
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for look in looks:
                last = look
                live.update(top_view.page(*look, console.width), refresh=True)
    finally:
        if last is not None:
            console.print(top_view.page(*last, console.width))


def _looks(asked: Client, once: bool, seconds: float) -> Iterator[tuple[Stats | None, Stats]]:
    """A look with the one before it, per interval."""
    import msgspec

    from timewait.balancer.views import Stats

    before: Stats | None = None
    due = time.monotonic()
    while True:
        now = msgspec.json.decode(asked.get("/v1/stats"), type=Stats)
        yield before, now
        if once:
            return
        before = now
        due = max(due + seconds, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
