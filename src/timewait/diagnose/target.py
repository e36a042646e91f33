"""What the target did: refused, reset, was silent, answered badly, closed when it should not."""

from __future__ import annotations

from timewait.diagnose.facts import Facts, by_phase, named, our_ports, quantile, total_of
from timewait.diagnose.finding import CERTAIN, LIKELY, Draft, Evidence, Remedy
from timewait.diagnose.words import count, plural, rate, seconds, share, verb
from timewait.plan import Closing
from timewait.run import Cause, Phase
from timewait.tcp import ports as rules

AFTER_CONNECT = [Phase.TLS, Phase.SEND, Phase.FIRST_BYTE, Phase.BODY]
FEW_REQUESTS = 3.0  # mean requests of a kept connection below which it is not kept
NOTICEABLE = 0.01


def refused(facts: Facts) -> Draft | None:
    """Turned away before there was a connection: refused, unreachable, or no such name."""
    rows = facts.failed(Cause.REFUSED, Cause.UNREACHABLE, Cause.RESOLVE)
    if not rows:
        return None
    number = total_of(rows)
    refusals = total_of(facts.failed(Cause.REFUSED))
    names = sorted({f"{request.host}:{request.port}" for request in facts.plan.requests_list})
    where = names[0] if len(names) == 1 else f"{count(len(names))} targets"
    some = "" if not facts.total.connected else f"; {plural(facts.total.connected, 'other')} got through"
    if refusals:
        why = "nothing listens there, or a firewall rejects"
        first = Remedy(
            "ss -tln on the target's host", "shows whether anything listens on that address and port", "none"
        )
    elif facts.failed(Cause.UNREACHABLE):
        why = "no route, no such neighbour, or a firewall rejects"
        first = Remedy(
            "ip route get ADDRESS; ip neigh", "shows the way the kernel takes, and whether it ends", "none"
        )
    else:
        why = "the name has no address"
        first = Remedy("getent ahosts NAME", "shows what the resolver answers", "none")
    evidence = [Evidence(named(rows), "errno of connect()" if any(row.errno for row in rows) else "resolver")]
    several = {host: found for host, found in facts.host.addresses.items() if len(found) > 1}
    if several and facts.total.connected:
        host, found = next(iter(several.items()))
        evidence.append(Evidence(f"{host} has {plural(len(found), 'address')}: {', '.join(found[:8])}", "resolver"))
    return Draft(
        summary=f"{plural(number, 'connection')} to {where} {verb(number, 'was', 'were')} turned away: {why}{some}.",
        evidence=evidence,
        remedy=[first],
        wrong=[
            "a longer timeout: the answer came, and it was no"
            if refusals
            else "a longer timeout: there is no way there",
            "sysctls on this machine",
        ],
    )


def reset(facts: Facts) -> Draft | None:
    """The peer ended connections that were in use: RST, FIN before the answer, or as a kept one was used again."""
    rows = facts.failed(Cause.RESET, Cause.CLOSED, Cause.STALE)
    if not rows:
        return None
    number, phases = total_of(rows), by_phase(rows)
    stale = total_of(facts.failed(Cause.STALE))
    finished = total_of(facts.failed(Cause.CLOSED))
    evidence = [
        Evidence(f"by phase: {phases}", "state of each connection when it ended"),
        Evidence(named(rows), "errno of recv() and send(); closed: FIN; stale: ended as it was used again"),
    ]
    remedy, confidence = [], CERTAIN
    if stale:
        remedy.append(
            Remedy(
                "give kept connections at the target a longer life than at the client: nginx keepalive_timeout, "
                "keepalive_requests",
                f"the {plural(stale, 'request')} sent into a closing connection would have been answered",
                "idle connections cost the target memory",
            )
        )
        each = _mean_requests(facts)
        if each >= 2:
            remedy.append(
                Remedy(
                    f"--requests-per-connection {max(1, int(each) // 2)} --close server",
                    "ends connections, announced, before the target does",
                    "more new connections",
                )
            )
    if number > stale:
        remedy.append(
            Remedy(
                "read the target's error log for the time of the run",
                "a worker that crashed, a limit of connections or a request it does not accept shows there",
                "none",
            )
        )
    what = []
    if number - stale - finished > 0:
        what.append(f"{count(number - stale - finished)} by RST")
    if finished:
        what.append(f"{count(finished)} by FIN before the answer was complete")
    if stale:
        what.append(f"{count(stale)} as a kept one was used again")
    return Draft(
        summary=f"The peer ended {plural(number, 'connection')} in use: {', '.join(what)} (phase {phases}).",
        evidence=evidence,
        remedy=remedy,
        wrong=["a retry in the client: it hides the figure", "sysctls on this machine: the peer ended them"],
        confidence=confidence,
    )


def timeout(facts: Facts) -> Draft | None:
    """Connected, then no answer in time."""
    rows = facts.failed(Cause.TIMEOUT, phases=AFTER_CONNECT)
    if not rows:
        return None
    number, phases, limit = total_of(rows), by_phase(rows), facts.plan.timeout
    evidence = [Evidence(f"by phase: {phases}", f"deadline of {seconds(limit)}")]
    if facts.total.succeeded:
        p50, p99 = quantile(facts.total.total, 0.5), quantile(facts.total.total, 0.99)
        text = f"answered requests: median {seconds(p50)}, p99 {seconds(p99)}"
        evidence.append(Evidence(text, "timed by this client"))
    if facts.total.sampled_retrans:
        text = f"{plural(facts.total.sampled_retrans, 'segment')} sent again on sampled connections"
        evidence.append(Evidence(text, "TCP_INFO"))
    found = [
        Remedy("look at the target: CPU, workers, its own upstream", "the answer comes, or comes in time", "none"),
        Remedy(f"--timeout {2 * limit:g}s", "tells a slow answer from none", "connections are held longer"),
    ]
    if facts.plan.rate is None and facts.plan.concurrency > 1:
        text = "shows whether the target answers when fewer wait at once"
        found.append(Remedy(f"-c {max(1, facts.plan.concurrency // 10)}", text, "a smaller load"))
    return Draft(
        summary=(
            f"{plural(number, 'request')} {verb(number, 'was', 'were')} not answered within {seconds(limit)} on "
            f"connections that had been established (phase {phases})."
        ),
        evidence=evidence,
        remedy=found,
        wrong=["tcp_syn_retries or TIME_WAIT sysctls: the connections were there"],
    )


def bad_response(facts: Facts) -> Draft | None:
    """An answer that is no valid answer, or whose status was not expected."""
    rows = facts.failed(Cause.BAD_RESPONSE, Cause.STATUS)
    if not rows:
        return None
    broken, unexpected = total_of(facts.failed(Cause.BAD_RESPONSE)), total_of(facts.failed(Cause.STATUS))
    evidence, what = [], []
    if unexpected:
        codes = ", ".join(f"{code} {number:,}" for code, number in sorted(facts.total.status.items())[:12])
        what.append(f"{plural(unexpected, 'answer')} of a status outside {','.join(facts.plan.expect)}")
        evidence.append(Evidence(f"answers by status: {codes}", "status lines"))
    if broken:
        what.append(f"{plural(broken, 'answer')} that {verb(broken, 'is', 'are')} not valid")
        evidence += [Evidence(f"{text}: {number:,}", "parser of the answers") for text, number in _details(facts)]
        evidence.append(Evidence(f"by phase: {by_phase(facts.failed(Cause.BAD_RESPONSE))}", "framing of the answers"))
    codes_seen = ",".join(str(code) for code in sorted(facts.total.status))
    remedy = []
    if unexpected:
        action = f"--expect {codes_seen}" if codes_seen else "--expect with the status that is right"
        remedy.append(Remedy(action, "counts these as successes, if they are what you test", "hides real errors"))
    remedy.append(Remedy("look at one answer: curl -v URL", "shows what the target says, and often why", "none"))
    return Draft(
        summary=f"The target answered, but not as expected: {' and '.join(what)}.",
        evidence=evidence,
        remedy=remedy,
        wrong=["counting every answer as a success, as most load generators do"],
    )


def close_ignored(facts: Facts) -> Draft | None:
    """`Connection: close` was asked for and ignored, or kept connections do not live."""
    return _close_not_honoured(facts) or _not_kept(facts)


def _close_not_honoured(facts: Facts) -> Draft | None:
    total = facts.total
    late = total_of(facts.failed(Cause.TIMEOUT, phases=[Phase.CLOSE]))
    number = max(total.close_ignored, late)
    if number <= 0 or number < NOTICEABLE * total.close_asked:
        return None
    wait = seconds(facts.plan.close_timeout)
    half = facts.plan.closing is Closing.HALF
    what = "our FIN" if half else "`Connection: close`"
    then = "the connection was given up" if half else "this client had to close first and keeps the TIME_WAIT"
    asked = max(total.close_asked, number)
    capacity = facts.capacity
    carry = f"{plural(capacity, 'port')} then carry {rate(rules.sustainable(capacity))} new connections"
    found = [
        Remedy("--close reset", "leaves no TIME_WAIT whatever the target does", "not how ordinary clients end"),
        Remedy(
            "switch keep-alive off at the target: nginx keepalive_timeout 0",
            "it closes first after each answer",
            "for all its clients",
        ),
    ]
    return Draft(
        summary=(
            f"The peer ignored {what} on {count(number)} of {plural(asked, 'connection')}: it sent no FIN within "
            f"{wait}, so {then}."
        ),
        evidence=[
            Evidence(f"{share(number, asked)} still open after {wait}", "recv() on the open connection"),
            Evidence(
                f"closed first: this client {count(total.closed_us)}, the peer {count(total.closed_peer)}",
                "TCP state of each connection after shutdown()",
            ),
            Evidence(f"{carry} for ever", "TCP_TIMEWAIT_LEN"),
        ],
        remedy=[found[1]] if facts.plan.closing is Closing.RESET else found,
        wrong=[f"a much longer close timeout: connections are held meanwhile, {plural(capacity, 'port')} at most"],
    )  # fmt: skip


def _not_kept(facts: Facts) -> Draft | None:
    """Kept connections were asked for, and the peer ends them after hardly any request."""
    total, wanted = facts.total, facts.plan.requests_per_connection
    each = _mean_requests(facts)
    if facts.plan.scheme == "tcp" or (wanted is not None and wanted < FEW_REQUESTS):
        return None
    if total.kept_ended <= 0 or 2 * total.kept_ended < total.connected or not 0 < each < FEW_REQUESTS:
        return None
    asked = "without limit" if wanted is None else f"{count(wanted)} times"
    found = [
        Remedy(
            "switch keep-alive on at the target: nginx keepalive_timeout 75s; keepalive_requests 1000",
            f"{plural(total.connected, 'connection')} become about {count(facts.plan.concurrency)}",
            "idle connections cost the target memory",
        )
    ]
    if facts.plan.closing is Closing.KEEP:
        text = "says what this load is: new connections, which the target closes"
        found.append(Remedy("--close server", text, "none"))
    return Draft(
        summary=(
            f"Kept connections were to be used {asked}, but the peer closed {count(total.kept_ended)} of "
            f"{count(total.connected)} after {each:.1f} requests on average."
        ),
        evidence=[
            Evidence(
                f"{count(total.kept_ended)} ended by the peer, unasked", "FIN, or `Connection: close` in an answer"
            ),
            Evidence(f"{count(total.requests)} requests on {plural(total.connected, 'connection')}", "this client"),
        ],
        remedy=found,
        wrong=["reading these figures as those of kept connections"],
        confidence=LIKELY if our_ports(facts.plan) else CERTAIN,
    )


def tls_failed(facts: Facts) -> Draft | None:
    """The TLS handshake failed, by reason."""
    rows = facts.failed(Cause.TLS_CERTIFICATE, Cause.TLS_PROTOCOL)
    if not rows:
        return None
    number, certificate = total_of(rows), total_of(facts.failed(Cause.TLS_CERTIFICATE))
    reasons = _details(facts)
    why = f": {reasons[0][0]}" if reasons else ""
    remedy = []
    if certificate:
        first = facts.plan.requests_list[0] if facts.plan.requests_list else None
        name = facts.plan.tls.sni or (first.host if first else "NAME")
        if facts.plan.tls.cacert is None:
            remedy.append(Remedy("--cacert FILE", "trusts the authority that signed the certificate", "none"))
        remedy.append(
            Remedy(f"--sni NAME instead of {name}", "asks for another certificate, checks that name", "none")
        )
        remedy.append(Remedy("-k", "takes any certificate", "does not notice a wrong one"))
    else:
        remedy.append(
            Remedy(
                "openssl s_client -connect HOST:PORT", "shows protocol, ciphers, and whether it is TLS at all", "none"
            )
        )
    return Draft(
        summary=f"{plural(number, 'TLS handshake')} failed{why}.",
        evidence=[
            Evidence(f"{named(rows)}", "the ssl module"),
            *[Evidence(f"{text}: {times:,}", "reason given by OpenSSL") for text, times in reasons],
        ],
        remedy=remedy,
        wrong=["sysctls: TCP was established"],
    )


def _details(facts: Facts) -> list[tuple[str, int]]:
    rows = sorted(facts.total.details.items(), key=lambda item: -item[1])
    return [(text, number) for text, number in rows if number > 0][:5]


def _mean_requests(facts: Facts) -> float:
    return facts.total.requests / facts.total.connected if facts.total.connected > 0 else 0.0
