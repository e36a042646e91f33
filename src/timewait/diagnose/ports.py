"""No source port left, or hardly one: who holds them."""

from __future__ import annotations

from timewait.diagnose import remedies
from timewait.diagnose.facts import Facts, median, named, our_ports, sound, taken, total_of, we_close_first
from timewait.diagnose.finding import CERTAIN, LIKELY, POSSIBLE, Draft, Evidence, Remedy
from timewait.diagnose.words import asked, count, plural, rate, seconds, share
from timewait.histogram import Sparse, merged
from timewait.run import Cause, Failure, PortUse
from timewait.tcp import ports as rules

SOCK_DIAG = "NETLINK_SOCK_DIAG, as in ss -tan"
NOTICEABLE = 0.10  # share of the capacity that a residue must take to matter
SOME = 0.3  # of the capacity: fewer sockets than that are no explanation for a lack of ports
MUCH = 0.8  # of the capacity in TIME_WAIT: a load that lasts a little longer meets the wall


def no_port(facts: Facts) -> list[Failure]:
    """Attempts that found no source port: EADDRNOTAVAIL and EADDRINUSE are one event (tcp/ports.py)."""
    return facts.failed(Cause.NO_PORT)


def held_open(facts: Facts) -> bool:
    """Whether the ports were held by open connections rather than by TIME_WAIT."""
    use, many = facts.fullest, facts.run.peak_open >= SOME * facts.capacity
    if many and not we_close_first(facts.plan):
        return True  # what is in TIME_WAIT now was closed at the end of the run
    if use is not None and taken(use) >= SOME * use.capacity:
        return use.in_use > use.time_wait
    return many or facts.total.closed_us == 0


def ports_exhausted(facts: Facts) -> Draft | None:
    """connect() or bind() found no port, and TIME_WAIT holds them."""
    rows = no_port(facts)
    if not rows or held_open(facts):
        return None
    number, use, confidence = total_of(rows), facts.fullest, _confidence(facts)
    if use is not None and confidence == POSSIBLE:
        return _no_address(rows, use)
    where = f" toward {use.destination}" if use else ""
    held = f"TIME_WAIT of connections this host closed first held {f'{count(use.time_wait)} of ' if use else ''}"
    evidence = [_errnos(rows), *_occupancy(use), _closers(facts), *_rates(facts), *_search(facts)]
    if facts.timestamps is not None:
        evidence.append(_timestamps(facts))
    return Draft(
        summary=(
            f"{plural(number, 'connection')} found no free source port{where}: {held}"
            f"{plural(facts.capacity, 'port')}."
        ),
        evidence=evidence,
        remedy=remedies.for_time_wait(facts),
        wrong=[*remedies.MYTHS, *_scarce_files(facts)],
        confidence=confidence,
    )


def ports_held_open(facts: Facts) -> Draft | None:
    """connect() or bind() found no port, and open connections hold them."""
    rows = no_port(facts)
    if not rows or not held_open(facts):
        return None
    number, use = total_of(rows), facts.fullest
    most = max(facts.plan.concurrency, facts.total.asked)
    held = max(use.in_use if use else 0, min(facts.run.peak_open, facts.capacity))
    confidence = _confidence(facts)
    if use is not None and confidence == POSSIBLE:
        return _no_address(rows, use)
    where = f" toward {use.destination}" if use else ""
    return Draft(
        summary=(
            f"{plural(number, 'connection')} found no free source port{where}: open connections held "
            f"{count(held)} of {plural(facts.capacity, 'port')}, "
            f"{count(most)} were asked for."
        ),
        evidence=[_errnos(rows), *_occupancy(use)],
        remedy=remedies.for_open(facts, most),
        wrong=[
            "tcp_tw_reuse: it concerns TIME_WAIT; these ports carry open connections",
            "more open files: a descriptor is not a port",
        ],
        confidence=confidence,
    )


def _no_address(rows: list[Failure], use: PortUse) -> Draft:
    """EADDRNOTAVAIL although ports are free: there is no source address of the destination's family, or a bind()
    elsewhere on this host took the ports (those do not show among the sockets toward the destination)."""
    address = use.destination.rsplit(":", 1)[0].strip("[]")
    return Draft(
        summary=(
            f"{plural(total_of(rows), 'connection')} got no source address and port toward {use.destination}, "
            f"though {count(use.free)} of {plural(use.capacity, 'port')} looked free."
        ),
        evidence=[_errnos(rows), *_occupancy(use)],
        remedy=[
            Remedy(f"ip route get {address}", "shows whether this host has a source address for the target", "none"),
            Remedy(
                "ss -tanp", "shows other programs bound to ports of the range: those are closed to connect()", "none"
            ),
        ],
        wrong=["tcp_tw_reuse: hardly any port here is in TIME_WAIT"],
        confidence=POSSIBLE,
    )


def port_search_slow(facts: Facts) -> Draft | None:
    """Past half of the range the kernel's search for a free port takes long."""
    if our_ports(facts.plan):
        return None
    early, late, fullest = _search_times(facts)
    before, after = median(early), median(late)
    if not late.index or after < 100e-6 or after < 5 * before or (not early.index and after < 300e-6):
        return None
    open_ones = facts.fullest is not None and facts.fullest.in_use > facts.fullest.time_wait
    much = f"{seconds(before)} below it" if early.index else "tens of µs on an empty range"
    return Draft(
        summary=(
            f"connect() itself took {seconds(after)} (median) once half of the "
            f"{plural(facts.capacity, 'source port')} were taken, against {much}: the kernel searched for a free one."
        ),
        evidence=[
            Evidence(f"connect() call: median {seconds(after)} past half the range, {much}", "timed by this client"),
            Evidence(f"up to {share(fullest, 1)} of the ports were taken", SOCK_DIAG),
            Evidence(
                "all ports of one parity are tried before the other", "__inet_hash_connect(), net/ipv4, Linux 4.9+"
            ),
        ],
        remedy=[
            remedy
            for remedy in (
                remedies.own_ports(facts),
                None if open_ones else remedies.close_server(facts),
                None if open_ones else remedies.close_reset(facts),
                remedies.wider_range(facts),
                remedies.more_sources(facts),
            )
            if remedy
        ],
        wrong=["more workers: they search the same table", "blaming the target: the SYN had not left yet"],
        confidence=CERTAIN if early.index else LIKELY,
    )


def _search_times(facts: Facts) -> tuple[Sparse, Sparse, float]:
    """Time inside connect() in ticks that ended below half the range and in ticks that began above it; the highest
    share taken. Where the run crossed the middle in its last tick, that tick is the late one."""
    early, late, crossing, fullest, previous = Sparse(), Sparse(), Sparse(), 0.0, 0.0
    for tick, snapshot in zip(facts.run.ticks, facts.run.snapshots, strict=False):
        search = sound(tick.search)
        now = max((taken(use) / use.capacity for use in snapshot.ports if use.capacity > 0), default=0.0)
        if now < 0.5:
            early = merged(early, search)
        elif previous >= 0.5:
            late = merged(late, search)
        else:
            crossing = merged(crossing, search)
        previous, fullest = now, max(fullest, now)
    return early, late if late.index else crossing, fullest


def residue(facts: Facts) -> Draft | None:
    """TIME_WAIT of an earlier run that took ports from this one."""
    left = [use for use in facts.run.before.ports if use.capacity > 0 and use.time_wait >= NOTICEABLE * use.capacity]
    if not left:
        return None
    harmless = facts.timestamps is not False and (facts.tw_reuse_on or our_ports(facts.plan))
    if harmless and not no_port(facts):
        return None
    use = max(left, key=lambda use: use.time_wait / use.capacity)
    began = share(max(0, use.capacity - taken(use)), use.capacity)
    return Draft(
        summary=(
            f"{count(use.time_wait)} of the {plural(use.capacity, 'source port')} toward {use.destination} were "
            f"still in TIME_WAIT from before the run: it began with {began} of its ports."
        ),
        evidence=[Evidence(f"{count(use.time_wait)} in TIME_WAIT before the first packet", SOCK_DIAG)],
        remedy=[
            Remedy("wait 60 s before the next run", f"all {plural(use.capacity, 'port')} are free again", "a minute"),
            *[remedy for remedy in (remedies.close_server(facts), remedies.close_reset(facts)) if remedy],
        ],
        wrong=["restarting the client: TIME_WAIT belongs to the kernel, not to a process"],
    )


def tw_reuse_void(facts: Facts) -> Draft | None:
    """tcp_tw_reuse is on, but without timestamps it can do nothing."""
    if not (facts.tw_reuse_on and facts.timestamps is False and ports_exhausted(facts)):
        return None
    total = facts.total
    most = rules.sustainable(facts.capacity, max(0.001, facts.reuse_delay))
    here = facts.host.sysctls.get("net.ipv4.tcp_timestamps") == "0"
    who = (
        "this host has tcp_timestamps=0" if here else "the target, or a balancer before it, negotiates no timestamps"
    )
    evidence = [
        Evidence(f"net.ipv4.tcp_tw_reuse = {facts.tw_reuse}", "/proc/sys/net/ipv4/tcp_tw_reuse"),
        _timestamps(facts),
        Evidence("a TIME_WAIT without timestamps is never taken over", "tcp_twsk_unique(), net/ipv4/tcp_ipv4.c"),
    ]
    if here:
        evidence.append(Evidence("net.ipv4.tcp_timestamps = 0", "/proc/sys/net/ipv4/tcp_timestamps"))
        first = Remedy(
            "sysctl -w net.ipv4.tcp_timestamps=1",
            f"a port rests {facts.reuse_delay:g} s instead of 60 s, if the target agrees",
            "12 bytes in each segment",
        )
    else:
        first = Remedy(
            "switch timestamps on at the target: sysctl -w net.ipv4.tcp_timestamps=1 there",
            f"tcp_tw_reuse works: {rate(most)} instead of {rate(rules.sustainable(facts.capacity))} new connections",
            "layer-7 balancers leave them off on purpose; a layer-4 one passes those of the servers through",
        )
    others = [remedies.close_server(facts), remedies.close_reset(facts), remedies.more_sources(facts)]
    return Draft(
        summary=(
            f"tcp_tw_reuse={facts.tw_reuse} had no effect: {who}, so all {plural(facts.capacity, 'port')} rest 60 s."
        ),
        evidence=evidence,
        remedy=[first, *[remedy for remedy in others if remedy]],
        wrong=["--ports oldest: a bound port takes over a TIME_WAIT only if that had timestamps, too"],
        confidence=CERTAIN if here or total.sampled_timestamps == 0 else LIKELY,
    )


def tw_reuse_loopback_only(facts: Facts) -> Draft | None:
    """The default tcp_tw_reuse=2 does not cover this target, and 1 would have made the difference."""
    use = facts.fullest
    if (
        facts.tw_reuse != 2
        or facts.host.loopback
        or our_ports(facts.plan)
        or facts.timestamps is False
        or use is None
    ):
        return None
    exhausted = ports_exhausted(facts) is not None
    demand, ports = facts.demand, facts.capacity
    near = use.time_wait >= MUCH * ports and demand is not None and demand > rules.sustainable(ports)
    most = rules.sustainable(ports, max(0.001, facts.reuse_delay))
    if not (exhausted or near) or (demand is not None and demand > most):
        return None  # at a rate that 1 would not carry either, the setting is not what matters
    return Draft(
        summary=(
            f"tcp_tw_reuse=2, the default, covers loopback only: toward {use.destination} all "
            f"{plural(ports, 'port')} rest 60 s, so a test against localhost passes where this one meets the wall."
        ),
        evidence=[
            Evidence("net.ipv4.tcp_tw_reuse = 2", "/proc/sys/net/ipv4/tcp_tw_reuse"),
            *_occupancy(use),
            Evidence(f"{use.destination} is no loopback address", "tcp_twsk_unique(), net/ipv4/tcp_ipv4.c, 4.19+"),
        ],
        remedy=[remedy for remedy in (remedies.tw_reuse(facts), remedies.close_server(facts)) if remedy],
        wrong=["testing on 127.0.0.1 first: there every port comes back after a second"],
        confidence=CERTAIN if facts.timestamps else LIKELY,
    )


def _errnos(rows: list[Failure]) -> Evidence:
    calls = {"bind": "bind()", "connect": "connect()"}
    names = sorted({calls.get(row.phase, row.phase) for row in rows})
    return Evidence(named(rows), "errno of " + " and ".join(names))


def _occupancy(use: PortUse | None) -> list[Evidence]:
    if use is None:
        return []
    text = (
        f"at worst {count(use.time_wait)} in TIME_WAIT and {count(use.in_use)} in use of "
        f"{plural(use.capacity, 'port')} toward {use.destination}, {count(use.free)} free"
    )
    found = [Evidence(text, SOCK_DIAG)]
    if use.peer_time_wait:
        found.append(Evidence(f"{count(use.peer_time_wait)} in TIME_WAIT at the target's end", SOCK_DIAG))
    return found


def _rates(facts: Facts) -> list[Evidence]:
    most = (
        f"{plural(facts.capacity, 'port')} carry {rate(rules.sustainable(facts.capacity))} new connections for ever"
    )
    if facts.demand is None:
        return [Evidence(f"{most}, 60 s of rest each", "TCP_TIMEWAIT_LEN")]
    return [Evidence(f"{most}, 60 s of rest each; this load asks for {asked(facts.demand)}", "TCP_TIMEWAIT_LEN")]


def _search(facts: Facts) -> list[Evidence]:
    slow = port_search_slow(facts)
    return [slow.evidence[0]] if slow else []


def _timestamps(facts: Facts) -> Evidence:
    total = facts.total
    if total.sampled <= 0:
        return Evidence("timestamps are off on this host", "/proc/sys/net/ipv4/tcp_timestamps")
    return Evidence(
        f"{count(total.sampled_timestamps)} of {plural(total.sampled, 'sampled connection')} negotiated timestamps",
        "TCP_INFO",
    )


def _scarce_files(facts: Facts) -> list[str]:
    return ["ulimit -n: a port is not a file descriptor"] if not facts.failed(Cause.NO_FILE) else []


def _closers(facts: Facts) -> Evidence:
    total = facts.total
    return Evidence(
        f"closed first: this client {count(total.closed_us)}, the peer {count(total.closed_peer)}, "
        f"by reset {count(total.closed_reset)}",
        "TCP state of each connection after shutdown()",
    )


def _confidence(facts: Facts) -> str:
    """How far the socket table agrees with the errno; it is read once a second, so a short want may fall between."""
    use = facts.fullest
    if use is None or use.capacity <= 0:
        return LIKELY
    if taken(use) >= 0.9 * use.capacity:
        return CERTAIN
    most = max(taken(use), facts.run.peak_open)
    return LIKELY if most >= SOME * use.capacity else POSSIBLE
