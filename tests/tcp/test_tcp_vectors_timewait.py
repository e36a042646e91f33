"""What sources say, case by case: tcp_tw_reuse, a segment at TIME_WAIT.

Each case names the kernel function it was read in. T0 is a TIME_WAIT with rcv_nxt 5000, snd_nxt 9000, last timestamp
100000 stored in second 1000; R a peer's record with the same timestamp and second.
"""

from __future__ import annotations

import pytest

from tcp.versions import ALL, FROM_EL7, NOW, T0, between, each, on, since, upto
from timewait.tcp import choice, counters, reuse, syn, synsent, timewait
from timewait.tcp.action import Action
from timewait.tcp.kernels import kernel
from timewait.tcp.segment import ACK, RST, SYN, Segment
from timewait.tcp.timewait import TimeWait

# tcp_tw_reuse


def takes(name: str, tw: TimeWait, now_ms: int, *, bound: bool = False, **sysctls: int) -> reuse.Reuse:
    row, values = on(name, **sysctls)
    return reuse.reuse(row.rules, values, tw, now_ms // 1000, now_ms, bound)


@each(upto("4.12"))
def test_v27_more_than_one_whole_second_up_to_4_12(name: str) -> None:
    """tcp_twsk_unique()."""
    assert not takes(name, T0, 1_001_999, tcp_tw_reuse=1).reuses
    found = takes(name, T0, 1_002_000, tcp_tw_reuse=1)
    assert (found.reuses, found.isn, found.tsecr) == (True, 74_537, 100_000)
    assert counters.names(found.counters) == ("TWRecycled",)
    assert not takes(name, T0, 1_059_999, tcp_tw_reuse=0).reuses


@each(between("4.19", "6.13"))
def test_v28_one_tick_of_whole_seconds_up_to_6_13(name: str) -> None:
    """tcp_twsk_unique()."""
    assert not takes(name, T0, 1_000_999, tcp_tw_reuse=1).reuses
    assert takes(name, T0, 1_001_000, tcp_tw_reuse=1).reuses


@each(["6.14", "6.18"])
def test_v29_more_than_the_delay_since_6_14(name: str) -> None:
    """tcp_twsk_unique()."""
    entered = T0._replace(entered_ms=5_000_000)
    assert not takes(name, entered, 5_001_000, tcp_tw_reuse=1, tcp_tw_reuse_delay=1000).reuses
    assert takes(name, entered, 5_001_001, tcp_tw_reuse=1, tcp_tw_reuse_delay=1000).reuses
    assert takes(name, entered, 5_000_002, tcp_tw_reuse=1, tcp_tw_reuse_delay=1).reuses


@each(since("4.19"))
def test_v30_2_means_loopback(name: str) -> None:
    """tcp_twsk_unique()."""
    late = 1_059_000
    tw = T0._replace(entered_ms=1_000_000)
    assert kernel(name).defaults.tcp_tw_reuse == 2
    assert not takes(name, tw, late).reuses  # 10.0.0.5 -> 10.0.0.9, and 10.0.0.5 -> 10.0.0.5
    assert takes(name, tw._replace(loopback=True), late).reuses


@each(ALL)
def test_v31_never_without_timestamps(name: str) -> None:
    """tcp_twsk_unique()."""
    without = T0._replace(stamp=0)
    assert not takes(name, without, 1_059_999, tcp_tw_reuse=1).reuses
    assert not takes(name, without, 1_059_999, bound=True, tcp_tw_reuse=1).reuses


@each(ALL)
def test_v32_a_bound_port_at_once_whatever_the_sysctl_says(name: str) -> None:
    """tcp_twsk_unique() with twp NULL; inet_csk_bind_conflict()."""
    found = takes(name, T0, 1_000_000, bound=True, tcp_tw_reuse=0)
    assert found.reuses
    assert counters.names(found.counters) == ("TWRecycled",)
    with_option, waiting = choice.Owner(reuse=True), choice.Owner(reuse=True, time_wait=True)
    assert choice.bind(with_option, waiting) == 0
    assert choice.bind(with_option, waiting._replace(reuse=False)) == 98  # EADDRINUSE
    assert choice.bind(choice.Owner(), waiting) == 98


@pytest.mark.parametrize(
    ("name", "ports"), [(name, 28_233 if name in ("2.6.32", "3.10", "4.1") else 28_232) for name in ALL]
)
def test_v33_the_range_is_exhausted_after_that_many(name: str, ports: int) -> None:
    """__inet_hash_connect()."""
    row = kernel(name)
    low, high = row.defaults.ip_local_port_range
    assert choice.capacity(row.rules, low, high) == ports
    offset = choice.start(row.rules, low, high, 3, 12_345)
    found = choice.choose(row.rules, low, high, offset, [choice.BUSY] * (high - low + 1))
    assert (found.port, found.tried, found.errno) == (choice.NO_PORT, ports, 99)  # EADDRNOTAVAIL


@each(ALL)
def test_twrecycled_counts_too_much_in_2_6_32_only(name: str) -> None:
    """__inet_check_established()."""
    row = kernel(name)
    without = reuse.connect_counters(row.rules, met_time_wait=False, had_bucket=True, bound=False)
    assert (without != 0) is (name == "2.6.32")
    assert reuse.connect_counters(row.rules, False, True, bound=True) == 0
    assert reuse.connect_counters(row.rules, True, True, False) == counters.TW_RECYCLED


# a SYN meets TIME_WAIT


def meets(name: str, segment: Segment, tw: TimeWait = T0, *, now: int = NOW, **sysctls: int) -> timewait.Answer:
    row, values = on(name, **sysctls)
    return timewait.answer(row.rules, values, tw, segment, now, now * 1000)


def a_syn(seq: int, tsval: int | None) -> Segment:
    return Segment(seq, 0, SYN, 0, tsval is not None, tsval or 0)


@each(ALL)
def test_v35_v36_v38_a_syn_that_opens_the_next_connection(name: str) -> None:
    """tcp_timewait_state_process(), TCP_TW_SYN."""
    for segment in (a_syn(6000, 100_500), a_syn(4000, 100_001), a_syn(5001, 100_000)):
        found = meets(name, segment)
        assert (found.action, found.isn, found.gone, found.counters) == (Action.ACCEPT, 74_537, True, 0)


@each(ALL)
def test_v37_v38_a_syn_that_lies_not_ahead_is_answered_with_a_bare_ack(name: str) -> None:
    """tcp_timewait_state_process()."""
    for segment in (a_syn(4000, 100_000), a_syn(5000, 100_000), a_syn(4000, None), a_syn(5000, None)):
        found = meets(name, segment)
        assert (found.action, found.rearm_ms, found.counters, found.gone) == (Action.ACK, 0, 0, False)


@each(ALL)
def test_v39_an_older_timestamp_is_rejected_without_a_tick_of_grace(name: str) -> None:
    """tcp_timewait_state_process(), tcp_paws_reject()."""
    found = meets(name, a_syn(6000, 99_999))
    assert (found.action, found.rearm_seconds, found.gone) == (Action.ACK, 60, False)
    assert counters.names(found.counters) == ("PAWSTimewait" if name == "6.18" else "PAWSEstab",)


@each(ALL)
def test_a_stored_timestamp_too_old_no_longer_rejects(name: str) -> None:
    """tcp_paws_check()."""
    wrap = 2147 if name in since("6.12") else 24 * 86_400
    assert meets(name, a_syn(6000, 99_999), now=1000 + wrap - 1).action == Action.ACK
    assert meets(name, a_syn(6000, 99_999), now=1000 + wrap).action == Action.ACCEPT
    zero = T0._replace(ts=0)
    assert (meets(name, a_syn(6000, 2**32 - 1), zero).action == Action.ACK) is (name == "2.6.32")


@each(ALL)
def test_v41_a_rst_ends_time_wait_exactly_at_rcv_nxt(name: str) -> None:
    """tcp_timewait_state_process(): assassination, RFC 1337."""
    killed = meets(name, Segment(5000, 0, RST))
    assert (killed.action, killed.gone) == (Action.KILL, True)
    elsewhere = meets(name, Segment(5001, 0, RST))
    assert (elsewhere.action, elsewhere.gone, elsewhere.rearm_ms) == (Action.IGNORE, False, 0)
    spared = meets(name, Segment(5000, 0, RST), tcp_rfc1337=1)
    assert (spared.action, spared.gone) == (Action.IGNORE, False)
    rearms = name in upto("4.12") and name != "el7"
    assert spared.rearm_seconds == (60 if rearms else 0)


@each(ALL)
def test_an_old_rst_is_let_through_after_60_s(name: str) -> None:
    """tcp_paws_reject()."""
    old_rst = Segment(5000, 0, RST, 0, True, 99_999)
    assert meets(name, old_rst, now=1059).action == Action.IGNORE
    assert meets(name, old_rst, now=1060).action == Action.KILL


@pytest.mark.parametrize(
    ("name", "jiffies", "first"),
    [
        *[(name, 0, 3.0) for name in ["2.6.32"]],
        *[(name, 0, 1.0) for name in between("el6", "5.4")],
        *[(name, 2, 1.0) for name in since("5.10")],
    ],
)
def test_v43_a_linux_peer_resets_and_its_next_syn_succeeds(name: str, jiffies: int, first: float) -> None:
    """tcp_rcv_synsent_state_process(), then tcp_timewait_state_process()."""
    row = kernel(name)
    bare = Segment(9000, 5000, ACK, 0, True, 7, 100_000)
    found = synsent.react(row.rules, 5999, 6000, bare, 99_999, 100_010)
    assert (found.next, found.seq, found.resend_jiffies) == (synsent.Next.RESET, 5000, jiffies)
    assert synsent.react(row.rules, 5999, 6000, bare, 99_999, 100_010, retransmits=1).resend_jiffies == 0
    assert meets(name, Segment(found.seq, 0, RST)).gone
    assert syn.schedule(row).sends[1] == first


@each(FROM_EL7)
def test_bare_acks_are_limited_to_one_in_500_ms(name: str) -> None:
    """tcp_oow_rate_limited()."""
    row = kernel(name)
    first = timewait.answer(row.rules, row.defaults, T0, a_syn(4000, 100_000), NOW, 1_010_000)
    assert first.action == Action.ACK
    again = timewait.answer(row.rules, row.defaults, first.tw, a_syn(4000, 100_000), NOW, 1_010_499)
    assert (again.action, counters.names(again.counters)) == (Action.IGNORE, ("TCPACKSkippedTimeWait",))
    assert again.tw == first.tw
    assert (
        timewait.answer(row.rules, row.defaults, again.tw, a_syn(4000, 100_000), NOW, 1_010_500).action == Action.ACK
    )
    data = Segment(4000, 9000, ACK, 100, True, 100_000)
    assert timewait.answer(row.rules, row.defaults, first.tw, data, NOW, 1_010_001).action == Action.ACK


@each(["2.6.32", "el6", "3.10"])
def test_the_oldest_answer_always(name: str) -> None:
    """tcp_timewait_state_process()."""
    row = kernel(name)
    just_now = T0._replace(last_ack_ms=1_009_999)
    assert (
        timewait.answer(row.rules, row.defaults, just_now, a_syn(4000, 100_000), NOW, 1_010_000).action == Action.ACK
    )


@each(ALL)
def test_v45_nobody_listens_any_more(name: str) -> None:
    """tcp_v4_rcv(), TCP_TW_SYN falls through to TCP_TW_ACK."""
    row = kernel(name)
    found = timewait.answer(row.rules, row.defaults, T0, a_syn(6000, 100_500), NOW, 1, listening=False)
    assert (found.action, found.gone, found.rearm_ms) == (Action.ACK, False, 0)


@each(ALL)
def test_v46_a_full_accept_queue_costs_the_time_wait_too(name: str) -> None:
    """tcp_v4_rcv(), then tcp_v4_conn_request() or tcp_conn_request()."""
    row = kernel(name)

    def ask(young: int) -> timewait.Answer:
        return timewait.answer(row.rules, row.defaults, T0, a_syn(6000, 100_500), NOW, 1, True, True, young)

    full = ask(young=2)
    assert (full.action, full.gone) == (Action.DROP, True)
    counted = () if name in ("2.6.32", "el6") else ("ListenDrops", "ListenOverflows")
    assert counters.names(full.counters) == counted
    assert ask(young=1).action == (Action.DROP if name in since("4.11") else Action.ACCEPT)


@each(ALL)
def test_timestamps_off_leaves_the_sequence_number(name: str) -> None:
    """tcp_timewait_state_process() with tw_ts_recent_stamp 0, or tcp_timestamps=0."""
    without = T0._replace(ts=0, stamp=0)
    for tw, sysctls in ((without, {}), (T0, {"tcp_timestamps": 0})):
        assert meets(name, a_syn(5001, 1), tw, **sysctls).action == Action.ACCEPT
        assert meets(name, a_syn(5000 + 2**31, 1), tw, **sysctls).action == Action.ACCEPT
        assert meets(name, a_syn(5000 + 2**31 + 1, 1), tw, **sysctls).action == Action.ACK
        assert meets(name, a_syn(5000, 999_999), tw, **sysctls).action == Action.ACK


@each(ALL)
def test_an_accepted_syn_without_timestamps_meets_no_paws(name: str) -> None:
    """tcp_timewait_state_process(): the segment has no option."""
    assert meets(name, a_syn(6000, None)).action == Action.ACCEPT
    assert meets(name, a_syn(4000, None)).counters == 0


@each(ALL)
def test_v49_no_syn_opens_a_connection_in_fin_wait2(name: str) -> None:
    """tcp_timewait_state_process(), substate TCP_FIN_WAIT2."""
    half = T0._replace(fin_wait2=True)
    reset = meets(name, a_syn(5000, 100_001), half)
    assert (reset.action, reset.gone) == (Action.RESET, True)
    rejected = meets(name, a_syn(5000, 99_999), half)
    assert (rejected.action, rejected.gone, rejected.counters) == (Action.ACK, False, 0)
    below = meets(name, a_syn(4000, 100_001), half)
    assert (below.action, below.gone) == (Action.ACK, False)
