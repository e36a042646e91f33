"""The side that opens: its clock, its ports, what it makes of an answer."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcp.versions import ALL, between, each, since
from timewait.tcp import choice, clock, counters, recycle
from timewait.tcp.kernels import kernel
from timewait.tcp.segment import ACK, RST, SYN, Segment, after, u32
from timewait.tcp.synsent import Next, react

DAY = 86_400


@pytest.mark.parametrize(
    ("name", "hz", "days"),
    [
        ("2.6.32", 1000, 49.71),
        ("2.6.32", 250, 198.84),
        ("2.6.32", 100, 497.1),
        ("4.19", 250, 49.71),
        ("6.18", 100, 49.71),
    ],
)
def test_how_long_a_clock_takes_round(name: str, hz: int, days: float) -> None:
    """tcp_time_stamp, include/net/tcp.h."""
    rules = kernel(name).rules._replace(hz=hz)
    assert clock.wraps_after_us(rules) / 1e6 / DAY == pytest.approx(days, abs=0.01)
    assert clock.flips_after_us(rules) * 2 == clock.wraps_after_us(rules)


@each(between("2.6.32", "4.12"))
def test_jiffies_wrap_five_minutes_after_boot(name: str) -> None:
    """INITIAL_JIFFIES, include/linux/jiffies.h."""
    row = kernel(name)
    assert clock.first_wrap_us(row.rules) == 300_000_000
    assert clock.tsval(row.rules, row.defaults, 299_999_000) == 2**32 - 1
    assert clock.tsval(row.rules, row.defaults, 300_000_000) == 0


@each(["6.12", "6.18"])
def test_microseconds_where_the_route_says_so(name: str) -> None:
    """The route feature tcp_usec_ts."""
    row = kernel(name)
    assert clock.wraps_after_us(row.rules, usec=True) / 60e6 == pytest.approx(71.6, abs=0.05)
    assert clock.flips_after_us(row.rules, usec=True) // 1_000_000 == row.rules.paws_wrap_s
    assert clock.ticks_per_second(kernel("6.6").rules, usec=True) == 1000


@each(ALL)
def test_the_offset_needs_tcp_timestamps_1(name: str) -> None:
    """secure_tcp_ts_off(): 2 means timestamps without offset."""
    row = kernel(name)
    has = name in since("4.10")
    assert clock.has_offset(row.rules, row.defaults) is has
    assert not clock.has_offset(row.rules, row.defaults._replace(tcp_timestamps=2))
    now = clock.tsval(row.rules, row.defaults, 400_000_000, 77)
    assert now - clock.tsval(row.rules, row.defaults, 400_000_000) == (77 if has else 0)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**18), st.integers(1, 200), st.integers(0, 10**9))
def test_the_same_hosts_next_syn_lies_ahead_below_125_mbit(hash_: int, start: int, age: int, sent: int) -> None:
    """seq_scale(), net/core/secure_seq.c: 15.625 million a second, round in 274.9 s."""
    first, second = clock.isn(hash_, start), clock.isn(hash_, start + age * 10**9)
    sent = min(sent, 2**30)
    rcv_nxt = u32(first + sent)
    assert after(second, rcv_nxt) is clock.isn_is_ahead(sent, age * 10**9)
    if sent < 15_625_000 * age and age <= 60:
        assert after(second, rcv_nxt)


@pytest.mark.parametrize(
    ("name", "offset", "order"),
    [
        ("2.6.32", 0, [1001, 1002, 1003, 1004, 1005, 1000]),
        ("2.6.32", 4, [1005, 1000, 1001, 1002, 1003, 1004]),
        ("el6", 4, [1004, 1005, 1000, 1001, 1002, 1003]),
        ("4.9", 2, [1002, 1004, 1000, 1003, 1005, 1001]),
        ("6.18", 2, [1002, 1004, 1000, 1003, 1005, 1001]),
    ],
)
def test_the_order_of_ports(name: str, offset: int, order: list[int]) -> None:
    """__inet_hash_connect()."""
    rules = kernel(name).rules
    assert [choice.nth(rules, 1000, 1005, offset, n) for n in range(6)] == order


def test_an_own_range_is_walked_one_by_one_since_6_12() -> None:
    """__inet_hash_connect(), IP_LOCAL_PORT_RANGE."""
    order = [choice.nth(kernel("6.18").rules, 1000, 1004, 3, n, True) for n in range(5)]
    assert order == [1003, 1004, 1000, 1001, 1002]
    assert choice.advance(kernel("6.18").rules, 0, 5, own_range=True) == 6
    assert choice.span(kernel("6.6").rules, 1000, 1004, own_range=True) == 4


@pytest.mark.parametrize(
    ("name", "steps", "random", "by"),
    [("2.6.32", 1, 7, 1), ("el6", 0, 7, 2), ("el7", 3, 0, 4), ("4.9", 4, 7, 6), ("6.1", 0, 7, 16), ("6.18", 0, 0, 2)],
)
def test_how_far_a_success_moves_the_next_beginning(name: str, steps: int, random: int, by: int) -> None:
    """__inet_hash_connect()."""
    assert choice.advance(kernel(name).rules, steps, random) == by


@each(ALL)
def test_what_a_search_takes_and_what_it_skips(name: str) -> None:
    """__inet_hash_connect()."""
    rules = kernel(name).rules
    knows = name != "2.6.32"
    for state, taken in (
        (choice.FREE, True),
        (choice.SHARED, True),
        (choice.REUSABLE, True),
        (choice.BUSY, False),
        (choice.BOUND, False),
        (choice.RESERVED, not knows),
    ):
        found = choice.choose(rules, 1000, 1003, 0, [state] * 4)
        assert (found.errno == 0) is taken
        assert found.errno in (0, errno.EADDRNOTAVAIL)
    assert choice.capacity(rules, 1000, 1003, (1001, 1001, 5000)) == (3 if knows else 4)


def test_an_old_search_meets_ports_twice_where_its_offset_wraps() -> None:
    """(i + offset) is 32 bits wide in __inet_hash_connect(), and 2^32 is no multiple of the range."""
    rules = kernel("2.6.32").rules
    ports = [choice.nth(rules, 1000, 1006, 2**32 - 4, n) for n in range(7)]
    assert len(set(ports)) < 7


@each(ALL)
def test_a_bound_port(name: str) -> None:
    """__inet_hash_connect() with a port."""
    rules = kernel(name).rules
    unchecked = name not in ("5.4", *since("5.15"))
    assert choice.connect_bound(rules, True, choice.BUSY) == (0 if unchecked else errno.EADDRNOTAVAIL)
    assert choice.connect_bound(rules, False, choice.BUSY) == errno.EADDRNOTAVAIL
    assert choice.connect_bound(rules, False, choice.REUSABLE) == 0


@pytest.mark.parametrize(
    ("new", "old", "same_address", "same_user", "expected"),
    [
        ((True, False), (True, False, False, True), True, True, 0),
        ((True, False), (True, False, True, False), True, True, errno.EADDRINUSE),  # it listens
        ((True, False), (False, False, False, True), True, True, errno.EADDRINUSE),
        ((False, True), (False, True, False, True), True, False, 0),  # TIME_WAIT asks for no user
        ((False, True), (False, True, False, False), True, False, errno.EADDRINUSE),
        ((False, True), (False, True, True, False), True, True, 0),
        ((False, False), (False, False, False, True), False, True, 0),
    ],
)
def test_bind(
    new: tuple[bool, bool], old: tuple[bool, bool, bool, bool], same_address: bool, same_user: bool, expected: int
) -> None:
    """inet_csk_bind_conflict()."""
    assert choice.bind(choice.Owner(*new), choice.Owner(*old), same_address, same_user) == expected


@pytest.mark.parametrize(
    ("segment", "following", "counted"),
    [
        (Segment(7, 6000, SYN | ACK, 0, True, 1, 100), Next.CONNECTED, ()),
        (Segment(7, 6000, SYN | ACK), Next.CONNECTED, ()),
        (Segment(7, 6000, SYN | ACK, 0, True, 1, 99), Next.RESET, ("PAWSActive",)),
        (Segment(7, 6000, SYN | ACK, 0, True, 1, 111), Next.RESET, ("PAWSActive",)),
        (Segment(7, 6000, RST | ACK), Next.REFUSED, ()),
        (Segment(7, 6001, RST | ACK), Next.IGNORE, ()),
        (Segment(7, 6000, ACK), Next.IGNORE, ()),
        (Segment(7, 0, SYN), Next.SIMULTANEOUS, ()),
        (Segment(7, 0, RST), Next.IGNORE, ()),
    ],
)
@each(["2.6.32", "el7", "6.18"])
def test_an_answer_to_our_syn(name: str, segment: Segment, following: Next, counted: tuple[str, ...]) -> None:
    """tcp_rcv_synsent_state_process(); our SYN has number 5999 and was sent at 100 of our clock, now it is 110."""
    found = react(kernel(name).rules, 5999, 6000, segment, 100, 110)
    assert (found.next, counters.names(found.counters)) == (following, counted)


def test_connect_takes_the_record_over_one_second_longer_than_it_judges() -> None:
    """tcp_v4_connect(): <= where tcp_v4_conn_request() has <."""
    row = kernel("2.6.32")
    values = row.defaults._replace(tcp_tw_recycle=1)
    record = recycle.Record(1, 1000)
    assert recycle.is_loaded_by_connect(row.rules, values, record, 1060)
    assert not recycle.is_fresh(row.rules, record, 1060)
    assert not recycle.is_loaded_by_connect(row.rules, values, record, 1061)
    assert not recycle.is_loaded_by_connect(row.rules, row.defaults, record, 1010)


@pytest.mark.parametrize(("peers", "seconds"), [(0, 600), (32_832, 360), (65_663, 121), (65_664, 0), (100_000, 0)])
def test_how_long_an_unused_peer_is_kept(peers: int, seconds: int) -> None:
    """peer_check_expire(), inet_getpeer()."""
    row = kernel("2.6.32")
    assert recycle.unused_ttl(row.defaults, peers) == seconds
    assert recycle.is_kept(row.rules, row.defaults, 30, peers) is (seconds > 30)


def test_tcp_metrics_keep_an_hour_and_five_of_a_chain() -> None:
    """tcpm_check_stamp(), tcp_get_encode()."""
    row = kernel("el7")
    assert recycle.is_kept(row.rules, row.defaults, 3600, 5)
    assert not recycle.is_kept(row.rules, row.defaults, 3601, 5)
    assert not recycle.is_kept(row.rules, row.defaults, 1, 6)
    assert not recycle.is_kept(kernel("6.18").rules, row.defaults, 1, 1)


@each(ALL)
def test_a_wall_clock_set_back(name: str) -> None:
    """Additions in 2.6.32, subtraction without sign since; a clock that cannot be set back since 4.19."""
    row = kernel(name)
    future = recycle.Record(100_000, 2000)
    fresh = name in ("2.6.32", "el6")
    assert recycle.is_fresh(row.rules, future, 1000) is fresh
    assert row.rules.monotonic_seconds is (name in since("4.19"))
