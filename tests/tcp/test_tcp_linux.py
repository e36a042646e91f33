"""The rules asked by people: one question, one sentence."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import timewait.tcp.linux
from timewait.tcp import (
    ACK,
    KERNELS,
    SYN,
    Linux,
    Listener,
    Record,
    Segment,
    TimeWait,
    UnknownKernelError,
    UnknownKnobError,
)
from timewait.tcp.rulebook import RULES, source
from timewait.tcp.tables import differences, in_words, tables

OLD = TimeWait(rcv_nxt=5000, snd_nxt=9000, ts=100_000, stamp=1000)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "rules.md"


def test_the_example_in_the_docs_runs() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert (found.failed, found.attempted > 2) == (0, True)
    assert doctest.testmod(timewait.tcp.linux).failed == 0


def test_a_syn_is_dropped_and_told_why() -> None:
    told = Linux("2.6.32", tcp_tw_recycle=1).syn(tsval=99_998, record=Record(100_000, 1000), now=1059)
    assert (told.action, told.counters, told.rule_id) == ("drop", ("PAWSPassive",), "RECYCLE_OLD_TS")
    assert told.source == "tcp_v4_conn_request(), net/ipv4/tcp_ipv4.c, Linux 2.6.32.67"
    assert str(told).startswith("drop, because tcp_tw_recycle: its timestamp is more than one tick behind")
    assert str(told).endswith("; PAWSPassive +1")


@pytest.mark.parametrize(
    ("name", "sysctls", "record", "tsval", "rule"),
    [
        ("6.18", {}, Record(1, 1000), 1, "RECYCLE_GONE"),
        ("2.6.32", {}, Record(9, 1000), 1, "RECYCLE_OFF"),
        ("2.6.32", {"tcp_tw_recycle": 1}, None, 1, "RECYCLE_NOTHING_KNOWN"),
        ("2.6.32", {"tcp_tw_recycle": 1}, Record(9, 900), 1, "RECYCLE_STALE"),
        ("2.6.32", {"tcp_tw_recycle": 1}, Record(9, 1000), 8, "RECYCLE_NOT_OLDER"),
        ("2.6.32", {"tcp_tw_recycle": 1}, Record(9, 1000), None, "RECYCLE_WITHOUT_TS"),
    ],
)
def test_a_syn_that_passes_is_told_why(
    name: str, sysctls: dict[str, int], record: Record | None, tsval: int | None, rule: str
) -> None:
    told = Linux(name, **sysctls).syn(tsval=tsval, record=record, now=1010)
    assert (told.action, told.rule_id) == ("accept", rule)


def test_unrouted_and_ipv6_pass() -> None:
    server = Linux("2.6.32", tcp_tw_recycle=1)
    record = Record(100_000, 1000)
    assert server.syn(tsval=1, record=record, now=1010, routed=False).rule_id == "RECYCLE_UNROUTED"
    assert server.syn(tsval=1, record=record, now=1010, ipv6=True).rule_id == "RECYCLE_IPV6"


def test_a_listener_in_trouble() -> None:
    for name in ("2.6.32", "3.10", "6.18"):
        host = Linux(name, tcp_syncookies=0)
        assert host.syn(tsval=1, now=0, at=Listener(syn_queue_full=True)).action == "drop"
        assert host.syn(tsval=1, now=0, at=Listener(last_quarter=True)).rule_id == "LAST_QUARTER"
        assert host.syn(tsval=1, now=0, at=Listener(last_quarter=True, proven=True)).action == "accept"
        assert host.syn(tsval=1, now=0, at=Listener(listening=False)).action == "reset"
        assert host.syn(tsval=1, now=0, at=Listener(multicast=True)).action == "drop"
    assert Linux("6.18").syn(tsval=1, now=0, at=Listener(syn_queue_full=True)).action == "cookie"
    assert Linux("6.18", tcp_syncookies=2).syn(tsval=1, now=0).action == "cookie"
    assert Linux("3.10", tcp_syncookies=2).syn(tsval=1, now=0).action == "accept"


def test_a_segment_meets_a_time_wait() -> None:
    told = Linux("6.18").meets(OLD, Segment(6000, flags=SYN, has_ts=True, tsval=99_999), now=1010)
    assert (told.action, told.rearm_seconds, told.counters) == ("ack", 60, ("PAWSTimewait",))
    assert "TIME_WAIT runs another 60 s" in str(told)
    told = Linux("6.18").meets(OLD, Segment(6000, flags=SYN, has_ts=True, tsval=100_001), now=1010)
    assert (told.action, told.isn, told.gone) == ("accept", 74_537, True)
    assert "initial sequence number 74537" in str(told)


def test_time_is_in_seconds_to_the_millisecond() -> None:
    opener = Linux("6.14", tcp_tw_reuse=1)
    tw = OLD._replace(stamp=5000, entered_ms=5_000_000)
    assert opener.reuse(tw, now=5001.0).action == "skip"
    assert opener.reuse(tw, now=5001.001).action == "reuse"
    limited = OLD._replace(last_ack_ms=1_009_501)
    low = Segment(4000, flags=ACK, has_ts=True, tsval=100_000)
    assert Linux("6.18").meets(limited, low, now=1010.0).action == "ignore"
    assert Linux("6.18").meets(limited, low, now=1010.001).action == "ack"


def test_lengths() -> None:
    server = Linux("2.6.32", tcp_tw_recycle=1)
    assert server.length(rto=0.2).seconds == (0.768, 0.768)
    assert server.length(rto=0.2).busy_seconds == (0, 0.896)
    assert server.length(rto=1.5).seconds == (7.5, 15)
    assert server.length(rto=1.5, timestamps=False).seconds == (52.5, 60)
    assert server.with_hz(100).length(rto=0.2).seconds == (0.8, 0.8)
    assert Linux("6.18").length().counted == "when it begins"
    assert Linux("6.18", tcp_fin_timeout=5).length(fin_wait2=True).nominal_seconds == 5
    assert Linux("6.18").length(fin_wait2=True, linger2=3, rto=1.0).nominal_seconds == 3.5
    assert Linux("4.1", tcp_fin_timeout=70).length(fin_wait2=True).seconds == (20, 20)  # tcp_keepalive_timer()
    assert Linux("4.1", tcp_fin_timeout=120).length(fin_wait2=True).seconds == (120, 120)
    assert Linux("6.18", tcp_fin_timeout=61).length(fin_wait2=True).seconds == (2, 2.128)
    assert Linux("2.6.32", tcp_fin_timeout=70).length(fin_wait2=True).seconds == (25, 32.5)  # 10 s, 7.5 s slots


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(UnknownKernelError):
        Linux("5.8")
    with pytest.raises(UnknownKnobError):
        Linux("6.18", tcp_tw_recycle=1)
    assert Linux.running("5.8.0", tcp_tw_reuse=1).knobs.tcp_tw_reuse == 1


def test_every_rule_has_a_sentence_and_a_source() -> None:
    for number, rule in RULES.items():
        assert rule.function.endswith("()")
        assert rule.file.endswith((".c", ".h"))
        assert not rule.text.endswith(".")
        assert source(number, "1.2.3", old=False).endswith("Linux 1.2.3")


def test_every_table_is_whole() -> None:
    found = tables()
    assert len({table.title for table in found}) == len(found) == 12
    for table in found:
        assert all(len(row) == len(table.headings) for row in table.rows)
        assert all(cell.strip() and "|" not in cell for row in table.rows for cell in row)


def test_kernels_side_by_side_show_their_differences_only() -> None:
    rows = differences([kernel for kernel in KERNELS if kernel.name in ("6.13", "6.14")]).rows
    assert {row[0] for row in rows} == {"old_ack_counter", "reuse_age", "tcp_tw_reuse_delay"}
    assert in_words(KERNELS[0])["record_store"] == "inet_peer"
