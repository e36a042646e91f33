"""The sysctls that decide about connections, and what each one's value means on this very host.

One small function per setting; (verdict, sentence). The rules behind them are in `timewait.tcp` and in the kernel's
Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from timewait.diagnose.words import count, seconds
from timewait.run import Host
from timewait.tcp.kernels import running
from timewait.tcp.syn import schedule


class Verdict(StrEnum):
    OK = "ok"
    NOTE = "note"  # worth knowing before blaming something else
    BAD = "bad"  # makes connections fail, or hides why they do


class Setting(msgspec.Struct, frozen=True):
    """One sysctl as it stands."""

    name: str
    value: str
    verdict: Verdict
    why: str


Judged = tuple[Verdict, str]


def judge(host: Host) -> list[Setting]:
    """Every setting of the list that this kernel has, in the order of the list."""
    found = []
    for name, rule in _RULES.items():
        value = host.sysctls.get(name)
        if value is None:
            continue
        try:
            verdict, why = rule(host, value)
        except ValueError:  # a value in a form no kernel we know writes
            verdict, why = Verdict.NOTE, "not in the form this timewait knows"
        found.append(Setting(name, value, verdict, why))
    return found


def _port_range(host: Host, value: str) -> Judged:
    low, high = map(int, value.split())
    ports = high - low + 1 - host.reserved_ports
    why = f"{count(ports)} source ports for each destination and source address"
    return (Verdict.OK if ports >= 28_000 else Verdict.BAD), why


def _reserved(host: Host, value: str) -> Judged:
    if not value:
        return Verdict.OK, "no port of the range is kept out of use"
    return Verdict.NOTE, f"{count(host.reserved_ports)} ports of the range are never chosen"


def _timestamps(host: Host, value: str) -> Judged:
    if int(value):
        return Verdict.OK, "offered; with them a TIME_WAIT can be taken over by a new connection"
    return Verdict.BAD, "without timestamps no TIME_WAIT can be taken over: tcp_tw_reuse and --ports oldest are void"


def _tw_reuse(host: Host, value: str) -> Judged:
    mode = int(value)
    if mode == 0:
        return Verdict.OK, "off: a port of ours in TIME_WAIT rests 60 s"
    if host.sysctls.get("net.ipv4.tcp_timestamps") == "0":
        return Verdict.NOTE, "void, because net.ipv4.tcp_timestamps is 0"
    if mode == 2:
        return Verdict.OK, "only toward 127.0.0.0/8 and ::1; toward any other host a port in TIME_WAIT rests 60 s"
    return Verdict.OK, "a port in TIME_WAIT comes back after about 1 s, where the target negotiates timestamps"


def _tw_reuse_delay(host: Host, value: str) -> Judged:
    return Verdict.OK, f"tcp_tw_reuse waits {seconds(int(value) / 1000)} (Linux 6.14 and later)"


def _tw_recycle(host: Host, value: str) -> Judged:
    if int(value):
        return Verdict.BAD, "drops SYNs of clients that share an address behind NAT; removed from Linux in 4.12"
    return Verdict.OK, "off, as it must be"


def _max_tw_buckets(host: Host, value: str) -> Judged:
    buckets, ports = int(value), host.port_high - host.port_low + 1 - host.reserved_ports
    if buckets < ports:
        return (
            Verdict.BAD,
            "fewer than the source ports: past it connections end without the rest that TIME_WAIT is for",
        )
    return Verdict.OK, "TIME_WAIT sockets this namespace may hold; more than one destination's ports can make"


def _fin_timeout(host: Host, value: str) -> Judged:
    if int(value) != 60:
        return Verdict.NOTE, "changed from 60, but it concerns orphans in FIN_WAIT2 only: TIME_WAIT stays 60 s"
    return Verdict.OK, "concerns orphans in FIN_WAIT2; it never shortens TIME_WAIT"


def _rfc1337(host: Host, value: str) -> Judged:
    if int(value):
        return (
            Verdict.NOTE,
            "RST does not end TIME_WAIT here: a client that meets one may hang until its SYN gives up",
        )
    return Verdict.OK, "off: a fitting RST ends TIME_WAIT, which lets a reused port connect at once"


def _syn_retries(host: Host, value: str) -> Judged:
    linear = host.sysctls.get("net.ipv4.tcp_syn_linear_timeouts")
    plan = schedule(running(host.kernel), retries=int(value), linear=None if linear is None else int(linear))
    return Verdict.OK, f"an unanswered connect() fails after {seconds(plan.gives_up)} with ETIMEDOUT"


def _somaxconn(host: Host, value: str) -> Judged:
    verdict = Verdict.NOTE if int(value) < 4096 else Verdict.OK
    return verdict, "longest accept queue of a listener on this host; a full one drops SYNs without a word"


def _syncookies(host: Host, value: str) -> Judged:
    if int(value):
        return Verdict.OK, "a full SYN queue on this host answers with cookies instead of dropping"
    return Verdict.NOTE, "off: a full SYN queue on this host drops SYNs"


def _abort_on_overflow(host: Host, value: str) -> Judged:
    if int(value):
        return Verdict.NOTE, "a full accept queue on this host answers RST: clients see resets instead of delays"
    return Verdict.OK, "a full accept queue on this host stays silent, and the client tries again"


def _conntrack(host: Host, value: str) -> Judged:
    ports = host.port_high - host.port_low + 1
    verdict = Verdict.NOTE if int(value) < 2 * ports else Verdict.OK
    return verdict, "connections the firewall remembers, ended ones for a while too; a full table drops SYNs"


_RULES: dict[str, Callable[[Host, str], Judged]] = {
    "net.ipv4.ip_local_port_range": _port_range,
    "net.ipv4.ip_local_reserved_ports": _reserved,
    "net.ipv4.tcp_timestamps": _timestamps,
    "net.ipv4.tcp_tw_reuse": _tw_reuse,
    "net.ipv4.tcp_tw_reuse_delay": _tw_reuse_delay,
    "net.ipv4.tcp_tw_recycle": _tw_recycle,
    "net.ipv4.tcp_max_tw_buckets": _max_tw_buckets,
    "net.ipv4.tcp_fin_timeout": _fin_timeout,
    "net.ipv4.tcp_rfc1337": _rfc1337,
    "net.ipv4.tcp_syn_retries": _syn_retries,
    "net.core.somaxconn": _somaxconn,
    "net.ipv4.tcp_syncookies": _syncookies,
    "net.ipv4.tcp_abort_on_overflow": _abort_on_overflow,
    "net.netfilter.nf_conntrack_max": _conntrack,
}
