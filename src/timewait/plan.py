"""What to do: every wish of the user, parsed once at the edge into frozen values that cannot be wrong.

`Plan` is plain data: it is saved with every run and read back by `timewait report`. Nothing here touches the
network, the file system or the clock; names are resolved by whoever runs the plan.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from timewait import durations


class PlanError(ValueError):
    """A wish that cannot be fulfilled as written: one sentence saying what is wrong, where, and what to do."""


class Closing(StrEnum):
    """Who ends a connection, and how."""

    KEEP = "keep"  # kept open; whoever ends it ends it
    SERVER = "server"  # `Connection: close` on the last request, then wait for the peer's FIN
    CLIENT = "client"  # our FIN first, once the answer is complete
    RESET = "reset"  # SO_LINGER{1,0}: RST once the answer is complete
    HALF = "half"  # shutdown(SHUT_WR) after the last request, then read to the end


class RateUnit(StrEnum):
    REQUESTS = "requests"
    CONNECTIONS = "connections"


class PortPolicy(StrEnum):
    """Who chooses source ports, and in which order.

    All but KERNEL bind() explicitly with SO_REUSEADDR. A port bound before connect() takes over this host's
    TIME_WAIT of the same five-tuple at once when the old connection had timestamps, whatever tcp_tw_reuse says
    (tcp_twsk_unique(), twp == NULL); without timestamps connect() fails with EADDRNOTAVAIL.
    """

    KERNEL = "kernel"
    OLDEST = "oldest"  # the port that has rested longest
    SEQUENTIAL = "sequential"
    RANDOM = "random"


class Ports(msgspec.Struct, frozen=True):
    policy: PortPolicy = PortPolicy.KERNEL
    low: int = 0  # 0: ip_local_port_range
    high: int = 0  # inclusive


class Rate(msgspec.Struct, frozen=True):
    per_second: float
    unit: RateUnit = RateUnit.REQUESTS


class Request(msgspec.Struct, frozen=True):
    """One line of the target list: what is asked of whom."""

    method: str
    url: str
    scheme: str  # http | https | tcp
    host: str  # without brackets
    port: int
    path: str = "/"  # with query; empty for tcp


class ConnectTo(msgspec.Struct, frozen=True):
    """`HOST:PORT:ADDRESS:PORT` as in curl: connections for the first pair go to the second. Empty/0: any/same."""

    host: str
    port: int
    to_host: str
    to_port: int


class Tls(msgspec.Struct, frozen=True):
    verify: bool = True
    cacert: str | None = None
    sni: str | None = None
    resume: bool = True


class Threshold(msgspec.Struct, frozen=True):
    """`--fail-if 'p99>50ms'`: the run has missed its aim when METRIC stands in this relation to VALUE."""

    text: str
    metric: (
        str  # failed (share), p50 p90 p99 p99_9 max (seconds of total latency), rate (successes/s), connect_p99 ...
    )
    greater: bool
    value: float  # seconds, share 0..1, or per second


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One load test. Times in seconds."""

    requests_list: tuple[Request, ...]
    connections: int | None = None  # -c; None: 50 in the closed loop, as many as needed in the open one
    rate: Rate | None = None  # None: closed loop
    requests: int | None = None  # -n
    duration: float | None = None
    ramp_up: float = 0.0
    warm_up: float = 0.0
    requests_per_connection: int | None = None  # None: unlimited
    closing: Closing = Closing.KEEP
    sources: tuple[str, ...] = ()  # addresses, expanded
    ports: Ports = Ports()
    connect_to: tuple[ConnectTo, ...] = ()
    family: int = 0  # 0, 4 or 6
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    expect: tuple[str, ...] = ("2xx", "3xx")  # classes "2xx" or codes "404"
    tcp_expect: bytes = b""  # expected reply of a tcp:// target; its payload is `body`
    tls: Tls = Tls()
    connect_timeout: float = 5.0
    timeout: float = 10.0  # from the moment a request is sent to its complete answer
    close_timeout: float = 1.0  # how long to wait for the peer's FIN
    workers: int = 1
    thresholds: tuple[Threshold, ...] = ()

    @property
    def concurrency(self) -> int:
        """Connections held in the closed loop, or the most at once in the open one; never more than requests."""
        wanted = 50 if self.rate is None or self.requests_per_connection is None else 10_000
        if self.connections is not None:
            wanted = self.connections
        return wanted if self.requests is None else min(wanted, self.requests)

    @property
    def one_shot(self) -> bool:
        """Whether every connection carries one request only."""
        return self.requests_per_connection == 1

    @property
    def scheme(self) -> str:
        return self.requests_list[0].scheme


_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgG]?)")


def parse_count(text: str, what: str) -> int:
    """`10k` -> 10000. Raises PlanError unless a whole number of at least 1."""
    match = _COUNT.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not match or value < 1 or value != int(value):
        raise PlanError(f"{what} {text!r} is no whole number of at least 1; write it as 500, 10k or 1m")
    return int(value)


def parse_duration(text: str, what: str) -> float:
    """`500ms`, `30s`, `5m`, `1m30s` or plain seconds -> seconds. Raises PlanError."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        value = float(text)
    else:
        found = durations.seconds(text)
        if found is None:
            raise PlanError(f"{what} {text!r} is no duration; write it as 500ms, 30s, 5m or 1m30s")
        value = found
    if value <= 0:
        raise PlanError(f"{what} {text!r} must be longer than nothing")
    return value


_RATE = re.compile(r"([0-9.]+[kKmM]?)\s*(rps|cps|req(?:uests)?|conn(?:ections)?)?(?:/(s|m|min|h))?")
_PER = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_rate(text: str) -> Rate:
    """`5k`, `5k/s`, `300/m`, `5krps` (requests); `5kcps`, `5k conn/s` (new connections). Raises PlanError."""
    match = _RATE.fullmatch(text.strip())
    number = _COUNT.fullmatch(match[1]) if match else None
    if not match or not number or float(number[1]) <= 0:
        raise PlanError(f"--rate {text!r} is no rate; write it as 500, 5k/s or 300/m, with cps for new connections")
    unit = RateUnit.CONNECTIONS if (match[2] or "").startswith(("c",)) else RateUnit.REQUESTS
    return Rate(float(number[1]) * _UNITS[number[2].lower()] / _PER[match[3] or "s"], unit)


def parse_ports(text: str) -> Ports:
    """A policy, `LOW-HIGH` (the oldest within), or `POLICY:LOW-HIGH` -> Ports. Raises PlanError."""
    policy_text, _, span = text.strip().partition(":")
    if not span and "-" in policy_text:
        policy_text, span = "oldest", policy_text
    try:
        policy = PortPolicy(policy_text)
    except ValueError:
        known = ", ".join(PortPolicy)
        raise PlanError(f"--ports {text!r}: write one of {known}, LOW-HIGH, or POLICY:LOW-HIGH") from None
    if not span:
        return Ports(policy)
    match = re.fullmatch(r"([0-9]+)-([0-9]+)", span)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= 65535:
        raise PlanError(f"--ports {text!r}: a range is LOW-HIGH within 1-65535, for example 20000-29999")
    return Ports(policy, int(match[1]), int(match[2]))


_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT_PORT = {"http": 80, "https": 443}


def parse_url(url: str, method: str = "GET") -> Request:
    """`http://host/path`, `https://[::1]:8443/`, `tcp://host:port` -> Request. Raises PlanError."""
    if not _METHOD.fullmatch(method):
        raise PlanError(f"method {method!r} is no HTTP method; write GET, POST, HEAD, ...")
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise PlanError(f"URL {url!r} contains a space or control character; percent-encode it")
    if "://" not in url:
        raise PlanError(f"URL {url!r} has no scheme; write http://, https:// or tcp:// in front")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise PlanError(f"URL {url!r}: {error}; a port is 1-65535 and an IPv6 address stands in brackets") from None
    if parts.scheme not in ("http", "https", "tcp"):
        raise PlanError(f"URL {url!r}: scheme {parts.scheme!r} is unknown; timewait speaks http, https and tcp")
    if not parts.hostname:
        raise PlanError(f"URL {url!r} names no host")
    if port == 0:
        raise PlanError(f"URL {url!r}: port 0 cannot be connected to; write 1-65535")
    if parts.scheme == "tcp":
        if port is None:
            raise PlanError(f"URL {url!r}: a tcp target needs a port, as in tcp://{parts.hostname}:6379")
        if parts.path not in ("", "/") or parts.query:
            raise PlanError(f"URL {url!r}: a tcp target has no path; give what to send with --body")
        return Request("", url, "tcp", parts.hostname, port, "")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise PlanError(f"URL {url!r} contains characters beyond ASCII; percent-encode them")
    return Request(method.upper(), url, parts.scheme, parts.hostname, port or _DEFAULT_PORT[parts.scheme], path)


def parse_targets(lines: list[str], name: str) -> tuple[Request, ...]:
    """`METHOD URL` or `URL` lines; blank lines and `#` comments pass. Raises PlanError naming the line."""
    found: list[Request] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise PlanError(f"{name} line {number}: {line.strip()!r} is not `METHOD URL`")
        try:
            found.append(parse_url(words[-1], words[0] if len(words) == 2 else "GET"))
        except PlanError as error:
            raise PlanError(f"{name} line {number}: {error}") from None
        if found[-1].scheme != found[0].scheme:
            raise PlanError(f"{name} line {number}: {found[-1].scheme} and {found[0].scheme} targets cannot be mixed")
    if not found:
        raise PlanError(f"{name} holds no target; write one `METHOD URL` a line")
    return tuple(found)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_sources(words: list[str], most: int = 65_536) -> tuple[str, ...]:
    """Addresses, `A-B` ranges, CIDR blocks (network and broadcast left out) -> addresses. Raises PlanError."""
    found: list[str] = []
    for word in [piece for entry in words for piece in entry.split(",")]:
        try:
            if "-" in word:
                first, last = (ipaddress.ip_address(end.strip()) for end in word.split("-", 1))
                count = int(last) - int(first) + 1
                if first.version != last.version or count < 1:
                    raise ValueError("the range runs backwards or mixes families")
                hosts: Iterable[_Address] = (first + step for step in range(min(count, most + 1)))
            elif "/" in word:
                hosts = ipaddress.ip_network(word, strict=False).hosts()
            else:
                hosts = [ipaddress.ip_address(word)]
        except ValueError as error:
            raise PlanError(f"--source {word!r}: {error}; write an address, A-B or a CIDR block") from None
        for host in hosts:
            found.append(str(host))
            if len(found) > most:
                raise PlanError(f"--source {word!r} makes more than {most} addresses; give a smaller block")
    return tuple(dict.fromkeys(found))


_CONNECT_TO = re.compile(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]*):(\[[^\]]*\]|[^:\[\]]*):([0-9]*)")


def parse_connect_to(text: str) -> ConnectTo:
    """`HOST:PORT:ADDRESS:PORT`, parts may be empty, IPv6 in brackets. Raises PlanError."""
    match = _CONNECT_TO.fullmatch(text)
    ports = [int(match[group] or 0) for group in (2, 4)] if match else []
    if not match or max(ports) > 65535:
        raise PlanError(
            f"--connect-to {text!r}: write HOST:PORT:ADDRESS:PORT, for example example.com:443:10.0.0.5:8443"
        )
    return ConnectTo(match[1].strip("[]").lower(), ports[0], match[3].strip("[]"), ports[1])


_HEADER_NAME = _METHOD


def parse_header(text: str) -> tuple[str, str]:
    """`Name: value` -> (name, value). Raises PlanError."""
    name, colon, value = text.partition(":")
    if not colon or not _HEADER_NAME.fullmatch(name) or any(c in value for c in "\r\n\0"):
        raise PlanError(f"--header {text!r}: write it as 'Name: value' on one line")
    return name, value.strip()


def parse_expect(text: str) -> tuple[str, ...]:
    """`2xx,404` -> ("2xx", "404"). Raises PlanError."""
    words = tuple(word.strip().lower() for word in text.split(","))
    for word in words:
        if not re.fullmatch(r"[1-5]xx|[1-5][0-9][0-9]", word):
            raise PlanError(f"--expect {text!r}: {word!r} is no status; write codes or classes, as in 2xx,304")
    return words


_QUANTILES = ("p50", "p90", "p99", "p99_9", "max")
METRICS = (
    *(phase + quantile for phase in ("", "connect_", "tls_", "first_byte_") for quantile in _QUANTILES),
    "failed",
    "rate",
)
_THRESHOLD = re.compile(r"\s*([a-z_0-9.]+)\s*([<>])\s*([0-9.]+\s*[a-z%/]*)\s*")


def parse_threshold(text: str) -> Threshold:
    """`failed>0.1%`, `p99>50ms`, `connect_p99>1s`, `rate<5k/s` -> Threshold. Raises PlanError."""
    match = _THRESHOLD.fullmatch(text)
    metric = match[1].replace(".", "_") if match else ""
    if not match or metric not in METRICS:
        known = "failed, rate, p50, p90, p99, p99_9, max, and connect_p99 and the like"
        raise PlanError(f"--fail-if {text!r}: write METRIC>VALUE with a metric of {known}")
    word = match[3].strip()
    if metric == "failed":
        try:
            value = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
        except ValueError:
            raise PlanError(f"--fail-if {text!r}: a share is written as 0.1% or 0.001") from None
    elif metric == "rate":
        value = parse_rate(word).per_second
    else:
        value = parse_duration(word, f"--fail-if {text!r}: value")
    return Threshold(text.strip(), metric, match[2] == ">", value)
