"""SYNs that got no answer: the accept queue, PAWS, or something on the way."""

from __future__ import annotations

from timewait.diagnose.facts import Facts, by_phase, named, quantile, sysctl, total_of
from timewait.diagnose.finding import CERTAIN, LIKELY, POSSIBLE, Draft, Evidence, Remedy
from timewait.diagnose.words import count, plural, seconds, share
from timewait.plan import Closing
from timewait.run import Cause, Failure, Phase
from timewait.tcp import syn as rules

NETSTAT = "in /proc/net/netstat"
FEW = 1e-4  # share of connects whose SYN may be lost on any healthy path
TELLING = 5.0  # how many times likelier a reused tuple must be to lose its SYN for the tuple to be the cause
MOSTLY = 0.6  # share of slow connects that must sit on the schedule


def connect_timeouts(facts: Facts) -> list[Failure]:
    return facts.failed(Cause.TIMEOUT, phases=[Phase.CONNECT])


def accept_queue_overflow(facts: Facts) -> Draft | None:
    """The listener's accept queue was full; the counters of this host tell only when the target is on it."""
    overflows, drops = facts.moved.get("TcpExt.ListenOverflows", 0), facts.moved.get("TcpExt.ListenDrops", 0)
    if not (facts.host.local_target or facts.host.loopback):
        return None
    queues = [
        (snapshot.accept_queue, snapshot.accept_queue_max)
        for snapshot in (*facts.run.snapshots, facts.run.after)
        if snapshot.accept_queue is not None and snapshot.accept_queue_max is not None
    ]
    # A listener takes one connection more than its backlog: sk_acceptq_is_full(), include/net/sock.h.
    full = any(length > most for length, most in queues)
    seen = overflows or (drops if full else 0)
    waited = max(quantile(facts.total.total, 1.0), quantile(facts.total.first_byte, 1.0)) >= 0.9
    if not seen or not (full or waited or facts.total.syn_slow or facts.failed(Cause.TIMEOUT, Cause.RESET)):
        return None
    evidence = [Evidence(f"ListenOverflows rose by {count(overflows)}", f"TcpExt.ListenOverflows {NETSTAT}")]
    if drops:
        evidence.append(Evidence(f"ListenDrops rose by {count(drops)}", f"TcpExt.ListenDrops {NETSTAT}"))
    if queues:
        length, most = max(queues, key=lambda queue: queue[0] - queue[1])
        evidence.append(
            Evidence(f"accept queue {count(length)}, backlog {count(most)}", "Recv-Q and Send-Q of ss -tln")
        )
    rows = facts.failed(Cause.TIMEOUT, Cause.RESET)
    if rows:
        text = f"{count(total_of(rows))} timeouts and resets on this side, by phase: {by_phase(rows)}"
        evidence.append(Evidence(text, "deadlines and errnos of this client"))
    if facts.total.syn_slow:
        evidence.append(
            Evidence(f"{plural(facts.total.syn_slow, 'connect')} of 0.9 s and more", "timed by this client")
        )
    return Draft(
        summary=(
            f"The target's accept queue was full {plural(seen, 'time')}: the kernel dropped what came in, because "
            "the target's program does not accept() as fast as connections arrive or its backlog is small."
        ),
        evidence=evidence,
        remedy=_larger_backlog(facts, queues),
        wrong=[
            "tcp_max_syn_backlog: that is the other queue, of connections not yet established",
            "a longer --connect-timeout: the SYN is only dropped again",
            "tcp_abort_on_overflow=1: it turns the wait into a reset, not into a connection",
        ],
        confidence=CERTAIN if full or facts.host.local_target else LIKELY,
    )


def _larger_backlog(facts: Facts, queues: list[tuple[int, int]]) -> list[Remedy]:
    backlog = max((most for _, most in queues), default=None)
    limit = sysctl(facts.host, "net.core.somaxconn")
    now = f" instead of {count(backlog)}" if backlog is not None else ""
    wanted = max(1024, facts.plan.concurrency)
    found = [
        Remedy(
            f"give the target a backlog of {wanted}: listen(fd, {wanted}), nginx `listen ... backlog={wanted}`",
            f"{plural(wanted, 'connection')} may wait{now}: bursts of {count(facts.plan.concurrency)} fit",
            "waiting connections wait; if the target is too slow for the rate, the queue only fills later",
        )
    ]
    if limit is not None and limit < wanted:
        found.insert(
            0,
            Remedy(
                f"sysctl -w net.core.somaxconn={wanted} on the target's host, then restart the listener",
                f"listen() is cut to net.core.somaxconn, now {count(limit)}",
                "a little kernel memory",
            ),
        )
    if facts.plan.one_shot or facts.plan.closing is not Closing.KEEP:
        found.append(Remedy("no --close", "kept connections are accepted once", "measures another kind of client"))
    return found


PAWS = ("TcpExt.PAWSPassive", "TcpExt.PAWSTimewait", "TcpExt.PAWSActive", "TcpExt.PAWSEstab")


def paws_rejected(facts: Facts) -> Draft | None:
    """Segments thrown away for an old timestamp, by this host's counters."""
    rose = {name: facts.moved[name] for name in PAWS if facts.moved.get(name)}
    estab = rose.get("TcpExt.PAWSEstab", 0)
    # Reordered duplicates on ordinary paths move PAWSEstab now and then; up to 6.14 it also counts SYNs to TIME_WAIT.
    if set(rose) == {"TcpExt.PAWSEstab"} and estab < max(3, 1e-3 * facts.total.started):
        return None
    if not rose:
        return None
    meaning = {
        "TcpExt.PAWSPassive": "SYNs dropped by tcp_tw_recycle",
        "TcpExt.PAWSTimewait": "segments to a connection in TIME_WAIT",
        "TcpExt.PAWSActive": "answers to our SYNs",
        "TcpExt.PAWSEstab": "segments of open connections, and up to Linux 6.14 SYNs to TIME_WAIT",
    }
    spared = "no TIME_WAIT at the target that a later SYN could meet"
    remedy = [Remedy("--close reset", spared, "not how ordinary clients end")]
    if facts.plan.closing is not Closing.CLIENT:
        remedy.append(Remedy("--close client", spared, "the ports here rest 60 s instead"))
    if facts.plan.closing is Closing.RESET:
        remedy.pop(0)
    if "TcpExt.PAWSPassive" in rose:
        remedy.insert(0, Remedy("sysctl -w net.ipv4.tcp_tw_recycle=0", "no SYN is dropped by age any more", "none"))
    who = "The balancer" if facts.run.engine == "simulation" else "This host"
    return Draft(
        summary=(
            f"{who} threw away {plural(sum(rose.values()), 'segment')} because their timestamps were older "
            "than ones it had seen (PAWS)."
        ),
        evidence=[
            Evidence(f"{name.partition('.')[2]} rose by {count(number)}: {meaning[name]}", f"{name} {NETSTAT}")
            for name, number in rose.items()
        ],
        remedy=remedy,
        wrong=[
            "tcp_timestamps=0: it stops these rejects, but tcp_tw_reuse with them, and a SYN to TIME_WAIT is then "
            "accepted by its sequence number only, about every second one between unrelated hosts"
        ],
        confidence=LIKELY,
    )


def syn_retransmitted(facts: Facts) -> Draft | None:
    """SYNs got no answer in time and were sent again, or the connect was given up."""
    rows, slow = connect_timeouts(facts), facts.total.syn_slow
    given_up = total_of(rows)
    if not given_up and slow <= FEW * facts.total.started:
        return None
    unanswered = not facts.total.connected
    likely_tuples = _reused_tuples(facts)
    evidence = _syn_evidence(facts, rows)
    if unanswered:
        what = f"none of {plural(max(given_up, facts.total.started), 'connection')} got an answer to its SYN"
        summary = f"The target is silent: {what}, no refusal, no reset, within {seconds(facts.plan.connect_timeout)}."
    else:
        much = f"{plural(max(slow, given_up), 'connect')} of {count(facts.total.started)}"
        summary = f"{much} had to send the SYN again after 1 s and more ({count(given_up)} gave up): {_cause(facts)}."
    return Draft(
        summary=summary,
        evidence=evidence,
        remedy=_syn_remedies(facts, unanswered=unanswered),
        wrong=[
            "tcp_syn_retries: more SYNs of a kind that is dropped",
            "a shorter --connect-timeout: the same loss, counted earlier",
            *(["more ports: every connect here had one"] if likely_tuples else []),
        ],
        confidence=CERTAIN if unanswered else LIKELY if likely_tuples else POSSIBLE,
    )


def _syn_evidence(facts: Facts, rows: list[Failure]) -> list[Evidence]:
    total, found = facts.total, []
    if rows:
        text = f"{count(total_of(rows))} given up ({named(rows)}) after at most {seconds(facts.plan.connect_timeout)}"
        found.append(Evidence(text, "deadline of connect()"))
    resent = facts.moved.get("TcpExt.TCPSynRetrans", 0)
    if resent:
        found.append(Evidence(f"SYNs and SYN-ACKs sent again: {count(resent)}", f"TcpExt.TCPSynRetrans {NETSTAT}"))
    times = syn_schedule(facts)
    mark = rules.fingerprint(facts.slow_connects.between, times)
    if mark.slow:
        clusters = ", ".join(f"{number:,} at {at:g} s" for at, number in mark.clusters[:8])
        kind = {"linear": "linear, Linux 6.5+", "exponential": "doubling"}.get(rules.shape(mark.clusters), "")
        tail = f" ({kind})" if kind else ""
        text = (
            f"{share(mark.matched, mark.slow)} of slow connects sit on the SYN schedule{tail}: {clusters or 'none'}"
        )
        found.append(Evidence(text, "connect times; tcp_connect(), tcp_retransmit_timer()"))
    odds = _odds(facts)
    if odds:
        (slow_reused, reused), (slow_fresh, fresh) = odds
        text = (
            f"SYN unanswered on {share(slow_reused, reused)} of {count(reused)} five-tuples used within 60 s, "
            f"on {share(slow_fresh, fresh)} of {count(fresh)} others"
        )
        found.append(Evidence(text, "source ports of this run"))
    if total.sampled_retrans:
        text = (
            f"{plural(total.sampled_retrans, 'segment')} sent again on {plural(total.sampled, 'sampled connection')}"
        )
        found.append(Evidence(text, "TCP_INFO"))
    return found


def syn_schedule(facts: Facts) -> rules.Schedule:
    """When this host's kernel sends its SYNs."""
    return rules.schedule(
        facts.kernel,
        retries=sysctl(facts.host, "net.ipv4.tcp_syn_retries"),
        linear=sysctl(facts.host, "net.ipv4.tcp_syn_linear_timeouts"),
    )


def _odds(facts: Facts) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((slow, all) on reused five-tuples, (slow, all) on others); None where the past of none is known."""
    total = facts.total
    slow_fresh = max(0, total.syn_slow_known - total.syn_slow_reused)
    reused, fresh = total.syn_slow_reused + total.reused_known, slow_fresh + total.fresh_known
    if reused <= 0 and fresh <= 0:
        return None
    return (total.syn_slow_reused, reused), (slow_fresh, fresh)


def _reused_tuples(facts: Facts) -> bool:
    """Whether reused five-tuples lose their SYN so much more often that the reuse must be the cause."""
    odds = _odds(facts)
    if odds is None:
        return False
    (slow_reused, reused), (slow_fresh, fresh) = odds
    if slow_reused < 3 or not reused or not fresh:
        return False
    return slow_reused / reused >= TELLING * (slow_fresh / fresh)


def _cause(facts: Facts) -> str:
    if _reused_tuples(facts):
        return (
            "on reused five-tuples far more often, so the target or a NAT in between still holds the old connection"
        )
    mark = rules.fingerprint(facts.slow_connects.between, syn_schedule(facts))
    if mark.slow >= 5 and mark.share < MOSTLY:
        return "the waits do not sit on the retransmission schedule, so the path or the target's kernel is slow"
    return (
        "the target's accept or SYN queue is full, a device on the way drops, or the old tuple is still known there"
    )


def _syn_remedies(facts: Facts, *, unanswered: bool) -> list[Remedy]:
    if unanswered:
        where = facts.plan.requests_list[0] if facts.plan.requests_list else None
        port = f" (port {where.port})" if where else ""
        return [
            Remedy(
                f"allow the client's addresses in the target's firewall or security group{port}",
                "SYNs are answered, be it by a refusal",
                "none",
            ),
            Remedy("ip route get ADDRESS; ping ADDRESS", "shows whether the address is the right one", "none"),
        ]
    found = []
    if _reused_tuples(facts):
        if facts.plan.ports.policy != "oldest":
            found.append(Remedy("--ports oldest", "each five-tuple rests as long as possible", "none"))
        found.append(
            Remedy(
                "--source with more addresses",
                f"{plural(facts.per_source, 'port')} more for each: a tuple returns later, ideally after 60 s",
                "the addresses must exist on this host",
            )
        )
    found.append(
        Remedy(
            "on the target: nstat -az TcpExtListenOverflows TcpExtTCPReqQFullDrop TcpExtPAWSTimewait TcpExtPAWSEstab",
            "tells a full accept queue, a full SYN queue and PAWS apart: the one that rises with the waits is it",
            "none",
        )
    )
    return found
