"""The kernel settings that decide what happens to connections, read from /proc/sys."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

SYSCTLS = (
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_tw_reuse_delay",  # 6.14 and later
    "net.ipv4.tcp_tw_recycle",  # until 4.11
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_rfc1337",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_autobind_reuse",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syn_linear_timeouts",  # 6.5 and later
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_orphan_retries",
    "net.ipv4.tcp_challenge_ack_limit",
    "net.core.somaxconn",
    "net.core.netdev_max_backlog",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    "net.nf_conntrack_max",
    "fs.nr_open",
    "fs.file-max",
)


class Settings(NamedTuple):
    values: dict[str, str]  # absent where this kernel, or this namespace, has none
    unreadable: list[str]  # one sentence each


def read_sysctls(root: Path = Path("/proc/sys"), names: tuple[str, ...] = SYSCTLS) -> Settings:
    """Each setting's text, white space made single. Network settings are those of the calling thread's namespace."""
    values: dict[str, str] = {}
    unreadable = []
    for name in names:
        try:
            values[name] = " ".join((root / name.replace(".", "/")).read_text().split())
        except FileNotFoundError:
            continue
        except OSError as problem:
            unreadable.append(f"{name} cannot be read: {problem.strerror}")
    return Settings(values, unreadable)


def port_range(text: str) -> tuple[int, int]:
    """ip_local_port_range: "32768 60999" -> both ends, inclusive. Raises ValueError."""
    low, high = text.split()
    return int(low), int(high)


def reserved_within(text: str, low: int, high: int) -> int:
    """How many of ip_local_reserved_ports ("8080,9000-9010", or empty) lie in the range. Raises ValueError."""
    ports: set[int] = set()
    for piece in filter(None, (word.strip() for word in text.split(","))):
        first, _, last = piece.partition("-")
        ports.update(range(max(low, int(first)), min(high, int(last or first)) + 1))
    return len(ports)
