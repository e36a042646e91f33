"""The command line: one small file per command, the only place that prints or exits.

A command's file is imported to build `--help`, so it imports the heavy rooms inside its function.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated

import typer

from timewait import __version__

USAGE, INTERNAL, INTERRUPTED = 2, 70, 130  # EX_SOFTWARE of sysexits.h is 70; a shell's SIGINT is 130

app = typer.Typer(
    name="timewait",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"timewait {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Stress a load balancer, watch the kernel while it happens, and say why connections fail."""


def _standard_files() -> None:
    """Opens those that the caller has closed (`>&-`): the next file would get the number, and be written to."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def main() -> None:
    """Entry point of the `timewait` script."""
    _standard_files()
    from timewait.cli import commands  # noqa: F401  registers every command on `app`

    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors, wherever the installed typer keeps click
            help_asked = type(error).__name__ == "NoArgsIsHelpError"
            print(error.format_message() if help_asked else f"timewait: {error.format_message()}", file=sys.stderr)
            sys.exit(USAGE)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            print(f"timewait: the output could not be written: {error.strerror}", file=sys.stderr)
            sys.exit(INTERNAL)
        # Whatever it is, the user gets one sentence and a code that tells it apart
        if os.environ.get("TIMEWAIT_DEBUG"):
            traceback.print_exc()
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"timewait: a fault of its own: {type(error).__name__}: {error} ({where.name}, line {where.lineno}); "
            "TIMEWAIT_DEBUG=1 shows where",
            file=sys.stderr,
        )
        sys.exit(INTERNAL)
