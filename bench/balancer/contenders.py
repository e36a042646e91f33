"""Who is compared: the balancer's engines, and HAProxy, nginx and nftables configured by hand for the same.

All of them answer at port 80 of 10.0.0.1 and pass requests on to port 80 (81, 82) of the servers, with one worker,
kept connections toward the servers that any client's request may use, X-Forwarded-For, no log and no health checks.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.machine import path

FRONT = "10.0.0.1"
SERVER_PORT = 80
UNIQUE_PORT = 81  # every answer's head differs

Command = Callable[[Path, "Wish"], list[str]]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a balancer shall do."""

    protocol: str = "http"  # or tcp
    port: int = SERVER_PORT  # of the servers
    servers: tuple[str, ...] = ("10.2.1.2",)
    health: bool = False  # checks every second, out after two failures
    body_size: str = "60m"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A way to balance. The command runs in the foreground until it is killed; none: the kernel does it, set up by
    `once`."""

    name: str
    command: Command | None = None
    once: Command | None = None
    ready: str = ""  # what it prints then; empty: it answers


def file(folder: Path, name: str, text: str) -> str:
    place = folder / name
    place.write_text(text)
    return str(place)


def toml(engine: str, wish: Wish, folder: Path, weight: int = 10) -> str:
    """The balancer's file. `weight` is the last target's; another one comes with another timeout of the clients, so
    that more than a weight has changed: workers, or HAProxy, are replaced."""
    upstream = (
        '{ reuse = "always", connect_timeout = "500ms", read_timeout = "5s", send_timeout = "5s", retries = 1 }'
    )
    what = 'rule = [{ pool = "app" }]' if wish.protocol == "http" else 'pool = "app"'
    upstream = f"upstream = {upstream}" if wish.protocol == "http" else ""
    limits = f'limits = {{ body_size = "{wish.body_size}" }}' if wish.protocol == "http" else ""
    client = f'client = {{ {"keepalive" if wish.protocol == "http" else "idle"} = "{600 + weight}s" }}'
    on = '{ enabled = true, interval = "1s", timeout = "500ms", rise = 2, fall = 2 }'
    targets = [
        f'[[pool.target]]\naddr = "{server}:{wish.port}"\nweight = {weight if server == wish.servers[-1] else 10}\n'
        for server in wish.servers
    ]
    workers = "" if engine == "nftables" else "workers = 1"
    return f"""engine = "{engine}"
{workers}
stop_timeout = "10s"
admin = {{ socket = "{folder}/admin.sock" }}
[[listener]]
name = "web"
bind = ["{FRONT}:80"]
protocol = "{wish.protocol}"
{what}
{client}
{upstream}
{limits}
[[pool]]
name = "app"
health = {on if wish.health else "{ enabled = false }"}
{"".join(targets)}"""


def balance(engine: str) -> Command:
    def command(folder: Path, wish: Wish) -> list[str]:
        return [sys.executable, "-m", "timewait", "balance", file(folder, "clb.toml", toml(engine, wish, folder))]

    return command


_HAPROXY = """global
  nbthread 1
  maxconn {most}
defaults
  mode {protocol}
  timeout connect 500ms
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 75s
  timeout http-request 60s
  retries 1
listen web
  bind {front}:80 backlog 4096
  maxconn {most}
  balance roundrobin
{more}
{servers}
"""
_OVER_HTTP = "  http-reuse always\n  option forwardfor\n  http-request set-header X-Forwarded-Proto http"


def _most() -> int:
    """Connections, each of which may need two descriptors."""
    return min(30_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 100)


def haproxy(folder: Path, wish: Wish) -> list[str]:
    more = _OVER_HTTP if wish.protocol == "http" else ""
    check = " check inter 1s rise 2 fall 2 observe layer4" if wish.health else ""
    servers = "\n".join(f"  server s{n} {one}:{wish.port}{check}" for n, one in enumerate(wish.servers))
    text = _HAPROXY.format(protocol=wish.protocol, front=FRONT, more=more, servers=servers, most=_most())
    return [path("haproxy"), "-db", "-f", file(folder, "haproxy.cfg", text)]


def haproxy_same(folder: Path, wish: Wish) -> list[str]:
    """HAProxy alone, started by hand with the very text that the engine gives it: all limits and refusals in it."""
    written = file(folder, "clb.toml", toml("haproxy", wish, folder))
    words = [sys.executable, "-m", "timewait", "balance", "--print", written]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [path("haproxy"), "-db", "-f", file(folder, "haproxy.cfg", text)]


_NGINX = """daemon off; master_process off; {user} worker_processes 1; worker_rlimit_nofile {files};
pid {folder}/balancer.pid; error_log {folder}/balancer.log warn;
events {{ worker_connections {files}; multi_accept on; accept_mutex off; }}
http {{
  access_log off; keepalive_timeout 75; keepalive_requests 1000000000; client_max_body_size {size};
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream app {{ {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {front}:80 backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto http; proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""


def nginx(folder: Path, wish: Wish) -> list[str]:
    user = "user root;" if os.geteuid() == 0 else ""
    servers = " ".join(f"server {one}:{wish.port};" for one in wish.servers)
    text = _NGINX.format(
        folder=folder, user=user, files=2 * _most(), size=wish.body_size, servers=servers, front=FRONT
    )
    return [
        path("nginx"),
        "-p",
        str(folder),
        "-c",
        file(folder, "balancer.conf", text),
        "-e",
        f"{folder}/balancer.log",
    ]


_RULES = """table ip balancer {{
  chain before {{
    type nat hook prerouting priority dstnat;
    ip daddr {front} tcp dport 80 dnat to numgen inc mod {count} map {{ {targets} }}
  }}
  chain after {{
    type nat hook postrouting priority srcnat;
    ct status dnat masquerade
  }}
}}
"""


def rules(folder: Path, wish: Wish) -> list[str]:
    """Full NAT, by hand: the shortest ruleset that balances."""
    targets = ", ".join(f"{n} : {one} . {wish.port}" for n, one in enumerate(wish.servers))
    text = _RULES.format(front=FRONT, count=len(wish.servers), targets=targets)
    return [path("nft"), "-f", file(folder, "rules.nft", text)]


READY = "balance: ready"
EMBEDDED = Contender(name="embedded", command=balance("embedded"), ready=READY)
HAPROXY = Contender(name="HAProxy", command=haproxy)
NGINX = Contender(name="nginx", command=nginx)
HAPROXY_SAME = Contender(name="HAProxy with the engine's text", command=haproxy_same)
HAPROXY_ENGINE = Contender(name="engine haproxy", command=balance("haproxy"), ready=READY)
NFTABLES_ENGINE = Contender(name="engine nftables", command=balance("nftables"), ready=READY)
RULES = Contender(name="ruleset by hand", once=rules)
DIRECT = Contender(name="no balancer")


def named(contenders: Sequence[Contender]) -> dict[str, Contender]:
    return {one.name: one for one in contenders}
