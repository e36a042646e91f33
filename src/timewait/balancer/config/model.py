"""What a balancer's file says, once read: frozen values in CLB's nouns, with CLB's defaults and ranges.

Durations are float seconds, sizes are bytes; in the file they are written "75s" and "64k". Reading, checking and
showing are in the files beside this one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec


def _seconds(low: float, high: float) -> msgspec.Meta:
    return msgspec.Meta(ge=low, le=high, extra={"unit": "duration"})


def _size(low: int, high: int) -> msgspec.Meta:
    return msgspec.Meta(ge=low, le=high, extra={"unit": "size"})


K, M = 1 << 10, 1 << 20
HOUR = 3600.0


class Engine(StrEnum):
    """Who forwards."""

    EMBEDDED = "embedded"  # this program
    HAPROXY = "haproxy"  # HAProxy, started and fed by this program
    NFTABLES = "nftables"  # the kernel


class Protocol(StrEnum):
    """What a listener speaks with its clients; targets are spoken to in HTTP/1.1, TCP or UDP."""

    TCP = "tcp"
    UDP = "udp"
    HTTP = "http"
    HTTPS = "https"  # TLS ends here
    TCP_SSL = "tcp_ssl"  # TLS ends here, the bytes inside are passed on


class ClientClose(StrEnum):
    """How the balancer ends a client's connection once it is to be ended."""

    FIN = "fin"  # closes first: TIME_WAIT stays at the balancer's listening port, which costs no port
    FIN_RST = "fin-rst"  # a FIN, and a reset once everything was acknowledged: no TIME_WAIT anywhere
    PEER = "peer"  # waits `close_wait` for the client's FIN, then closes: TIME_WAIT stays at the client


class UpstreamClose(StrEnum):
    """How the balancer ends a connection to a target, where it is the client."""

    RST = "rst"  # after a complete answer: no TIME_WAIT, the source port is free at once
    FIN = "fin"  # closes first: TIME_WAIT keeps the source port toward that target for 60 s
    PEER = "peer"  # asks for `Connection: close` and lets the target close: TIME_WAIT at the target's port


class Timestamps(StrEnum):
    """Whether a listener negotiates TCP timestamps (RFC 7323) with its clients."""

    KEEP = "keep"  # as client and kernel agree
    STRIP = "strip"  # as CLB's layer 7: the option is taken out of every SYN


class Reuse(StrEnum):
    """When an idle connection to a target may carry another client's request (HAProxy's http-reuse)."""

    NEVER = "never"  # none for another client
    SAFE = "safe"  # not for the first request of a client's connection
    ALWAYS = "always"  # for the first, too


class Tunnel(StrEnum):
    """What becomes of a request that wants the connection for itself."""

    TUNNEL = "tunnel"  # passed on, bytes in both directions from then on
    REFUSE = "refuse"


class RealIpMode(StrEnum):
    """How a target learns the client's address."""

    NONE = "none"
    XFF = "xff"  # X-Forwarded-For and X-Forwarded-Proto
    PROXY_V1 = "proxy_v1"
    PROXY_V2 = "proxy_v2"
    TRANSPARENT = "transparent"  # the source address itself: nftables with nat = "dnat"


class Scheduler(StrEnum):
    """Which target is next."""

    WRR = "wrr"  # in turn, by weight
    LEAST_CONN = "least_conn"  # the fewest connections in use, by weight
    IP_HASH = "ip_hash"  # by the client's address


class Nat(StrEnum):
    """What nftables rewrites."""

    FULL = "full"  # both addresses: answers come back through the balancer by themselves
    DNAT = "dnat"  # the destination: the target sees the client, and must route back through the balancer


class SessionType(StrEnum):
    """What ties a client to a target."""

    NONE = "none"
    SOURCE_IP = "source_ip"  # its address
    COOKIE_INSERT = "cookie_insert"  # a cookie in the answer


class AllDown(StrEnum):
    """What a pool does when every target is unhealthy."""

    ALL = "all"  # CLB: all of them get traffic again
    REJECT = "reject"  # 503, or a reset


class Then(StrEnum):
    """What becomes of connections that outlive a drain."""

    RST = "rst"  # reset, both ends
    FIN = "fin"  # closed, both ends
    LEAVE = "leave"  # they end when they end


class CheckType(StrEnum):
    """What a health check does."""

    TCP = "tcp"  # connects, and ends with RST: no TIME_WAIT anywhere
    HTTP = "http"  # asks, and looks at the status
    CUSTOM = "custom"  # sends bytes and expects bytes, over TCP or UDP as the listener's protocol is
    PING = "ping"  # ICMP echo, and for UDP a datagram that must not be answered by "port unreachable"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Admin(_Table, frozen=True, kw_only=True):
    """The admin API: HTTP and JSON on a unix socket."""

    socket: str = ""  # path, mode 0600; "" = $XDG_RUNTIME_DIR/timewait/NAME-OF-FILE.sock, no file left at the end
    metrics: str = ""  # "127.0.0.1:9100": Prometheus there as well, over TCP; read only, for whoever can connect


class Certificate(_Table, frozen=True, kw_only=True):
    """A certificate chain and its key, as PEM files; which names it is for is read from it."""

    certificate: str  # of the server first, then of those who signed it
    key: str  # not encrypted


class Tls(_Table, frozen=True, kw_only=True):
    """TLS toward clients. The first certificate is for clients that send no or an unknown server name."""

    certificate: tuple[Certificate, ...] = ()
    min_version: str = "1.2"  # "1.2" or "1.3"


class ClientSide(_Table, frozen=True, kw_only=True):
    """Between a client and the balancer."""

    keepalive: Annotated[float, _seconds(0, HOUR)] = 75.0  # 0 = close after each answer
    max_requests: Annotated[int, msgspec.Meta(ge=0)] = 0  # on one connection; 0 = no end
    header_timeout: Annotated[float, _seconds(0.1, HOUR)] = 60.0  # for the whole head: 408
    body_timeout: Annotated[float, _seconds(0.1, HOUR)] = 60.0  # between two reads: 408
    send_timeout: Annotated[float, _seconds(0.1, HOUR)] = 60.0  # a client that does not read: reset
    idle: Annotated[float, _seconds(1, HOUR)] | None = None  # layer 4 and tunnels; left out: tcp 15m, udp 5m
    close: ClientClose = ClientClose.FIN
    close_wait: Annotated[float, _seconds(0, 60)] = 1.0  # with close = "peer"


class UpstreamSide(_Table, frozen=True, kw_only=True):
    """Between the balancer and a target: here the balancer is the client and pays the ports."""

    keepalive: bool = True  # False: a connection for each request (CLB's default)
    reuse: Reuse = Reuse.SAFE
    idle: Annotated[float, _seconds(0.1, HOUR)] = 4.0  # keep it below the target's own keepalive timeout
    pool_max: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 256  # idle connections to one target, each worker
    connect_timeout: Annotated[float, _seconds(0.1, 120)] = 4.0  # then another target, or 504
    read_timeout: Annotated[float, _seconds(0.1, HOUR)] = 60.0  # between two reads of an answer: 504
    send_timeout: Annotated[float, _seconds(0.1, HOUR)] = 60.0  # a target that does not read: 504
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1  # where nothing was answered and the method allows it
    close: UpstreamClose = UpstreamClose.RST
    source: tuple[str, ...] = ()  # "10.0.0.2", "10.0.0.3:20000-39999"


class RealIp(_Table, frozen=True, kw_only=True):
    """Who the client is, told to the target and believed of whoever stands in front."""

    mode: RealIpMode | None = None  # left out: xff for http and https, else none
    trusted: tuple[str, ...] = ()  # networks whose X-Forwarded-For and PROXY header are believed
    accept_proxy: bool = False  # every connection from a trusted network begins with a PROXY header, v1 or v2


class Limits(_Table, frozen=True, kw_only=True):
    """What a request may be at most: 414, 431, 413."""

    request_line: Annotated[int, _size(256, 256 * K)] = 8 * K  # method, target and version
    header_size: Annotated[int, _size(1 * K, 256 * K)] = 32 * K  # the whole head
    header_count: Annotated[int, msgspec.Meta(ge=10, le=1000)] = 100  # header fields
    body_size: Annotated[int, _size(1, 10240 * M)] = 60 * M  # CLB's client_max_body_size


class Rule(_Table, frozen=True, kw_only=True):
    """Domain and path, and the pool they go to."""

    pool: str  # by name
    domain: str = "_default"  # exact, *.x, x.*, ~regex, or _default
    path: str = "/"  # nginx: "= /exact", "^~ /prefix", "~ regex", "~* regex", "/prefix"


class Listener(_Table, frozen=True, kw_only=True):
    """Addresses and ports, and what is spoken there."""

    name: str  # letters, digits, dots, _ and -
    bind: tuple[str, ...]  # "0.0.0.0:80", "[::]:80", "unix:/path"
    protocol: Protocol = Protocol.HTTP
    engine: Engine | None = None  # left out: the file's
    backlog: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 4096  # not accepted yet; listen(2)
    max_conn: Annotated[int, msgspec.Meta(ge=-1)] = -1  # clients' connections at once; -1: no limit
    max_cps: Annotated[int, msgspec.Meta(ge=-1)] = -1  # new connections a second; -1: no limit
    timestamps: Timestamps = Timestamps.KEEP
    upgrade: Tunnel = Tunnel.TUNNEL  # WebSocket and other `Upgrade`
    connect: Tunnel = Tunnel.REFUSE  # the method CONNECT
    pool: str = ""  # tcp, udp, tcp_ssl
    tls: Tls = Tls()
    client: ClientSide = ClientSide()
    upstream: UpstreamSide = UpstreamSide()
    real_ip: RealIp = RealIp()
    limits: Limits = Limits()
    rule: tuple[Rule, ...] = ()  # http, https


class Session(_Table, frozen=True, kw_only=True):
    """Keeps a client with one target; CLB: with wrr only."""

    type: SessionType = SessionType.NONE
    ttl: Annotated[float, _seconds(30, 86400)] = HOUR  # since a client was last seen
    cookie: str = "CLBSESSION"  # its name


class Drain(_Table, frozen=True, kw_only=True):
    """What becomes of connections to a target that left or has weight 0."""

    timeout: Annotated[float, _seconds(0, HOUR)] = 30.0  # they may end by themselves for so long
    then: Then = Then.RST


class HttpCheck(_Table, frozen=True, kw_only=True):
    """What an HTTP health check asks and accepts."""

    method: str = "HEAD"  # HEAD or GET
    path: str = "/"  # and a query, if the check needs one
    host: str = ""  # "": the target's address
    expect: tuple[str, ...] = ("1xx", "2xx", "3xx", "4xx")


class CustomCheck(_Table, frozen=True, kw_only=True):
    """Bytes to send and to expect: text, or hexadecimal with `hex = true`; at most 500 bytes each."""

    send: str = ""  # "": nothing
    expect: str = ""  # must come, somewhere in what comes
    hex: bool = False  # both are hexadecimal digits


class Health(_Table, frozen=True, kw_only=True):
    """When a target is healthy. CLB's defaults and ranges."""

    enabled: bool = True  # false: every target always gets traffic
    type: CheckType | None = None  # left out: tcp; ping for a pool of udp listeners
    interval: Annotated[float, _seconds(1, 300)] = 5.0  # layer 4: from check to check; http: from its end
    timeout: Annotated[float, _seconds(0.1, 60)] = 2.0  # shorter than the interval
    rise: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3  # good ones in a row make it healthy
    fall: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3  # bad ones in a row make it unhealthy
    http: HttpCheck = HttpCheck()
    custom: CustomCheck = CustomCheck()


class Target(_Table, frozen=True, kw_only=True):
    """A server. Its address is its name."""

    addr: str  # "10.0.1.11:8080", "[fd00::1]:8080"
    weight: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10  # 0: nothing new, still checked


class Pool(_Table, frozen=True, kw_only=True):
    """Targets among which a scheduler chooses."""

    name: str  # letters, digits, dots, _ and -
    scheduler: Scheduler = Scheduler.WRR
    nat: Nat = Nat.FULL
    session: Session = Session()
    all_down: AllDown = AllDown.ALL
    drain: Drain = Drain()
    health: Health = Health()
    target: tuple[Target, ...] = ()


class Configuration(_Table, frozen=True, kw_only=True):
    """A whole file."""

    schema: int = 1  # of this file
    engine: Engine = Engine.EMBEDDED  # a listener may say otherwise
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0  # processes, or HAProxy's threads; 0: one per core
    user: str = ""  # root becomes this user once everything is bound; "": nobody
    access_log: str = ""  # a file of JSON lines; "-" = standard output, "" = none
    stop_timeout: Annotated[float, _seconds(0, HOUR)] = 30.0  # SIGTERM, reload: until what is open is ended by force
    admin: Admin = Admin()
    listener: tuple[Listener, ...]
    pool: tuple[Pool, ...]

    def pool_named(self, name: str) -> Pool:
        """The pool of that name; a configuration that was checked has every pool it mentions."""
        return next(pool for pool in self.pool if pool.name == name)

    def engine_of(self, listener: Listener) -> Engine:
        """Who forwards for a listener."""
        return listener.engine or self.engine
