"""`timewait rules length`: how long a TIME_WAIT lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli.rules import AsJson, KernelName, Sysctls, WordsError, linux, refusals, rules, show, stands_for

if TYPE_CHECKING:
    from timewait.tcp import Lasts, Linux

MOST_RTO = 120.0  # s, TCP_RTO_MAX
MOST_LINGER2 = 120  # s, TCP_FIN_TIMEOUT_MAX


@rules.command()
def length(
    kernel: KernelName = None,
    sysctl: Sysctls = None,
    rto: Annotated[
        str, typer.Option(metavar="SECONDS", help="the connection's retransmission timeout; 1.5 or 200ms")
    ] = "0.2",
    no_timestamps: Annotated[bool, typer.Option("--no-timestamps", help="the connection has none")] = False,
    ipv6: Annotated[bool, typer.Option("-6", "--ipv6", help="over IPv6")] = False,
    fin_wait2: Annotated[
        bool, typer.Option("--fin-wait2", help="not TIME_WAIT proper: an orphan whose peer has not closed")
    ] = False,
    linger2: Annotated[str | None, typer.Option(metavar="SECONDS", help="TCP_LINGER2 of that orphan")] = None,
    hz: Annotated[str | None, typer.Option(metavar="N", help="the kernel's tick, 100 to 1000; 1000")] = None,
    json: AsJson = False,
) -> None:
    """How long TIME_WAIT lasts, from when to when it may end, and which counter tells of it.

    Exit codes: 0 answered, 2 bad usage.
    """
    with refusals():
        from timewait.cli.rules import words

        host = linux(kernel, sysctl)
        if hz is not None:
            ticks = words.number(hz, "--hz")
            if not 100 <= ticks <= 1000:
                raise WordsError(f"--hz {hz}: kernels are built with 100 to 1000")
            host = host.with_hz(ticks)
        timeout = words.seconds(rto, "--rto")
        if not 0 < timeout <= MOST_RTO:
            raise WordsError(f"--rto {rto}: a retransmission timeout is more than 0 and at most {MOST_RTO:g} s")
        linger = words.number(linger2 or 0, "--linger2")
        if linger > MOST_LINGER2:
            raise WordsError(f"--linger2 {linger2}: setsockopt() keeps no more than {MOST_LINGER2} s of it")
        if linger2 is not None and not fin_wait2:
            raise WordsError("--linger2 needs --fin-wait2: TCP_LINGER2 does not concern TIME_WAIT proper")
        found = host.length(
            rto=timeout,
            timestamps=not no_timestamps,
            ipv6=ipv6,
            fin_wait2=fin_wait2,
            linger2=linger,
        )
        show(_text(host, found, here=kernel is None), _record(host, found), as_json=json)


def span(low: float, high: float) -> str:
    """ "0.768 s", "52.5 to 60 s"."""
    return f"{low:g} s" if low == high else f"{low:g} to {high:g} s"


def _text(host: Linux, found: Lasts, *, here: bool) -> str:
    lines = [
        f"Linux {host.kernel.version} ends it after {span(*found.seconds)}, because {found.rule}.",
        f"{found.counter} rises by one {found.counted}.",
    ]
    if found.busy_seconds != found.seconds:
        lines.append(
            f"While other short TIME_WAITs wait on the same wheel it may share their slot: "
            f"{span(*found.busy_seconds)} then."
        )
    return "\n".join([*lines, f"Source: {found.source}", *stands_for(host, here=here)])


def _record(host: Linux, found: Lasts) -> dict[str, object]:
    return {
        "seconds": list(found.seconds),
        "busy_seconds": list(found.busy_seconds),
        "nominal_seconds": found.nominal_seconds,
        "counter": found.counter,
        "counted": found.counted,
        "rule": found.rule,
        "rule_id": found.rule_id,
        "source": found.source,
        "kernel": host.kernel.version,
    }
