"""Sysctls that harm or do nothing for what people set them for. Advice: it never changes the exit code."""

from __future__ import annotations

from timewait.diagnose.facts import Facts, sysctl
from timewait.diagnose.finding import Draft, Evidence, Remedy
from timewait.diagnose.words import count
from timewait.run import Host

FIN_TIMEOUT = 60  # TCP_FIN_TIMEOUT
MOST_BUCKETS = 262_144  # half of the largest established hash the kernel makes by itself


def harmful_sysctl(facts: Facts) -> Draft | None:
    """Settings of this host against the advice that is still passed around."""
    rows = [row for row in (_recycle(facts), _buckets(facts), _rfc1337(facts), _fin_timeout(facts)) if row]
    if not rows:
        return None
    return Draft(
        summary=" ".join(what for what, _, _ in rows),
        evidence=[evidence for _, evidence, _ in rows],
        remedy=[remedy for _, _, remedy in rows],
        wrong=["copying a list of sysctls: each acts on one thing, most not on this"],
    )


_Row = tuple[str, Evidence, Remedy]


def _row(facts: Facts, name: str, what: str, value: int, effect: str, cost: str) -> _Row:
    now = facts.host.sysctls.get(f"net.ipv4.{name}", "").strip()
    remedy = Remedy(f"sysctl -w net.ipv4.{name}={value}", effect, cost)
    return what, Evidence(f"net.ipv4.{name} = {now}", f"/proc/sys/net/ipv4/{name}"), remedy


def _recycle(facts: Facts) -> _Row | None:
    if not sysctl(facts.host, "net.ipv4.tcp_tw_recycle"):
        return None
    what = "tcp_tw_recycle=1 drops SYNs of clients behind NAT and gains a client nothing that tcp_tw_reuse does not."
    return _row(
        facts, "tcp_tw_recycle", what, 0, "no SYN is dropped for its sender's clock", "none; gone in Linux 4.12"
    )


def default_buckets(host: Host) -> int | None:
    """What tcp_max_tw_buckets would be by itself: half of the established hash, as tcp_max_orphans is and 64 times
    tcp_max_syn_backlog (tcp_init(), tcp_sk_init(), net/ipv4). Only the former, or the latter as far as nobody has
    raised it, can be trusted; None where neither can."""
    orphans = sysctl(host, "net.ipv4.tcp_max_orphans")
    if orphans:
        return min(orphans, MOST_BUCKETS)
    backlog = sysctl(host, "net.ipv4.tcp_max_syn_backlog")
    if backlog and 128 < backlog <= MOST_BUCKETS // 64 and backlog & (backlog - 1) == 0:
        return 64 * backlog
    return None


def _buckets(facts: Facts) -> _Row | None:
    now, default = sysctl(facts.host, "net.ipv4.tcp_max_tw_buckets"), default_buckets(facts.host)
    lowered = now is not None and (now < default / 2 if default else now < 8192)
    if now is None or not lowered or facts.moved.get("TcpExt.TCPTimeWaitOverflow"):
        return None  # an overflow is a finding of its own
    wanted = default or 65_536
    what = (
        f"tcp_max_tw_buckets was lowered to {count(now)}: past it connections skip TIME_WAIT, which hides the want "
        "of ports and lets old segments into new connections."
    )
    return _row(
        facts, "tcp_max_tw_buckets", what, wanted, "TIME_WAIT lasts 60 s for every connection", "kernel memory"
    )


def _rfc1337(facts: Facts) -> _Row | None:
    if not sysctl(facts.host, "net.ipv4.tcp_rfc1337"):
        return None
    what = "tcp_rfc1337=1 ignores RST in TIME_WAIT, so a SYN that meets one may stay unanswered for 60 s."
    return _row(facts, "tcp_rfc1337", what, 0, "the second SYN succeeds", "a stray RST may end a TIME_WAIT early")


def _fin_timeout(facts: Facts) -> _Row | None:
    now = sysctl(facts.host, "net.ipv4.tcp_fin_timeout")
    if now is None or now >= FIN_TIMEOUT:
        return None
    what = (
        f"tcp_fin_timeout={now} does nothing against TIME_WAIT, which is 60 s in every kernel; it shortens FIN_WAIT2."
    )
    return _row(facts, "tcp_fin_timeout", what, FIN_TIMEOUT, "none on TIME_WAIT, either way", "none")
