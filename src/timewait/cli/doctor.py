"""`timewait doctor [URL]`: this host and a target, looked at before any load."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from timewait.cli import app

BAD_USAGE = 2


@app.command()
def doctor(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="http://, https:// or tcp://host:port")] = None,
    insecure: Annotated[bool, typer.Option("-k", "--insecure", help="accept any certificate")] = False,
    cacert: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM file of certificates to trust", show_default=False)
    ] = None,
    sni: Annotated[str | None, typer.Option(metavar="NAME", help="server name to ask for")] = None,
    connect_to: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="HOST:PORT:ADDRESS:PORT, as in curl")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(metavar="ADDR", help="sources a load would use: addresses, A-B, CIDR blocks")
    ] = None,
    ipv4: Annotated[bool, typer.Option("-4", "--ipv4", help="IPv4 addresses only")] = False,
    ipv6: Annotated[bool, typer.Option("-6", "--ipv6", help="IPv6 addresses only")] = False,
    idle: Annotated[str, typer.Option(metavar="TIME", help="how long an idle connection is watched")] = "3s",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="for connect and for a complete answer, each")] = "5s",
    json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Look before any load: host limits, port budget, what the target does, and the rate each closing sustains.

    Exit codes: 0 looked at, 1 the target cannot be reached, 2 bad usage, 3 this machine kept the probe from leaving.
    """
    from timewait.doctor import examine
    from timewait.plan import Plan, PlanError, Tls, parse_connect_to, parse_duration, parse_sources, parse_url

    try:
        if ipv4 and ipv6:
            raise PlanError("-4 and -6 exclude each other; give one of them, or none for both")
        wait = parse_duration(timeout, "--timeout")
        sources = parse_sources(source or [])
        plan = None
        if url is not None:
            plan = Plan(
                requests_list=(parse_url(url),),
                tls=Tls(verify=not insecure, cacert=cacert, sni=sni),
                connect_to=tuple(map(parse_connect_to, connect_to or [])),
                sources=sources,
                family=4 if ipv4 else 6 if ipv6 else 0,
                connect_timeout=wait,
                timeout=wait,
                close_timeout=min(2.0, wait),
            )
        found = examine(plan, sources=sources, idle=parse_duration(idle, "--idle"))
    except PlanError as error:
        typer.echo(f"timewait: {error}", err=True)
        raise typer.Exit(BAD_USAGE) from None
    if json:
        import msgspec

        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        from rich.console import Console

        from timewait.cli.doctor_view import text

        Console(highlight=False).print(text(found))
    raise typer.Exit(found.exit_code)
