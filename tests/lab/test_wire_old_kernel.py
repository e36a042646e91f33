"""Old kernels at the end of a wire: what they remember of their peers, and which SYNs they drop for it.

Times and timestamps are those of the examples the rules were checked with: a record of (100000, second 1000).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.lab.frames import Packet, packed
from timewait.lab.wire.old_kernel import OldHost
from timewait.lab.wire.spec import OldKernel
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN, s32

HOST, PEER = packed("10.0.0.2"), packed("10.0.0.9")
HOST6, PEER6 = packed("fd00::2"), packed("fd00::9")
DROPS_BY_RECORD = ("2.6.32", "el6", "3.10", "el7", "4.1", "4.9", "4.10", "4.11")


def old(name: str = "2.6.32", **knobs: int | str) -> OldHost:
    return OldHost(OldKernel(name, {"tcp_tw_recycle": 1, **knobs}))


class Talk:
    """One connection between the old host and its peer, told segment by segment from the wire's point of view."""

    def __init__(self, host: OldHost, port: int, tsval: int | None, now: float, *, six: bool = False) -> None:
        """The peer opens it and the host answers. Without `tsval` no timestamps."""
        self.host, self.port, self.now, self.tsval = host, port, now, tsval
        self.addresses = (PEER6, HOST6) if six else (PEER, HOST)
        self.peer_seq, self.host_seq = 5000, 9000
        self.refusal = self.comes(SYN)
        if self.refusal is None:
            self.goes(SYN | ACK)
            self.comes(ACK)

    def comes(self, flags: int, length: int = 0, seq: int | None = None, tsval: int | None = None) -> object:
        """The peer sends; numbers go on by themselves unless given."""
        tsval = self.tsval if tsval is None else tsval
        peer, host = self.addresses
        packet = Packet(
            peer, host, self.port, 80, self.peer_seq if seq is None else seq, self.host_seq if flags & ACK else 0,
            flags, 65535, tsval is not None, tsval or 0, 7, 0, 0, 0, length,
        )  # fmt: skip
        if seq is None:
            self.peer_seq += length + (flags & FIN) + (flags & SYN) // SYN
        return self.host.receives(packet, self.now)

    def goes(self, flags: int, length: int = 0, ack: int | None = None) -> None:
        """The host sends."""
        peer, host = self.addresses
        packet = Packet(
            host, peer, 80, self.port, self.host_seq, self.peer_seq if ack is None else ack, flags, 65535,
            self.tsval is not None, 1, self.tsval or 0, 0, 0, 0, length,
        )  # fmt: skip
        self.host_seq += length + (flags & FIN) + (flags & SYN) // SYN
        self.host.sent(packet, 0, self.now)

    def host_closes(self, tsval: int | None = None) -> None:
        """The host first, the peer answers with ACK and FIN in one."""
        self.goes(FIN | ACK)
        self.tsval = self.tsval if tsval is None else tsval
        self.comes(FIN | ACK)
        self.goes(ACK)

    def peer_closes(self) -> None:
        self.comes(FIN | ACK)
        self.goes(FIN | ACK)
        self.comes(ACK)


def with_record(host: OldHost, *, six: bool = False) -> OldHost:
    """(100000, 1000), left by a connection that the host closed; its TIME_WAIT is over."""
    Talk(host, 40000, 100_000, 1000, six=six).host_closes()
    assert record(host, six=six) == Record(100_000, 1000)
    host.expire(1010)
    return host


def record(host: OldHost, now: float = 1000, *, six: bool = False) -> Record:
    return host.peers.record(HOST6 if six else HOST, PEER6 if six else PEER, int(now))


def syn(host: OldHost, tsval: int | None, now: float, *, port: int = 50000, six: bool = False) -> bool:
    """Whether this SYN gets through; nobody answers it."""
    peer, own = (PEER6, HOST6) if six else (PEER, HOST)
    packet = Packet(peer, own, port, 80, 77, 0, SYN, 65535, tsval is not None, tsval or 0, 0, 0, 0, 0, 0)
    return host.receives(packet, now) is None


# -- a SYN and the record -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "tsval", "now", "passes"),
    [
        ("2.6.32", 99_998, 1059, False),
        ("2.6.32", 99_999, 1059, True),  # one tick is allowed
        ("2.6.32", 99_998, 1060, True),  # the record is too old
        ("2.6.32", 100_000 - (2**31 - 1), 1059, False),
        ("2.6.32", 100_000 - 2**31, 1059, True),  # 2^31 away is not older
        ("2.6.32", None, 1010, True),
        ("3.10", 99_998, 1059, False),
        ("3.10", None, 1010, True),
        ("el7", None, 1010, False),
        ("4.1", None, 1010, False),
        ("4.9", None, 1010, False),
        ("4.11", None, 1010, False),
        ("4.11", None, 1060, True),
    ],
)
def test_a_syn_is_judged_by_the_record(kernel: str, tsval: int | None, now: float, passes: bool) -> None:
    host = with_record(old(kernel))
    assert syn(host, None if tsval is None else tsval % 2**32, now) is passes


@pytest.mark.parametrize("kernel", DROPS_BY_RECORD)
def test_a_dropped_syn_counts_as_that_kernel_counts_it(kernel: str) -> None:
    host = with_record(old(kernel))
    before = dict(host.counters)
    assert not syn(host, 99_998, 1059)
    moved = {name: count - before.get(name, 0) for name, count in host.counters.items()}
    drops = {"ListenDrops": 1} if kernel not in ("2.6.32", "el6") else {}
    assert {name: count for name, count in moved.items() if count} == {"PAWSPassive": 1, **drops}


def test_the_refusal_tells_what_it_was_judged_by() -> None:
    host = with_record(old())
    refusal = Talk(host, 50000, 99_000, 1020).refusal
    assert refusal is not None
    assert (refusal.record, refusal.now_s) == (Record(100_000, 1000), 1020)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kernel", ["4.12", "4.19", "6.18"])
def test_since_4_12_there_is_no_record(kernel: str) -> None:
    host = OldHost(OldKernel(kernel))
    Talk(host, 40000, 100_000, 1000).host_closes()
    assert len(host.peers) == 0
    assert syn(host, 5, 1001)
    assert host.time_waits


def test_without_tcp_tw_recycle_nothing_is_remembered() -> None:
    host = old(tcp_tw_recycle=0)
    Talk(host, 40000, 100_000, 1000).host_closes()
    assert (len(host.peers), syn(host, 5, 1001)) == (0, True)


def test_ipv6_has_records_since_3_10_only() -> None:
    host = old("2.6.32")
    Talk(host, 40000, 100_000, 1000, six=True).host_closes()
    assert len(host.peers) == 0
    [waiting] = host.time_waits.values()
    assert waiting.until == 1060
    assert not syn(with_record(old("3.10"), six=True), 99_998, 1059, six=True)


def test_two_local_addresses_share_a_record_until_el7() -> None:
    """Before, the key is the peer alone; then it is the pair (tcp_metrics with a source address)."""
    for kernel, passes in (("2.6.32", False), ("3.10", False), ("el7", True), ("4.9", True)):
        host = with_record(old(kernel))
        packet = Packet(PEER, packed("10.0.0.3"), 50000, 80, 77, 0, SYN, 65535, True, 5, 0, 0, 0, 0, 0)
        assert (host.receives(packet, 1010) is None) is passes, kernel


def test_syns_of_a_slower_clock_pass_again_after_60_s() -> None:
    """The schedule of a 2.6.32 client behind the same address; each SYN is a drop until the record is 60 s old."""
    host = with_record(old())
    sent = [1010, 1013, 1019, 1031, 1055, 1103]
    assert [syn(host, 50_000, now) for now in sent] == [False] * 5 + [True]
    assert host.counters["PAWSPassive"] == 5


def test_the_record_does_not_go_back_within_60_s() -> None:
    host = with_record(old())
    host.peers.remember(HOST, PEER, 50_000, 1010, 1010)
    assert record(host) == Record(100_000, 1000)
    host.peers.remember(HOST, PEER, 100_000, 1010, 1010)  # equal: it is as fresh as that
    assert record(host) == Record(100_000, 1010)
    host.peers.remember(HOST, PEER, 50_000, 1071, 1071)
    assert record(host, 1071) == Record(50_000, 1071)


def test_a_syn_that_is_sent_again_while_it_is_answered_is_not_judged() -> None:
    host = old()
    slow = Talk(host, 50000, 50_000, 1000)  # before any record: in SYN_RECV, then open
    with_record(host)
    assert slow.comes(SYN, seq=5000) is None
    assert "PAWSPassive" not in host.counters


def test_more_peers_than_the_tree_holds_push_the_oldest_out() -> None:
    host = old(inet_peer_threshold=2)
    for number in (1, 2, 3):
        host.peers.remember(HOST, packed(f"10.0.0.{number}"), 100_000, 1000, 1000)
    known = [host.peers.record(HOST, packed(f"10.0.0.{number}"), 1000).stamp for number in (2, 3)]
    assert (len(host.peers), known) == (2, [1000, 1000])


# -- who writes it --------------------------------------------------------------------------------------------------


def test_the_passive_closer_writes_nothing() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.peer_closes()
    assert (len(host.peers), host.connections, host.time_waits) == (0, {}, {})


def test_fins_that_cross_make_both_ends_write() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.comes(FIN | ACK)  # before the host's FIN has left ...
    talk.goes(FIN | ACK, ack=talk.peer_seq - 1)  # ... which does not know of it
    assert len(host.peers) == 0
    talk.goes(ACK)  # CLOSING
    assert len(host.peers) == 0
    talk.comes(ACK)
    assert record(host) == Record(100_000, 1000)
    assert len(host.time_waits) == 1


@pytest.mark.parametrize("by_host", [True, False])
def test_a_reset_leaves_nothing(by_host: bool) -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    if by_host:
        talk.goes(RST | ACK)
    else:
        talk.comes(RST | ACK)
    assert (len(host.peers), host.connections, host.time_waits) == (0, {}, {})


def test_a_reset_outside_of_the_window_ends_nothing() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.comes(RST, seq=4000)
    assert len(host.connections) == 1


def test_a_host_that_opens_the_connection_remembers_its_peer_too() -> None:
    host = old()
    now = 1000.0
    fields = (0, 0, 0, 0)
    host.sent(Packet(HOST, PEER, 33000, 443, 100, 0, SYN, 65535, True, 1, *fields, 0), 7, now)
    host.receives(Packet(PEER, HOST, 443, 33000, 900, 101, SYN | ACK, 65535, True, 50, 1, 0, 0, 0, 0), now)
    host.sent(Packet(HOST, PEER, 33000, 443, 101, 901, ACK, 65535, True, 1, *fields, 0), 0, now)
    host.sent(Packet(HOST, PEER, 33000, 443, 101, 901, FIN | ACK, 65535, True, 1, *fields, 0), 0, now)
    host.receives(Packet(PEER, HOST, 443, 33000, 901, 102, FIN | ACK, 65535, True, 60, 1, 0, 0, 0, 0), now)
    assert len(host.peers) == 0
    host.sent(Packet(HOST, PEER, 33000, 443, 102, 902, ACK, 65535, True, 1, *fields, 0), 0, now)
    assert record(host) == Record(60, 1000)


def test_a_refused_connection_is_forgotten() -> None:
    host = old()
    host.sent(Packet(HOST, PEER, 33000, 443, 100, 0, SYN, 65535, True, 1, 0, 0, 0, 0, 0), 7, 1000)
    host.receives(Packet(PEER, HOST, 443, 33000, 0, 101, RST | ACK, 0, False, 0, 0, 0, 0, 0, 0), 1000)
    assert host.connections == {}


def test_an_orphan_writes_when_its_fin_is_acknowledged_and_again_at_the_fin() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.goes(FIN | ACK)
    talk.comes(ACK)  # FIN_WAIT2
    assert (record(host), host.orphans) == (Record(100_000, 1000), 1)
    talk.now, talk.tsval = 1005, 100_500
    talk.comes(FIN | ACK)
    talk.goes(ACK)
    assert (record(host), host.orphans) == (Record(100_500, 1005), 0)
    assert len(host.time_waits) == 1


def test_an_orphan_whose_peer_never_closes_is_gone_after_tcp_fin_timeout() -> None:
    host = old(tcp_fin_timeout=5)
    talk = Talk(host, 40000, 100_000, 1000)
    talk.goes(FIN | ACK)
    talk.comes(ACK)
    assert 1007.5 <= host.due() <= 1015  # the slow wheel turns every 7.5 s, and a turn has begun already
    host.expire(host.due() - 0.001)
    assert host.connections
    host.expire(host.due())
    assert (host.connections, host.orphans, host.counters) == ({}, 0, {"TW": 1})


def test_where_data_meets_an_orphan_the_hosts_own_reset_ends_it() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.goes(FIN | ACK)
    talk.comes(ACK)
    talk.comes(PSH | ACK, 100)
    talk.goes(RST)
    assert (host.connections, host.orphans, host.time_waits) == ({}, 0, {})


def test_a_program_that_only_shut_down_its_side_goes_on_reading() -> None:
    """The host acknowledges the data, so it was no orphan; its TIME_WAIT begins with the peer's FIN."""
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.goes(FIN | ACK)
    talk.comes(ACK)
    talk.tsval = 100_007
    talk.comes(PSH | ACK, 100)
    talk.goes(ACK)
    talk.comes(FIN | ACK)
    talk.goes(ACK)
    assert record(host) == Record(100_007, 1000)
    assert len(host.time_waits) == 1


@pytest.mark.parametrize(("kernel", "counted"), [("2.6.32", {}), ("3.10", {"TCPTimeWaitOverflow": 1})])
def test_with_too_many_time_waits_there_is_none_more_but_the_record_is_written(
    kernel: str, counted: dict[str, int]
) -> None:
    host = old(kernel, tcp_max_tw_buckets=0)
    Talk(host, 40000, 100_000, 1000).host_closes()
    assert record(host) == Record(100_000, 1000)
    assert (host.time_waits, host.connections, host.counters) == ({}, {}, counted)


# -- which timestamp it writes --------------------------------------------------------------------------------------


def test_it_is_the_timestamp_of_the_last_segment_in_order() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.comes(PSH | ACK, 10, tsval=100_010)
    talk.goes(ACK)
    talk.comes(PSH | ACK, 10, seq=talk.peer_seq + 10, tsval=100_020)  # a gap before it
    talk.goes(ACK)
    talk.comes(PSH | ACK, 10, seq=4990, tsval=100_030)  # an old one once more, but newly stamped
    talk.tsval = 100_010
    talk.host_closes()
    assert record(host) == Record(100_010, 1000)


def test_what_follows_data_not_yet_acknowledged_is_not_stored() -> None:
    """RFC 7323, 4.3: the timestamp to echo is that of the segment that the last acknowledgement waits for."""
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.comes(PSH | ACK, 10, tsval=100_010)
    talk.comes(PSH | ACK, 10, tsval=100_020)
    [connection] = host.connections.values()
    assert (connection.ts, connection.stamp) == (100_010, 1000)
    talk.now = 1003
    talk.goes(ACK)
    talk.comes(PSH | ACK, 10, tsval=100_040)
    assert (connection.ts, connection.stamp) == (100_040, 1003)


def test_an_older_timestamp_is_not_stored() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.comes(PSH | ACK, 10, tsval=99_999)
    [connection] = host.connections.values()
    assert connection.ts == 100_000


def test_a_segment_that_paws_rejects_is_counted_and_changes_nothing() -> None:
    """In an open connection one tick is allowed, as for the record; at a TIME_WAIT none."""
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.comes(PSH | ACK, 10, tsval=99_999)
    assert host.counters == {}
    talk.comes(FIN | ACK, tsval=90_000)
    assert host.counters == {"PAWSEstab": 1}
    [connection] = host.connections.values()
    assert (connection.peer_fin, connection.ts) == (-1, 100_000)


def test_without_timestamps_at_both_ends_nothing_is_written_and_time_wait_is_long() -> None:
    host = old()
    Talk(host, 40000, None, 1000).host_closes()
    assert len(host.peers) == 0
    [waiting] = host.time_waits.values()
    assert waiting.until == 1060


# -- its TIME_WAIT --------------------------------------------------------------------------------------------------


def test_the_short_time_wait_lasts_the_slots_of_the_fast_wheel() -> None:
    """A retransmission timeout of 200 ms: 700 ms, six slots of 128 ms (HZ=1000)."""
    host = old()
    Talk(host, 40000, 100_000, 1000).host_closes()
    assert host.due() == pytest.approx(1000.768)
    host.expire(1000.767)
    assert len(host.time_waits) == 1
    host.expire(1000.768)
    assert (host.time_waits, host.counters) == ({}, {"TWKilled": 1})


def test_a_slow_round_trip_makes_it_longer() -> None:
    """The timeout after one measurement of 1 s is 1 s + 2 s; 3.5 times that."""
    host = old("4.1")
    talk = Talk(host, 40000, 100_000, 1000)
    [connection] = host.connections.values()
    connection.rto_ms, connection.began = 0, 999
    talk.comes(ACK)
    talk.host_closes()
    assert host.due() == pytest.approx(1010.5)


def test_a_syn_of_the_same_five_tuple_is_judged_by_its_time_wait_alone() -> None:
    """It is older than both; PAWS of TIME_WAIT speaks, not the record, and the timer starts again."""
    host = old()
    Talk(host, 40000, 100_000, 1000).host_closes()
    again = Talk(host, 40000, 99_990, 1000.5)
    assert again.refusal is None
    assert host.counters == {"PAWSEstab": 1}


def test_after_the_short_time_wait_the_record_judges_the_same_five_tuple() -> None:
    host = with_record(old())
    assert Talk(host, 40000, 99_990, 1010).refusal is not None
    assert host.counters == {"TWKilled": 1, "PAWSPassive": 1}


def test_a_syn_that_time_wait_accepts_is_not_judged_by_a_newer_record() -> None:
    host = old()
    Talk(host, 40000, 100_000, 1000).host_closes()
    Talk(host, 40001, 900_000, 1000).host_closes()  # another host behind the address: the record is at 900000
    assert syn(host, 100_001, 1000.1, port=40000)  # newer than its own TIME_WAIT
    assert not syn(host, 100_001, 1000.1, port=40002)


def test_the_hosts_answer_to_a_syn_ends_its_time_wait() -> None:
    host = old()
    Talk(host, 40000, 100_000, 1000).host_closes()
    talk = Talk(host, 40000, 100_100, 1000.1)
    assert (talk.refusal, host.time_waits) == (None, {})
    assert len(host.connections) == 1


def test_a_reset_kills_a_time_wait_and_then_the_record_judges() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.host_closes()
    talk.comes(RST)
    assert (host.time_waits, host.counters) == ({}, {})
    assert not syn(host, 99_990, 1000.1, port=40000)


def test_a_bare_ack_starts_its_60_s_again() -> None:
    host = old()
    talk = Talk(host, 40000, 100_000, 1000)
    talk.host_closes()
    talk.comes(ACK)
    host.expire(1030)
    [waiting] = host.time_waits.values()
    assert waiting.until == 1060


# -- whatever comes -------------------------------------------------------------------------------------------------

numbers = st.sampled_from([0, 1, 4999, 5000, 5001, 5002, 9000, 9001, 2**31, 2**32 - 1])
segments = st.builds(
    Packet,
    source=st.just(PEER),
    target=st.just(HOST),
    source_port=st.sampled_from([1, 2]),
    target_port=st.just(80),
    seq=numbers,
    ack=numbers,
    flags=st.integers(0, 255),
    window=st.integers(0, 65535),
    has_ts=st.booleans(),
    tsval=numbers,
    tsecr=numbers,
    tcp=st.just(0),
    ts=st.just(0),
    payload=st.just(0),
    length=st.sampled_from([0, 1, 1448]),
)


def turned(packet: Packet) -> Packet:
    return packet._replace(
        source=packet.target,
        target=packet.source,
        source_port=packet.target_port,
        target_port=packet.source_port,
    )


@settings(deadline=None)
@given(
    kernel=st.sampled_from(DROPS_BY_RECORD),
    recycle=st.sampled_from([0, 1]),
    buckets=st.sampled_from([0, 1, 1000]),
    story=st.lists(st.tuples(segments, st.booleans(), st.sampled_from([0.0, 0.3, 5.0, 61.0])), max_size=40),
)
def test_no_story_breaks_it(kernel: str, recycle: int, buckets: int, story: list[tuple[Packet, bool, float]]) -> None:
    """Also: the record never moves backwards within its 60 s, a SYN that passes its check is none, counts add up."""
    host = old(kernel, tcp_tw_recycle=recycle, tcp_max_tw_buckets=buckets)
    now = 1000.0
    before = Record()
    for packet, comes, later in story:
        now += later
        host.expire(now)
        if comes:
            refusal = host.receives(packet, now)
            assert refusal is None or (packet.flags & (SYN | ACK | RST | FIN) == SYN and recycle)
        else:
            host.sent(turned(packet), 0, now)
        after = host.peers.record(HOST, PEER, int(now))
        if before.stamp and int(now) - before.stamp <= 60:
            assert s32(after.ts - before.ts) >= 0
        before = after
        kept = [one for one in host.connections.values() if one.kept_until < float("inf")]
        assert host.orphans == len(kept)
        assert host.orphans + len(host.time_waits) <= buckets
        assert host.due() > now
    assert recycle or not len(host.peers)
