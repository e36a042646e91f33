"""`timewait stress URL`: flags become a Plan; the run becomes a report and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from timewait.cli import app

LOAD, LIFE, SOURCE, REQUEST, TLS, OUTPUT = "Load", "Life of a connection", "Source", "Request", "TLS", "Output"


def _option(*names: str, panel: str, text: str, metavar: str | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*names, rich_help_panel=panel, help=text, metavar=metavar)
    return option


@app.command()
def stress(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="http://, https:// or tcp://host:port", show_default=False)
    ] = None,
    targets: Annotated[
        str | None,
        _option("--targets", panel=REQUEST, text="`METHOD URL` lines, used in turn; - for stdin", metavar="FILE"),
    ] = None,
    connections: Annotated[
        str | None,
        _option("-c", "--connections", panel=LOAD, text="connections at once (closed loop: 50)", metavar="N"),
    ] = None,
    rate: Annotated[
        str | None,
        _option("-R", "--rate", "-q", panel=LOAD, text="open loop: 5k/s requests, 5kcps connections", metavar="RATE"),
    ] = None,
    requests: Annotated[
        str | None, _option("-n", "--requests", panel=LOAD, text="stop after this many requests", metavar="N")
    ] = None,
    duration: Annotated[
        str | None,
        _option("-d", "--duration", "-z", panel=LOAD, text="how long (10s unless -n is given)", metavar="TIME"),
    ] = None,
    ramp_up: Annotated[
        str | None, _option("--ramp-up", panel=LOAD, text="reach the full load after this time", metavar="TIME")
    ] = None,
    warm_up: Annotated[
        str | None, _option("--warm-up", panel=LOAD, text="leave this first part out of the totals", metavar="TIME")
    ] = None,
    find_max: Annotated[
        bool, _option("--find-max", panel=LOAD, text="raise the rate step by step until something gives way")
    ] = False,
    workers: Annotated[
        str | None, _option("--workers", panel=LOAD, text="processes (one per core)", metavar="N")
    ] = None,
    per_connection: Annotated[
        str | None,
        _option("--requests-per-connection", panel=LIFE, text="N or unlimited", metavar="N"),
    ] = None,
    close: Annotated[
        str | None,
        _option("--close", panel=LIFE, text="who ends a connection: server, client, reset or half", metavar="WHO"),
    ] = None,
    disable_keepalive: Annotated[
        bool, _option("--disable-keepalive", panel=LIFE, text="the same as --close server")
    ] = False,
    timeout: Annotated[
        str | None, _option("--timeout", panel=LIFE, text="for a complete answer (10s)", metavar="TIME")
    ] = None,
    connect_timeout: Annotated[
        str | None, _option("--connect-timeout", panel=LIFE, text="for connect and TLS each (5s)", metavar="TIME")
    ] = None,
    close_timeout: Annotated[
        str | None, _option("--close-timeout", panel=LIFE, text="for the peer's FIN (1s)", metavar="TIME")
    ] = None,
    source: Annotated[
        list[str] | None,
        _option("--source", panel=SOURCE, text="addresses, A-B ranges, CIDR blocks; repeatable", metavar="ADDR"),
    ] = None,
    ports: Annotated[
        str, _option("--ports", panel=SOURCE, text="kernel, oldest, sequential, random, LOW-HIGH, POLICY:LOW-HIGH")
    ] = "kernel",
    connect_to: Annotated[
        list[str] | None,
        _option("--connect-to", panel=SOURCE, text="HOST:PORT:ADDRESS:PORT, as in curl", metavar="SPEC"),
    ] = None,
    in_host: Annotated[
        str | None, _option("--in", panel=SOURCE, text="a host of a lab that runs (timewait lab up)", metavar="HOST")
    ] = None,
    lab: Annotated[
        str | None, _option("--lab", panel=SOURCE, text="which lab, when several run", metavar="NAME")
    ] = None,
    ipv4: Annotated[bool, _option("-4", "--ipv4", panel=SOURCE, text="IPv4 addresses only")] = False,
    ipv6: Annotated[bool, _option("-6", "--ipv6", panel=SOURCE, text="IPv6 addresses only")] = False,
    method: Annotated[
        str | None, _option("-m", "--method", "-X", panel=REQUEST, text="GET, or POST with a body", metavar="METHOD")
    ] = None,
    header: Annotated[
        list[str] | None, _option("-H", "--header", panel=REQUEST, text="'Name: value'; repeatable", metavar="LINE")
    ] = None,
    body: Annotated[
        str | None, _option("--body", panel=REQUEST, text="text or @file; of tcp:// the payload", metavar="BODY")
    ] = None,
    expect: Annotated[
        str | None,
        _option("--expect", panel=REQUEST, text="statuses that count (2xx,3xx); of tcp:// the reply", metavar="WHAT"),
    ] = None,
    insecure: Annotated[bool, _option("-k", "--insecure", panel=TLS, text="accept any certificate")] = False,
    cacert: Annotated[
        str | None, _option("--cacert", panel=TLS, text="PEM file of certificates to trust", metavar="FILE")
    ] = None,
    sni: Annotated[str | None, _option("--sni", panel=TLS, text="server name to ask for", metavar="NAME")] = None,
    resume: Annotated[bool, _option("--tls-resume/--no-tls-resume", panel=TLS, text="resume TLS sessions")] = True,
    fail_if: Annotated[
        list[str] | None,
        _option("--fail-if", panel=OUTPUT, text="failed>0.1%, p99>50ms, rate<5k/s; repeatable", metavar="LIMIT"),
    ] = None,
    json: Annotated[bool, _option("--json", panel=OUTPUT, text="one JSON object on stdout")] = False,
    csv: Annotated[
        str | None, _option("--csv", panel=OUTPUT, text="a row a second; - for stdout", metavar="FILE")
    ] = None,
    save: Annotated[
        str | None, _option("--save", panel=OUTPUT, text="JSON lines, written as it goes", metavar="FILE")
    ] = None,
    html: Annotated[str | None, _option("--html", panel=OUTPUT, text="a self-contained page", metavar="FILE")] = None,
    no_tui: Annotated[bool, _option("--no-tui", panel=OUTPUT, text="a line a second, no live view")] = False,
    quiet: Annotated[bool, _option("--quiet", panel=OUTPUT, text="the final report only")] = False,
) -> None:
    """Drive load at URL, watch this host's kernel, and say why connections fail.

    --ports other than kernel binds explicitly, in constant time. Such a bind takes over this host's TIME_WAIT of the
    same five-tuple at once if that connection had timestamps, whatever tcp_tw_reuse says; without timestamps
    connect() fails with EADDRNOTAVAIL.

    Exit codes: 0 all well, 1 the target failed, 2 bad usage, 3 this machine was the limit, 4 a --fail-if limit was
    missed, 130 interrupted (the report is complete), 70 a fault of timewait itself.
    """
    from timewait.cli.lab.inside import inside

    inside(in_host, lab)  # before anything else is imported: it must come before the first thread
    from timewait.cli.outputs import drive
    from timewait.cli.wishes import Wishes

    wishes = {name: value for name, value in ctx.params.items() if name not in ("in_host", "lab")}
    sys.exit(drive(Wishes(**wishes)))
