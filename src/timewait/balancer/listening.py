"""Sockets that listen, and a sentence for each reason why one cannot."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from timewait.balancer.config.addresses import Place, bound, source
from timewait.balancer.config.model import Configuration, Engine
from timewait.balancer.engine import BalancerError

_held: dict[str, list[socket.socket]] = {}  # by bind: what this process listens on, all of one accept queue


def listen(bind: str, backlog: int) -> socket.socket:
    """A listening socket at `0.0.0.0:80`, `[::]:80` (both families) or `unix:/path`. Raises BalancerError.

    Where this process listens there already, it is the same socket once more: so one engine hands it to another, and
    nobody in its accept queue is lost. Give it back by release().
    """
    known = [one for one in _held.pop(bind, []) if one.fileno() >= 0]  # not those that were closed otherwise
    if known:
        found = known[0].dup()
        found.listen(backlog)
    else:
        found = _bound(bind, socket.SOCK_STREAM, backlog)
    _held[bind] = [*known, found]
    return found


def reserve(bind: str, kind: int) -> socket.socket | None:
    """A socket that keeps a port from others without listening on it; None where we may not have it (below 1024), or
    the address is not this machine's. Raises BalancerError where somebody has it."""
    try:
        return _bound(bind, kind, None)
    except PermissionError:
        return None


def _bound(bind: str, kind: int, backlog: int | None) -> socket.socket:
    at = bound(bind)
    if isinstance(at, str):
        return _unix(at, backlog)
    family = socket.AF_INET if at.address.version == 4 else socket.AF_INET6
    found = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if at.address.is_unspecified else 1)
        found.bind((str(at.address), at.port))
        if backlog is not None:
            found.listen(backlog)
    except PermissionError:
        found.close()
        if backlog is None:
            raise
        raise BalancerError(
            f"{bind}: no permission for a port below {_lowest()}: start as root (it drops privileges after binding), "
            f"or `sudo sysctl net.ipv4.ip_unprivileged_port_start={at.port}`"
        ) from None
    except OSError as error:
        found.close()
        raise BalancerError(f"{bind}: {_reason(error, at, kind)}") from None
    return found


def _unix(path: str, backlog: int | None) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        found.bind(path)
        found.listen(backlog or 0)
    except OSError as error:
        found.close()
        raise BalancerError(f"unix:{path}: {_unix_reason(error, path)}") from None
    return found


def _unix_reason(error: OSError, path: str) -> str:
    if error.errno == errno.EADDRINUSE:
        if Path(path).is_socket():
            return "another process listens there; stop it, or choose another path"
        return "there is a file of that name which is no socket; remove it, or choose another path"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "its folder does not exist; create it, or choose another"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "this user may not make a file there; choose another folder"
    return str(error.strerror)


def _remove_stale(path: str) -> None:
    """The file of a process that was killed is in nobody's way; one whose socket still answers is."""
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except OSError:
            pass


def check_sources(configuration: Configuration) -> None:
    """Raises BalancerError for a source address that this machine has not: no target could ever be connected from it.

    What the kernel forwards is left out: nftables may write addresses that are only routed here.
    """
    for listener in configuration.listener:
        if configuration.engine_of(listener) is Engine.NFTABLES:
            continue
        for text in listener.upstream.source:
            address = source(text).address
            with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:
                try:
                    probe.bind((str(address), 0))
                except OSError as error:
                    reason = _reason(error, Place(address, 0), socket.SOCK_STREAM)
                    raise BalancerError(f"listener {listener.name}, source {text}: {reason}") from None


def release(bind: str, sock: socket.socket) -> None:
    """Closes it; with the last one the file of a unix socket goes too."""
    sock.close()
    left = [one for one in _held.pop(bind, []) if one is not sock and one.fileno() >= 0]
    if left:
        _held[bind] = left
        return
    at = bound(bind)
    if isinstance(at, str):
        Path(at).unlink(missing_ok=True)


def _reason(error: OSError, at: Place, kind: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {at.port} is in use{holder(at.port, kind)}"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; `ip address` lists those it has"
    return str(error.strerror)


def holder(port: int, kind: int = socket.SOCK_STREAM) -> str:
    """` by nginx (pid 12)`, of who listens on a port; how to find out where we may not know (proc(5))."""
    table = "tcp" if kind == socket.SOCK_STREAM else "udp"
    inodes = set()
    for name in (table, f"{table}6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] in ("0A", "07")}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            with os.scandir(folder / "fd") as entries:
                found = any(os.readlink(entry) in inodes for entry in entries)  # noqa: PTH115 - many of them
            if found:
                return f" by {(folder / 'comm').read_text().strip()} (pid {folder.name})"
        except OSError:
            continue
    return f"; `sudo ss -lntup 'sport = :{port}'` says by whom" if os.geteuid() else ""


def _lowest() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
