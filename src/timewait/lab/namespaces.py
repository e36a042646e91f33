"""Network namespaces without root.

A process enters a new user namespace, in which it has every capability, together with a new network namespace
(user_namespaces(7)). Further network namespaces are held by file descriptors only, and the processes inside die with
their parent: nothing is mounted or named anywhere, so all of it vanishes with the process, however that ends.

setns() and unshare() of a network namespace concern the calling thread alone. What a thread forks, and every socket
it opens, is in the namespace the thread is in at that moment; a socket stays there afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from timewait.lab import links

_CLONE_NEWUSER = 0x10000000  # linux/sched.h; the os module has them from Python 3.12 only
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class ForbiddenError(Exception):
    """This machine does not let us make namespaces. Its text says why, which setting decides, and what helps."""

    def __init__(self, reason: str, setting: str, remedy: str) -> None:
        super().__init__(f"{reason} ({setting}); {remedy}" if setting else f"{reason}; {remedy}")
        self.reason = reason  # "this machine allows no user namespaces"
        self.setting = setting  # "user.max_user_namespaces=0"; empty where no setting is known to be the cause
        self.remedy = remedy


def enter() -> None:
    """Moves this process into a new network namespace, its loopback up; root needs no user namespace for it.

    Raises ForbiddenError where the machine refuses; the process is then as it was (a child tries first). Call it
    before anything starts threads: several threads cannot change their user namespace (unshare(2), EINVAL).
    """
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise RuntimeError(f"enter() comes too late: this process already runs {threads} threads")
    refusal = _attempt_in_child()
    if refusal:
        raise explain(refusal, read_settings(), root=os.geteuid() == 0)
    _enter()


class Namespace:
    """A network namespace, held by a file descriptor. `name` is for people; `pid` and `fd` are for nsenter."""

    def __init__(self, name: str) -> None:
        """Makes a new one with its loopback up. Raises OSError, or NetlinkError of `links`."""
        self.name = name
        self.fd = -1
        with _returning():
            _unshare(_CLONE_NEWNET)
            links.up("lo")
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def __repr__(self) -> str:
        return (
            f"<Namespace {self.name} /proc/{os.getpid()}/fd/{self.fd}>"
            if self.fd >= 0
            else f"<Namespace {self.name} closed>"
        )

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside: sockets, forks, /proc/net and /proc/sys/net are this namespace's."""
        with _returning():
            _setns(self.fd)
            yield

    def close(self) -> None:
        """Lets go of it; the kernel removes it, links included, when no process or socket is left inside."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# What decides, and how it can be allowed. In the order in which a guess is right.
_KNOWN = (
    (
        "user.max_user_namespaces",
        "0",
        (errno.ENOSPC, errno.EUSERS, errno.EPERM),
        "this machine allows no user namespaces",
        "sudo sysctl user.max_user_namespaces=15000",
    ),
    (
        "user.max_net_namespaces",
        "0",
        (errno.ENOSPC, errno.EUSERS),
        "this machine allows no network namespaces",
        "sudo sysctl user.max_net_namespaces=15000",
    ),
    (
        "kernel.unprivileged_userns_clone",  # Debian's and Arch's patch
        "0",
        (errno.EPERM,),
        "this machine allows user namespaces to root only",
        "sudo sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "kernel.apparmor_restrict_unprivileged_userns",  # Ubuntu 23.10 and later
        "1",
        (errno.EPERM, errno.EACCES),
        "AppArmor takes the rights away from user namespaces of ordinary users",
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


_SUDO = "run this command with sudo"


def explain(number: int, settings: Mapping[str, str], *, root: bool) -> ForbiddenError:
    """Why making the namespaces failed with this errno, given the sysctls (and `seccomp`) of `read_settings`."""
    sudo = "" if root else f", or {_SUDO}"
    for name, forbidding, numbers, reason, command in _KNOWN:
        if settings.get(name) == forbidding and number in numbers:
            return ForbiddenError(reason, f"{name}={forbidding}", f"allow it with `{command}`{sudo}")
    if number in (errno.ENOSPC, errno.EUSERS):
        limits = ", ".join(f"{k}={v}" for k, v in sorted(settings.items()) if k.startswith("user.max_"))
        return ForbiddenError("the limit of namespaces is reached", limits, f"raise it or end what holds them{sudo}")
    if settings.get("seccomp") == "2" and number in (errno.EPERM, errno.ENOSYS):
        remedy = "start the container with --privileged or --security-opt seccomp=unconfined"
        return ForbiddenError("a seccomp filter, as containers have one, forbids namespaces", "", remedy)
    if number == errno.EOPNOTSUPP:  # rtnl_newlink(): no such kind of link, no module for it
        return ForbiddenError("this kernel has no virtual links", "CONFIG_VETH", "load it with `sudo modprobe veth`")
    if number in (errno.EINVAL, errno.ENOSYS):
        return ForbiddenError("this kernel is built without user namespaces", "CONFIG_USER_NS", _SUDO)
    text = f"making a network namespace failed with {errno.errorcode.get(number, number)}"
    return ForbiddenError(text, "", "a container may forbid it to root too; use a virtual machine" if root else _SUDO)


def read_settings() -> dict[str, str]:
    """The sysctls that decide about namespaces, as far as this kernel has them, and `seccomp` (proc(5): 0, 1, 2)."""
    found = {}
    for name in [known[0] for known in _KNOWN]:
        try:
            found[name] = Path("/proc/sys", name.replace(".", "/")).read_text().strip()
        except OSError:
            pass
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Seccomp:"):
            found["seccomp"] = line.split()[1]
    return found


def _attempt_in_child() -> int:
    """0 when a child could enter and join two further namespaces by a link, else the errno it met."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 255
    try:
        _enter()
        links.join(Namespace("one"), "eth0", Namespace("other"), "eth0")
        status = 0
    except OSError as error:
        status = error.errno or 255
    except links.NetlinkError as error:  # no OSError upstream, but its code is an errno
        status = error.code
    finally:
        os._exit(status)
    raise AssertionError("not reached")


def _enter() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        # In this order: gid_map is refused to ordinary users until setgroups() is given up (user_namespaces(7)).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    links.up("lo")


@contextmanager
def _returning() -> Iterator[None]:
    """Brings the calling thread back to its network namespace. Failing at that is fatal: RuntimeError."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _setns(home)
        except OSError as error:
            raise RuntimeError(f"this thread is lost in another network namespace: {error}") from error
        finally:
            os.close(home)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
