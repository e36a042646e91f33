"""Words of HAProxy's configuration: names, times, quoting. Pure."""

from __future__ import annotations

import re
from hashlib import blake2b
from ipaddress import ip_address

from timewait.balancer.config.addresses import Place, bound, place
from timewait.balancer.config.model import Listener, Pool

_BARE = re.compile(r"[A-Za-z0-9_./:@%+=~*,^|-]+")


def quoted(word: str) -> str:
    """One word, whatever is in it (configuration.txt, 2.2 "Quoting and escaping")."""
    if _BARE.fullmatch(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def time(seconds: float) -> str:
    """Milliseconds, unless it is whole seconds; never 0, which HAProxy takes for no end."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def backend(listener: Listener, pool: str) -> str:
    """A pool as one listener uses it: the settings toward targets are the listener's. Neither name has a colon."""
    return f"{listener.name}:{pool}"


def server(address: str, source: int = 0) -> str:
    """A server's name: brackets are not allowed in one. A target has a line for each source address."""
    at = place(address)
    return f"{at.address}:{at.port}" + (f"-{source}" if source else "")


def cookie(pool: Pool, address: str) -> str:
    """What a session's cookie says instead of the address; the same in every process, after every reload."""
    return blake2b(f"{pool.name} {address}".encode(), digest_size=8).hexdigest()


def bind(text: str) -> str:
    """`0.0.0.0:80`, `[::]:80 v4v6`, `unix@/path`."""
    at = bound(text)
    if not isinstance(at, Place):
        return quoted(f"unix@{at}")
    if at.address.version == 4:
        return str(at)
    return f"{at} {'v4v6' if at.address.is_unspecified else 'v6only'}"


def is_six(text: str) -> bool:
    """Whether clients may come by IPv6."""
    at = bound(text)
    return isinstance(at, Place) and ip_address(at.address).version == 6
