"""Filters for the kernel: the compiled program means what was asked, by the rules of inet_diag_bc_run()."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.observe.bytecode import Filter, Match, Side, compile_filter
from timewait.observe.sock_diag import Address

FEW_PORTS = st.integers(0, 3) | st.just(65535)
V4 = st.sampled_from(["127.0.0.1", "127.0.0.2", "10.0.0.1"]).map(ipaddress.IPv4Address)
V6 = st.sampled_from(["::1", "2001:db8::1", "7f00:1::"]).map(ipaddress.IPv6Address)


@dataclass(frozen=True)
class Socket:
    """What inet_diag_bc_run() looks at. A mapped socket has an IPv4 address and family AF_INET6."""

    family: int
    local: Address
    local_port: int
    remote: Address
    remote_port: int


def sockets() -> st.SearchStrategy[Socket]:
    four = st.builds(Socket, st.just(socket.AF_INET), V4, FEW_PORTS, V4, FEW_PORTS)
    mapped = st.builds(Socket, st.just(socket.AF_INET6), V4, FEW_PORTS, V4, FEW_PORTS)
    six = st.builds(Socket, st.just(socket.AF_INET6), V6, FEW_PORTS, V6, FEW_PORTS)
    return four | mapped | six


def matches() -> st.SearchStrategy[Match]:
    ports = st.tuples(FEW_PORTS, FEW_PORTS).map(sorted)
    return st.builds(
        lambda side, address, span: Match(side, address, *span), st.sampled_from(Side), st.none() | V4 | V6, ports
    )


def meant(where: Filter, sock: Socket) -> bool:
    def holds(match: Match) -> bool:
        address, port = (sock.local, sock.local_port) if match.side is Side.LOCAL else (sock.remote, sock.remote_port)
        return match.low <= port <= match.high and match.address in (None, address)

    return not where or any(all(holds(match) for match in clause) for clause in where)


def run(program: bytes, sock: Socket) -> bool:
    """inet_diag_bc_run() of Linux 6.18, and the checks of inet_diag_bc_audit() on the way."""
    at = 0
    boundaries = {len(program), len(program) + 4}
    where = 0
    while where < len(program):
        boundaries.add(where)
        where += program[where + 1]
    while at < len(program):
        code, yes, no = struct.unpack_from("=BBH", program, at)
        assert yes >= 4 and yes % 4 == 0 and no % 4 == 0
        assert at + yes in boundaries and at + no in boundaries
        if code == 1:
            passed = False
        elif code in (2, 3, 4, 5):
            (bound,) = struct.unpack_from("=H", program, at + 6)
            port = sock.local_port if code in (2, 3) else sock.remote_port
            passed = port >= bound if code in (2, 4) else port <= bound
        else:
            passed = _host(program[at + 4 :], sock, local={7: True, 8: False}[code])
        at += yes if passed else no
    return at == len(program)


def _host(condition: bytes, sock: Socket, *, local: bool) -> bool:
    family, prefix, wanted = struct.unpack_from("=BBxxi", condition)
    address, port = (sock.local, sock.local_port) if local else (sock.remote, sock.remote_port)
    if wanted not in (-1, port):
        return False
    length = {socket.AF_UNSPEC: 0, socket.AF_INET: 4, socket.AF_INET6: 16}[family]
    assert prefix == 8 * length
    # A mapped AF_INET6 socket is compared by its last 32 bits, as if it were an IPv4 one.
    return not length or condition[8 : 8 + length] == address.packed


@given(st.lists(st.lists(matches(), min_size=1, max_size=3), max_size=4), sockets())
def test_the_program_passes_what_the_filter_means(where: list[list[Match]], sock: Socket) -> None:
    assert run(compile_filter(where), sock) is meant(where, sock)


def test_no_condition_is_no_program() -> None:
    assert compile_filter(()) == b""
    assert compile_filter([[Match(Side.LOCAL)], [Match(Side.REMOTE, low=1, high=1)]]) == b""


def test_a_condition_of_one_destination_is_one_instruction() -> None:
    program = compile_filter([[Match(Side.REMOTE, ipaddress.ip_address("127.0.0.1"), 80, 80)]])
    assert program == struct.pack("=BBHBBxxi4s", 8, 16, 20, socket.AF_INET, 32, 80, b"\x7f\0\0\1")


def test_a_filter_too_large_for_a_request_is_refused() -> None:
    clause = [Match(Side.REMOTE, ipaddress.ip_address("::1"), 80, 80)]
    with pytest.raises(ValueError, match="2500 alternatives"):
        compile_filter([clause] * 2500)
