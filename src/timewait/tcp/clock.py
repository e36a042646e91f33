"""The clock behind the timestamps a host sends (TSval), and the one behind its initial sequence numbers.

`tcp_time_stamp` is jiffies up to 4.12, a clock of milliseconds since 4.13, or of microseconds on a route with
tcp_usec_ts. Jiffies begin 300 s before 0, so that a host's timestamps wrap five minutes after it booted.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp.knobs import Knobs
from timewait.tcp.profiles import HOST_WIDE, PER_ADDRESSES, Rules
from timewait.tcp.segment import HALF, MASK, u32

BOOT_SECONDS = -300  # INITIAL_JIFFIES, include/linux/jiffies.h
ISN_NS = 64  # a step of the initial sequence number: `seq_scale()`, net/core/secure_seq.c
ISN_PERIOD_NS = ISN_NS << 32  # 274.9 s


class Tuple4(NamedTuple):
    """Addresses as integers, and ports."""

    saddr: int
    daddr: int
    sport: int
    dport: int


def ticks_per_second(rules: Rules, usec: bool = False) -> int:
    """How fast TSval runs. `usec`: the route has the feature tcp_usec_ts (6.7+)."""
    if usec and rules.knows_usec_ts:
        return 1_000_000
    return 1000 if rules.ts_in_ms else rules.hz


def tsval(rules: Rules, knobs: Knobs, uptime_us: int, offset: int = 0, usec: bool = False) -> int:
    """The timestamp sent `uptime_us` microseconds after boot. `offset`: see `offset_key`; jiffies had none to 4.9."""
    ticks = uptime_us * ticks_per_second(rules, usec) // 1_000_000
    if not rules.ts_in_ms and not (usec and rules.knows_usec_ts):
        ticks += BOOT_SECONDS * rules.hz
    return u32(ticks + (offset if has_offset(rules, knobs) else 0))


def has_offset(rules: Rules, knobs: Knobs) -> bool:
    """Whether a random offset is added, constant from boot to boot: 4.10 and later, with tcp_timestamps=1 only."""
    return rules.ts_offset != HOST_WIDE and knobs.tcp_timestamps == 1


def offset_key(rules: Rules, knobs: Knobs, of: Tuple4) -> Tuple4:
    """What the offset belongs to, the rest zeroed: two connections with equal keys have equal offsets.

    The whole host up to 4.9, the five-tuple in 4.10.1 and 6.18.19, the pair of addresses in between. A client with
    an offset for each five-tuple looks, to a server with tcp_tw_recycle, like many hosts behind one address.
    """
    if not has_offset(rules, knobs):
        return Tuple4(0, 0, 0, 0)
    if rules.ts_offset == PER_ADDRESSES:
        return Tuple4(of.saddr, of.daddr, 0, 0)
    return of


def wraps_after_us(rules: Rules, usec: bool = False) -> int:
    """Microseconds in which TSval goes round once; half of it is where older and newer change places."""
    return (MASK + 1) * 1_000_000 // ticks_per_second(rules, usec)


def flips_after_us(rules: Rules, usec: bool = False) -> int:
    """Microseconds after which a stored timestamp no longer counts as older than a new one but as newer."""
    return HALF * 1_000_000 // ticks_per_second(rules, usec)


def first_wrap_us(rules: Rules) -> int:
    """Microseconds from boot to the first wrap of a host's clock without offset: 300 s where it is jiffies."""
    return wraps_after_us(rules) if rules.ts_in_ms else -BOOT_SECONDS * 1_000_000


def isn(tuple_hash: int, real_ns: int) -> int:
    """The initial sequence number of a new connection: a hash of its four-tuple plus 15.625 million a second."""
    return u32(tuple_hash + real_ns // ISN_NS)


def isn_is_ahead(sent: int, age_ns: int) -> bool:
    """Whether the same host's next SYN from the same four-tuple lies ahead of what its last connection sent.

    `sent`: octets the last one sent, SYN and FIN included. `age_ns`: since its SYN. Hosts behind one NAT address have
    unrelated hashes: there it is a toss.
    """
    distance = age_ns // ISN_NS - sent
    return 0 < u32(distance) <= HALF
