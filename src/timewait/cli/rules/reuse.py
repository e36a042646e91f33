"""`timewait rules reuse`: may connect() take over its own TIME_WAIT?"""

from __future__ import annotations

from typing import Annotated

import typer

from timewait.cli.rules import AsJson, KernelName, Sysctls, linux, refusals, rules, sentence, show


@rules.command()
def reuse(
    time_wait: Annotated[
        str, typer.Option(metavar="FIELDS", help="snd_nxt=N[,ts=N,stamp=S][,entered_ms=MS][,substate=FIN_WAIT2]")
    ],
    now: Annotated[
        str,
        typer.Option(metavar="SECONDS", help="on the clock of stamp and entered_ms; 1002, 1002.001 or 1002001ms"),
    ],
    kernel: KernelName = None,
    sysctl: Sysctls = None,
    bound: Annotated[bool, typer.Option("--bound", help="the port was bound before connect()")] = False,
    loopback: Annotated[bool, typer.Option("--loopback", help="over lo, 127.0.0.0/8 or ::1")] = False,
    no_timestamps: Annotated[bool, typer.Option("--no-timestamps", help="the old connection had none")] = False,
    ipv6: Annotated[bool, typer.Option("-6", "--ipv6", help="over IPv6; the rule is the same")] = False,
    json: AsJson = False,
) -> None:
    """Whether connect() takes over a TIME_WAIT of the very same five-tuple, and with which sequence number.

    `stamp` is the second of the peer's last timestamp, by which kernels up to 6.13 judge; `entered_ms` when TIME_WAIT
    began, by which 6.14 and later judge, to the millisecond; without it TIME_WAIT began at the stamp.

    Exit codes: 0 answered, 2 bad usage.
    """
    with refusals():
        from timewait.cli.rules import words

        host = linux(kernel, sysctl)
        timestamps = not no_timestamps
        waiting = words.time_wait(time_wait, ("snd_nxt",), loopback=loopback, ipv6=ipv6, timestamps=timestamps)
        told = host.reuse(waiting, now=words.seconds(now, "--now"), bound=bound)
        what = {
            "reuse": "lets connect() take over this TIME_WAIT",
            "skip": "does not let connect() from this port: EADDRNOTAVAIL" if bound else "skips this port",
        }[told.action]
        answer = {
            "action": told.action,
            "isn": told.isn or None,
            "counters": dict.fromkeys(told.counters, 1),
            "rule": told.rule,
            "rule_id": told.rule_id,
            "source": told.source,
            "kernel": host.kernel.version,
        }
        show(sentence(host, what, told, here=kernel is None), answer, as_json=json)
