"""Ways out of the port wall, each with its effect computed for this host and this load.

Advice that the plan already follows is left out, so what remains is something the user can still do.
"""

from __future__ import annotations

from timewait.diagnose.facts import Facts, our_ports
from timewait.diagnose.finding import Remedy
from timewait.diagnose.words import asked, count, plural, rate
from timewait.plan import Closing
from timewait.tcp import ports as rules


def for_time_wait(facts: Facts) -> list[Remedy]:
    """What ends the want of ports that TIME_WAIT causes; the most certain first."""
    found = [close_server(facts), close_reset(facts), keep(facts), tw_reuse(facts), own_ports(facts)]
    return [remedy for remedy in (*found, more_sources(facts), wider_range(facts), slower(facts)) if remedy]


def for_open(facts: Facts, most: int) -> list[Remedy]:
    """What gives `most` connections at once their ports."""
    per_source = max(1, facts.per_source)
    needed = -(-most // per_source)
    found: list[Remedy | None] = []
    if needed > max(1, len(facts.plan.sources)):
        found.append(
            Remedy(
                f"--source with {plural(needed, 'address')}",
                f"{plural(needed * per_source, 'port')} toward this destination instead of {count(facts.capacity)}",
                "the addresses must exist on this host: ip address add ADDRESS/32 dev INTERFACE",
            )
        )
    found.append(wider_range(facts, rates=False))
    if facts.capacity:
        fewer = facts.capacity - (facts.fullest.time_wait if facts.fullest else 0)
        if 0 < fewer < most:
            found.append(Remedy(f"-c {fewer}", "as many connections at once as there are ports", "a smaller load"))
    return [remedy for remedy in found if remedy]


MOST_REQUESTS, MOST_SOURCES = 1000, 256  # past these, advice to make more of them is no advice


def close_server(facts: Facts) -> Remedy | None:
    if facts.plan.closing is Closing.SERVER or facts.plan.scheme == "tcp":
        return None
    return Remedy(
        "--close server",
        "asks with `Connection: close` and lets the target close first: its end holds TIME_WAIT, on the port it "
        f"listens on, and all {plural(facts.capacity, 'port')} here are free again at once",
        "the target must honour it; TIME_WAIT costs it memory, no port",
    )


def close_reset(facts: Facts) -> Remedy | None:
    if facts.plan.closing is Closing.RESET:
        return None
    return Remedy(
        "--close reset",
        "RST after the complete answer (SO_LINGER{1,0}): no TIME_WAIT at either end, the rate is not bound by ports",
        "not how ordinary clients end; data still under way would be lost, and some targets log every reset",
    )


def keep(facts: Facts) -> Remedy | None:
    if not facts.plan.one_shot or facts.demand is None:
        return None
    sustainable = rules.sustainable(facts.capacity)
    each = int(facts.demand / sustainable) + 1 if sustainable else 0
    if not 2 <= each <= MOST_REQUESTS:
        return None
    return Remedy(
        f"--requests-per-connection {each}",
        f"the same {asked(facts.demand)} of requests on {asked(facts.demand / each)} of new connections: within "
        f"the {rate(sustainable)} that {plural(facts.capacity, 'port')} carry for ever",
        "measures kept connections, not the cost of opening them",
    )


def tw_reuse(facts: Facts) -> Remedy | None:
    """tcp_tw_reuse=1, where it is not in force yet, could be, and the kernel chooses ports."""
    if facts.tw_reuse_on or our_ports(facts.plan) or facts.timestamps is False or not facts.capacity:
        return None
    delay = facts.reuse_delay
    most = rules.sustainable(facts.capacity, max(delay, 0.001))
    effect = (
        f"a port rests {delay:g} s instead of 60 s: {rate(most)} instead of "
        f"{rate(rules.sustainable(facts.capacity))} new connections"
    )
    if facts.demand is not None and facts.demand > most:
        effect += f"; this load asks for {asked(facts.demand)}, so the wall remains"
    if facts.timestamps is None:
        effect += "; only if the target negotiates timestamps, which was not seen in this run"
    return Remedy(
        "sysctl -w net.ipv4.tcp_tw_reuse=1",
        effect,
        "for the whole host, until reboot; the failure may move to a NAT or balancer that still knows the tuple",
    )


def own_ports(facts: Facts) -> Remedy | None:
    if our_ports(facts.plan) or facts.timestamps is False:
        return None
    span = f":{facts.plan.ports.low}-{facts.plan.ports.high}" if facts.plan.ports.low else ""
    known = "" if facts.timestamps else ", if the target negotiates timestamps (not seen in this run)"
    return Remedy(
        f"--ports oldest{span}",
        "binds each port before connect(): it takes over a TIME_WAIT of this host at once, whatever tcp_tw_reuse "
        f"says{known}; finding a port costs the same at any occupancy",
        "tuples come back early, as behind a busy NAT: a failure then shows at the target, not here",
    )


def more_sources(facts: Facts) -> Remedy | None:
    have = max(1, len(facts.plan.sources))
    needed = rules.sources_needed(facts.demand, facts.per_source) if facts.demand else have + 1
    if needed <= have or not facts.per_source or needed > MOST_SOURCES:
        return None
    ports = needed * facts.per_source
    return Remedy(
        f"--source with {plural(needed, 'address')}",
        f"{plural(ports, 'port')} instead of {count(facts.capacity)}: {rate(rules.sustainable(ports))} for ever",
        "the addresses must exist on this host: ip address add ADDRESS/32 dev INTERFACE",
    )


WIDEST = (1024, 65535)


def wider_range(facts: Facts, *, rates: bool = True) -> Remedy | None:
    """All ports an ordinary user may bind. `rates`: whether ports come back after 60 s, so that a rate follows."""
    wanted, low, high = WIDEST, facts.plan.ports.low, facts.plan.ports.high
    if low and our_ports(facts.plan):
        action = f"--ports {facts.plan.ports.policy}:{WIDEST[0]}-{WIDEST[1]}"
    elif low:
        # IP_LOCAL_PORT_RANGE only narrows the range of the sysctl.
        wanted, action = _system_range(facts), "--ports kernel, without a range"
    else:
        low, high = facts.host.port_low, facts.host.port_high
        action = f"sysctl -w net.ipv4.ip_local_port_range='{WIDEST[0]} {WIDEST[1]}'"
    ports = rules.capacity(*wanted, 0, len(facts.plan.sources))
    if high - low + 1 > 48_000 or ports <= facts.capacity:
        return None
    effect = f"{plural(ports, 'port')} instead of {count(facts.capacity)}"
    if rates:
        before, after = rules.sustainable(facts.capacity), rules.sustainable(ports)
        effect += f": {rate(after)} instead of {rate(before)} new connections for ever"
    return Remedy(
        action,
        effect,
        "services that start later may find their port taken; list those in net.ipv4.ip_local_reserved_ports",
    )


def _system_range(facts: Facts) -> tuple[int, int]:
    words = facts.host.sysctls.get("net.ipv4.ip_local_port_range", "").split()
    if len(words) == 2 and all(word.isdecimal() and len(word) < 6 for word in words):
        return int(words[0]), int(words[1])
    return rules.DEFAULT_LOW, rules.DEFAULT_HIGH


def slower(facts: Facts) -> Remedy | None:
    most = int(rules.sustainable(facts.capacity))
    if most < 1 or (facts.demand is not None and facts.demand <= most):
        return None
    return Remedy(
        f"--rate {most}cps",
        f"the most that {plural(facts.capacity, 'port')} carry for ever with 60 s of rest each",
        "a smaller load",
    )


MYTHS = [
    "tcp_fin_timeout: it ends FIN_WAIT2, never TIME_WAIT, which is 60 s in every kernel",
    "tcp_max_tw_buckets: it throws TIME_WAIT away, so old segments can reach new connections",
    "tcp_tw_recycle: gone since Linux 4.12, and it cut off clients behind NAT before",
]
