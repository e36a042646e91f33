"""Connections made to be counted, and `ss` as the witness."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest

from kit.ports import bind_fresh
from timewait.tcp.states import State

T = TypeVar("T")
U = TypeVar("U")

SS_NAMES = {
    "ESTAB": State.ESTABLISHED,
    "SYN-SENT": State.SYN_SENT,
    "SYN-RECV": State.SYN_RECV,
    "FIN-WAIT-1": State.FIN_WAIT1,
    "FIN-WAIT-2": State.FIN_WAIT2,
    "TIME-WAIT": State.TIME_WAIT,
    "CLOSE-WAIT": State.CLOSE_WAIT,
    "LAST-ACK": State.LAST_ACK,
    "CLOSING": State.CLOSING,
}


def ss(*expression: str) -> dict[State, int]:
    """Sockets by state as ss counts them, listeners left out."""
    text = subprocess.run(["ss", "-Htan", *expression], check=True, capture_output=True, text=True, timeout=20).stdout
    found = Counter(line.split()[0] for line in text.splitlines())
    return {SS_NAMES[name]: count for name, count in found.items() if name in SS_NAMES}


def agreed(witness: Callable[[], T], ours: Callable[[], U]) -> tuple[T, U]:
    """Both readings, taken while nothing moved: the witness says the same before and after. 90 s at most: by then
    what earlier tests left in TIME_WAIT is gone."""
    limit = time.monotonic() + 90
    while time.monotonic() < limit:
        before, found, after = witness(), ours(), witness()
        if before == after:
            return after, found
        time.sleep(0.1)
    pytest.fail(f"the sockets never came to rest: {before} became {after}")


def until(holds: Callable[[], bool], what: str) -> None:
    """Waits for it, 30 s at most."""
    limit = time.monotonic() + 30
    while not holds():
        if time.monotonic() > limit:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.01)


class Traffic:
    """A listener, and connections to it in chosen states. All are closed in the end; TIME_WAIT stays a minute."""

    def __init__(self, host: str, family: int | None = None, backlog: int = 100) -> None:
        self.host = host
        self.family = family or (socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener = socket.socket(self.family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind_fresh(self.listener, host)
        self.listener.listen(backlog)
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []

    def pair(self, host: str | None = None, source: str = "") -> tuple[socket.socket, socket.socket]:
        client = socket.socket(self.family)
        client.settimeout(5)
        if source:
            client.bind((source, 0))
        client.connect((host or self.host, self.port))
        server, _ = self.listener.accept()
        server.settimeout(5)
        return client, server

    def hold(self, count: int, **options: str) -> None:
        """Established connections, kept."""
        for _ in range(count):
            self.open += self.pair(**options)

    def close_by_client(self, count: int, **options: str) -> None:
        """TIME_WAIT on the connecting side."""
        for _ in range(count):
            _close(*self.pair(**options))

    def close_by_server(self, count: int, **options: str) -> None:
        """TIME_WAIT on the accepting side."""
        for _ in range(count):
            _close(*reversed(self.pair(**options)))

    def reset(self) -> None:
        for one in [*self.open, self.listener]:
            one.close()
        self.open.clear()


def _close(first: socket.socket, second: socket.socket) -> None:
    """Ends a connection from `first`. Back when it is in TIME_WAIT: there it is once the other's FIN can be read."""
    first.shutdown(socket.SHUT_WR)
    assert second.recv(1) == b""
    second.close()
    assert first.recv(1) == b""
    first.close()
