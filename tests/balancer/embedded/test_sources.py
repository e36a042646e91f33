"""Where connections to targets come from, with the kernel's ranges and without."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator

import pytest

from kit.servers import listen
from timewait.balancer.embedded import sources
from timewait.balancer.embedded.sources import Sources


@pytest.fixture
def destination() -> Iterator[tuple[str, int]]:
    with listen() as server:
        yield server.getsockname()


@contextlib.contextmanager
def opened(found: Sources, destination: tuple[str, int], count: int) -> Iterator[list[tuple[str, int]]]:
    """The local ends of so many connections."""
    with contextlib.ExitStack() as stack:
        ends = []
        for _ in range(count):
            sock, _ = found.connect(socket.AF_INET, destination)
            stack.callback(sock.close)
            ends.append(sock.getsockname())
        yield ends


def test_addresses_take_turns_and_workers_begin_differently(destination: tuple[str, int]) -> None:
    written = ("127.0.0.2", "127.0.0.3", "::1")
    with opened(Sources(written), destination, 4) as ends:
        assert [host for host, _ in ends] == ["127.0.0.3", "127.0.0.2"] * 2
    with opened(Sources(written, start=1), destination, 2) as ends:
        assert [host for host, _ in ends] == ["127.0.0.2", "127.0.0.3"]


def test_a_port_serves_several_destinations(destination: tuple[str, int], free_port: Callable[[], int]) -> None:
    """Without that, IP_BIND_ADDRESS_NO_PORT or SO_REUSEADDR, one range would be all there is for all targets."""
    port = free_port()
    found = Sources((f"127.0.0.2:{port}-{port}",))
    with listen() as other, opened(found, destination, 1) as one, opened(found, other.getsockname(), 1) as two:
        assert one == two == [("127.0.0.2", port)]


@pytest.mark.parametrize("by_hand", [False, True])
def test_every_port_of_a_range_is_used_and_no_other(
    destination: tuple[str, int], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    """In the kernel's own range by its socket option, elsewhere, and on kernels before 6.3, by hand."""
    if by_hand:
        monkeypatch.setattr(sources, "_kernel_takes", lambda low, high: False)
    low = free_port() if by_hand else 50_000
    span = 10 if by_hand else 200
    found = Sources((f"127.0.0.4:{low}-{low + span - 1}",))
    got: list[int] = []
    with contextlib.ExitStack() as stack:
        with pytest.raises(OSError) as refused:
            for _ in range(span + 1):
                sock, _ = found.connect(socket.AF_INET, destination)
                stack.callback(sock.close)
                got.append(sock.getsockname()[1])
        assert refused.value.errno == errno.EADDRNOTAVAIL
    assert len(set(got)) == len(got) >= span * 0.9  # one or another may be somebody else's
    assert all(low <= port < low + span for port in got)


def test_another_address_is_tried_when_ports_run_out(
    destination: tuple[str, int], free_port: Callable[[], int]
) -> None:  # fmt: skip
    port = free_port()
    with opened(Sources((f"127.0.0.5:{port}-{port}", "127.0.0.6")), destination, 5) as ends:
        assert [host for host, _ in ends].count("127.0.0.5") == 1


def test_what_is_refused_otherwise_is_told(destination: tuple[str, int]) -> None:
    with pytest.raises(OSError) as refused:
        Sources(("10.254.254.254",)).connect(socket.AF_INET, destination)
    assert refused.value.errno == errno.EADDRNOTAVAIL  # not this machine's
