"""`timewait watch`: sockets by state and destination, ports, counters that moved; like top, as lines, or as JSON."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli import app

if TYPE_CHECKING:
    from rich.console import Console

    from timewait.observe.overview import Overview


@app.command()
def watch(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    once: Annotated[bool, typer.Option("-1", "--once", help="Look once and end.")] = False,
    interval: Annotated[str, typer.Option(help="Time between two looks: 500ms, 1s, 1m.")] = "1s",
    in_host: Annotated[
        str | None, typer.Option("--in", help="A host of a lab that runs (timewait lab up).", metavar="HOST")
    ] = None,
    lab: Annotated[str | None, typer.Option("--lab", help="Which lab, when several run.", metavar="NAME")] = None,
) -> None:
    """Watch this host's TCP sockets: states and source ports toward each destination, counters that move.

    Counts the sockets of this network namespace. Ports are those of ip_local_port_range toward a destination, of
    the source address that uses most of them. Not a terminal: plain lines. Ctrl-C ends it.
    """
    from timewait.cli.lab.inside import inside

    inside(in_host, lab)
    from timewait.plan import PlanError, parse_duration

    try:
        seconds = parse_duration(interval, "--interval")
    except PlanError as error:
        raise typer.BadParameter(str(error)) from None
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _watch(json, once, seconds)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # `timewait watch | head`; what is still buffered must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _watch(json: bool, once: bool, seconds: float) -> None:
    from rich.console import Console

    from timewait.cli import watch_view

    console = Console()
    views = _views(once, seconds)
    if json:
        import msgspec

        _each(views, lambda view: msgspec.json.encode(view).decode())
    elif not console.is_terminal or console.is_dumb_terminal:
        _each(views, watch_view.text)
    elif once:
        console.print(watch_view.screen(next(views), 1000, console.width))
    else:
        _live(console, views)


def _each(views: Iterator[Overview], text: Callable[[Overview], str]) -> None:
    for view in views:
        sys.stdout.write(text(view) + "\n")
        sys.stdout.flush()


def _live(console: Console, views: Iterator[Overview]) -> None:
    """The whole screen, and the last look left behind when it ends."""
    from rich.live import Live

    from timewait.cli import watch_view

    last: Overview | None = None
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for view in views:
                last = view
                live.update(watch_view.screen(view, max(4, console.height - 12), console.width), refresh=True)
    finally:
        if last is not None:
            console.print(watch_view.screen(last, 20, console.width))


def _views(once: bool, seconds: float) -> Iterator[Overview]:
    """One overview per interval, at due times fixed in advance. A look never takes more than half of the time."""
    from timewait.observe.overview import Lookout

    lookout = Lookout()
    try:
        due = time.monotonic()
        while True:
            view = lookout.look()
            yield view
            if once:
                return
            now = time.monotonic()
            due = max(due + seconds, now if view.cost < seconds / 2 else now + view.cost)
            time.sleep(max(0.0, due - now))
    finally:
        lookout.close()
