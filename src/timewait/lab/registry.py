"""Finding a lab that runs, without a file: each answers on an abstract socket (unix(7)) that vanishes with it.

The socket is made before the lab enters its namespaces, so it is found from where the lab was started. It gives
everybody the same description; who may enter is the kernel's decision, when the namespaces in /proc/PID are opened.
"""

from __future__ import annotations

import os
import re
import socket

import msgspec

from timewait.abstract_sockets import ask, listening
from timewait.lab.network import Network
from timewait.lab.topology import Topology, unknown

_PREFIX = "timewait-lab-"
_BACKLOG = 16


class LabError(Exception):
    """No such lab, or none that this user may enter. One sentence."""


class Place(msgspec.Struct, frozen=True):
    """A host of a lab that runs."""

    role: str
    addresses: tuple[str, ...]
    fd: int  # of its network namespace in the lab's process: /proc/PID/fd/FD
    inode: int  # of that namespace, so that a wrong one is never entered
    programs: tuple[str, ...] = ()  # "nginx", "server"


class Lab(msgspec.Struct, frozen=True):
    """A lab that runs, as it describes itself."""

    name: str  # "nat-4711"
    pid: int
    topology: Topology
    hosts: dict[str, Place]

    def place(self, host: str) -> Place:
        """Raises LabError naming the nearest host."""
        if host not in self.hosts:
            raise LabError(f"lab {self.name}: {unknown('host', host, self.hosts)}")
        return self.hosts[host]


def describe(network: Network, name: str) -> Lab:
    """What other processes need to know of a network of this one."""
    places = {}
    for host in network.hosts.values():
        fd = host.namespace.fd
        programs = tuple(host.programs)
        places[host.name] = Place(host.host.role, tuple(host.addresses), fd, os.fstat(fd).st_ino, programs)
    return Lab(name, os.getpid(), network.topology, places)


class Door:
    """Where a running lab answers who asks. Make it before `enter`."""

    def __init__(self, topology: str) -> None:
        self.name = f"{topology}-{os.getpid()}"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(f"\0{_PREFIX}{self.name}")
        self.socket.listen(_BACKLOG)
        self.socket.setblocking(False)

    def answer(self, lab: Lab) -> None:
        """Answers everybody who waits. One who does not read is left alone."""
        text = msgspec.json.encode(lab)
        while True:
            try:
                asking, _ = self.socket.accept()
            except OSError:
                return
            with asking:
                try:
                    asking.settimeout(0.1)
                    asking.sendall(text)
                except OSError:
                    pass

    def close(self) -> None:
        self.socket.close()


def running() -> list[Lab]:
    """The labs of this user (of everybody, for root) that run in this network namespace, by name."""
    return [lab for name in listening(_PREFIX) if (lab := _lab(name))]


def choose(name: str) -> Lab:
    """The lab of this name, pid or topology; an empty name means the only one. Raises LabError."""
    labs = running()
    if not labs:
        inside = os.environ.get("TIMEWAIT_HOST")
        hint = (
            f"you are inside of one, at {inside}: leave this shell first"
            if inside
            else "start one with `timewait lab up nat`"
        )
        raise LabError(f"no lab is running here; {hint}")
    known = ", ".join(lab.name for lab in labs)
    if not name:
        if len(labs) > 1:
            raise LabError(f"several labs are running; choose one with --lab: {known}")
        return labs[0]
    exact = [lab for lab in labs if name in (lab.name, str(lab.pid))]
    meant = exact or [lab for lab in labs if re.fullmatch(rf"{re.escape(name)}-\d+", lab.name)]
    if len(meant) > 1:
        raise LabError(f"several labs are named {name!r}; say which: {', '.join(lab.name for lab in meant)}")
    if not meant:
        raise LabError(unknown("lab", name, [lab.name for lab in labs]))
    return meant[0]


def _lab(name: str) -> Lab | None:
    answer, pid = ask(name, Lab) or (None, 0)
    return answer if answer is not None and answer.pid == pid and name == f"{_PREFIX}{answer.name}" else None
