"""Finding a balancer that runs, without a file: each answers on an abstract socket (unix(7)) that vanishes with it.

It tells everybody where its admin socket is; who may use that is decided by the mode of the socket's file.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec

from timewait.balancer.control.door import CREDENTIALS
from timewait.balancer.engine import BalancerError

_PREFIX = "timewait-balance-"
_LISTENING = "00010000"  # __SO_ACCEPTCON in the flags column of /proc/net/unix, linux/net.h
_PATIENCE = 1.0  # seconds


class Running(msgspec.Struct, frozen=True):
    """A balancer that runs."""

    pid: int
    file: str
    socket: str


class Beacon:
    """Answers inside a running event loop; `close` at the end. Where somebody else has the name (the same number of
    a process in another container with this network), the balancer is found by --socket only."""

    def __init__(self, file: str, path: Path) -> None:
        self._text = msgspec.json.encode(Running(os.getpid(), file, str(path)))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(f"\0{_PREFIX}{os.getpid()}")
            self._socket.listen(16)
        except OSError:
            return
        asyncio.get_running_loop().add_reader(self._socket, self._answer)

    def _answer(self) -> None:
        try:
            asking, _ = self._socket.accept()
            with asking:
                asking.send(self._text, socket.MSG_DONTWAIT)
        except OSError:
            pass

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


def running(sockets: str = "/proc/net/unix") -> list[Running]:
    """The balancers in this network namespace whose admin socket this user may open, by process."""
    found = []
    for line in Path(sockets).read_text().splitlines():
        words = line.split()
        if len(words) == 8 and words[3] == _LISTENING and words[7].startswith(f"@{_PREFIX}"):
            one = _ask(words[7][1:])
            if one is not None and os.access(one.socket, os.W_OK):
                found.append(one)
    return sorted(found, key=lambda one: one.pid)


def only() -> Running:
    """The one that runs. Raises BalancerError where there is none, or several."""
    found = running()
    if not found:
        raise BalancerError(
            "no balancer of this user runs here; `timewait balance FILE` starts one, --socket names it"
        )
    if len(found) > 1:
        listed = ", ".join(f"{one.socket} ({one.file}, process {one.pid})" for one in found)
        raise BalancerError(f"several balancers run; say which with --socket: {listed}")
    return found[0]


def _ask(name: str) -> Running | None:
    """None for one that ends in this moment, or is none of ours."""
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_PATIENCE)
            asking.connect(f"\0{name}")
            who = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            pid, uid, _ = CREDENTIALS.unpack(who)
            if os.geteuid() not in (0, uid):
                return None
            one = msgspec.json.decode(b"".join(iter(lambda: asking.recv(65536), b"")), type=Running)
    except (OSError, msgspec.DecodeError):
        return None
    return one if one.pid == pid and name == f"{_PREFIX}{pid}" else None
