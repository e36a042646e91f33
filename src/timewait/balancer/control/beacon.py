"""Finding a balancer that runs, without a file: each answers on an abstract socket (unix(7)) that vanishes with it.

It tells everybody where its admin socket is; who may use that is decided by the mode of the socket's file.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec

from timewait.abstract_sockets import ask, listening
from timewait.balancer.engine import BalancerError

_PREFIX = "timewait-balance-"


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


def running() -> list[Running]:
    """The balancers in this network namespace whose admin socket this user may open, by process."""
    found = [one for name in listening(_PREFIX) if (one := _running(name)) and os.access(one.socket, os.W_OK)]
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


def _running(name: str) -> Running | None:
    answer, pid = ask(name, Running) or (None, 0)
    return answer if answer is not None and answer.pid == pid and name == f"{_PREFIX}{pid}" else None
