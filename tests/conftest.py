"""What every test may use: free ports, peers, and the summary of what was left out."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

import peers


@pytest.fixture
def needs() -> Callable[[str], str]:
    """`needs("nginx")` -> its path, or the test is left out; see peers.py."""
    return peers.needs


@pytest.fixture
def free_port() -> Callable[..., int]:
    """A function giving a TCP port nobody listens on at this moment, below the range the kernel hands out itself.

    Taken from below ip_local_port_range, so that no outgoing connection of another test can sit on it meanwhile.
    """
    given: set[int] = set()

    def choose(host: str = "127.0.0.1") -> int:
        for port in _candidates():
            if port in given:
                continue
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                try:
                    probe.bind((host, port))
                except OSError:
                    continue
            given.add(port)
            return port
        pytest.fail("no free port between 10000 and 29999")

    return choose


def _candidates() -> Iterator[int]:
    # Spread by process, so that two test sessions on one machine seldom look at the same port together.
    start = (os.getpid() * 97) % 20_000
    return (10_000 + (start + step) % 20_000 for step in range(20_000))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if peers.left_out:
        told = ", ".join(f"{what} ({count} tests)" for what, count in sorted(peers.left_out.items()))
        terminalreporter.write_line(f"Left out because not available here: {told}", yellow=True)
