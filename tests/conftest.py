"""What every test may use: free ports, peers, and the summary of what was left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

import peers
from kit import ports

# How long an example takes depends on who else uses the machine (under CI=true hypothesis sees to that itself).
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def needs() -> Callable[[str], str]:
    """`needs("nginx")` -> its path, or the test is left out; see peers.py."""
    return peers.needs


@pytest.fixture
def free_port() -> Callable[..., int]:
    """A function giving a port nobody listens on; see kit/ports.py."""
    return ports.free_port


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if peers.left_out:
        told = ", ".join(f"{what} ({count} tests)" for what, count in sorted(peers.left_out.items()))
        terminalreporter.write_line(f"Left out because not available here: {told}", yellow=True)
