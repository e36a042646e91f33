"""`timewait lab ...`: one small file per sub-command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from timewait.cli import USAGE, app

MACHINE = 3  # this machine lacks something: a right, a program

lab = typer.Typer(
    help="Networks on this machine: clients, NAT gateways, a balancer, servers; without root.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(lab, name="lab")


@contextmanager
def refusals() -> Iterator[None]:
    """What cannot be done becomes one sentence and an exit code."""
    from timewait.lab.namespaces import ForbiddenError
    from timewait.lab.processes import MissingProgramError, ProgramError
    from timewait.lab.registry import LabError
    from timewait.lab.topology import TopologyError

    try:
        yield
    except (TopologyError, LabError) as error:
        print(f"timewait: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from None
    except (ForbiddenError, MissingProgramError, ProgramError) as error:
        print(f"timewait: {error}", file=sys.stderr)
        raise typer.Exit(MACHINE) from None
