"""`timewait balance FILE`: reads it, and shows or runs it."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from timewait.cli import USAGE
from timewait.cli.balance import balance
from timewait.cli.pipes import quiet_pipe

if TYPE_CHECKING:
    from timewait.balancer.config.model import Configuration
    from timewait.balancer.config.read import Reading


@balance.command()
def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A TOML file; - reads standard input.")] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Print the configuration with every default and what engines do with it.")
    ] = False,
    print_: Annotated[
        bool, typer.Option("--print", help="Print what HAProxy or nftables would be given, start nothing.")
    ] = False,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="embedded, haproxy or nftables, for the file's `engine`.")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print a file to begin with.")] = False,
) -> None:
    """Run a load balancer as FILE says; `timewait balance FILE` is the same.

    Who closes first is part of the configuration, on both sides: it decides where TIME_WAIT stands and what it costs.
    --check tells that for every listener. A running one is asked and changed with `timewait balance ctl`, watched
    with `timewait balance top`; SIGHUP reads the file again, SIGTERM drains, a second signal ends.

    Exit codes: 0 ended as it was told to, 1 an engine died, 2 a file or a machine that cannot run it, with nothing
    started, 130 a second signal ended it.
    """
    if example:
        from timewait.balancer.config.show import example as text

        _print(text())
        return
    if not file:
        _refuse("no FILE; `timewait balance --example` prints one to begin with")
    if check and print_:
        _refuse("--check and --print are two questions; ask one")
    if engine and not (check or print_):
        _refuse(
            "--engine is for --check and --print; to run on another one write it into the file, where reload sees it"
        )
    reading = _read(file, engine)
    for warning in reading.warnings:
        print(f"timewait: warning: {warning}", file=sys.stderr)
    if check:
        _print(_checked(reading.configuration))
    elif print_:
        _print(_generated(reading.configuration))
    else:
        sys.exit(_run(reading.configuration, file))


def _print(text: str) -> None:
    with quiet_pipe():
        print(text, end="")


def _refuse(sentence: str) -> NoReturn:
    """Each line of it is one sentence."""
    for line in sentence.split("\n"):
        print(f"timewait: {line}", file=sys.stderr)
    raise typer.Exit(USAGE)


def _text(file: str) -> str:
    from timewait.balancer.engine import BalancerError
    from timewait.balancer.source import content

    try:
        return content(file)
    except BalancerError as problem:
        names = [name for name in ("ctl", "top") if "/" not in file and not file.endswith(".toml")]
        near = [] if Path(file).exists() else get_close_matches(file, names, 1, 0.5)
        hint = f"; did you mean `timewait balance {near[0]}`?" if near else ""
        _refuse(f"{problem}{hint}")


def _read(file: str, engine: str | None) -> Reading:
    from timewait.balancer.config.read import ConfigError, read
    from timewait.balancer.source import name_of

    try:
        return read(_text(file), name_of(file), engine=engine)
    except ConfigError as error:
        _refuse(str(error))


def _checked(configuration: Configuration) -> str:
    from timewait.balancer.config.show import effective

    return effective(configuration)


def _generated(configuration: Configuration) -> str:
    """What the engines that read a text of their own would be given."""
    from timewait.balancer.config.model import Engine
    from timewait.balancer.engine import BalancerError

    used = {configuration.engine_of(listener) for listener in configuration.listener}
    texts = []
    try:
        if Engine.HAPROXY in used:
            from timewait.balancer import haproxy

            texts.append(haproxy.text(configuration))
        if Engine.NFTABLES in used:
            from timewait.balancer import nftables

            texts.append(nftables.text(configuration))
    except BalancerError as error:
        _refuse(str(error))
    if not texts:
        _refuse("--print shows what HAProxy and nftables are given, and every listener is embedded; see --check")
    return "\n".join(texts)


def _run(configuration: Configuration, file: str) -> int:
    from timewait import balance as joined
    from timewait.balancer.engine import BalancerError

    try:
        return joined.run(configuration, file, say=_say, on_ready=_ready)
    except BalancerError as error:
        _refuse(str(error))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _ready(line: str) -> None:
    with quiet_pipe():
        print(line)
