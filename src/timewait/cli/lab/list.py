"""`timewait lab list`: the networks there are, the claims shown on them, and the labs that run."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Annotated

import typer

from timewait.cli.lab import lab
from timewait.cli.pipes import quiet_pipe


@lab.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Show the topologies, the claims, and the labs that run."""
    import msgspec

    from timewait.claims import claims
    from timewait.lab.registry import running
    from timewait.lab.topologies import TOPOLOGIES

    topologies = [make() for make in TOPOLOGIES.values()]
    labs = running()
    with quiet_pipe():
        if json:
            found = {
                "topologies": [{"name": one.name, "title": one.title} for one in topologies],
                "claims": [
                    {
                        "claim": one.id,
                        "title": one.title,
                        "topology": one.topology,
                        "slow": one.slow,
                        "needs": one.needs,
                    }
                    for one in claims().values()
                ],
                "running": [{"name": one.name, "pid": one.pid, "hosts": sorted(one.hosts)} for one in labs],
            }
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
            return
        print("Topologies (timewait lab show NAME, timewait lab up NAME)")
        _print_terms({one.name: one.title for one in topologies})
        print("\nClaims (timewait lab run NAME..., timewait lab run all)")
        _print_terms({one.id: one.title + (" (slow)" if one.slow else "") for one in claims().values()})
        if labs:
            print("\nRunning (timewait lab shell HOST)")
            for running_lab in labs:
                print(f"  {running_lab.name}  {' '.join(running_lab.hosts)}")


def _print_terms(terms: dict[str, str]) -> None:
    """Names in a column, what they mean beside them."""
    width, columns = max(map(len, terms)), max(60, min(110, shutil.get_terminal_size().columns))
    for name, meaning in terms.items():
        indent = " " * (width + 4)
        print(textwrap.fill(meaning, columns, initial_indent=f"  {name:<{width}}  ", subsequent_indent=indent))
