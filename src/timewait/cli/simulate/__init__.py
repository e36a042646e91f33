"""`timewait simulate NAME|FILE`: flags become a scenario; what comes of it becomes an answer with its evidence."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from timewait.cli import app

WORLD, RUNS, OUTPUT = "World", "Runs", "Output"


def _option(*names: str, panel: str, text: str, metavar: str | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*names, rich_help_panel=panel, help=text, metavar=metavar)
    return option


@app.command()
def simulate(
    ctx: typer.Context,
    scenario: Annotated[
        str | None,
        typer.Argument(metavar="NAME|FILE|list", help="a ready-made scenario or a TOML file", show_default=False),
    ] = None,
    clients: Annotated[str | None, _option("--clients", panel=WORLD, text="how many: 500, 2M", metavar="N")] = None,
    addresses: Annotated[
        str | None, _option("--addresses", panel=WORLD, text="public addresses of the NAT", metavar="N")
    ] = None,
    ports: Annotated[
        str | None, _option("--ports", panel=WORLD, text="of each address: a number or LOW-HIGH", metavar="PORTS")
    ] = None,
    rate: Annotated[
        str | None, _option("-R", "--rate", panel=WORLD, text="new connections: 500, 50k/s, 300/m", metavar="RATE")
    ] = None,
    close: Annotated[
        str | None, _option("--close", panel=WORLD, text="who closes first: server, client or reset", metavar="WHO")
    ] = None,
    trace: Annotated[
        str | None, _option("--trace", panel=WORLD, text="moments to open connections at, one a line", metavar="FILE")
    ] = None,
    kernel: Annotated[
        str | None, _option("--kernel", panel=WORLD, text="of the balancer: 2.6.32, el7, 6.18", metavar="VERSION")
    ] = None,
    recycle: Annotated[
        bool | None, _option("--recycle/--no-recycle", panel=WORLD, text="tcp_tw_recycle of the balancer")
    ] = None,
    timestamps: Annotated[
        str | None, _option("--timestamps", panel=WORLD, text="of the balancer: on or off", metavar="WHICH")
    ] = None,
    duration: Annotated[
        str | None, _option("-d", "--duration", panel=WORLD, text="simulated: 30s, 5m, 1h", metavar="TIME")
    ] = None,
    settings: Annotated[
        list[str] | None,
        _option("--set", panel=WORLD, text="any setting of --check: nat.rest=2m; repeatable", metavar="NAME=VALUE"),
    ] = None,
    run: Annotated[
        str | None, _option("--from", panel=WORLD, text="a run saved by stress: with --set, what if", metavar="FILE")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        _option("--sweep", panel=RUNS, text="values to go through: nat.ports=64,256,1k; repeatable", metavar="WHAT"),
    ] = None,
    figure: Annotated[
        str | None,
        _option("--figure", panel=RUNS, text="what to answer with: failed, never, wall ...", metavar="NAME"),
    ] = None,
    replications: Annotated[
        str | None, _option("--replications", panel=RUNS, text="independent ones, for intervals", metavar="N")
    ] = None,
    seed: Annotated[
        str | None, _option("--seed", panel=RUNS, text="the same seed, the same result", metavar="N")
    ] = None,
    workers: Annotated[
        str | None, _option("--workers", panel=RUNS, text="processes (one per core)", metavar="N")
    ] = None,
    scheduler: Annotated[
        str | None, _option("--scheduler", panel=RUNS, text="a dask cluster: tcp://HOST:8786", metavar="ADDRESS")
    ] = None,
    resume: Annotated[
        str | None, _option("--resume", panel=RUNS, text="go on with a sweep that was cut short", metavar="FILE")
    ] = None,
    check: Annotated[
        bool, _option("--check", panel=OUTPUT, text="print the scenario with every default, simulate nothing")
    ] = False,
    json: Annotated[bool, _option("--json", panel=OUTPUT, text="one JSON object on stdout")] = False,
    save: Annotated[
        str | None,
        _option("--save", panel=OUTPUT, text="the run, or the sweep as it goes; JSON lines", metavar="FILE"),
    ] = None,
    html: Annotated[str | None, _option("--html", panel=OUTPUT, text="a self-contained page", metavar="FILE")] = None,
    quiet: Annotated[bool, _option("--quiet", panel=OUTPUT, text="no progress")] = False,
) -> None:
    """Ask what kernels decide for more clients than any lab can hold.

    A scenario is a world and a question: clients with their clocks, NATs, a balancer with its kernel and sysctls, its
    servers. Every SYN meets the rules that `timewait rules` tells; nothing is sent. `timewait simulate list` shows
    the ready-made ones, NAME --check all of their settings.

    Exit codes: 0 simulated, whatever came out; 2 bad usage; 3 a cluster or a worker was lost; 130 interrupted. Of a
    sweep cut short what is done is kept, and --resume goes on.
    """
    from timewait.cli.simulate.drive import drive
    from timewait.cli.simulate.wishes import Wishes

    sys.exit(drive(Wishes(**ctx.params)))
