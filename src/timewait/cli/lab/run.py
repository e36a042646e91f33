"""`timewait lab run CLAIM...`: experiments on the kernel that runs here, predictions beside measurements."""

from __future__ import annotations

import datetime
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli import INTERRUPTED, USAGE
from timewait.cli.lab import MACHINE, lab, refusals

if TYPE_CHECKING:
    from rich.console import Console

    from timewait.claims import Claim
    from timewait.verdict import Result

BALANCERS = ("timewait", "nginx", "haproxy")  # lab.programs has them; its import would slow the help
DIFFERS = 1


@lab.command()
def run(
    claims: Annotated[list[str], typer.Argument(metavar="CLAIM...", help="Their names, or all; see lab list.")],
    slow: Annotated[bool, typer.Option("--slow", help="With all: those too that take longer than a minute.")] = False,
    balancer: Annotated[
        str, typer.Option(metavar="PROGRAM", help="timewait, nginx or haproxy plays the balancer.")
    ] = "timewait",
    json: Annotated[bool, typer.Option("--json", help="A list on stdout, progress on stderr.")] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="A self-contained page.")] = None,
    pcap: Annotated[str | None, typer.Option(metavar="DIR", help="Record every link of every network.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Everything that was measured.")] = False,
) -> None:
    """Run claims about TIME_WAIT as experiments, each in networks of its own, without root.

    Every claim is predicted by the rules of the kernel that runs here, then measured on it. Verdicts: holds, holds
    only if, does not hold; inconclusive where an experiment could not come to its end.

    Exit codes: 0 all hold, 1 one does not, 2 bad usage, 3 one was inconclusive, 130 interrupted (what was done is
    shown).
    """
    from timewait.claims import UnknownClaimError, find
    from timewait.claims import claims as known

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        chosen = find(claims, known(), slow=slow)
    except UnknownClaimError as error:
        _refuse(str(error))
    if balancer not in BALANCERS:
        _refuse(f"--balancer {balancer!r}: write {', '.join(BALANCERS[:-1])} or {BALANCERS[-1]}")
    _prepare(html, pcap)
    results: list[Result] = []
    interrupted = False
    with refusals():
        try:
            _play(chosen, balancer, pcap, results, quiet=json)
        except KeyboardInterrupt:
            interrupted = True
            if not results:
                print("timewait: interrupted before the first of them was done", file=sys.stderr)
    _report(results, json=json, verbose=verbose)
    for note in [
        note for one in results for note in one.notes if pcap and note.startswith(str(Path(pcap).resolve()))
    ]:
        print(f"timewait: {note}", file=sys.stderr)  # a capture that is not complete, also where notes are not shown
    if html:
        from timewait.report.experiments import write_html

        write_html(results, html, datetime.datetime.now().astimezone().isoformat(timespec="minutes", sep=" "))
    raise typer.Exit(INTERRUPTED if interrupted else exit_code(results))


def exit_code(results: list[Result]) -> int:
    """One that does not hold outweighs one that said nothing."""
    from timewait.verdict import DOES_NOT_HOLD, INCONCLUSIVE

    kinds = {one.kind for one in results}
    return DIFFERS if DOES_NOT_HOLD in kinds else MACHINE if INCONCLUSIVE in kinds else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _refuse(sentence: str) -> None:
    print(f"timewait: {sentence}", file=sys.stderr)
    raise typer.Exit(USAGE)


def _prepare(html: str | None, pcap: str | None) -> None:
    """Finds out before the experiments, not after them, that something cannot be written. Leaves no empty page."""
    try:
        if html:
            fresh = not Path(html).exists()
            with Path(html).open("ab"):
                pass
            if fresh:
                Path(html).unlink()
        if pcap:
            Path(pcap).mkdir(parents=True, exist_ok=True)
            if not os.access(pcap, os.W_OK | os.X_OK):
                raise PermissionError(13, os.strerror(13), pcap)
    except OSError as error:
        _refuse(f"{'--html' if error.filename == html else '--pcap'} {error.filename}: {error.strerror}")


def _play(chosen: list[Claim], balancer: str, pcap: str | None, results: list[Result], *, quiet: bool) -> None:
    from timewait.claims.runner import Settings, run
    from timewait.cli.consoles import Console

    # The screen belongs to whoever watches a terminal; what is piped gets the results alone.
    console = Console(stderr=quiet, highlight=False)
    settings = Settings(balancer=balancer, pcap=str(Path(pcap).resolve()) if pcap else None)
    show = _live if console.is_terminal and not console.is_dumb_terminal else _lines
    with show(console, results, len(chosen)) as progress:
        for result in run(chosen, settings, progress):
            results.append(result)
            progress(None, "")


Progress = Callable[["Claim | None", str], None]


@contextmanager
def _live(console: Console, results: list[Result], total: int) -> Iterator[Progress]:
    """The table as it grows, and what happens now; gone at the end. No thread of its own: experiments fork."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from timewait.report.experiments import table

    with Live(console=console, transient=True, auto_refresh=False, vertical_overflow="crop") as live:

        def progress(claim: Claim | None, text: str) -> None:
            shown = results[-max(1, (console.height - 6) // 2) :]
            now = Text(f"{len(results)} of {total} done", style="dim")
            if claim is not None:
                now.append(f" · {claim.id}: {text}")
                now.truncate(console.width - 3, overflow="ellipsis")  # room for the terminal's ^C, else it wraps
            live.update(Group(*([table(shown, console.width)] if shown else []), now), refresh=True)

        yield progress


@contextmanager
def _lines(console: Console, results: list[Result], total: int) -> Iterator[Progress]:
    """A line for each that is done, on stderr."""

    def progress(claim: Claim | None, text: str) -> None:
        if claim is None:
            one = results[-1]
            told = f"{len(results)} of {total}: {one.claim} {one.verdict} ({one.seconds:.1f} s)"
            print(told + (f": {one.why}" if one.why else ""), file=sys.stderr, flush=True)

    yield progress


def _report(results: list[Result], *, json: bool, verbose: bool) -> None:
    import msgspec

    from timewait.cli.consoles import Console, quiet_pipe
    from timewait.report.experiments import details, summary, table

    with quiet_pipe():
        if json:
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(results), indent=2).decode() + "\n")
            return
        if not results:
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 100
        for one in results if verbose else [one for one in results if one.kind == "does not hold"]:
            console.print(details(one))
            console.print()
        console.print(table(results, console.width))
        console.print(summary(results))
