"""A network namespace of one's own, for root and for an ordinary user alike, thrown away at the end.

Everything in it may be broken: port range, sysctls, nftables, addresses. Nothing of it reaches the host.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import peers

# /proc/sys/net shows the namespace of the process that opens it, so no mount is needed.
_LISTEN = """
import socket, sys
host, port, backlog, door = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((host, port))
sock.listen(backlog)
with socket.socket(fileno=door) as channel:
    socket.send_fds(channel, [b"x"], [sock.fileno()])
"""


class Namespace:
    """A new user and network namespace with `lo` up, held open by a process that ends when we do.

    `port_range` (low, high) and `sysctls` are set inside. tcp_tw_reuse is 0 unless given: what a test sees then
    does not depend on the reuse of loopback TIME_WAIT that tcp_tw_reuse=2 allows.
    """

    def __init__(self, port_range: tuple[int, int] | None = None, sysctls: Mapping[str, str] | None = None) -> None:
        self._next_port = 8000
        self._sysctls = {"net.ipv4.tcp_tw_reuse": "0", **(sysctls or {})}
        if port_range:
            self._sysctls["net.ipv4.ip_local_port_range"] = f"{port_range[0]} {port_range[1]}"

    def __enter__(self) -> Self:
        # `cat` ends at the end of its input, so the namespace cannot outlive this process.
        self._holder = subprocess.Popen(
            ["unshare", "-Urn", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.__exit__(None, None, None)
            raise RuntimeError("unshare -Urn could make no namespace with lo up; its own words are on stderr")
        for name, value in self._sysctls.items():
            self.run("sysctl", "-q", "-w", f"{name}={value}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.wait(60)
        self._holder.stdout.close()

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """The same command, to be run inside."""
        inside = ["nsenter", "-t", str(self._holder.pid), "-U", "-n", "--preserve-credentials"]
        return [*inside, "--", *map(str, words)]

    def run(self, *words: str | Path, input: str | None = None) -> str:
        """Runs a command inside to its end and returns its output. Raises CalledProcessError when it fails."""
        done = subprocess.run(self.command(words), input=input, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def listen(self, host: str = "127.0.0.1", port: int = 0, *, backlog: int = 1024) -> socket.socket:
        """A socket that listens inside, usable from this process: a socket stays where it was made.

        Port 0 takes the next one from 8001 up, outside of the range that clients get their ports from.
        """
        if not port:
            self._next_port += 1
            port = self._next_port
        ours, theirs = socket.socketpair()
        with ours, theirs:
            words = [sys.executable, "-c", _LISTEN, host, str(port), str(backlog), str(theirs.fileno())]
            subprocess.run(self.command(words), check=True, pass_fds=[theirs.fileno()], timeout=60)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptors[0])

    def time_wait(self, side: str, port: int) -> int:
        """TIME_WAIT inside whose `side` ("sport": the server's, "dport": the client's) is this port, says ss."""
        return len(self.run("ss", "-Htan", "state", "time-wait", f"( {side} = :{port} )").splitlines())

    def drop(self, port: int) -> None:
        """Every segment to this TCP port vanishes, as behind a firewall that drops."""
        self.run(
            "nft",
            "-f",
            "-",
            input=f"""table inet blackhole {{
              chain input {{ type filter hook input priority 0; tcp dport {port} counter drop; }}
            }}""",
        )

    def counter(self, name: str) -> int:
        """One of the kernel's counters inside, by nstat's name, for example TcpExtListenOverflows."""
        words = self.run("nstat", "-asz", name).split()
        return int(float(words[words.index(name) + 1]))


@functools.cache
def _why_not() -> str:
    """Empty where namespaces can be made; else the kernel's or the tool's own words."""
    try:
        trial = subprocess.run(["unshare", "-Urn", "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return trial.stderr.strip() if trial.returncode else ""


def needs_namespaces() -> None:
    """Leaves the test out where an ordinary user may not make a user and network namespace (fails under CI=true)."""
    if _why_not():
        peers.leave_out(
            "namespaces",
            f"no new user and network namespace here ({_why_not()}); on Ubuntu: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, elsewhere: sysctl user.max_user_namespaces",
        )
