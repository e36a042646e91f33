"""The side that opens connections: taking over TIME_WAIT, ports, clocks, SYNs sent again."""

from __future__ import annotations

import errno

from timewait.tcp import choice, clock, syn, synsent
from timewait.tcp.kernels import Kernel
from timewait.tcp.profiles import LINEAR, PERTURBED
from timewait.tcp.reuse import connect_counters, reuse
from timewait.tcp.segment import ACK, Segment
from timewait.tcp.tables.overview import clock as clock_words
from timewait.tcp.tables.table import Ask, Question, Table, by_version, moved, yes
from timewait.tcp.timewait import TimeWait

OLD = TimeWait(snd_nxt=9000, ts=100_000, stamp=1000, entered_ms=1_000_000)


def _earliest(tw: TimeWait, tw_reuse: int, *, bound: bool = False) -> Ask:
    """How long after a timestamp that was stored at the very beginning of a second."""

    def ask(kernel: Kernel) -> str:
        knobs = kernel.defaults._replace(tcp_tw_reuse=tw_reuse)
        for age in (0, 1, 999, 1000, 1001, 1999, 2000, 2001, 59_999):
            now = 1_000_000 + age
            if reuse(kernel.rules, knobs, tw, now // 1000, now, bound).reuses:
                return f"after {age / 1000:g} s" if age else "at once"
        return "never"

    return ask


def _overcounts(kernel: Kernel) -> str:
    return yes(connect_counters(kernel.rules, False, True, False) != 0)


def reuses() -> Table:
    """tcp_tw_reuse."""
    lo, half = OLD._replace(loopback=True), OLD._replace(fin_wait2=True)
    without = OLD._replace(stamp=0)
    questions: list[Question] = [
        ("tcp_tw_reuse=1", _earliest(OLD, 1)),
        ("tcp_tw_reuse=2, not loopback", _earliest(OLD, 2)),
        ("tcp_tw_reuse=2, loopback", _earliest(lo, 2)),
        ("tcp_tw_reuse=0", _earliest(OLD, 0)),
        ("tcp_tw_reuse=1, no timestamps", _earliest(without, 1)),
        ("tcp_tw_reuse=1, substate FIN_WAIT2", _earliest(half, 1)),
        ("port bound before connect()", _earliest(OLD, 0, bound=True)),
        ("port bound before connect(), no timestamps", _earliest(without, 0, bound=True)),
        (
            "TWRecycled also rises without a TIME_WAIT",
            lambda k: yes(connect_counters(k.rules, False, True, False) != 0),
        ),
    ]
    return by_version("tcp_tw_reuse: taking over a TIME_WAIT of one's own", REUSES, "connect()", questions, UNIQUE)


UNIQUE = "`tcp_twsk_unique()`, net/ipv4/tcp_ipv4.c"
REUSES = """\
How long after the peer's last timestamp was stored, here at the very beginning of a second, connect() takes
over a TIME_WAIT of the same five-tuple; later in that second it is up to a second less, for clocks of whole
seconds are compared up to 6.13. From 6.14 on the time counts from the beginning of TIME_WAIT, and is
tcp_tw_reuse_delay. The new SYN has a sequence number 65537 beyond the old connection's and returns its peer's
last timestamp; TWRecycled +1. Accepting connections knows nothing of tcp_tw_reuse."""


def _order(kernel: Kernel) -> str:
    low, high = kernel.defaults.ip_local_port_range
    first = [choice.nth(kernel.rules, low, high, 0, n) for n in range(3)]
    half = choice.span(kernel.rules, low, high) // 2
    by_two = choice.passes(kernel.rules, False)
    then = f", ..., then {choice.nth(kernel.rules, low, high, 0, half)}, ..." if by_two else ", ..."
    return ", ".join(map(str, first)) + then


def _next(kernel: Kernel) -> str:
    """Where the next search begins after one that found its first port free."""
    low, high = kernel.defaults.ip_local_port_range
    found = choice.choose(kernel.rules, low, high, 0, [choice.FREE] * (high - low + 1))
    least, most = (choice.advance(kernel.rules, found.steps, random) for random in (0, 7))
    return f"+{least}" if least == most else f"+{least} to +{most}, at random"


def _hint(kernel: Kernel) -> str:
    return "many, chosen by destination" if kernel.rules.port_search == PERTURBED else "one for the host"


def _start(kernel: Kernel) -> str:
    return "any" if kernel.rules.port_search == LINEAR else "even"


def _tried(low: int, high: int) -> Ask:
    return lambda kernel: str(choice.capacity(kernel.rules, low, high))


def _default_ports(kernel: Kernel) -> str:
    low, high = kernel.defaults.ip_local_port_range
    return f"{choice.capacity(kernel.rules, low, high)} of {low}-{high}"


def _exhausted(kernel: Kernel) -> str:
    return errno.errorcode[choice.choose(kernel.rules, 40_000, 40_001, 0, [choice.BUSY] * 2).errno]


def _sole(kernel: Kernel) -> str:
    return "not looked for" if not choice.connect_bound(kernel.rules, True, choice.BUSY) else "EADDRNOTAVAIL"


def searches() -> Table:
    """The search for a port."""
    questions: list[Question] = [
        ("ports tried", _default_ports),
        ("ports tried of 40000-40004", _tried(40_000, 40_004)),
        ("begins at an offset that is", _start),
        ("order from offset 0", _order),
        ("a success moves the next beginning by", _next),
        ("such beginnings", _hint),
        ("ip_local_reserved_ports", lambda kernel: "left out" if kernel.rules.knows_reserved_ports else "unknown"),
        ("none left", _exhausted),
        ("bound port that nobody else has: the five-tuple", _sole),
        ("a socket's own range (IP_LOCAL_PORT_RANGE)", lambda k: "one by one" if k.rules.own_range_by_one else "-"),
    ]
    return by_version("The search for a local port", SEARCHES, "connect() without bind()", questions, SEARCH)


SEARCH = "`__inet_hash_connect()`, net/ipv4/inet_hashtables.c"
SEARCHES = """\
A port is taken when nobody has it, when only connections to other destinations have it, or when its TIME_WAIT
may be taken over; one that somebody used with bind() or listen() is skipped. bind() to port 0 that finds none
fails with EADDRINUSE instead, and so does bind() to a port in TIME_WAIT, unless both sockets had SO_REUSEADDR.
Since 4.9 a search tries an even number of ports: of an odd range it leaves one out, which one depends on where
it begins. The random step makes a five-tuple come back after about a ninth of the range, where the other end
holds the TIME_WAITs."""


def _days(microseconds: int) -> str:
    seconds = microseconds / 1e6
    return f"{seconds / 86400:.1f} days" if seconds >= 86400 else f"{seconds:.0f} s"


def _jiffies_by_hz(of: Ask) -> Ask:
    """The answer for the three ticks kernels are built with, where it depends on them."""

    def ask(kernel: Kernel) -> str:
        if kernel.rules.ts_in_ms:
            return of(kernel)
        rows = [kernel._replace(rules=kernel.rules._replace(hz=hz)) for hz in (1000, 250, 100)]
        found = [of(row) for row in rows]
        return " / ".join(found) if len(set(found)) > 1 else found[0]

    return ask


def _usec(kernel: Kernel) -> str:
    return _days(clock.wraps_after_us(kernel.rules, True)) if kernel.rules.knows_usec_ts else "-"


def clocks() -> Table:
    """TSval."""
    questions: list[Question] = [
        ("clock", clock_words),
        ("ticks a second", _jiffies_by_hz(lambda kernel: str(clock.ticks_per_second(kernel.rules)))),
        ("goes round in", _jiffies_by_hz(lambda kernel: _days(clock.wraps_after_us(kernel.rules)))),
        ("older turns into newer after", _jiffies_by_hz(lambda kernel: _days(clock.flips_after_us(kernel.rules)))),
        ("first wrap after boot, without offset", lambda kernel: _days(clock.first_wrap_us(kernel.rules))),
        (
            "with tcp_usec_ts goes round in",
            _usec,
        ),
    ]
    return by_version("The clock behind timestamps", CLOCKS, "TSval", questions, TSVAL)


TSVAL = "`tcp_time_stamp`, include/net/tcp.h; net/core/secure_seq.c"
CLOCKS = """\
Three figures stand for HZ=1000, 250 and 100. An offset is random, constant from boot to boot, and added only
with tcp_timestamps=1. One per four-tuple makes a single client look, to a server with tcp_tw_recycle, like many
behind one address: about every second connection is dropped, without any NAT. Initial sequence numbers are a
hash of the four-tuple plus one step each 64 ns, in every version: the same host's next SYN on a five-tuple lies
ahead of the last connection, that of another host behind the same address does so by chance."""


def _schedule(kernel: Kernel) -> str:
    return ", ".join(f"{at:g}" for at in syn.schedule(kernel).sends)


def _after_bare_ack(kernel: Kernel) -> str:
    found = synsent.react(kernel.rules, 10, 11, Segment(0, 5, ACK), 0, 0)
    return f"{found.resend_jiffies} jiffies" if found.resend_jiffies else f"{kernel.rules.syn_rto_ms / 1000:g} s"


def resends() -> Table:
    """SYNs without an answer."""
    questions: list[Question] = [
        ("SYNs leave at, s", _schedule),
        ("ETIMEDOUT after", lambda kernel: f"{syn.schedule(kernel).gives_up:g} s"),
        ("a TIME_WAIT answered with a bare ACK: RST, and the next SYN after", _after_bare_ack),
        ("an answer to a SYN with a timestamp never sent", _bad_tsecr),
    ]
    return by_version("SYNs that get no answer", RESENDS, "connect()", questions, RESEND)


def _bad_tsecr(kernel: Kernel) -> str:
    found = synsent.react(kernel.rules, 10, 11, Segment(0, 11, ACK, 0, True, 1, 99), 100, 100)
    return f"RST{moved(found.counters)}"


RESEND = "`tcp_retransmit_timer()`, net/ipv4/tcp_timer.c; `tcp_rcv_synsent_state_process()`, net/ipv4/tcp_input.c"
RESENDS = """\
With the defaults of tcp_syn_retries and tcp_syn_linear_timeouts. The RST that answers a TIME_WAIT's bare ACK
ends that TIME_WAIT (tcp_rfc1337=0), so the next SYN succeeds: the time until then is what the application
waits. Where a firewall eats the ACK or the RST it goes on like this until ETIMEDOUT."""
