"""`timewait lab show TOPOLOGY`: a drawing, or the topology as JSON, which `up` takes again."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli.lab import lab, refusals
from timewait.cli.pipes import quiet_pipe

if TYPE_CHECKING:
    from timewait.lab.topology import Topology


@lab.command()
def show(
    topology: Annotated[str, typer.Argument(metavar="TOPOLOGY", help="Its name, or a file that --json wrote.")],
    json: Annotated[bool, typer.Option("--json", help="As data; change it and give the file to `up`.")] = False,
) -> None:
    """Draw a topology: hosts, interfaces, addresses, NAT, wires."""
    import msgspec

    from timewait.lab.files import load

    with refusals():
        found = load(topology)
    with quiet_pipe():
        if json:
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        else:
            sys.stdout.write(drawing(found) + "\n")


def drawing(topology: Topology) -> str:
    """For the terminal, or 80 columns where there is none."""
    from timewait.cli.lab.draw import draw

    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return draw(topology, shutil.get_terminal_size((80, 24)).columns, ascii_only=encoding != "utf8")
