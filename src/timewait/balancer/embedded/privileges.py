"""Root is for binding ports and reading keys; whoever talks to the network becomes somebody else."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
import signal
from pathlib import Path

from timewait.balancer.embedded.messages import Identity
from timewait.balancer.engine import BalancerError

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 15, 38  # linux/prctl.h
NOBODY = "nobody"


def identity(user: str) -> Identity | None:
    """Whom workers become: `user`, or nobody, where this process is root; None where it is not.

    Raises BalancerError for a user that does not exist or that an ordinary user cannot become.
    """
    if os.geteuid() != 0:
        if user and user != _own_name():
            raise BalancerError(f"user = {user!r}: only root can become another user; leave it out, or start as root")
        return None
    try:
        found = pwd.getpwnam(user or NOBODY)
    except KeyError:
        raise BalancerError(
            f"user {user or NOBODY!r} does not exist on this machine; create it (useradd -r {user or NOBODY}) "
            "or name another one: user = ..."
        ) from None
    if found.pw_uid == 0:
        return None
    groups = [found.pw_gid, *(group.gr_gid for group in grp.getgrall() if found.pw_name in group.gr_mem)]
    return Identity(found.pw_name, found.pw_uid, found.pw_gid, tuple(dict.fromkeys(groups)))


def reachable(who: Identity) -> bool:
    """Whether that user exists in this user namespace; where it does not, root is an ordinary user already
    (user_namespaces(7))."""
    return _maps("uid_map", who.uid) and _maps("gid_map", who.gid)


def become(who: Identity) -> None:
    """For good: there is no way back. Raises OSError."""
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)


def confine(parent: int, name: str) -> None:
    """Dies with its parent, gains no rights by any exec(). After become(), which would undo it (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def raise_descriptors() -> int:
    """As many descriptors as the hard limit allows; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _maps(file: str, number: int) -> bool:
    """`         0       1000          1`: inside, outside, how many."""
    for line in Path("/proc/self", file).read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= number < inside + count:
            return True
    return False
