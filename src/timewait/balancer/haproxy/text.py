"""A balancer's configuration as HAProxy's (configuration.txt of 2.6). Pure.

A frontend for each listener, a backend for each pool that it uses. Nothing is written that is HAProxy's default, or
that no setting asks for: every line is one that each request, or each connection, may pay for.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from timewait.balancer.config.model import Configuration, Engine, Listener, Protocol
from timewait.balancer.engine import Rotation
from timewait.balancer.haproxy import backends, frontends, log_lines
from timewait.balancer.haproxy.routes import NOT_FOUND, SLASH

L7 = (Protocol.HTTP, Protocol.HTTPS)
_MAXREWRITE = 1024  # HAProxy's default: room in the buffer for headers that are added


class Handed(msgspec.Struct, frozen=True):
    """What a running HAProxy gets from us instead of names: descriptors."""

    sockets: Mapping[str, int]  # by bind
    certificates: Mapping[str, str]  # "/certificate /key" -> a path of both in one
    commands: int  # of the socket pair for its command line
    log: int = -1  # of the pipe for its log lines


def text(configuration: Configuration, rotations: Mapping[str, Rotation] | None = None) -> str:
    """haproxy.cfg as it can be read and started by hand; without rotations, with the file's weights."""
    return written(configuration, rotations, None)


def written(configuration: Configuration, rotations: Mapping[str, Rotation] | None, handed: Handed | None) -> str:
    """The same; with `handed`, for the process that this program starts."""
    listeners = listeners_of(configuration)
    lines = ["global", *_indented(_global(configuration, listeners, handed))]
    where = _logs_to(configuration, handed)
    for listener in listeners:
        lines += ["", f"frontend {listener.name}", *_indented(frontends.lines(listener, handed, where))]
        for pool in pools_of(listener):
            title, body = backends.lines(configuration, listener, configuration.pool_named(pool), rotations)
            lines += ["", f"backend {title}", *_indented(body)]
    for name, body in _answering(lines):
        lines += ["", f"backend {name}", *_indented(body)]
    return "\n".join([*lines, ""])


def listeners_of(configuration: Configuration) -> list[Listener]:
    """Those that HAProxy serves."""
    return [one for one in configuration.listener if configuration.engine_of(one) is Engine.HAPROXY]


def pools_of(listener: Listener) -> list[str]:
    """The pools of a listener, each once."""
    if listener.protocol in L7:
        return list(dict.fromkeys(rule.pool for rule in listener.rule))
    return [listener.pool]


def _global(configuration: Configuration, listeners: list[Listener], handed: Handed | None) -> list[str]:
    lines = [f"nbthread {configuration.workers}"] if configuration.workers else []
    if handed is not None:
        lines += [f"stats socket sockpair@{handed.commands} level admin", "stats timeout 24d"]
    # Once told to stop, HAProxy itself would close kept connections, and reset those on which a request is arriving
    # just then; so they are told with their next answer (frontends), and idle ones end by their timeout.
    lines.append("close-spread-time infinite")
    if configuration.access_log:
        lines += log_lines.request_line(listeners)
        if handed is None:
            lines.append("# timewait makes its access log of what is logged; by hand it comes on standard output")
    limits = [one.limits for one in listeners if one.protocol in L7]
    if limits:
        lines.append(f"tune.bufsize {max(one.header_size for one in limits) + _MAXREWRITE}")
        lines.append(f"tune.maxrewrite {_MAXREWRITE}")
        lines.append(f"tune.http.maxhdr {max(one.header_count for one in limits) + 1}")  # the first line counts, too
    if any(frontends.normalizes(one) for one in listeners):
        lines.append("expose-experimental-directives")  # normalize-uri
    return lines


def _logs_to(configuration: Configuration, handed: Handed | None) -> str:
    """HAProxy's name for where its lines go; empty: it has none to write."""
    if not configuration.access_log:
        return ""
    return f"fd@{handed.log}" if handed is not None else "stdout"


def _answering(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Backends that answer themselves, where somebody goes to them."""
    mode = ["mode http", "timeout server 1s"]
    found = []
    if any(f"_backend {NOT_FOUND}" in line for line in lines):
        answer = 'http-request return status 404 content-type text/plain string "404 Not Found\\n"'
        found.append((NOT_FOUND, [*mode, answer]))
    if any(f"_backend {SLASH}" in line for line in lines):
        # What was compared, not what came: //x/ would lead to another host.
        where = "http-request redirect code 301 location %[var(txn.path)]/"
        query = "{ query -m len gt 0 }"
        found.append((SLASH, [*mode, f"{where}?%[query] if {query}", where]))
    return found


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
