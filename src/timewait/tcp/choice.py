"""Which local port connect() takes when none was bound: `__inet_hash_connect()`, net/ipv4/inet_hashtables.c.

The search begins at a place that depends on the destination and on what was chosen before, tries every port of the
range once and takes the first that no connection of the same five-tuple holds, or whose TIME_WAIT may be taken over.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from errno import EADDRINUSE, EADDRNOTAVAIL
from typing import NamedTuple

from timewait.tcp.profiles import LINEAR, LINEAR_EVEN, PERTURBED, Rules
from timewait.tcp.segment import u32

NO_PORT = -1

# what a port is to the search: below BUSY it is taken
FREE = 0  # nobody has it
SHARED = 1  # connections to other destinations have it, none to this one
REUSABLE = 2  # the five-tuple is in TIME_WAIT and may be taken over (`reuse.reuse`)
BUSY = 3  # the five-tuple exists, or its TIME_WAIT may not be taken over
BOUND = 4  # somebody used bind() or listen() on it: never shared
RESERVED = 5  # ip_local_reserved_ports


class Choice(NamedTuple):
    """The port taken, and what the search cost."""

    port: int  # NO_PORT when the range is exhausted
    steps: int  # as the kernel counts them where it found the port: it moves the next search by that (`advance`)
    tried: int  # ports looked at, the taken one included
    errno: int  # 0, or EADDRNOTAVAIL
    state: int  # what the port was: FREE, SHARED or REUSABLE


def span(rules: Rules, low: int, high: int, own_range: bool = False) -> int:
    """Ports that one search tries: all of low..high, but since 4.9 an even number of them.

    With an odd range one is left out, which one depends on where the search begins.
    """
    ports = high - low + 1
    if not passes(rules, own_range) or ports <= 1:
        return max(0, ports)
    return ports & ~1


def passes(rules: Rules, own_range: bool) -> bool:
    """Whether the search goes over every second port first, and over the others then.

    `own_range`: the socket has a range of its own (IP_LOCAL_PORT_RANGE), which 6.12 and later walk one by one.
    """
    if rules.port_search in (LINEAR, LINEAR_EVEN):
        return False
    return not (own_range and rules.own_range_by_one)


def start(rules: Rules, low: int, high: int, hint: int, port_hash: int, own_range: bool = False) -> int:
    """Where the search begins, as an offset.

    `hint`: what `advance` of earlier searches has summed up: one for the host up to 5.10, one of many chosen by the
    destination since (table_perturb). `port_hash`: `secure_ipv4_port_ephemeral()` of both addresses and the
    destination's port, with the upper half of its 64 bits for the tables.
    """
    offset = u32(hint + port_hash)
    if rules.port_search == LINEAR:
        return offset
    if rules.port_search == LINEAR_EVEN:
        return offset & ~1
    offset %= max(1, span(rules, low, high, own_range))
    return offset & ~1 if passes(rules, own_range) else offset


def nth(rules: Rules, low: int, high: int, offset: int, n: int, own_range: bool = False) -> int:
    """The n-th port tried (0 first), from the `offset` that `start` gave."""
    size = span(rules, low, high, own_range)
    return _nth(rules.port_search, size, passes(rules, own_range), low, high, offset, n)


def _nth(search: int, size: int, by_two: bool, low: int, high: int, offset: int, n: int) -> int:
    if search == LINEAR:
        return low + u32(offset + n + 1) % size
    if search == LINEAR_EVEN:
        return low + u32(offset + n) % size
    port = low + offset + n
    if by_two:
        half = max(1, size // 2)
        port = low + offset + n // half + 2 * (n % half)
    return port - size if port > high else port


def steps_of(search: int, size: int, by_two: bool, n: int) -> int:
    """The kernel's own count for the n-th port tried: its loop variable."""
    if search == LINEAR:
        return n + 1
    return 2 * (n % max(1, size // 2)) if by_two else n


def advance(rules: Rules, steps: int, random8: int = 0, own_range: bool = False) -> int:
    """What a successful search adds to the hint of the next. `random8`: 0..7, used since 5.4.286, 5.15 and 6.1."""
    if rules.port_search == LINEAR:
        return steps
    if rules.port_search == LINEAR_EVEN:
        return (steps + 2) & ~1
    step = 2 if passes(rules, own_range) else 1
    if rules.port_search == PERTURBED:
        steps = max(steps, random8 * step)
    return steps + step


def choose(rules: Rules, low: int, high: int, offset: int, states: Sequence[int], own_range: bool = False) -> Choice:
    """The port that connect() takes; `states[port - low]` is what each is to this search.

    Exhausted: EADDRNOTAVAIL. (bind() to port 0 that finds none fails with EADDRINUSE instead.)
    """
    size = span(rules, low, high, own_range)
    search, by_two = rules.port_search, passes(rules, own_range)
    for n in range(size):
        port = _nth(search, size, by_two, low, high, offset, n)
        state = states[port - low]
        if state < BUSY or (state == RESERVED and not rules.knows_reserved_ports):
            return Choice(port, steps_of(search, size, by_two, n), n + 1, 0, state)
    return Choice(NO_PORT, 0, size, EADDRNOTAVAIL, BUSY)


def capacity(rules: Rules, low: int, high: int, reserved: Collection[int] = ()) -> int:
    """Connections one search can find ports for, toward one destination from one source address.

    `reserved`: the ports of ip_local_reserved_ports. With an odd range since 4.9 the one port a search leaves out
    counts as lost here, though a search that begins elsewhere may find it.
    """
    kept = sum(low <= port <= high for port in set(reserved)) if rules.knows_reserved_ports else 0
    return max(0, span(rules, low, high) - kept)


def connect_bound(rules: Rules, sole_owner: bool, state: int) -> int:
    """errno of connect() from a port that was bound before: 0, or EADDRNOTAVAIL where the five-tuple is taken.

    `sole_owner`: nobody else has the port, not even a TIME_WAIT. Up to 5.10 the kernel then does not look at all.
    `state` is what the port is to this five-tuple; a TIME_WAIT with timestamps is always REUSABLE to a bound port.
    """
    if sole_owner and rules.sole_owner_unchecked:
        return 0
    return EADDRNOTAVAIL if state == BUSY else 0


class Owner(NamedTuple):
    """A socket that asks for a port, or one that has it; a TIME_WAIT keeps the options of its socket."""

    reuse: bool = False  # SO_REUSEADDR
    reuseport: bool = False  # SO_REUSEPORT
    listens: bool = False
    time_wait: bool = False


def bind(new: Owner, old: Owner, same_address: bool = True, same_user: bool = True) -> int:
    """errno of bind() to a port that `old` has: 0, or EADDRINUSE; `inet_csk_bind_conflict()`.

    `same_address`: equal, or one of the two is the wildcard. A TIME_WAIT is in the way like a live socket, unless
    both had SO_REUSEADDR, or both SO_REUSEPORT (3.9+, el6), then whoever the user was.
    """
    if not same_address:
        return 0
    if new.reuse and old.reuse and not old.listens:
        return 0
    if new.reuseport and old.reuseport and (old.time_wait or same_user):
        return 0
    return EADDRINUSE
