"""What is true of this machine: settings, limits, destinations; and that what cannot be read is told, not raised."""

from __future__ import annotations

import gc
import ipaddress
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observe.traffic import Traffic
from timewait.observe import addresses, counters, host, limits, netlink, sysctls
from timewait.plan import PortPolicy, Ports

MakeTraffic = Callable[..., Traffic]


def test_settings_are_those_of_the_kernel() -> None:
    found = sysctls.read_sysctls()
    assert found.values["net.ipv4.tcp_timestamps"] == Path("/proc/sys/net/ipv4/tcp_timestamps").read_text().strip()
    assert found.unreadable == []


def test_absent_settings_are_left_out_and_unreadable_ones_told(tmp_path: Path) -> None:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / "net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    (tmp_path / "net/ipv4/tcp_tw_reuse").mkdir()  # reading it fails, for root too
    found = sysctls.read_sysctls(tmp_path)
    assert found.values == {"net.ipv4.ip_local_port_range": "32768 60999"}
    assert found.unreadable == ["net.ipv4.tcp_tw_reuse cannot be read: Is a directory"]


PORTS = st.integers(1, 65535)


@given(st.lists(st.tuples(PORTS, PORTS).map(sorted), max_size=5), PORTS, PORTS)
def test_reserved_ports_inside_the_range_are_counted_once(spans: list[list[int]], one: int, other: int) -> None:
    low, high = sorted((one, other))
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    wanted = {port for a, b in spans for port in range(a, b + 1)} & set(range(low, high + 1))
    assert sysctls.reserved_within(text, low, high) == len(wanted)


def test_the_host_is_described(traffic: MakeTraffic) -> None:
    target = traffic("127.0.0.1")
    found = host.read_host([("127.0.0.1", target.port)], Ports())
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert (found.port_low, found.port_high) == (low, high)
    assert (found.kernel, found.cores) == (os.uname().release, len(os.sched_getaffinity(0)))
    assert (found.nofile_soft, found.nofile_hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert found.loopback and found.local_target
    assert found.unreadable == []


def test_a_range_asked_for_is_the_range() -> None:
    found = host.read_host([], Ports(PortPolicy.OLDEST, 20000, 20999))
    assert (found.port_low, found.port_high) == (20000, 20999)
    assert not found.loopback and not found.local_target


@pytest.mark.parametrize(
    ("listening", "asked", "local"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::", "::1", True),
        ("0.0.0.0", "::1", False),
        ("0.0.0.0", "192.0.2.1", False),  # of somebody else, RFC 5737
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
    ],
)
def test_a_local_target_is_one_that_a_socket_here_listens_for(
    traffic: MakeTraffic, listening: str, asked: str, local: bool
) -> None:
    target = traffic(listening)
    assert host.read_host([(asked, target.port)], Ports()).local_target is local


@pytest.mark.parametrize(
    ("asked", "address", "label"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.1:80"),
        ("::1", "::1", "[::1]:80"),
        ("::ffff:10.0.0.1", "10.0.0.1", "[::ffff:10.0.0.1]:80"),
        ("0.0.0.0", "127.0.0.1", "0.0.0.0:80"),
        ("::", "::1", "[::]:80"),
        ("fe80::1%lo", "fe80::1", "[fe80::1%lo]:80"),
    ],
)
def test_destinations_are_what_sockets_toward_them_show(asked: str, address: str, label: str) -> None:
    found = addresses.destination(asked, 80)
    assert (str(found.address), found.label) == (address, label)


def test_a_name_is_no_destination() -> None:
    with pytest.raises(ValueError):
        addresses.destination("localhost", 80)


@pytest.mark.parametrize(("address", "here"), [("127.9.9.9", True), ("::1", True), ("192.0.2.1", False)])
def test_where_an_address_lives(address: str, here: bool) -> None:
    assert addresses.is_here(ipaddress.ip_address(address)) is here


def test_the_source_toward_loopback() -> None:
    assert str(addresses.source_toward(ipaddress.ip_address("127.0.0.1"))) == "127.0.0.1"


def test_what_cannot_be_read_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> netlink.Wire:
        raise netlink.error(1)

    def gone(*_: object) -> dict[str, int]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(netlink, "connect", forbidden)
    monkeypatch.setattr(counters, "read_counters", gone)
    monkeypatch.setattr(sysctls, "read_sysctls", lambda: sysctls.Settings({}, ["x cannot be read: no"]))
    found = host.read_host([("127.0.0.1", 80)], Ports())
    assert (found.port_low, found.port_high) == (32768, 60999)
    assert len(found.unreadable) == 4
    assert all("read" in sentence and "\n" not in sentence for sentence in found.unreadable)
    assert "EPERM" in found.unreadable[-1] and "stay unknown" in found.unreadable[-1]


def test_open_files_are_counted() -> None:
    gc.collect()  # what other tests left must not go between the two counts
    before = limits.open_files(os.getpid())
    with socket.socket(), socket.socket(), socket.socket():
        during = limits.open_files(os.getpid())
    assert before is not None and during == before + 3


def test_open_files_of_older_kernels_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = limits.open_files(os.getpid())
    real = os.stat

    def without_size(path: str) -> os.stat_result:
        return os.stat_result([*real(path)[:6], 0, *real(path)[7:10]])

    monkeypatch.setattr(os, "stat", without_size)
    assert limits.open_files(os.getpid()) == wanted


def test_the_process_with_most_open_files_counts() -> None:
    assert limits.most_open_files([2**22 + 1, os.getpid()]) == limits.open_files(os.getpid())
    assert limits.most_open_files([2**22 + 1]) is None  # above pid_max: never a process


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    script = """
import resource
from timewait.observe.limits import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
assert raise_open_files() == (512, 512)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, 512)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
