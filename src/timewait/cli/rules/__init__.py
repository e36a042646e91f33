"""`timewait rules ...`: what a kernel would decide; one small file per question."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli import USAGE, app
from timewait.cli.pipes import quiet_pipe

if TYPE_CHECKING:
    from timewait.tcp import Linux, Told

rules = typer.Typer(
    help="What a Linux kernel decides about TIME_WAIT, by version, with the rule and its source.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(rules, name="rules")

KernelName = Annotated[
    str | None,
    typer.Option("--kernel", metavar="NAME", help="2.6.32, el7, 6.18, ...; this host's", show_default=False),
]
Sysctls = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a sysctl, such as tcp_tw_recycle=1")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]


class WordsError(Exception):
    """Words on the command line that say nothing; the message says which, and what to write."""


@contextmanager
def refusals() -> Iterator[None]:
    """What cannot be asked becomes one sentence and the exit code for bad usage."""
    from timewait.tcp.kernels import UnknownKernelError, UnknownKnobError

    try:
        yield
    except (WordsError, UnknownKernelError, UnknownKnobError) as error:
        print(f"timewait: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from None


def linux(name: str | None, settings: list[str] | None) -> Linux:
    """The kernel asked for, this host's by default, with its sysctls. Raises WordsError and the kernel's errors."""
    from timewait.tcp import Linux

    sysctls = {}
    for word in settings or []:
        knob, equals, value = word.partition("=")
        if not equals or not knob.strip():
            raise WordsError(f"--set {word}: write NAME=VALUE, such as tcp_tw_reuse=1")
        sysctls[knob.strip()] = value.strip()
    return Linux.running(os.uname().release, **sysctls) if name is None else Linux(name, **sysctls)


def show(sentence: str, record: Mapping[str, object] | Sequence[object], *, as_json: bool) -> None:
    """The answer, for people or for programs."""
    with quiet_pipe():
        sys.stdout.write((json.dumps(record) if as_json else sentence) + "\n")


def stands_for(host: Linux, *, here: bool) -> list[str]:
    """Says so where another version stands for this host's kernel."""
    release = os.uname().release
    if not here or release == host.kernel.version:
        return []
    return [f"This host runs {release}; the rules are those of {host.kernel.version}, the nearest that was read."]


def sentence(host: Linux, what: str, told: Told, *, here: bool) -> str:
    """ "Linux 2.6.32.67 drops this SYN, because ...", what moves, and where the rule stands."""
    lines = [f"Linux {host.kernel.version} {what}, because {told.rule}."]
    more = [f"{name} rises by one." for name in told.counters]
    if told.rearm_seconds:
        more.append(f"TIME_WAIT starts again and lasts {told.rearm_seconds:g} s.")
    if told.isn:
        more.append(f"The initial sequence number is {told.isn}.")
    if more:
        lines.append(" ".join(more))
    return "\n".join([*lines, f"Source: {told.source}", *stands_for(host, here=here)])
