"""Moving this process into a host of a lab that runs."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from timewait.lab import mounts
from timewait.lab.registry import Lab, LabError

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h; the os module has them from 3.12 only
_libc = ctypes.CDLL(None, use_errno=True)


def join(lab: Lab, host: str) -> None:
    """This process is inside `host` from then on, with the rights of the lab, and knows the hosts by name.

    Call it before anything starts threads (setns(2): one of several threads cannot change its user namespace).
    Raises LabError.
    """
    place = lab.place(host)
    try:
        user = os.open(f"/proc/{lab.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        network = os.open(f"/proc/{lab.pid}/fd/{place.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise LabError(
            f"lab {lab.name} belongs to another user; run this command as that one, or with sudo"
        ) from None
    except FileNotFoundError:
        raise LabError(f"lab {lab.name} has ended") from None
    if os.fstat(network).st_ino != place.inode:
        raise LabError(f"lab {lab.name} has ended")
    try:
        if os.fstat(user).st_ino != Path("/proc/self/ns/user").stat().st_ino:  # the own one cannot be joined
            _setns(user, _CLONE_NEWUSER)
            if os.geteuid():  # an administrator who joins the lab of a user becomes that user
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
        _setns(network, _CLONE_NEWNET)
    except OSError as error:
        raise LabError(f"lab {lab.name} cannot be entered: {error.strerror}") from None
    finally:
        os.close(user)
        os.close(network)
    try:
        mounts.hosts_file(names(lab))
    except OSError:  # names are a convenience: without them there are addresses
        pass
    os.environ["TIMEWAIT_HOST"] = host


def names(lab: Lab) -> str:
    """Lines for /etc/hosts: each host's first IPv4 address under its name, its first IPv6 address as ip6-NAME."""
    lines = []
    for name, place in lab.hosts.items():
        for sign, called in ((".", name), (":", f"ip6-{name}")):
            first = next((address for address in place.addresses if sign in address), "")
            lines += [f"{first} {called}\n"] if first else []
    return "".join(lines)


def _setns(fd: int, kind: int) -> None:
    if _libc.setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
