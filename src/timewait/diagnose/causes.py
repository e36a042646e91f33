"""The closed list of findings: id, meaning, who is to blame, which other findings it explains; and the diagnosis.

One cause, one finding: a symptom that a found cause brings about is not reported beside it. What explains what
stands in the table, in one column, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from timewait.diagnose import machine, ports, settings, syn, target
from timewait.diagnose.facts import Facts
from timewait.diagnose.finding import MACHINE, NETWORK, SETTING, TARGET, Draft, Finding
from timewait.run import Run


class Cause(NamedTuple):
    id: str
    look: Callable[[Facts], Draft | None]
    meaning: str  # one line, for docs
    blame: str
    explains: frozenset[str] = frozenset()  # findings that would only repeat this one


# A connect() that searches the whole range in vain keeps a core busy, and a slot without a connection is not held.
_HELD = frozenset({"client-limited"})

CAUSES: tuple[Cause, ...] = (
    Cause(
        "ports-exhausted", ports.ports_exhausted,
        "no source port was left: TIME_WAIT of connections this client closed first holds them",
        MACHINE, _HELD | {"port-search-slow"},
    ),
    Cause(
        "ports-held-open", ports.ports_held_open,
        "no source port was left: open connections hold them",
        MACHINE, _HELD | {"port-search-slow"},
    ),
    Cause(
        "open-files", machine.open_files,
        "a process reached its limit of open files",
        MACHINE, _HELD,
    ),
    Cause(
        "conntrack-full", machine.conntrack_full,
        "the connection tracking table of this host was full and packets were dropped",
        MACHINE, frozenset({"syn-retransmitted", "timeout"}),
    ),
    Cause(
        "accept-queue-overflow", syn.accept_queue_overflow,
        "the target, on this host, does not accept connections as fast as they come",
        TARGET, frozenset({"syn-retransmitted", "timeout", "reset"}),
    ),
    Cause(
        "paws-rejected", syn.paws_rejected,
        "segments were rejected because their timestamps were older than ones seen before",
        NETWORK, frozenset({"syn-retransmitted"}),
    ),
    Cause(
        "refused", target.refused,
        "connections were turned away: refused, unreachable, or the name has no address",
        TARGET,
    ),
    Cause(
        "syn-retransmitted", syn.syn_retransmitted,
        "SYNs got no answer and were sent again, or the connect was given up",
        NETWORK,
    ),
    Cause(
        "tls-failed", target.tls_failed,
        "the TLS handshake failed",
        TARGET,
    ),
    Cause(
        "reset", target.reset,
        "the peer ended connections in use: by RST, by FIN before the answer, or as a kept one was used again",
        TARGET,
    ),
    Cause(
        "timeout", target.timeout,
        "established connections got no answer in time",
        TARGET,
    ),
    Cause(
        "bad-response", target.bad_response,
        "answers were invalid or had an unexpected status",
        TARGET,
    ),
    Cause(
        "close-ignored", target.close_ignored,
        "the peer ignored `Connection: close`, or closed kept connections after hardly any request",
        TARGET,
    ),
    Cause(
        "client-limited", machine.client_limited,
        "this machine was the limit: CPU, loop lag, a schedule not kept, connections never held",
        MACHINE,
    ),
    Cause(
        "port-search-slow", ports.port_search_slow,
        "past half of the port range the kernel's search for a free port makes connect() slow",
        MACHINE,
    ),
    Cause(
        "residue", ports.residue,
        "TIME_WAIT of an earlier run took a noticeable part of the ports",
        MACHINE,
    ),
    Cause(
        "tw-reuse-void", ports.tw_reuse_void,
        "tcp_tw_reuse is on but void: connections carry no timestamps",
        SETTING,
    ),
    Cause(
        "tw-reuse-loopback-only", ports.tw_reuse_loopback_only,
        "tcp_tw_reuse=2, the default, covers loopback only, and this target is elsewhere",
        SETTING,
    ),
    Cause(
        "time-wait-overflow", machine.time_wait_overflow,
        "more TIME_WAIT sockets than tcp_max_tw_buckets: connections skipped TIME_WAIT",
        SETTING,
    ),
    Cause(
        "harmful-sysctl", settings.harmful_sysctl,
        "a sysctl is set that harms, or does nothing for what people set it for",
        SETTING,
    ),
)  # fmt: skip

IDS: tuple[str, ...] = tuple(cause.id for cause in CAUSES)


def diagnose(run: Run) -> list[Finding]:
    """What went wrong in this run, gravest first; empty for a healthy one. Pure: the same run, the same findings.

    Of a --find-max search: what went wrong in the step that ended it.
    """
    facts = Facts(run.stopped or run)
    drafts = [(cause, draft) for cause in CAUSES if (draft := cause.look(facts)) is not None]
    explained = frozenset[str]().union(*(cause.explains for cause, _ in drafts))
    return [
        Finding(
            id=cause.id,
            summary=draft.summary,
            evidence=draft.evidence,
            remedy=draft.remedy,
            wrong=draft.wrong,
            confidence=draft.confidence,
            blame=cause.blame,
        )
        for cause, draft in drafts
        if cause.id not in explained
    ]


def catalogue() -> list[tuple[str, str, str]]:
    """(id, one-line meaning, blame) of every finding there is, in order of report; docs are made from it."""
    return [(cause.id, cause.meaning, cause.blame) for cause in CAUSES]
