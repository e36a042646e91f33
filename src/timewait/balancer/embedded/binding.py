"""Sockets that listen, and in plain words why one cannot."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from timewait.balancer.config.addresses import Place, bound
from timewait.balancer.engine import BalancerError

UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


def listening(text: str, backlog: int, listener: str) -> socket.socket:
    """A non-blocking socket that listens at `text`. Raises BalancerError."""
    where = bound(text)
    try:
        return _unix(where, backlog) if isinstance(where, str) else _tcp(where, backlog)
    except OSError as error:
        raise BalancerError(f"listener {listener} cannot listen at {text}: {_why(where, error)}") from None


def _tcp(where: Place, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET if where.address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the last run is no obstacle
        if where.address.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if where.address.is_unspecified else 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # whom it accepts inherits it
        sock.bind((str(where.address), where.port))
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """A socket file whose process was killed is in nobody's way; one that answers is."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except OSError:
            pass


def release(text: str, sock: socket.socket) -> None:
    """Closes it; the file of a unix socket goes too, if it is still ours."""
    sock.close()
    where = bound(text)
    if isinstance(where, str):
        try:
            Path(where).unlink()
        except OSError:
            pass


def _why(where: Place | str, error: OSError) -> str:
    if isinstance(where, str):
        if error.errno == errno.EADDRINUSE:
            return "the file exists and another process listens there, or it is no socket; stop that, or remove it"
        return f"{error.strerror}; the folder must exist and be writable for {_me()}"
    if error.errno == errno.EADDRINUSE:
        return _in_use(where)
    if error.errno == errno.EACCES:
        return _privileged(where.port)
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address (ip address show lists them)"
    return str(error.strerror)


def _in_use(where: Place) -> str:
    owners = owners_of(where.port)
    if owners:
        return f"port {where.port} is in use by {', '.join(owners)}; stop that, or choose another port"
    return (
        f"port {where.port} is in use by a process that {_me()} may not look into; sudo ss -ltnp 'sport = "
        f":{where.port}' names it"
    )


def _privileged(port: int) -> str:
    first = Path(UNPRIVILEGED).read_text().strip()
    return (
        f"port {port} is below {first} and {_me()} may not use it; start as root (workers become another user then), "
        f"or allow it: sysctl net.ipv4.ip_unprivileged_port_start={port}"
    )


def _me() -> str:
    return "root" if os.geteuid() == 0 else f"user {os.geteuid()}"


def owners_of(port: int) -> list[str]:
    """`nginx (pid 812)` for each process that listens at the TCP port, as far as /proc shows them."""
    inodes = {inode for file in ("tcp", "tcp6") for inode in _listening_inodes(Path("/proc/net", file), port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)) if wanted else []:
        try:
            if any(str(entry.readlink()) in wanted for entry in (folder / "fd").iterdir()):
                found.append(f"{(folder / 'comm').read_text().strip()} (pid {folder.name})")
        except OSError:
            continue  # another user's, or gone
    return found


def _listening_inodes(file: Path, port: int) -> list[str]:
    """Of `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode`."""
    try:
        rows = [line.split() for line in file.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
