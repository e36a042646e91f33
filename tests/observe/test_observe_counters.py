"""The kernel's tables of counters: parsed from what kernels wrote, and from this one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.traffic import Traffic
from timewait.observe import counters

SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens CurrEstab RetransSegs
Tcp: 1 200 120000 -1 6391 3854 12 7
UdpLite: InDatagrams
UdpLite: 0
"""
NETSTAT = """\
TcpExt: SyncookiesSent TW TWRecycled ListenOverflows
TcpExt: 0 28232 5 3
IpExt: InNoRoutes InOctets
IpExt: 0 1234
MPTcpExt: MPCapableSYNRX
MPTcpExt: 0
"""
CONNTRACK = """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error
00000010  00000000 00000002 00000000 0000000a 00000000 00000000 00000000 00000000 00000001 0000000f 00000000 00000000
00000010  00000000 00000003 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000001 00000002 00000000
"""
SOFTNET = """\
0001a2b3 0000000a 00000001 00000000 00000000
0000ffff 00000003 00000000 00000000 00000000
"""


def test_tcp_and_tcp_ext_are_kept_without_gauges_and_constants() -> None:
    assert counters.parse_pairs(SNMP) == {"Tcp.ActiveOpens": 6391, "Tcp.PassiveOpens": 3854, "Tcp.RetransSegs": 7}
    assert counters.parse_pairs(NETSTAT) == {
        "TcpExt.SyncookiesSent": 0,
        "TcpExt.TW": 28232,
        "TcpExt.TWRecycled": 5,
        "TcpExt.ListenOverflows": 3,
    }


def test_conntrack_is_hexadecimal_and_added_up_over_cpus() -> None:
    found = counters.parse_conntrack(CONNTRACK)
    assert (found["conntrack.found"], found["conntrack.invalid"], found["conntrack.drop"]) == (5, 11, 16)
    assert (found["conntrack.early_drop"], found["conntrack.insert_failed"]) == (2, 1)
    assert "conntrack.entries" not in found


def test_softnet_drops_are_the_second_column_of_every_cpu() -> None:
    assert counters.parse_softnet(SOFTNET) == {"softnet.dropped": 13}


@pytest.mark.parametrize("parse", [counters.parse_pairs, counters.parse_conntrack])
def test_an_empty_table_has_no_counters(parse: Callable[[str], dict[str, int]]) -> None:
    assert parse("") == {}


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z0-9]{0,20}", fullmatch=True), st.integers(0, 2**64 - 1)))
def test_every_pair_of_tcp_ext_is_read(table: dict[str, int]) -> None:
    text = "TcpExt: " + " ".join(table) + "\nTcpExt: " + " ".join(map(str, table.values())) + "\n"
    assert counters.parse_pairs(text) == {f"TcpExt.{name}": value for name, value in table.items()}


def test_tables_a_kernel_lacks_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "snmp").write_text(SNMP)
    assert set(counters.read_counters(tmp_path)) == {"Tcp.ActiveOpens", "Tcp.PassiveOpens", "Tcp.RetransSegs"}
    (tmp_path / "netstat").write_text(NETSTAT)
    (tmp_path / "stat").mkdir()
    (tmp_path / "stat" / "nf_conntrack").write_text(CONNTRACK)
    (tmp_path / "softnet_stat").write_text(SOFTNET)
    found = counters.read_counters(tmp_path)
    assert (found["TcpExt.TW"], found["conntrack.drop"], found["softnet.dropped"]) == (28232, 16, 13)


def test_without_the_tcp_table_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        counters.read_counters(tmp_path)
    assert caught.value.errno == errno.ENOENT


def test_moved_holds_the_differences_only() -> None:
    assert counters.moved({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": 4}) == {"b": 3, "d": 4}


def test_this_kernel_counts_our_connections(traffic: Callable[..., Traffic], loopback: Callable[[], str]) -> None:
    before = counters.read_counters()
    traffic(loopback()).hold(5)
    moved = counters.moved(before, counters.read_counters())
    # At least: tests of others may run in this namespace too.
    assert moved["Tcp.ActiveOpens"] >= 5 and moved["Tcp.PassiveOpens"] >= 5


def test_conntrack_gauges(tmp_path: Path) -> None:
    assert counters.read_conntrack(tmp_path) is None
    (tmp_path / "nf_conntrack_count").write_text("17\n")
    assert counters.read_conntrack(tmp_path) is None
    (tmp_path / "nf_conntrack_max").write_text("262144\n")
    assert counters.read_conntrack(tmp_path) == (17, 262144)
