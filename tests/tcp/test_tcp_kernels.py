"""Kernels and knobs by name."""

from __future__ import annotations

import pytest

from timewait.tcp.kernels import KERNELS, UnknownKernelError, UnknownKnobError, has_knob, kernel, knobs, running
from timewait.tcp.knobs import SPANS


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("2.6.32", "2.6.32.67"),
        ("2.6.32.67", "2.6.32.67"),
        ("el6", "2.6.32-642.6.2.el6"),
        ("RHEL6", "2.6.32-642.6.2.el6"),
        ("2.6.32-754.el6.x86_64", "2.6.32-642.6.2.el6"),
        ("2.6.32-358.el6.x86_64", "2.6.32.67"),  # before what later builds took over
        ("3.10", "3.10.65"),
        ("el7", "3.10.0-1160.el7"),
        ("3.10.0-957.el7.x86_64", "3.10.0-1160.el7"),
        ("4.1", "4.1.3"),
        ("4.10", "4.10.1"),
        ("4.10.9", "4.10.1"),
        ("4.10.17", "4.10.17"),
        ("v5.10.200", "5.10.13"),
        ("linux-6.6.30", "6.6.0"),
        ("6.18", "6.18.19"),
        ("6.18.44-1-amd64", "6.18.19"),
    ],
)
def test_a_kernel_is_found_by_its_name(name: str, version: str) -> None:
    assert kernel(name).version == version


@pytest.mark.parametrize(
    ("name", "near"),
    [("2.6.18", "2.6.32"), ("5.8", "5.4, 5.10"), ("6.17.3", "6.14, 6.18"), ("7.0", "6.18"), ("el8", "el6, el7")],
)
def test_an_unknown_kernel_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownKernelError) as caught:
        kernel(name)
    assert name in str(caught.value)
    assert all(word in str(caught.value) for word in near.split(", "))


def test_a_name_like_none_lists_all() -> None:
    with pytest.raises(UnknownKernelError, match=r"known: 2\.6\.32, el6, .*, 6\.18"):
        kernel("???")


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("6.18.44-fc", "6.18"),
        ("6.17.0", "6.14"),
        ("6.12.1", "6.12"),
        ("5.8.0", "5.4"),
        ("4.18.0-553.el8_10.x86_64", "4.12"),
        ("3.10.0-1160.118.1.el7.x86_64", "el7"),
        ("2.6.32-754.el6.x86_64", "el6"),
        ("2.6.32-71.el6.x86_64", "2.6.32"),
        ("2.6.18", "2.6.32"),
        ("", "6.18"),
        ("weird", "6.18"),
        ("9.1", "6.18"),
    ],
)
def test_a_row_stands_for_every_running_kernel(release: str, name: str) -> None:
    assert running(release).name == name


def test_what_changed_between_rows_is_known_of_a_running_kernel() -> None:
    assert running("3.2.0").rules.syn_rto_ms == 1000
    assert running("5.6.0").rules.fast_syn_resend
    assert not running("5.5.19").rules.fast_syn_resend
    assert running("6.5.1").defaults.tcp_syn_linear_timeouts == 4
    assert has_knob(running("6.5.1"), "tcp_syn_linear_timeouts")
    assert running("6.7").rules.paws_wrap_s == 2147
    assert running("6.18.19") == kernel("6.18")


def test_knobs_stand_at_their_defaults_and_take_words() -> None:
    row = kernel("2.6.32")
    assert knobs(row, {}) == row.defaults
    found = knobs(row, {"net.ipv4.tcp_tw_recycle": "1", "ip_local_port_range": "40000 40999"})
    assert (found.tcp_tw_recycle, found.ip_local_port_range) == (1, (40_000, 40_999))
    assert knobs(row, {"ip_local_port_range": "1024-65535"}).ip_local_port_range == (1024, 65_535)


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("6.18", {"tcp_tw_recycle": 1}, "removed in 4.12"),
        ("6.13", {"tcp_tw_reuse_delay": 1}, "came with 6.14"),
        ("4.1", {"tcp_syn_linear_timeouts": 1}, "came with 6.5"),
        ("3.10", {"tcp_invalid_ratelimit": 1}, "came with 4.0"),
        ("6.18", {"tcp_tw_resue": 1}, "nearest: tcp_tw_reuse"),
        ("6.18", {"tcp_tw_reuse": 3}, "takes 0 to 2"),
        ("4.12", {"tcp_tw_reuse": 2}, "takes 0 to 1"),
        ("6.18", {"tcp_tw_reuse": "on"}, "write a whole number"),
        ("6.18", {"tcp_tw_reuse_delay": 0}, "takes 1 to"),
        ("6.18", {"ip_local_port_range": "1024"}, "write two ports"),
        ("6.18", {"ip_local_port_range": "2000-1000"}, "first port is above the last"),
        ("6.18", {"ip_local_port_range": "0-70000"}, "takes 1 to 65535"),
    ],
)
def test_a_knob_that_cannot_be_is_refused(name: str, setting: dict[str, int | str], words: str) -> None:
    with pytest.raises(UnknownKnobError, match=words):
        knobs(kernel(name), setting)


def test_a_distribution_may_have_a_knob_earlier() -> None:
    assert knobs(kernel("el7"), {"tcp_invalid_ratelimit": 100}).tcp_invalid_ratelimit == 100


def test_rows_are_in_order_and_hold_plain_numbers() -> None:
    assert len({row.name for row in KERNELS}) == len(KERNELS) == 20
    for row in KERNELS:
        assert all(isinstance(value, int) for value in row.rules)
        assert set(SPANS) == set(row.defaults._fields)
    mainline = [row.release for row in KERNELS if not row.name.startswith("el")]
    assert mainline == sorted(mainline)
