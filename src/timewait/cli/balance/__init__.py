"""`timewait balance FILE` runs; `timewait balance ctl ...` and `timewait balance top` speak with one that runs.

One small file per sub-command.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from timewait.cli import app

RUN = "run"
HELP = """Run a load balancer: layer 4 and layer 7, embedded, on HAProxy, or in the kernel.

`timewait balance FILE` runs one, FILE --check tells what it would do and who closes first, --example prints a file to
begin with; these are options of `run`. The other commands speak with one that runs.
"""


class _RunsFiles(TyperGroup):
    """What is no sub-command is a file to run, and its options: `timewait balance clb.toml --check`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


balance = typer.Typer(
    cls=_RunsFiles,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    subcommand_metavar="FILE|COMMAND ...",
)
app.add_typer(balance, name="balance")
