"""`timewait rules syn`: a SYN, or another segment, that reaches a listener or meets a TIME_WAIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli.rules import AsJson, KernelName, Sysctls, WordsError, linux, refusals, rules, sentence, show

if TYPE_CHECKING:
    from timewait.tcp import Linux, Listener, Told


@rules.command()
def syn(
    kernel: KernelName = None,
    sysctl: Sysctls = None,
    record: Annotated[
        str | None,
        typer.Option(metavar="ts=N,stamp=S", help="what tcp_tw_recycle remembers of the address", show_default=False),
    ] = None,
    time_wait: Annotated[
        str | None,
        typer.Option(
            metavar="FIELDS",
            help="a TIME_WAIT of the same five-tuple: rcv_nxt=N,snd_nxt=N[,ts=N,stamp=S][,substate=FIN_WAIT2]",
            show_default=False,
        ),
    ] = None,
    now: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="on the clock of the stamp; 1059, 1059.25 or 1059250ms")
    ] = None,
    tsval: Annotated[str | None, typer.Option(metavar="N", help="the segment's timestamp; none without it")] = None,
    no_timestamps: Annotated[
        bool, typer.Option("--no-timestamps", help="the segment, and the old connection, have none")
    ] = False,
    seq: Annotated[str, typer.Option(metavar="N", help="the segment's sequence number")] = "0",
    ack: Annotated[str, typer.Option(metavar="N", help="what it acknowledges")] = "0",
    flags: Annotated[str, typer.Option(metavar="FLAGS", help="RST; FIN,ACK; any of SYN ACK FIN RST PSH")] = "SYN",
    length: Annotated[str, typer.Option(metavar="BYTES", help="of payload")] = "0",
    ipv6: Annotated[bool, typer.Option("-6", "--ipv6", help="over IPv6")] = False,
    no_listener: Annotated[bool, typer.Option("--no-listener", help="nobody listens any more")] = False,
    accept_queue_full: Annotated[
        bool, typer.Option("--accept-queue-full", help="the program does not accept() in time")
    ] = False,
    young: Annotated[
        str,
        typer.Option(metavar="N", help="requests sent one SYN-ACK only; counts up to 4.10, at a full accept queue"),
    ] = "2",
    syn_queue_full: Annotated[
        bool, typer.Option("--syn-queue-full", help="a cookie or nothing, as tcp_syncookies says")
    ] = False,
    last_quarter: Annotated[
        bool, typer.Option("--last-quarter", help="less than a quarter of tcp_max_syn_backlog is free")
    ] = False,
    proven: Annotated[bool, typer.Option("--proven", help="the peer was spoken to before")] = False,
    no_route: Annotated[
        bool, typer.Option("--no-route", help="the way back does not lead to the address it came from")
    ] = False,
    json: AsJson = False,
) -> None:
    """What becomes of a SYN, and why: at a listener with a peer record, or at a TIME_WAIT.

    Exit codes: 0 answered, 2 bad usage.
    """
    with refusals():
        from timewait.cli.rules import words
        from timewait.tcp import Listener, Segment

        host = linux(kernel, sysctl)
        if record is not None and time_wait is not None:
            raise WordsError(
                "--record and --time-wait: give one; a SYN that meets a TIME_WAIT is not judged by the record"
            )
        if tsval is not None and no_timestamps:
            raise WordsError("--tsval and --no-timestamps exclude each other")
        segment = Segment(
            words.number(seq, "--seq"),
            words.number(ack, "--ack"),
            words.flags(flags),
            words.number(length, "--length"),
            tsval is not None,
            words.number(tsval or 0, "--tsval"),
        )
        at = Listener(
            listening=not no_listener,
            syn_queue_full=syn_queue_full,
            accept_queue_full=accept_queue_full,
            young=words.number(young, "--young"),
            last_quarter=last_quarter,
            proven=proven,
        )
        if now is None and (record is not None or time_wait is not None):
            raise WordsError("--now is missing: the answer depends on the age of the stamp")
        moment = words.seconds(now or "0", "--now")
        if time_wait is not None:
            needs = ("rcv_nxt", "snd_nxt")
            waiting = words.time_wait(time_wait, needs, ipv6=ipv6, timestamps=not no_timestamps)
            told = host.meets(waiting, segment, now=moment, at=at)
        else:
            told = _at_listener(host, segment.flags, record, tsval, moment, at, ipv6=ipv6, routed=not no_route)
        what = _does(told, words.flag_names(segment.flags), tsval is not None, waits=time_wait is not None)
        show(sentence(host, what, told, here=kernel is None), as_record(host, told), as_json=json)


def _at_listener(
    host: Linux,
    flags: int,
    record: str | None,
    tsval: str | None,
    now: float,
    at: Listener,
    *,
    ipv6: bool,
    routed: bool,
) -> Told:
    from timewait.cli.rules import words
    from timewait.tcp import SYN

    if flags != SYN:
        raise WordsError(f"--flags {words.flag_names(flags)} needs --time-wait: a listener opens by a SYN alone")
    known = None if record is None else words.record(record)
    value = None if tsval is None else words.number(tsval, "--tsval")
    return host.syn(tsval=value, now=now, record=known, at=at, ipv6=ipv6, routed=routed)


def _does(told: Told, name: str, timestamps: bool, *, waits: bool) -> str:
    this = f"this {name}{'' if timestamps else ' without timestamps'}"
    return {
        "accept": f"answers {this} with a SYN-ACK",
        "drop": f"drops {this} without a word{', and TIME_WAIT is gone' if waits else ''}",
        "ack": f"answers {this} with a bare ACK and keeps TIME_WAIT",
        "reset": f"answers {this} with a RST{' and ends TIME_WAIT' if waits else ''}",
        "kill": f"ends TIME_WAIT for {this}, without an answer",
        "ignore": f"does not answer {this} and keeps TIME_WAIT",
        "cookie": f"answers {this} with a SYN cookie and remembers nothing",
    }[told.action]


def as_record(host: Linux, told: Told) -> dict[str, object]:
    """For programs."""
    return {
        "action": told.action,
        "rearm_seconds": told.rearm_seconds,
        "counters": dict.fromkeys(told.counters, 1),
        "rule": told.rule,
        "rule_id": told.rule_id,
        "source": told.source,
        "isn": told.isn or None,
        "time_wait_gone": told.gone,
        "kernel": host.kernel.version,
    }
