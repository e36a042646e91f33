"""PROXY headers: what is written can be read, at every split; what is none is refused, whatever it is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.balancer.embedded.proxy_protocol import SIGNATURE, Header, Malformed, parse, v1, v2

PORTS = st.integers(0, 65535)
ENDS = st.tuples(st.ip_addresses(v=4) | st.ip_addresses(v=6), PORTS)


@given(ENDS, ENDS, st.sampled_from([v1, v2]), st.binary(max_size=20))
def test_what_is_written_is_read(client: tuple, server: tuple, write, after: bytes) -> None:  # type: ignore[type-arg,no-untyped-def]
    header = write((str(client[0]), client[1]), (str(server[0]), server[1]))
    found = parse(header + after)
    assert isinstance(found, Header) and found.client and found.server
    assert found.size == len(header)
    for told, (address, port) in ((found.client, client), (found.server, server)):
        assert told[1] == port
        assert told[0] == str(address) or _same(told[0], address)
    for end in range(len(header)):
        assert parse(header[:end]) is None


def _same(told: str, address: IPv4Address | IPv6Address) -> bool:
    """A mixed pair is written in IPv6."""
    other = ip_address(told)
    mapped = other.ipv4_mapped if isinstance(other, IPv6Address) else None
    return other == address or mapped == address


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    for start in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x0c"):
        found = parse(start + data)
        assert found is None or isinstance(found, Malformed) or found.size <= len(start + data)


@pytest.mark.parametrize(
    "bad",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n",
        b"PROXY TCP4 10.0.0.1  10.0.0.2 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 01 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 +2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n",
        b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"PROXY " + b"x" * 101,
        SIGNATURE + b"\x31\x11\x00\x0c" + b"x" * 12,  # version 3
        SIGNATURE + b"\x22\x11\x00\x0c" + b"x" * 12,  # an unknown command
        SIGNATURE + b"\x21\x11\x00\x0b" + b"x" * 11,  # too short for IPv4
        SIGNATURE + b"\x21\x41\x00\x0c" + b"x" * 12,  # an unknown family
        SIGNATURE + b"\x21\x13\x00\x0c" + b"x" * 12,  # an unknown protocol
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_is_refused(bad: bytes) -> None:
    assert isinstance(parse(bad), Malformed)


def test_tlvs_are_passed_over() -> None:
    header = v2(("10.0.0.1", 1), ("10.0.0.2", 2))
    longer = header[:14] + (12 + 7).to_bytes(2, "big") + header[16:] + b"\x04\x00\x04abcd"
    assert parse(longer + b"rest") == Header(len(longer), ("10.0.0.1", 1), ("10.0.0.2", 2))


def test_a_header_may_speak_for_itself() -> None:
    assert parse(v2(("", 0), ("", 0))) == Header(16, None, None)
    assert parse(v1(("", 0), ("", 0)) + b"GET") == Header(15, None, None)
    assert parse(SIGNATURE + b"\x21\x31\x00\xd8" + b"x" * 216) == Header(232, None, None)  # AF_UNIX
