"""Where connections go: names resolved once, before the first packet, and requests grouped by destination."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass, field

from timewait.plan import Plan, PlanError, Request
from timewait.stress.http import request_bytes


@dataclass(slots=True)
class Ask:
    """One request in one of its two forms. `expected` is the last answer that was checked in full: an answer equal
    to it byte for byte needs no parsing, it is complete, has the same status and closes as that one did."""

    data: bytes
    head: bool
    last: bool
    expected: bytes | None = None
    status: int = 0
    closes: bool = False  # that answer announced the connection's end
    hits: int = 0  # answers equal to `expected` since the last tick


@dataclass(slots=True)
class Endpoint:
    """One address and port, and the requests that are sent there, used in turn."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]
    server_name: str  # for SNI and certificate checks
    asks: list[tuple[Ask, Ask]] = field(default_factory=list)  # (further requests follow, last of its connection)

    @property
    def address(self) -> str:
        return self.sockaddr[0]

    @property
    def port(self) -> int:
        return self.sockaddr[1]


class ResolveError(Exception):
    """A name that has no address (of the wanted family): one sentence."""


def destination(plan: Plan, request: Request) -> tuple[str, int]:
    """Host and port to connect to, after --connect-to."""
    for rule in plan.connect_to:
        if rule.host in ("", request.host) and rule.port in (0, request.port):
            return rule.to_host or request.host, rule.to_port or request.port
    return request.host, request.port


def resolve(host: str, family: int) -> list[str]:
    """All addresses of a host, in the resolver's order. family: 0, 4 or 6. Raises ResolveError."""
    wanted = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[family]
    try:
        rows = socket.getaddrinfo(host, None, wanted, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        kind = f" IPv{family}" if family else ""
        raise ResolveError(f"{host!r} has no{kind} address: {reason}") from None
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


def answering(addresses: list[str], port: int, wait: float = 1.0) -> list[str]:
    """Of several addresses of one name, those that accept a connection; all of them when none does.

    `localhost` is both ::1 and 127.0.0.1 on most hosts and often served on one only: without this look half of
    all connections would be refused. A single address is not tried, so the target sees nothing but the load.
    """
    if len(addresses) < 2:
        return addresses
    good = []
    for address in addresses:
        with contextlib.suppress(OSError), socket.create_connection((address, port), wait):
            good.append(address)
    return good or addresses


def endpoints(plan: Plan, addresses: dict[tuple[str, int], list[str]]) -> list[Endpoint]:
    """Groups the plan's requests by destination address; `addresses` maps (host, port) to its addresses."""
    found: dict[tuple[str, int, str], Endpoint] = {}
    for request in plan.requests_list:
        host, port = destination(plan, request)
        asks = (
            Ask(request_bytes(plan, request, last=False), request.method == "HEAD", False),
            Ask(request_bytes(plan, request, last=_asks_close(plan)), request.method == "HEAD", True),
        )
        for address in addresses[host, port]:
            key = (address, port, plan.tls.sni or request.host)
            if key not in found:
                found[key] = _endpoint(address, port, key[2])
            found[key].asks.append(asks)
    return list(found.values())


def _asks_close(plan: Plan) -> bool:
    return plan.closing == "server"


def _endpoint(address: str, port: int, name: str) -> Endpoint:
    scope = 0
    if "%" in address:
        scope = socket.if_nametoindex(address.partition("%")[2])
    bare = address.partition("%")[0]
    if ipaddress.ip_address(bare).version == 6:
        return Endpoint(socket.AF_INET6, (bare, port, 0, scope), name)
    return Endpoint(socket.AF_INET, (bare, port), name)


def check_sources(sources: tuple[str, ...], family: int) -> None:
    """Raises PlanError unless every source can be bound here and speaks the destination's family."""
    for source in sources:
        version = ipaddress.ip_address(source).version
        if (version == 6) != (family == socket.AF_INET6):
            raise PlanError(f"--source {source} is IPv{version}, the target's address is not; use one family")
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((source, 0))
            except OSError as error:
                raise PlanError(
                    f"--source {source} is not an address of this host ({error.strerror}); `ip address` lists them"
                ) from None
