"""Addresses of a balancer's file."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.balancer.config.addresses import Place, Source, bound, network, overlap, place, source

_ADDRESSES = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda one: not IPv6Address(one).ipv4_mapped)
)
_PLACES = st.builds(Place, _ADDRESSES, st.integers(1, 65535))


@settings(deadline=None)
@given(_PLACES)
def test_a_place_is_read_as_it_is_written(one: Place) -> None:
    assert place(str(one)) == one == bound(str(one))


@settings(deadline=None)
@given(_PLACES, _PLACES)
def test_overlapping_is_mutual(one: Place, other: Place) -> None:
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one)
    assert not overlap(one, one._replace(port=one.port % 65535 + 1))
    assert overlap(Place(IPv6Address("::"), one.port), one)
    assert overlap(Place(IPv4Address(0), one.port), one) == (one.address.version == 4 or one.address.is_unspecified)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.2", Source(IPv4Address("10.0.0.2"))),
        ("10.0.0.3:20000-39999", Source(IPv4Address("10.0.0.3"), 20000, 39999)),
        ("fd00::2", Source(IPv6Address("fd00::2"))),
        ("[fd00::2]", Source(IPv6Address("fd00::2"))),
        ("[fd00::2]:1-1", Source(IPv6Address("fd00::2"), 1, 1)),
    ],
)
def test_sources(text: str, found: Source) -> None:
    assert source(text) == found


def test_a_unix_socket_is_a_path() -> None:
    assert bound("unix:/run/web.sock") == "/run/web.sock"


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.1", "fd00::/8", "0.0.0.0/0"])
def test_networks(text: str) -> None:
    network(text)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_one_or_is_refused_with_what_to_write(text: str) -> None:
    for read in (bound, place, source, network):
        try:
            read(text)
        except ValueError as error:
            assert len(str(error)) > 20 and "\n" not in str(error).replace(text, "")
