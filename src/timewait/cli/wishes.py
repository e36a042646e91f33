"""The flags of `timewait stress` -> a Plan: defaults that depend on one another, contradictions, files read once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from timewait.plan import (
    Closing,
    Plan,
    PlanError,
    Request,
    Tls,
    parse_connect_to,
    parse_count,
    parse_duration,
    parse_expect,
    parse_header,
    parse_ports,
    parse_rate,
    parse_sources,
    parse_targets,
    parse_threshold,
    parse_url,
)

DEFAULT_DURATION = 10.0
MOST_WORKERS = 256


class Wishes(msgspec.Struct, kw_only=True):
    """The flags as they were typed; names are those of the command's parameters."""

    url: str | None = None
    targets: str | None = None
    connections: str | None = None
    rate: str | None = None
    requests: str | None = None
    duration: str | None = None
    ramp_up: str | None = None
    warm_up: str | None = None
    find_max: bool = False
    workers: str | None = None
    per_connection: str | None = None
    close: str | None = None
    disable_keepalive: bool = False
    timeout: str | None = None
    connect_timeout: str | None = None
    close_timeout: str | None = None
    source: list[str] | None = None
    ports: str = "kernel"
    connect_to: list[str] | None = None
    ipv4: bool = False
    ipv6: bool = False
    method: str | None = None
    header: list[str] | None = None
    body: str | None = None
    expect: str | None = None
    insecure: bool = False
    cacert: str | None = None
    sni: str | None = None
    resume: bool = True
    fail_if: list[str] | None = None
    json: bool = False
    csv: str | None = None
    save: str | None = None
    html: str | None = None
    no_tui: bool = False
    quiet: bool = False


def plan(wishes: Wishes) -> Plan:
    """Raises PlanError."""
    _contradictions(wishes)
    requests = _requests(wishes)
    scheme = requests[0].scheme
    closing, per_connection = _life(wishes)
    body = _body(wishes.body)
    optional: dict[str, Any] = {
        name: parse_duration(text, f"--{name.replace('_', '-')}")
        for name in ("ramp_up", "warm_up", "timeout", "connect_timeout", "close_timeout")
        if (text := getattr(wishes, name)) is not None
    }
    count = parse_count(wishes.requests, "--requests") if wishes.requests else None
    duration = parse_duration(wishes.duration, "--duration") if wishes.duration else None
    if duration is None and count is None:
        duration = DEFAULT_DURATION
    for name in ("ramp_up", "warm_up"):
        if duration is not None and optional.get(name, 0.0) >= duration:
            raise PlanError(f"--{name.replace('_', '-')} {getattr(wishes, name)} leaves nothing of {duration:g} s")
    connections = parse_count(wishes.connections, "--connections") if wishes.connections else None
    rate = parse_rate(wishes.rate) if wishes.rate else None
    found = Plan(
        requests_list=requests, connections=connections, rate=rate, requests=count, duration=duration,
        requests_per_connection=per_connection, closing=closing, body=body,
        sources=parse_sources(wishes.source or []), ports=parse_ports(wishes.ports),
        connect_to=tuple(parse_connect_to(text) for text in wishes.connect_to or []),
        family=4 if wishes.ipv4 else 6 if wishes.ipv6 else 0,
        headers=tuple(parse_header(text) for text in wishes.header or []),
        expect=parse_expect(wishes.expect if wishes.expect and scheme != "tcp" else "2xx,3xx"),
        tcp_expect=_text(wishes.expect, "--expect") if wishes.expect and scheme == "tcp" else b"",
        tls=Tls(not wishes.insecure, _readable(wishes.cacert), wishes.sni, wishes.resume),
        thresholds=tuple(parse_threshold(text) for text in wishes.fail_if or []),
        **optional,
    )  # fmt: skip
    return msgspec.structs.replace(found, workers=_workers(wishes.workers, found))


def _contradictions(wishes: Wishes) -> None:
    w = wishes
    for wrong, sentence in (
        (w.url and w.targets, "give a URL or --targets, not both"),
        (not w.url and not w.targets, "give a URL, for example http://127.0.0.1:8080/, or --targets FILE"),
        (w.ipv4 and w.ipv6, "-4 and -6 exclude each other"),
        (w.insecure and w.cacert, "-k accepts any certificate, --cacert says which to trust; give one of them"),
        (
            w.disable_keepalive and w.close not in (None, "server"),
            f"--disable-keepalive is not --close {w.close}",
        ),
        (w.find_max and w.rate, "--find-max chooses the rate itself; leave --rate out"),
        (w.find_max and w.requests, "--find-max runs in steps of time; leave -n out"),
        (w.json and w.csv == "-", "--json and --csv - both want stdout; give --csv a file"),
    ):
        if wrong:
            raise PlanError(sentence)


def _requests(wishes: Wishes) -> tuple[Request, ...]:
    default = "POST" if wishes.body is not None else "GET"
    if wishes.url:
        return (parse_url(wishes.url, wishes.method or default),)
    name = wishes.targets or "-"
    if wishes.method:
        raise PlanError("--method stands in the lines of --targets (`POST http://...`); leave it out")
    if name == "-":
        return parse_targets(sys.stdin.read().splitlines(), "stdin")
    return parse_targets(_read(name, "--targets").decode("utf-8", "replace").splitlines(), name)


def _says_close(wishes: Wishes) -> bool:
    """`-H 'Connection: close'`, the habit of wrk's users, means --close server."""
    headers = [parse_header(text) for text in wishes.header or []]
    return any(name.lower() == "connection" and "close" in value.lower() for name, value in headers)


def _life(wishes: Wishes) -> tuple[Closing, int | None]:
    word = wishes.close
    if wishes.disable_keepalive or (word is None and _says_close(wishes)):
        word = "server"
    if word is not None and word not in ("server", "client", "reset", "half"):
        raise PlanError(f"--close {word!r}: write server, client, reset or half")
    closing = Closing(word) if word else Closing.KEEP
    count = wishes.per_connection
    if count is None:
        return closing, None if closing is Closing.KEEP else 1
    if count == "unlimited":
        if closing is not Closing.KEEP:
            raise PlanError(f"--close {word} never happens with --requests-per-connection unlimited; give a number")
        return closing, None
    limit = parse_count(count, "--requests-per-connection")
    # A limit without --close: somebody must end the connection, and an ordinary client would.
    return Closing.CLIENT if closing is Closing.KEEP else closing, limit


def _read(name: str, flag: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise PlanError(f"{flag} {name}: cannot be read ({error.strerror})") from None


def _body(text: str | None) -> bytes:
    if text is None:
        return b""
    return _read(text[1:], "--body") if text.startswith("@") else _text(text, "--body")


def _text(text: str, flag: str) -> bytes:
    """Escapes as in Python (`\\r\\n`, `\\x00`) make line ends and binary payloads possible on a command line."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")
    except (UnicodeError, ValueError) as error:
        raise PlanError(f"{flag} {text!r}: {error}") from None


def _readable(name: str | None) -> str | None:
    if name is not None:
        _read(name, "--cacert")
    return name


def _workers(text: str | None, plan: Plan) -> int:
    cores = len(os.sched_getaffinity(0))
    most = min(plan.concurrency, plan.requests or plan.concurrency)
    if text is None:
        return max(1, min(cores, most))
    workers = parse_count(text, "--workers")
    if workers > min(MOST_WORKERS, most):
        raise PlanError(f"--workers {workers}: at most {min(MOST_WORKERS, most)} here, one connection each")
    return workers
