"""What sources say, case by case: tcp_tw_recycle, the length of TIME_WAIT.

Each case names the kernel function it was read in. T0 is a TIME_WAIT with rcv_nxt 5000, snd_nxt 9000, last timestamp
100000 stored in second 1000; R a peer's record with the same timestamp and second.
"""

from __future__ import annotations

import pytest

from tcp.versions import ALL, NOW, T0, R, between, each, on, since, upto
from timewait.tcp import clock, counters, endings, length, listener, recycle, syn, timewait
from timewait.tcp.action import Action
from timewait.tcp.endings import Conditions, End
from timewait.tcp.kernels import kernel
from timewait.tcp.listener import Listener
from timewait.tcp.profiles import NO_RECORD
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, SYN, Segment
from timewait.tcp.states import Event, Sends, State

# tcp_tw_recycle at a listener


def syn_at_listener(
    name: str, tsval: int | None, now: int, record: Record = R, *, ipv6: bool = False, **sysctls: int
) -> tuple[Action, tuple[str, ...]]:
    row, values = on(name, **sysctls)
    has_ts = tsval is not None
    found = listener.answer(row.rules, values, Listener(), record, has_ts, tsval or 0, now, ipv6)
    return Action(found.action), counters.names(found.counters)


DROPPED = (Action.DROP, ("PAWSPassive", "ListenDrops"))
PASSED: tuple[Action, tuple[str, ...]] = (Action.ACCEPT, ())


@each(["2.6.32", "el6"])
def test_v1_v2_v3_two_ticks_behind_within_60_s_is_dropped_and_counted_once(name: str) -> None:
    """tcp_v4_conn_request()."""
    assert syn_at_listener(name, 99_998, 1059, tcp_tw_recycle=1) == (Action.DROP, ("PAWSPassive",))
    assert syn_at_listener(name, 99_999, 1059, tcp_tw_recycle=1) == PASSED  # one tick is tolerated
    assert syn_at_listener(name, 99_998, 1060, tcp_tw_recycle=1) == PASSED  # 60 s are over


@each(between("3.10", "4.11"))
def test_v4_later_kernels_count_the_drop_twice(name: str) -> None:
    """tcp_v4_conn_request(), tcp_conn_request(), tcp_peer_is_proven()."""
    assert syn_at_listener(name, 99_998, 1059, tcp_tw_recycle=1) == DROPPED
    assert syn_at_listener(name, 99_999, 1059, tcp_tw_recycle=1) == PASSED
    assert syn_at_listener(name, 99_998, 1060, tcp_tw_recycle=1) == PASSED


@each(["2.6.32", "el6", "3.10"])
def test_v5_without_timestamps_a_syn_passes_the_older_ones(name: str) -> None:
    """tcp_v4_conn_request()."""
    assert syn_at_listener(name, None, 1059, tcp_tw_recycle=1) == PASSED


@each(between("el7", "4.11"))
def test_v6_without_timestamps_a_syn_is_dropped_while_the_record_is_fresh(name: str) -> None:
    """tcp_conn_request(), tcp_peer_is_proven()."""
    assert syn_at_listener(name, None, 1059, tcp_tw_recycle=1) == DROPPED
    assert syn_at_listener(name, None, 1060, tcp_tw_recycle=1) == PASSED


@each(upto("4.11"))
def test_v8_older_ends_2_to_the_31_ticks_away(name: str) -> None:
    """tcp_v4_conn_request(), tcp_peer_is_proven()."""
    just_older, just_newer = 100_000 - (2**31 - 1), 100_000 - 2**31
    assert syn_at_listener(name, just_older % 2**32, 1059, tcp_tw_recycle=1)[0] is Action.DROP
    assert syn_at_listener(name, just_newer % 2**32, 1059, tcp_tw_recycle=1) == PASSED


@each(upto("4.11"))
def test_v9_a_server_that_closed_second_remembers_nothing(name: str) -> None:
    """tcp_time_wait() is never called."""
    assert syn_at_listener(name, 1, 1059, recycle.NOTHING, tcp_tw_recycle=1) == PASSED


@each(upto("4.11"))
def test_v10_switched_off_nothing_is_dropped(name: str) -> None:
    """tcp_v4_conn_request(), tcp_conn_request()."""
    assert syn_at_listener(name, 99_998, 1059, tcp_tw_recycle=0) == PASSED


@each(upto("4.11"))
def test_v11_a_live_time_wait_comes_before_the_record(name: str) -> None:
    """tcp_timewait_state_process()."""
    row, values = on(name, tcp_tw_recycle=1)
    found = timewait.answer(row.rules, values, T0, Segment(6000, 0, SYN, 0, True, 99_990), NOW, NOW * 1000)
    assert (found.action, found.rearm_seconds) == (Action.ACK, 60)
    assert counters.names(found.counters) == ("PAWSEstab",)


@each(upto("4.11"))
def test_syn_cookies_come_before_the_record(name: str) -> None:
    """tcp_v4_conn_request(), tcp_conn_request()."""
    row, values = on(name, tcp_tw_recycle=1)
    found = listener.answer(row.rules, values, Listener(syn_queue_full=True), R, True, 99_998, 1059)
    assert found.action == Action.COOKIE
    assert not found.counters & counters.PAWS_PASSIVE


@each(["2.6.32", "el6"])
def test_v13_ipv6_is_spared_by_the_oldest(name: str) -> None:
    """tcp_v6_remember_stamp() returns 0."""
    assert syn_at_listener(name, 99_998, 1059, ipv6=True, tcp_tw_recycle=1) == PASSED
    row, values = on(name, tcp_tw_recycle=1)
    found = length.time_wait(row.rules, values, 200, 1000, ipv6=True)
    assert (found.nominal_ms, found.remembers) == (60_000, False)


@each(between("3.10", "4.11"))
def test_v13_ipv6_takes_part_since_3_10(name: str) -> None:
    """tcp_peer_is_proven()."""
    assert syn_at_listener(name, 99_998, 1059, ipv6=True, tcp_tw_recycle=1) == DROPPED


@each(since("4.12"))
def test_v14_gone_in_4_12(name: str) -> None:
    """tcp_conn_request()."""
    row = kernel(name)
    with_it = row.defaults._replace(tcp_tw_recycle=1)
    found = listener.answer(row.rules, with_it, Listener(), R, True, 99_998, 1059)
    assert found.action == Action.ACCEPT
    assert row.rules.record_store == NO_RECORD


@pytest.mark.parametrize(
    ("now", "new", "expected"),
    [
        (1010, (50_000, 1010), R),  # older, within 60 s: stays
        (1060, (50_000, 1060), R),  # at 60 s still
        (1061, (50_000, 1061), Record(50_000, 1061)),  # past it, backwards
        (1061, (50_000, 999), R),  # but not to something stored earlier
        (1010, (100_000, 1010), Record(100_000, 1010)),  # equal refreshes the age
        (1010, (100_001, 1010), Record(100_001, 1010)),
    ],
)
def test_v15_v17_the_record_moves_forward_only(now: int, new: tuple[int, int], expected: Record) -> None:
    """tcp_v4_remember_stamp(), tcp_remember_stamp()."""
    assert recycle.written(R, *new, now) == expected


def test_v18_behind_a_nat_all_syns_of_the_slower_clock_are_dropped_until_60_s_are_over() -> None:
    """tcp_v4_conn_request(), tcp_retransmit_timer()."""
    row, values = on("2.6.32", tcp_tw_recycle=1)
    slower = 50_000
    sends = [1010 + round(at) for at in syn.schedule(row).sends]
    assert sends == [1010, 1013, 1019, 1031, 1055, 1103]
    dropped = [recycle.drops_syn(row.rules, values, R, True, slower, now) for now in sends]
    assert dropped == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("name", "stores", "creates_at_fin", "pair"),
    [
        ("2.6.32", True, True, False),
        ("el6", True, True, False),
        ("3.10", True, False, False),
        ("el7", True, False, True),
        ("4.1", True, False, True),
        ("4.11", True, False, True),
        ("4.12", False, False, False),
        ("6.18", False, False, False),
    ],
)
def test_who_writes_a_record_and_under_which_key(name: str, stores: bool, creates_at_fin: bool, pair: bool) -> None:
    """tcp_time_wait(), tcp_v4_tw_remember_stamp(), tcp_tw_remember_stamp()."""
    row = kernel(name)
    values = row.defaults._replace(tcp_tw_recycle=1)
    assert recycle.writes(row.rules, values, 1000, False, False, True) is stores
    assert not recycle.writes(row.rules, values, 0, False, True, True)  # no timestamps
    assert recycle.creates_at_fin(row.rules) is creates_at_fin
    assert recycle.key(row.rules, 7, 9) == ((7 if pair else 0), 9)


@each(["4.10", "6.18"])
def test_v20_a_client_with_an_offset_per_four_tuple_looks_like_many(name: str) -> None:
    """secure_tcp_ts_off(), secure_tcp_seq_and_ts_off()."""
    row, server = kernel(name), on("2.6.32", tcp_tw_recycle=1)
    one, other = (clock.offset_key(row.rules, row.defaults, clock.Tuple4(1, 2, port, 80)) for port in (5000, 5001))
    assert one != other
    steps = range(0, 2**32, 2**22)
    drops = [recycle.drops_syn(server[0].rules, server[1], R, True, (100_000 + off) % 2**32, NOW) for off in steps]
    assert sum(drops) / len(drops) == pytest.approx(0.5, abs=0.01)


@each([*between("4.10.17", "6.14"), "2.6.32", "4.9"])
def test_v20_other_clients_keep_one_clock_toward_a_server(name: str) -> None:
    """secure_tcp_ts_off(); tcp_time_stamp without any offset up to 4.9."""
    row = kernel(name)
    keys = {clock.offset_key(row.rules, row.defaults, clock.Tuple4(1, 2, port, 80)) for port in (5000, 5001)}
    assert len(keys) == 1


# how long TIME_WAIT lasts


def lasts(name: str, rto_ms: int = 200, stamp: int = 1000, hz: int = 1000, **sysctls: int) -> tuple[int, int, str]:
    row, values = on(name, **sysctls)
    found = length.time_wait(row.rules._replace(hz=hz), values, rto_ms, stamp)
    return found.low_ms, found.high_ms, counters.names(found.counter)[0]


@each(["2.6.32", "el6", "3.10", "el7"])
def test_v21_the_fast_wheel_rounds_up_to_its_slots(name: str) -> None:
    """tcp_time_wait(), inet_twsk_schedule()."""
    assert lasts(name, tcp_tw_recycle=1) == (768, 768, "TWKilled")
    assert lasts(name, hz=250, tcp_tw_recycle=1) == (768, 768, "TWKilled")
    assert lasts(name, hz=100, tcp_tw_recycle=1) == (800, 800, "TWKilled")  # 5 slots of 160 ms
    assert lasts(name, 1000, tcp_tw_recycle=1) == (3584, 3584, "TWKilled")
    assert lasts(name, 3000, tcp_tw_recycle=1) == (15_000, 22_500, "TW")


@each(["2.6.32", "el6", "3.10", "el7"])
def test_v22_without_timestamps_it_is_not_cut_short(name: str) -> None:
    """tcp_time_wait(), inet_twsk_schedule()."""
    assert lasts(name, stamp=0, tcp_tw_recycle=1) == (52_500, 60_000, "TW")
    assert lasts(name) == (52_500, 60_000, "TW")


@each(["4.1", "4.9", "4.11"])
def test_one_timer_each_since_4_1(name: str) -> None:
    """tcp_time_wait(), inet_twsk_schedule()."""
    low, high, counter = lasts(name, tcp_tw_recycle=1)
    assert (low, counter) == (700, "TWKilled")
    assert high == (700 if name == "4.1" else 764)
    assert lasts(name, 1142, tcp_tw_recycle=1)[2] == "TWKilled"  # 3997 ms
    assert lasts(name, 1143, tcp_tw_recycle=1)[2] == "TW"  # 4001 ms


@each(since("4.12"))
def test_60_s_and_the_step_of_the_timer_wheel(name: str) -> None:
    """tcp_time_wait(); calc_wheel_index(), kernel/time/timer.c."""
    assert lasts(name) == (60_000, 64_096, "TW")
    assert lasts(name, hz=250) == (60_000, 62_048, "TW")


@each(ALL)
def test_v24_a_bare_ack_starts_the_60_s_again(name: str) -> None:
    """tcp_timewait_state_process()."""
    row = kernel(name)
    short = T0._replace(timeout_ms=700)
    found = timewait.answer(row.rules, row.defaults, short, Segment(5000, 9000, ACK, 0, True, 100_000), NOW, 1)
    assert (found.action, found.rearm_seconds, found.counters) == (Action.IGNORE, 60, 0)
    assert found.tw == short._replace(stamp=NOW)


@each(ALL)
def test_v25_a_full_table_makes_none_and_the_record_is_written_all_the_same(name: str) -> None:
    """tcp_time_wait(), inet_twsk_alloc()."""
    row = kernel(name)
    limit = row.defaults.tcp_max_tw_buckets
    assert length.overflows(row.defaults, limit)
    assert not length.overflows(row.defaults, limit - 1)
    counted = () if name in ("2.6.32", "el6") else ("TCPTimeWaitOverflow",)
    assert counters.names(length.overflow_counters(row.rules)) == counted
    closing = endings.after(
        row.rules, row.defaults, End(State.CLOSING, True, False), Event.ACK_OF_FIN, Conditions(buckets=limit)
    )
    assert closing.end.state == State.CLOSE
    if row.rules.record_store != NO_RECORD:
        assert recycle.writes(row.rules, row.defaults._replace(tcp_tw_recycle=1), 1000, False, True, True)


@each(ALL)
def test_v26_unread_data_and_linger_0_reset(name: str) -> None:
    """tcp_close()."""
    row = kernel(name)
    for event, counter in ((Event.CLOSE_UNREAD, "TCPAbortOnClose"), (Event.CLOSE_LINGER_0, "TCPAbortOnData")):
        found = endings.after(row.rules, row.defaults, End(), event, Conditions())
        assert (found.end.state, found.sends) == (State.CLOSE, Sends.RST)
        assert counters.names(found.counters) == (counter,)
