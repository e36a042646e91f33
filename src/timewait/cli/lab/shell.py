"""`timewait lab shell HOST [COMMAND...]`: a shell or a command inside a host of a lab that runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from timewait.cli.lab import lab, refusals

NOT_FOUND = 127  # as a shell says it


@lab.command(context_settings={"allow_interspersed_args": False})
def shell(
    host: Annotated[str, typer.Argument(metavar="HOST", help="One of the lab's hosts.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Run this instead of $SHELL.")
    ] = None,
    name: Annotated[str | None, typer.Option("--lab", help="Which lab, when several run.", metavar="NAME")] = None,
) -> None:
    """Open a shell inside a host of a running lab, or run a command there.

    Options go before HOST; what follows it is the command. Hosts are known by name: `ping gateway`. The exit code is
    that of the command.
    """
    from timewait.cli.lab.inside import inside

    inside(host, name)
    words = command or []
    words = (words[1:] if words[:1] == ["--"] else words) or _interactive(host)  # `shell client -- ls`, by habit
    path = shutil.which(words[0])
    if path is None:
        print(f"timewait: there is no program {words[0]!r}", file=sys.stderr)
        raise typer.Exit(NOT_FOUND)
    sys.stdout.flush()
    with refusals():
        os.execv(path, words)


def _interactive(host: str) -> list[str]:
    """The user's shell; its prompt says where it is, as far as the shell lets us."""
    chosen = os.environ.get("SHELL") or "/bin/sh"
    if sys.stdin.isatty():
        print(f"You are at {host}; `exit` leaves.")
    os.environ["PS1"] = f"{host} \\$ " if Path(chosen).name == "bash" else f"{host} $ "
    if Path(chosen).name != "bash":
        return [chosen]
    # bash reads its own file last, which would set the prompt again
    settings = os.memfd_create("bashrc", 0)
    os.write(settings, f"[ -f ~/.bashrc ] && . ~/.bashrc\nPS1='{host} \\$ '\n".encode())
    return [chosen, "--rcfile", f"/proc/self/fd/{settings}", "-i"] if sys.stdin.isatty() else [chosen]
