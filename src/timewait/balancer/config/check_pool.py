"""What is wrong inside one pool. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from timewait.balancer.config import addresses
from timewait.balancer.config.model import CheckType, Health, Pool, Scheduler, SessionType
from timewait.balancer.config.problem import Problem, nearest, quoted
from timewait.balancer.config.units import duration_text
from timewait.toml_lines import Path

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
LONGEST_CHECK = 500  # bytes: CLB, SendContext and RecvContext
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)  # RFC 6265, 4.1.1: a cookie's name


def problems(pool: Pool, at: Path) -> Iterator[Problem]:
    """Why this pool cannot be run."""
    yield from _targets(pool, at)
    yield from _session(pool, at)
    yield from _health(pool.health, (*at, "health"))


def _targets(pool: Pool, at: Path) -> Iterator[Problem]:
    if not pool.target:
        yield Problem(at, f"pool {pool.name} has no targets; write [[pool.target]] with addr")
    seen: set[addresses.Place] = set()
    for number, target in enumerate(pool.target):
        here = (*at, "target", number, "addr")
        try:
            place = addresses.place(target.addr)
        except ValueError as error:
            yield Problem(here, f"addr = {quoted(target.addr)} {error}")
            continue
        if place.address.is_unspecified or place.address.is_multicast:
            yield Problem(here, f"addr = {quoted(target.addr)} is no machine's address; write one")
        if place in seen:
            yield Problem(here, f"addr = {quoted(target.addr)} stands twice in pool {pool.name}; leave one out")
        seen.add(place)


def _session(pool: Pool, at: Path) -> Iterator[Problem]:
    session = pool.session
    if session.type is not SessionType.NONE and pool.scheduler is not Scheduler.WRR:
        what = f'pool {pool.name} keeps sessions, which CLB does with scheduler = "wrr" only'
        yield Problem((*at, "session", "type"), f"{what}; write wrr, or leave the session out")
    if not _TOKEN.fullmatch(session.cookie):
        what = f"pool.session.cookie = {quoted(session.cookie)} is no cookie's name"
        yield Problem((*at, "session", "cookie"), f"{what}; write letters, digits, _ and -, at most 64")


def _health(health: Health, at: Path) -> Iterator[Problem]:
    if health.timeout >= health.interval:
        timeout, interval = (quoted(duration_text(value)) for value in (health.timeout, health.interval))
        what = f"pool.health.timeout = {timeout} is not below its interval, {interval}"
        field = "timeout" if health.timeout != Health().timeout else "interval"
        yield Problem((*at, field), f"{what}; make it shorter, or the interval longer")
    asks = health.http
    if asks.method not in ("HEAD", "GET"):
        what = f"pool.health.http.method = {quoted(asks.method)} is no check CLB knows"
        yield Problem((*at, "http", "method"), f"{what}; write HEAD or GET")
    if not re.fullmatch(r"/[!-~]{0,199}", asks.path, re.ASCII):
        what = f"pool.health.http.path = {quoted(asks.path)} is no path"
        yield Problem((*at, "http", "path"), f"{what}; begin with /, without spaces, at most 200 characters")
    if not re.fullmatch(r"[!-~]{0,80}", asks.host, re.ASCII):
        yield Problem((*at, "http", "host"), f"pool.health.http.host = {quoted(asks.host)} is no domain; write one")
    for number, word in enumerate(asks.expect):
        if word not in CLASSES:
            what = f"pool.health.http.expect has {quoted(word)}"
            yield Problem(
                (*at, "http", "expect", number), f"{what}; {nearest(word, CLASSES)}write {', '.join(CLASSES)}"
            )
    if not asks.expect:
        what = "pool.health.http.expect is empty: no answer would be good"
        yield Problem((*at, "http", "expect"), f'{what}; write ["2xx", "3xx"]')
    yield from _custom(health, (*at, "custom"))


def _custom(health: Health, at: Path) -> Iterator[Problem]:
    custom = health.custom
    for field in ("send", "expect"):
        text: str = getattr(custom, field)
        try:
            content = bytes.fromhex(text) if custom.hex else text.encode()
        except ValueError:
            what = f"pool.health.custom.{field} = {quoted(text)} is not hexadecimal"
            yield Problem((*at, field), f'{what}; write two digits for each byte, as "0d0a", or hex = false')
            continue
        if len(content) > LONGEST_CHECK:
            what = f"pool.health.custom.{field} has {len(content)} bytes"
            yield Problem((*at, field), f"{what}; CLB takes {LONGEST_CHECK} at most")
    if health.type is CheckType.CUSTOM and not custom.expect:
        what = "a custom check without pool.health.custom.expect finds everything healthy"
        yield Problem((*at, "expect"), f"{what}; write what must come back")
