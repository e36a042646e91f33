"""The kernel's TCP counters, of the network namespace of the calling thread.

Keys are the kernel's words: `Tcp.ActiveOpens` (/proc/net/snmp), `TcpExt.TCPTimeWaitOverflow` (/proc/net/netstat),
`conntrack.drop` (/proc/net/stat/nf_conntrack), `softnet.dropped` (/proc/net/softnet_stat, of the whole machine).
Read through /proc/thread-self, since /proc/net is the namespace of the process's main thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_NOT_COUNTERS = frozenset({"Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.MaxConn", "Tcp.CurrEstab"})
_CONNTRACK = Path("/proc/sys/net/netfilter")


def proc_net() -> Path:
    """The /proc/net of the calling thread; /proc/thread-self exists since Linux 3.17."""
    own = Path("/proc/thread-self/net")
    return own if own.exists() else Path("/proc/self/net")


TELLING = frozenset(
    {
        "Tcp.AttemptFails",
        "Tcp.EstabResets",
        "Tcp.RetransSegs",
        "TcpExt.ListenDrops",
        "TcpExt.ListenOverflows",
        "TcpExt.PAWSActive",
        "TcpExt.PAWSEstab",
        "TcpExt.PAWSPassive",
        "TcpExt.PAWSTimewait",
        "TcpExt.SyncookiesSent",
        "TcpExt.TCPAbortFailed",
        "TcpExt.TCPAbortOnMemory",
        "TcpExt.TCPAbortOnTimeout",
        "TcpExt.TCPACKSkippedTimeWait",
        "TcpExt.TCPBacklogDrop",
        "TcpExt.TCPChallengeACK",
        "TcpExt.TCPReqQFullDoCookies",
        "TcpExt.TCPReqQFullDrop",
        "TcpExt.TCPSynRetrans",
        "TcpExt.TCPTimeWaitOverflow",
        "TcpExt.TCPTimeouts",
        "TcpExt.TW",
        "TcpExt.TWRecycled",
        "conntrack.drop",
        "conntrack.early_drop",
        "conntrack.insert_failed",
        "softnet.dropped",
    }
)
"""Counters that say something about failing connections, shown before the ones that move with any traffic."""


class Conntrack(NamedTuple):
    entries: int
    limit: int


def read_counters(net: Path | None = None) -> dict[str, int]:
    """All counters that exist here. A table this kernel lacks is left out. Raises OSError if Tcp cannot be read."""
    net = net or proc_net()
    found = parse_pairs((net / "snmp").read_text())
    for name, parse in (
        ("netstat", parse_pairs),
        ("stat/nf_conntrack", parse_conntrack),
        ("softnet_stat", parse_softnet),
    ):
        try:
            found |= parse((net / name).read_text())
        except OSError:
            continue
    return found


def parse_pairs(text: str) -> dict[str, int]:
    """`Tcp: A B` above `Tcp: 1 2`, for the tables Tcp and TcpExt; gauges and constants are left out."""
    found: dict[str, int] = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        table, _, words = names.partition(":")
        other, _, numbers = values.partition(":")
        if table == other and table in ("Tcp", "TcpExt"):
            for name, number in zip(words.split(), numbers.split(), strict=False):
                found[f"{table}.{name}"] = int(number)
    return {name: value for name, value in found.items() if name not in _NOT_COUNTERS}


def parse_conntrack(text: str) -> dict[str, int]:
    """A line of names, then a line of hexadecimal counts per CPU, added up. `entries` is a gauge, not per CPU."""
    names, *cpus = [line.split() for line in text.splitlines() if line] or [[]]
    found: dict[str, int] = {}
    for cpu in cpus:
        for name, number in zip(names, cpu, strict=False):
            if name != "entries":
                found[f"conntrack.{name}"] = found.get(f"conntrack.{name}", 0) + int(number, 16)
    return found


def parse_softnet(text: str) -> dict[str, int]:
    """Second column, hexadecimal, per CPU: packets dropped because netdev_max_backlog was full."""
    rows = [line.split() for line in text.splitlines()]
    return {"softnet.dropped": sum(int(row[1], 16) for row in rows if len(row) > 1)}


def moved(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Counters that changed, and by how much."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def read_conntrack(where: Path = _CONNTRACK) -> Conntrack | None:
    """Tracked connections in this namespace and the most allowed; None if conntrack is not loaded or readable."""
    try:
        entries = int((where / "nf_conntrack_count").read_text())
        return Conntrack(entries, int((where / "nf_conntrack_max").read_text()))
    except (OSError, ValueError):
        return None
