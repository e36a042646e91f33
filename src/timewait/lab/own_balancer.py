"""`timewait balance` inside a host, told exactly who shall close what, as nginx and HAProxy are (programs.py).

It is started as a program, from its file: this room knows what such a file says, not the balancer's code. The file
lies in memory, the admin socket in a tmpfs that only the balancer can see.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timewait.lab.programs import Settings

# It does not answer by itself, so where there is no server one of the lab's stands on its own loopback. What leads
# there keeps clear of every range that clients get their ports from, which may be on the same host.
ANSWERING = ("127.0.0.1", 8080)
ANSWERING_FROM = "127.0.0.1:11000-11999"

# The four ends of programs.Upstream: a connection for each request, or one that is used again; and who ends it.
_UPSTREAM = {
    "server": {"keepalive": False, "close": "peer"},
    "fin": {"keepalive": False, "close": "fin"},
    "reset": {"keepalive": False, "close": "rst"},
    "pool": {"keepalive": True, "reuse": "always", "close": "rst"},
}

READY = "balance: ready"  # on its standard output, once it accepts


def command(file: str) -> list[str]:
    return [sys.executable, "-m", "timewait", "balance", file]


def homes() -> list[Path]:
    """What it must still see once a folder was laid over another: its interpreter, libraries and code."""
    return [Path(one).resolve() for one in (sys.prefix, sys.base_prefix, __file__)]


def text(settings: Settings, address: str, admin: str) -> str:
    """Its file; `[::]` takes IPv4 too, an empty `admin` leaves the socket's place to it.

    No health checks and no retries: every connection is one that a client caused.
    """
    upstream: dict[str, object] = dict(_UPSTREAM[settings.upstream if settings.servers else "pool"])
    upstream |= {"retries": 0, "source": list(settings.sources) if settings.servers else [ANSWERING_FROM]}
    servers = settings.servers or (f"{ANSWERING[0]}:{ANSWERING[1]}",)
    targets = "\n".join(f"[[pool.target]]\naddr = {_value(server)}" for server in servers)
    return f"""engine = "embedded"
workers = 1
stop_timeout = "0s"
admin = {_value({"socket": admin} if admin else {})}

[[listener]]
name = "balancer"
bind = {_value([f"{address}:{settings.port}"])}
protocol = "http"
backlog = {settings.backlog}
client = {_value({"keepalive": f"{settings.keepalive}s", "close": "fin-rst" if settings.reset_clients else "fin"})}
upstream = {_value(upstream)}
rule = [{_value({"pool": "servers"})}]

[[pool]]
name = "servers"
health = {_value({"enabled": False})}
{targets}
"""


def _value(value: object) -> str:
    """As TOML; JSON has its strings, numbers, booleans and arrays, but another sign in tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)
