"""Where one measurement happens: a network namespace of its own with one nginx in it, pinned to a core.

Every run of every tool gets a new one, so no TIME_WAIT, no used port and no warm nginx is left by the run before.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import msgspec
import trustme

from bench.machine import Cores, path
from timewait.lab.namespaces import Namespace
from timewait.stress.opening import IP_LOCAL_PORT_RANGE, has_local_port_range

HOST, PORT, TLS_PORT = "127.0.0.1", 81, 444  # outside of every range that clients take their ports from
SYSCTLS = {
    "net.ipv4.ip_local_port_range": "1024 65535",
    # A tool that closes first would run out of ports within seconds; that is measured elsewhere, not here.
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_max_tw_buckets": "1000000",
    "net.core.somaxconn": "4096",
}
TIMEWAIT = str(Path(sys.executable).with_name("timewait"))
PATIENCE = 20.0  # seconds for a program to come up

_NGINX = """
daemon off; master_process on; {user} worker_processes {workers}; worker_rlimit_nofile {files};
pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections {connections}; multi_accept on; accept_mutex off; }}
http {{
  access_log off; server_tokens off; default_type text/plain;
  keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen {host}:{port} backlog=4096{each}; location / {{ return 200 "hello"; }} }}
  server {{
    listen {host}:{tls_port} ssl backlog=4096; location / {{ return 200 "hello"; }}
    ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off; ssl_session_tickets off;
  }}
  server {{ listen unix:{folder}/status; location / {{ stub_status; }} }}
}}
"""
_STATUS = re.compile(r"Active connections: (\d+)[^0-9]+(\d+) (\d+) (\d+)")


class Count(msgspec.Struct, frozen=True):
    """nginx's own count at a moment, its answers to our questions left out."""

    at: float  # monotonic seconds
    open: int
    accepted: int
    requests: int


class Place:
    """`with Place(cores) as place:` `place.url` answers 200 "hello"; `place.start(...)` runs a client inside."""

    def __init__(
        self, cores: Cores, sysctls: Mapping[str, str] | None = None, connections: int = 4096, workers: int = 1
    ) -> None:
        """`connections` for each of nginx's `workers`."""
        self.cores = cores
        self._workers = workers
        self._sysctls = {**SYSCTLS, **(sysctls or {})}
        self._connections = connections
        self.url = f"http://{HOST}:{PORT}/"
        self.tls_url = f"https://{HOST}:{TLS_PORT}/"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timewait-bench-")))
            self._namespace = stack.enter_context(Namespace("bench"))
            with self._namespace.entered():
                for name, value in self._sysctls.items():
                    Path("/proc/sys", name.replace(".", "/")).write_text(value)
            self._asked = 0
            self._nginx = self._start_nginx()
            stack.callback(self._end_nginx)
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self, words: Sequence[str], *, spread: bool = False, screen: int | None = None
    ) -> subprocess.Popen[bytes]:
        """A client inside the namespace, on the client's core or `spread` over all. Its output is kept in a file, or
        goes to `screen`, the slave end of a pseudo-terminal."""
        pins = self.cores.usable if spread else (self.cores.client,)
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        with self._namespace.entered(), self._log().open("wb") as log:
            out = log.fileno() if screen is None else screen
            return subprocess.Popen(
                pinned(words, *pins),
                stdin=subprocess.DEVNULL if screen is None else screen,
                stdout=out,
                stderr=out,
                env=environment,
            )

    def fill(self, ports: Sequence[int]) -> None:
        """Brings these source ports to TIME_WAIT as connect() would that chose them itself: never bound, so that its
        later searches must look every one of them up. Where the kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3) it
        chooses as many by itself."""
        with self._namespace.entered():
            steered = has_local_port_range()
            for port in ports:
                with socket.socket() as client:
                    if steered:
                        client.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", port | port << 16))
                    client.connect((HOST, PORT))

    def words_of_client(self) -> str:
        """The end of what the client printed, for an error message."""
        return self._log().read_text(errors="replace")[-2000:]

    def count(self) -> Count:
        """Asked over a socket in the file system, which is the same inside and outside of the namespace."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.folder / "status"))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        at = time.monotonic()
        match = _STATUS.search(answer)
        if not match:
            raise RuntimeError(f"nginx answered {answer!r} when asked for its counts")
        self._asked += 1
        return Count(at, int(match[1]) - 1, int(match[2]) - self._asked, int(match[4]) - self._asked)

    def nginx_cpu(self) -> float:
        """CPU seconds of nginx so far."""
        return cpu_seconds(tree(self._nginx.pid))

    def time_wait(self) -> int:
        """Sockets in TIME_WAIT inside, of both ends."""
        with self._namespace.entered():
            text = Path("/proc/net/sockstat").read_text()
        return int(re.findall(r"TCP:.* tw (\d+)", text)[0])

    def _log(self) -> Path:
        return self.folder / "client.log"

    def _start_nginx(self) -> subprocess.Popen[bytes]:
        pem = self.folder / "server.pem"
        pem.write_bytes(certificate())
        config = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            _NGINX.format(
                folder=self.folder, host=HOST, port=PORT, tls_port=TLS_PORT, user=user, pem=pem,
                connections=self._connections, files=self._connections + 100, workers=self._workers,
                each=" reuseport" if self._workers > 1 else "",
            )
        )  # fmt: skip
        words = [path("nginx"), "-p", str(self.folder), "-c", str(config), "-e", str(self.folder / "error.log")]
        with self._namespace.entered():
            return subprocess.Popen(
                pinned(words, self.cores.target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def _end_nginx(self) -> None:
        self._nginx.send_signal(signal.SIGTERM)
        self._nginx.wait(PATIENCE)

    def _wait(self) -> None:
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                self.count()
                return
            except OSError:
                if self._nginx.poll() is not None or time.monotonic() > limit:
                    log = self.folder / "error.log"
                    raise RuntimeError(f"nginx did not come up: {log.read_text() if log.exists() else ''}") from None
            time.sleep(0.01)


def pinned(words: Sequence[str], *cores: int) -> list[str]:
    """The same command, on these cores only."""
    return [path("taskset"), "-c", ",".join(map(str, cores)), *words]


@cache
def certificate() -> bytes:
    """Chain and key (ECDSA P-256) for the target's address."""
    issued = trustme.CA().issue_cert(HOST)
    return b"".join([issued.private_key_pem.bytes(), *(part.bytes() for part in issued.cert_chain_pems)])


def tree(pid: int) -> list[int]:
    """A process and its descendants that live, parents first."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """On the run queue's own clock (/proc/PID/task/TID/schedstat, nanoseconds), user and system together."""
    return sum(int(text.split()[0]) for pid in pids for text in _of_tasks(pid, "schedstat")) / 1e9


def _of_tasks(pid: int, name: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                yield (task / name).read_text()
