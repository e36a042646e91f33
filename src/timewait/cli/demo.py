"""`timewait demo`: one load, three ways to end its connections, side by side."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli import app

if TYPE_CHECKING:
    from rich.console import Console

MACHINE, INTERRUPTED = 3, 130


@app.command()
def demo(
    loopback: Annotated[
        bool, typer.Option("--loopback", help="Without namespaces, over 127.0.0.1; tells what that hides.")
    ] = False,
) -> None:
    """One load, three ways to close: meet the wall, see it go.

    Takes 15 seconds and no root: client, balancer and server stand in network namespaces, gone at the end.
    """
    from timewait.lab import ForbiddenError, enter

    reason = ""
    if not loopback:
        try:
            enter()  # before anything else is imported: it must come before the first thread
        except ForbiddenError as error:
            reason = str(error)
    from rich.console import Console

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without our characters
    console = Console(highlight=False)
    if console.width > 100 or not console.is_terminal:
        console.width = 100 if console.is_terminal else 80
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        code = _play(console, reason, loopback=loopback or bool(reason))
    except BrokenPipeError:  # `| head` has seen enough; what is buffered would raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    raise typer.Exit(code)


def _play(console: Console, reason: str, *, loopback: bool) -> int:
    from timewait import demo as show
    from timewait.cli import demo_view as view
    from timewait.lab.processes import ProgramError

    console.print(view.opening(reason, show.hidden() if loopback else [], loopback=loopback))
    code = 0
    with view.Progress(console) as progress:
        audience = show.Audience(on_start=progress.start, on_tick=progress.tick)
        try:
            show.play(show.loopback if loopback else show.namespaces, audience)
        except KeyboardInterrupt:  # between rounds; within one, the round itself ends early
            code = INTERRUPTED
        except ProgramError as error:  # the balancer did not come up; its own words are in it
            print(f"timewait: {error}", file=sys.stderr)
            code = MACHINE
    if audience.rounds:
        console.print(view.closing(audience.rounds))
    return INTERRUPTED if any(one.run.interrupted for one in audience.rounds) else code
