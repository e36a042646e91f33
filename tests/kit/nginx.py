"""A real nginx with one worker on free loopback ports: the independent witness of what we did to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import peers
from kit.namespace import Namespace
from kit.servers import listen

_CONFIG = """
daemon off;
master_process on;
{user}
worker_processes 1;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
events {{ worker_connections 20000; multi_accept on; accept_mutex off; }}
http {{
  access_log off;
  client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy; fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi; scgi_temp_path {prefix}/scgi;
  keepalive_timeout {keepalive_timeout}; keepalive_requests {keepalive_requests};
  lingering_close {lingering_close};
  server {{
    listen {host}:{port} backlog=4096;
    location / {{ default_type text/plain; return 200 "hello"; }}
    {locations}
  }}
  {tls}
  server {{
    listen unix:{prefix}/status;
    location / {{ stub_status; }}
  }}
}}
"""
_TLS = """server {{
    listen {host}:{tls_port} ssl backlog=4096;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_session_cache shared:s:10m;
    location / {{ default_type text/plain; return 200 "hello"; }}
  }}"""


@dataclass(frozen=True)
class Count:
    """What nginx itself counted since it started, the readings of this count left out."""

    accepted: int  # connections
    handled: int  # ... of them not turned away for want of worker_connections
    requests: int
    open: int  # connections at this moment


class Nginx:
    """`with Nginx() as nginx:` nginx.url answers 200 "hello"; nginx.count() is its own count.

    `certificate` and `key`: PEM files; then nginx.tls_url answers too. `namespace`: run inside it.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        certificate: Path | None = None,
        key: Path | None = None,
        namespace: Namespace | None = None,
        keepalive_timeout: int = 75,
        keepalive_requests: int = 1_000_000_000,
        lingering_close: str = "on",
        locations: str = "",
    ) -> None:
        self._namespace = namespace
        self._tls = (certificate, key) if certificate and key else None
        self._bare = host
        self._host = f"[{host}]" if ":" in host else host
        self._settings = {
            "keepalive_timeout": keepalive_timeout,
            "keepalive_requests": keepalive_requests,
            "lingering_close": lingering_close,
            "locations": locations,
        }

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="timewait-nginx-")
        self._prefix = Path(self._folder.name)
        self._readings = 0
        self.port, self.tls_port = self._free_ports()
        self.url = f"http://{self._host}:{self.port}/"
        self.tls_url = f"https://{self._host}:{self.tls_port}/"
        self._config().write_text(self._settings_text())
        words: list[str | Path] = [
            peers.needs("nginx"),
            "-p",
            self._prefix,
            "-c",
            self._config(),
            "-e",
            self._error_log(),
        ]
        command = self._namespace.command([*words]) if self._namespace else [*words]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)  # nsenter has become nginx's master by exec
        self._process.wait(60)
        self._folder.cleanup()

    def count(self, *, settled: bool = True) -> Count:
        """nginx's own figures; `settled` waits until none of our connections is open there, 30 s at most.

        A connection that we have ended can still lie in nginx's accept queue or among its events.
        """
        limit = time.monotonic() + 30
        while True:
            found = self._read()
            if not settled or not found.open or time.monotonic() > limit:
                return found
            time.sleep(0.02)

    def worker(self) -> int:
        """Process id of the worker: SIGSTOP it and nginx stands still while the kernel goes on accepting."""
        master = self._process.pid
        return int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])

    def _config(self) -> Path:
        return self._prefix / "nginx.conf"

    def _error_log(self) -> Path:
        return self._prefix / "error.log"

    def _settings_text(self) -> str:
        places = {"host": self._host, "port": self.port, "tls_port": self.tls_port, "prefix": self._prefix}
        tls = _TLS.format(**places, certificate=self._tls[0], key=self._tls[1]) if self._tls else ""
        # Inside a user namespace only our own user is mapped, and there it is root.
        user = "user root;" if self._namespace or os.geteuid() == 0 else ""
        return _CONFIG.format(**places, **self._settings, tls=tls, user=user)

    def _free_ports(self) -> list[int]:
        make = self._namespace.listen if self._namespace else listen
        held = [make(self._bare) for _ in range(2)]
        ports = [int(sock.getsockname()[1]) for sock in held]
        for sock in held:
            sock.close()
        return ports

    def _wait_until_ready(self) -> None:
        limit = time.monotonic() + 60
        while True:
            try:
                self._read()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > limit:
                    log = self._error_log().read_text() if self._error_log().exists() else "it wrote no log"
                    raise RuntimeError(f"nginx did not come up: {log}") from error
            time.sleep(0.01)

    def _read(self) -> Count:
        """Asks over a socket in the file system, which is the same inside and outside of a namespace."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self._prefix / "status"))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        self._readings += 1
        open_now, accepted, handled, requests = map(int, re.findall(_STATUS, answer)[0])
        mine = self._readings
        return Count(accepted - mine, handled - mine, requests - mine, open_now - 1)


_STATUS = r"Active connections: (\d+)[^0-9]+(\d+) (\d+) (\d+)"
