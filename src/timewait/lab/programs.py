"""timewait's own balancer, nginx and HAProxy inside a host, told exactly who shall close what.

Each runs as one process that dies with ours. Its configuration lies in memory, what it must write goes to a tmpfs
that only it can see, and its log into memory: nothing is left in the file system, however it ends.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from timewait.lab import links, mounts, own_balancer, processes
from timewait.lab.processes import Process, ProgramError, find

if TYPE_CHECKING:
    from timewait.lab.network import LabHost

_READY = 30.0  # seconds given to a program to listen
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


class Upstream(StrEnum):
    """Who ends the balancer's connection to a server, and how."""

    SERVER = "server"  # the balancer asks for `Connection: close` and the server's FIN comes first
    FIN = "fin"  # the balancer's FIN first, once it has the answer
    RESET = "reset"  # the balancer's RST, once it has the answer
    POOL = "pool"  # nobody: it is kept and used again


class Settings(msgspec.Struct, frozen=True):
    """What a balancer shall do. Times are whole seconds."""

    servers: tuple[str, ...] = ()  # "10.2.1.2:80"; none: it answers itself, with `body`
    port: int = 80
    body: str = "hello\n"
    keepalive: int = 75  # an idle client connection is kept this long; 0: closed after every answer
    reset_clients: bool = False  # FIN and RST at once: no TIME_WAIT, unless the client's FIN is faster than the RST
    upstream: Upstream = Upstream.SERVER
    sources: tuple[str, ...] = ()  # its addresses toward the servers, in turn; none: the kernel's choice
    backlog: int = 4096  # of listen(); net.core.somaxconn may be less


def nginx(host: LabHost, settings: Settings) -> Process:
    """Starts nginx in `host` and waits until it listens. Raises MissingProgramError, or ProgramError."""
    path = find("nginx", "nginx")
    if settings.upstream is Upstream.RESET and settings.servers:
        raise ProgramError("nginx cannot end a server's connection by RST; HAProxy can")
    if settings.reset_clients:
        raise ProgramError("nginx cannot end a client's connection by RST; HAProxy can")
    folder = mounts.place()
    return _start(
        host,
        "nginx",
        lambda file: [path, "-p", folder, "-e", "stderr", "-c", file],
        _nginx_text(settings, folder),
        lambda: mounts.private_folder(folder),
        settings.port,
    )


def haproxy(host: LabHost, settings: Settings) -> Process:
    """Starts HAProxy in `host` and waits until it listens. Raises as `nginx` does."""
    path = find("haproxy", "haproxy")
    if settings.upstream is Upstream.FIN and settings.servers:
        raise ProgramError("HAProxy ends a server's connection by RST, never by FIN first; nginx can")
    return _start(
        host, "haproxy", lambda file: [path, "-db", "-f", file], _haproxy_text(settings), lambda: None, settings.port
    )


def timewait(host: LabHost | Here, settings: Settings) -> Process:
    """Starts `timewait balance`, its embedded engine, in `host` and waits until it is ready. Raises ProgramError."""
    if isinstance(host, Here):
        text = own_balancer.text(settings, "127.0.0.1", "")
        return _start(host, "timewait", own_balancer.command, text, lambda: None, settings.port, own_balancer.READY)
    if not settings.servers:
        address, port = own_balancer.ANSWERING
        host.serve(port, settings.body.encode(), address=address)
    folder = mounts.place(own_balancer.homes())
    return _start(
        host,
        "timewait",
        own_balancer.command,
        own_balancer.text(settings, _listening()[-1], f"{folder}/admin.sock"),
        lambda: mounts.private_folder(folder),
        settings.port,
        own_balancer.READY,
    )


class Here:
    """Where no host can be made: the network this process is in. What was started ends with the context."""

    def __init__(self) -> None:
        self._ended = ExitStack()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    def start(
        self, words: Sequence[str], *, name: str, keep: Iterable[int], prepare: Callable[[], None]
    ) -> Process:  # fmt: skip
        process = processes.start(name, words, keep=keep, prepare=prepare)
        self._ended.callback(process.close)
        return process

    def entered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def free_port(self) -> int:
        """A port of 127.0.0.1 that nobody has at this moment."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            return int(sock.getsockname()[1])


BALANCERS: dict[str, Callable[[LabHost, Settings], Process]] = {
    "timewait": timewait,
    "nginx": nginx,
    "haproxy": haproxy,
}


def _start(
    host: LabHost | Here,
    name: str,
    command: Callable[[str], list[str]],
    text: str,
    prepare: Callable[[], None],
    port: int,
    says: str = "",
) -> Process:
    """`says`: what it prints once it accepts, for a program whose processes listen before."""
    config = os.memfd_create(f"{name}.conf", os.MFD_CLOEXEC)
    try:
        os.write(config, text.encode())
        process = host.start(
            command(f"/proc/self/fd/{config}"),
            name=name,
            keep=[config],
            prepare=lambda: _prepare(prepare),
        )
    finally:
        os.close(config)
    _wait_until_listening(host, process, port, says)
    return process


def _wait_until_listening(host: LabHost | Here, process: Process, port: int, says: str) -> None:
    limit = time.monotonic() + _READY
    with host.entered():
        while not (says in process.log() if says else _listens(process.pid, port)):
            ended = process.wait(0.005) is not None
            if ended or time.monotonic() > limit:
                how = "ended" if ended else f"does not listen on port {port} after {_READY:.0f} s"
                raise ProgramError(f"{process.name} {how}: {process.log() or 'it wrote no log'}")


def _listens(pid: int, port: int) -> bool:
    """Whether this process listens on this port, in the namespace the calling thread is in (proc(5))."""
    wanted, inodes = f":{port:04X}", set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        rows = [line.split() for line in lines]
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[1].endswith(wanted) and row[3] == _LISTEN}
    return bool(inodes & _open(pid))


def _open(pid: int) -> set[str]:
    """What a process has open, as /proc names it; nothing of one that has ended or is just executing a program."""
    found = set()
    try:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            found.add(str(file.readlink()))
    except OSError:
        pass
    return found


def _prepare(further: Callable[[], None]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    further()


def _nginx_text(settings: Settings, folder: str) -> str:
    listens = [f"listen {address}:{settings.port} backlog={settings.backlog};" for address in _listening()]
    if not settings.servers:
        body = settings.body.replace("\n", "\\n")
        front, place = "", f'return 200 "{body}";'
    else:
        front, place = _nginx_upstream(settings)
    # Without `user` it would give its folders to "nobody", whom a user namespace does not know.
    return f"""daemon off; master_process off; user root;
pid {folder}/pid; lock_file {folder}/lock; error_log stderr warn;
worker_rlimit_nofile {_open_files()};
events {{ worker_connections {min(20_000, _open_files() // 2)}; multi_accept on; accept_mutex off; }}
http {{
  access_log off; default_type text/plain; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_timeout {settings.keepalive}; keepalive_requests 1000000000;
  {front}
  server {{
    {" ".join(listens)}
    location / {{ {place} }}
  }}
}}
"""


def _nginx_upstream(settings: Settings) -> tuple[str, str]:
    """The block before `server`, and what stands in `location`."""
    names = " ".join(f"server {server} max_fails=0;" for server in settings.servers)
    pool = " keepalive 256; keepalive_requests 1000000000;" if settings.upstream is Upstream.POOL else ""
    front = f"upstream servers {{ {names}{pool} }}"
    place = "proxy_pass http://servers; proxy_next_upstream off;"
    if settings.upstream is not Upstream.SERVER:  # nobody is asked to close, so nginx does, or keeps it
        place += ' proxy_http_version 1.1; proxy_set_header Connection "";'
    if settings.sources:
        share = 100 / len(settings.sources)
        shares = [f"{share:.2f}% {source};" for source in settings.sources[:-1]] + [f"* {settings.sources[-1]};"]
        front += f' split_clients "$connection.$connection_requests" $source {{ {" ".join(shares)} }}'
        place += " proxy_bind $source;"
    return front, place


def _haproxy_text(settings: Settings) -> str:
    binds = [f"bind {address.strip('[]')}:{settings.port} backlog {settings.backlog}" for address in _listening()]
    lines = [f"  {bind}" for bind in binds]
    if settings.keepalive:
        lines.append(f"  timeout http-keep-alive {settings.keepalive}s")
    else:
        lines.append("  option httpclose")
    if settings.reset_clients:
        lines.append("  option nolinger")
    if settings.servers:
        lines += [f"  {line}" for line in _haproxy_servers(settings)]
    else:
        body = settings.body.replace("\n", "\\n")
        lines.append(f'  http-request return status 200 content-type text/plain string "{body}"')
    connections = max(100, min(20_000, _open_files() // 2 - 100))
    return f"""global
  nbthread 1
  maxconn {connections}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-request 60s
  retries 0
listen balancer
  maxconn {connections}
{chr(10).join(lines)}
"""


def _haproxy_servers(settings: Settings) -> list[str]:
    lines = ["balance roundrobin"]
    if settings.upstream is Upstream.POOL:
        lines.append("http-reuse always")
    else:
        lines += ["option http-server-close", "http-reuse never"]
    if settings.upstream is Upstream.RESET:  # the server is not asked to close, and HAProxy resets what it ends
        lines.append("option http-pretend-keepalive")
    for number, (server, source) in enumerate(
        (server, source) for server in settings.servers for source in settings.sources or ("",)
    ):
        lines.append(f"server s{number} {server}" + (f" source {source}" if source else ""))
    return lines


def _listening() -> list[str]:
    """Every address, a socket for each family, so that an IPv4 connection counts as one."""
    return ["0.0.0.0", *(["[::]"] if links.has_ipv6() else [])]


def _open_files() -> int:
    return min(200_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
