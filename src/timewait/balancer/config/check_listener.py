"""What is wrong inside one listener. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from timewait.balancer.config import addresses
from timewait.balancer.config.model import Listener, Protocol, RealIpMode, Rule, UpstreamClose
from timewait.balancer.config.problem import Problem, quoted
from timewait.balancer.routing.domains import DEFAULT
from timewait.balancer.routing.paths import parsed
from timewait.balancer.routing.patterns import Pattern
from timewait.toml_lines import Path

LONGEST_DOMAIN, LONGEST_PATH = 80, 200  # CLB: CreateRule, Domain and Url
HTTP = (Protocol.HTTP, Protocol.HTTPS)
TLS = (Protocol.HTTPS, Protocol.TCP_SSL)

_LABELS = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
_DOMAIN = re.compile(rf"{_LABELS}|\*\.{_LABELS}|{_LABELS}\.\*", re.ASCII)
_PATH = re.compile(r"(?:(=|\^~)\s*)?(/[!-~]*)", re.ASCII)


def problems(listener: Listener, at: Path) -> Iterator[Problem]:
    """Why this listener cannot be run."""
    yield from _bind(listener, at)
    yield from _protocol(listener, at)
    yield from _tls(listener, at)
    yield from _rules(listener, at)
    yield from _numbers(listener, at)
    yield from _upstream(listener, at)
    yield from _real_ip(listener, at)


def _bind(listener: Listener, at: Path) -> Iterator[Problem]:
    if not listener.bind:
        yield Problem((*at, "bind"), f'listener {listener.name} listens nowhere; write bind = ["0.0.0.0:80"]')
    for number, text in enumerate(listener.bind):
        try:
            found = addresses.bound(text)
        except ValueError as error:
            yield Problem((*at, "bind", number), f"bind {quoted(text)} {error}")
            continue
        if isinstance(found, str) and listener.protocol is Protocol.UDP:
            yield Problem(
                (*at, "bind", number), f"bind {quoted(text)} is no place for UDP; write an address and a port"
            )


def _protocol(listener: Listener, at: Path) -> Iterator[Problem]:
    """HTTP has rules that name pools, the others have one pool."""
    if listener.protocol in HTTP:
        if listener.pool:
            what = f"listener {listener.name} speaks {listener.protocol}, where rules name the pools"
            yield Problem((*at, "pool"), f'{what}; write [[listener.rule]] with pool = "{listener.pool}" instead')
        elif not any(rule.domain == DEFAULT for rule in listener.rule):
            what = f"listener {listener.name} has no rule for the default domain"
            yield Problem(at, f'{what}, which CLB requires; write [[listener.rule]] with domain = "{DEFAULT}"')
        return
    if listener.rule:
        what = f"listener {listener.name} speaks {listener.protocol}, which knows neither domains nor paths"
        yield Problem((*at, "rule", 0), f"{what}; write pool = ... in the listener instead of rules")
    elif not listener.pool:
        yield Problem(at, f"listener {listener.name} speaks {listener.protocol} and lacks its pool; write pool = ...")


def _tls(listener: Listener, at: Path) -> Iterator[Problem]:
    tls = listener.tls
    if listener.protocol in TLS and not tls.certificate:
        what = f"listener {listener.name} speaks {listener.protocol} and has no certificate"
        yield Problem((*at, "tls"), f"{what}; write [[listener.tls.certificate]] with certificate and key")
    if listener.protocol not in TLS and tls.certificate:
        secure = "tcp_ssl" if listener.protocol is Protocol.TCP else "https"
        what = f"listener {listener.name} has certificates, but {listener.protocol} has no TLS"
        yield Problem((*at, "tls"), f'{what}; write protocol = "{secure}", or leave them out')
    if tls.min_version not in ("1.2", "1.3"):
        what = f"listener.tls.min_version = {quoted(tls.min_version)} is not offered"
        yield Problem((*at, "tls", "min_version"), f'{what}; write "1.2" or "1.3"')
    for first, second in combinations(range(len(tls.certificate)), 2):
        if tls.certificate[first].certificate == tls.certificate[second].certificate:
            what = f"certificate {tls.certificate[second].certificate} stands twice"
            yield Problem((*at, "tls", "certificate", second), f"{what}; leave one out")


def _rules(listener: Listener, at: Path) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for number, rule in enumerate(listener.rule):
        here = (*at, "rule", number)
        if sentence := _domain(rule.domain):
            yield Problem((*here, "domain"), f"domain = {quoted(rule.domain)} {sentence}")
        if sentence := _path(rule.path):
            yield Problem((*here, "path"), f"path = {quoted(rule.path)} {sentence}")
        key = _key(rule)
        if key in seen:
            what = f"domain {quoted(rule.domain)} has path {quoted(rule.path)} twice in listener {listener.name}"
            yield Problem(here, f"{what}; leave one out")
        seen.add(key)


def _key(rule: Rule) -> tuple[str, str]:
    """What makes two rules the same: without case and spaces that mean nothing."""
    domain = rule.domain if rule.domain.startswith("~") else rule.domain.lower()
    try:
        kind, text = parsed(rule.path)
    except (ValueError, OverflowError, RecursionError):
        return domain, rule.path
    return domain, f"{kind.value} {text}"


def _domain(text: str) -> str:
    """The end of a sentence, or nothing."""
    if text == DEFAULT:
        return ""
    if not 1 <= len(text) <= LONGEST_DOMAIN:
        return f"is too long or empty; CLB takes 1 to {LONGEST_DOMAIN} characters"
    if text.startswith("~"):
        return _regex(text.removeprefix("~").lstrip())
    if text.startswith("_") and "." not in text:
        return f'is no domain; did you mean "{DEFAULT}"?'
    if _DOMAIN.fullmatch(text):
        return ""
    if ":" in text or "/" in text:
        return "is no domain; write it without scheme, port and path"
    if not text.isascii():
        return 'is not in ASCII; write it as browsers send it, "xn--..."'
    return 'is no domain; write "www.x.com", "*.x.com", "www.x.*", "~regex" or "_default"'


def _path(text: str) -> str:
    """The end of a sentence, or nothing."""
    if not 1 <= len(text) <= LONGEST_PATH:
        return f"is too long or empty; CLB takes 1 to {LONGEST_PATH} characters"
    if text.startswith("~"):
        return _regex(text.removeprefix("~").removeprefix("*").lstrip())
    match = _PATH.fullmatch(text)
    if match is None:
        return 'is no path; write "/prefix", "= /exact", "^~ /prefix", "~ regex" or "~* regex"'
    if "?" in match[2] or "#" in match[2]:
        return "goes on after the path; leave out ? and #, and what is behind them"
    return ""


def _regex(pattern: str) -> str:
    if not pattern:
        return "is an empty regular expression; write what must match"
    try:
        Pattern(pattern)
    except (ValueError, RecursionError, OverflowError) as error:
        return f"cannot be used: {error}; mend it"
    return ""


def _numbers(listener: Listener, at: Path) -> Iterator[Problem]:
    for field in ("max_conn", "max_cps"):
        if getattr(listener, field) == 0:
            yield Problem((*at, field), f"listener.{field} = 0 lets nobody in; write -1 for no limit, or 1 and more")
    limits = listener.limits
    if limits.request_line > limits.header_size:
        what = "listener.limits.request_line is more than limits.header_size, of which it is a part"
        yield Problem((*at, "limits", "request_line"), f"{what}; make it smaller")


def _upstream(listener: Listener, at: Path) -> Iterator[Problem]:
    upstream = listener.upstream
    if upstream.close is UpstreamClose.PEER and upstream.keepalive and listener.protocol in HTTP:
        what = 'listener.upstream.close = "peer" asks targets to close after each answer'
        yield Problem((*at, "upstream", "close"), f"{what}; write keepalive = false with it")
    sources: list[tuple[int, addresses.Source]] = []
    for number, text in enumerate(upstream.source):
        try:
            sources.append((number, addresses.source(text)))
        except ValueError as error:
            yield Problem((*at, "upstream", "source", number), f"source {quoted(text)} {error}")
    for (_, first), (number, second) in combinations(sources, 2):
        apart = first.high and second.high and (first.low > second.high or second.low > first.high)
        if first.address == second.address and not apart:
            what = f"source {quoted(upstream.source[number])} stands twice, or its ports do"
            yield Problem((*at, "upstream", "source", number), f"{what}; leave one out")


def _real_ip(listener: Listener, at: Path) -> Iterator[Problem]:
    real, here = listener.real_ip, (*at, "real_ip")
    for number, text in enumerate(real.trusted):
        try:
            addresses.network(text)
        except ValueError as error:
            yield Problem((*here, "trusted", number), f"trusted {quoted(text)} {error}")
    if real.accept_proxy and not real.trusted:
        what = "listener.real_ip.accept_proxy believes nobody as long as trusted is empty"
        yield Problem((*here, "accept_proxy"), f'{what}; write trusted = ["10.0.0.0/8"] or whoever stands in front')
    if real.trusted and not real.accept_proxy and listener.protocol not in HTTP:
        what = f"listener.real_ip.trusted has no effect: {listener.protocol} carries no X-Forwarded-For"
        yield Problem((*here, "trusted"), f"{what}; write accept_proxy = true, or leave it out")
    if real.mode is RealIpMode.XFF and listener.protocol not in HTTP:
        what = f'listener.real_ip.mode = "xff" is a header of HTTP, and the listener speaks {listener.protocol}'
        yield Problem((*here, "mode"), f"{what}; write proxy_v1, proxy_v2, transparent or none")
    if listener.protocol is Protocol.UDP and (real.accept_proxy or real.mode in _PROXY):
        yield Problem((*here, "mode"), "PROXY headers are for streams, not for UDP; write transparent or none")


_PROXY = (RealIpMode.PROXY_V1, RealIpMode.PROXY_V2)
