"""Ports for what tests start, each given out once.

A port of the kernel's choosing may be one that an earlier test used: its TIME_WAIT sockets are still there for a
minute, and a test that counts sockets counts them too. And between choosing a port and listening on it, another
test's outgoing connection may sit down on it. So these come from below ip_local_port_range, one after the other.
"""

from __future__ import annotations

import itertools
import os
import socket

FIRST, COUNT = 10_000, 20_000  # below ip_local_port_range's 32768

# Spread by process, so that two test sessions on one machine seldom look at the same port together.
_offsets = itertools.count(os.getpid() * 97)


def bind_fresh(sock: socket.SocketType, host: str) -> int:
    """Binds the socket to a port that this session has not used yet, and gives that port."""
    for _ in range(COUNT):
        port = FIRST + next(_offsets) % COUNT
        try:
            sock.bind((host, port))
        except OSError:
            continue  # somebody else's
        return port
    raise RuntimeError(f"no port between {FIRST} and {FIRST + COUNT - 1} can be bound at {host}")


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, and that this function does not give again."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return bind_fresh(probe, host)
