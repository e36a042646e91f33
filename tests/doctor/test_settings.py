"""What each sysctl's value means on a host."""

from __future__ import annotations

import pytest

from timewait.doctor.settings import Setting, Verdict, judge
from timewait.observe.sysctls import SYSCTLS
from timewait.run import Host


def one(name: str, value: str, **others: str) -> Setting:
    sysctls = {name: value, **{f"net.ipv4.{key}": text for key, text in others.items()}}
    return next(setting for setting in judge(Host(kernel="6.18.1", sysctls=sysctls)) if setting.name == name)


@pytest.mark.parametrize(
    ("name", "value", "verdict", "words"),
    [
        ("net.ipv4.ip_local_port_range", "32768 60999", Verdict.OK, "28,232 source ports"),
        ("net.ipv4.ip_local_reserved_ports", "", Verdict.OK, "no port"),
        ("net.ipv4.tcp_timestamps", "1", Verdict.OK, "offered"),
        ("net.ipv4.tcp_timestamps", "0", Verdict.BAD, "tcp_tw_reuse"),
        ("net.ipv4.tcp_tw_reuse", "0", Verdict.OK, "rests 60 s"),
        ("net.ipv4.tcp_tw_reuse", "1", Verdict.OK, "about 1 s"),
        ("net.ipv4.tcp_tw_reuse", "2", Verdict.OK, "only toward 127.0.0.0/8"),
        ("net.ipv4.tcp_tw_reuse_delay", "2500", Verdict.OK, "2.5 s"),
        ("net.ipv4.tcp_tw_recycle", "1", Verdict.BAD, "NAT"),
        ("net.ipv4.tcp_tw_recycle", "0", Verdict.OK, "off"),
        ("net.ipv4.tcp_max_tw_buckets", "8192", Verdict.BAD, "without the rest"),
        ("net.ipv4.tcp_max_tw_buckets", "262144", Verdict.OK, "may hold"),
        ("net.ipv4.tcp_fin_timeout", "15", Verdict.NOTE, "TIME_WAIT stays 60 s"),
        ("net.ipv4.tcp_fin_timeout", "60", Verdict.OK, "never"),
        ("net.ipv4.tcp_rfc1337", "1", Verdict.NOTE, "RST does not end TIME_WAIT"),
        ("net.ipv4.tcp_syn_retries", "6", Verdict.OK, "131 s"),
        ("net.core.somaxconn", "128", Verdict.NOTE, "accept queue"),
        ("net.core.somaxconn", "4096", Verdict.OK, "accept queue"),
        ("net.ipv4.tcp_abort_on_overflow", "1", Verdict.NOTE, "RST"),
        ("net.netfilter.nf_conntrack_max", "1000", Verdict.NOTE, "drops SYNs"),
    ],
)
def test_meaning(name: str, value: str, verdict: Verdict, words: str) -> None:
    found = one(name, value)
    assert (found.value, found.verdict) == (value, verdict)
    assert words in found.why


def test_reserved_ports_count() -> None:
    host = Host(reserved_ports=100, sysctls={"net.ipv4.ip_local_port_range": "40000 40199"})
    host.port_low, host.port_high = 40000, 40199
    assert judge(host)[0].why.startswith("100 source ports")
    assert judge(host)[0].verdict is Verdict.BAD


def test_reuse_is_void_without_timestamps() -> None:
    found = one("net.ipv4.tcp_tw_reuse", "1", tcp_timestamps="0")
    assert found.verdict is Verdict.NOTE
    assert "void" in found.why


def test_syn_retries_follow_the_linear_timeouts() -> None:
    assert "127 s" in one("net.ipv4.tcp_syn_retries", "6", tcp_syn_linear_timeouts="0").why


def test_a_value_in_an_unknown_form_is_shown_all_the_same() -> None:
    found = one("net.ipv4.tcp_tw_reuse", "sometimes")
    assert (found.value, found.verdict) == ("sometimes", Verdict.NOTE)


def test_what_the_kernel_lacks_is_left_out() -> None:
    assert judge(Host()) == []


def test_every_setting_that_is_judged_is_read() -> None:
    every = judge(Host(sysctls=dict.fromkeys(SYSCTLS, "1")))
    assert len(every) == 14
    assert {setting.name for setting in every} <= set(SYSCTLS)
