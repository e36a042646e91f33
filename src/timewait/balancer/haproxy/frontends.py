"""The client's side: where HAProxy listens, what it admits, refuses and adds, and how it chooses a backend. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from timewait.balancer.config.effective import idle, real_ip_mode
from timewait.balancer.config.model import ClientClose, Listener, Protocol, RealIpMode, Tunnel
from timewait.balancer.haproxy import log_lines, routes
from timewait.balancer.haproxy.words import backend, bind, quoted, time

if TYPE_CHECKING:
    from timewait.balancer.haproxy.text import Handed

_L7 = (Protocol.HTTP, Protocol.HTTPS)
_TLS = (Protocol.HTTPS, Protocol.TCP_SSL)
_LEAVING = "http-after-response set-header connection close if { stopping }"
_LINE = len("GET  HTTP/1.1")  # what a request line has beside its target


def normalizes(listener: Listener) -> bool:
    """Whether its paths are brought into their normal form before they are compared."""
    return listener.protocol in _L7 and routes.needs_path(listener.rule)


def lines(listener: Listener, handed: Handed | None, log: str = "") -> list[str]:
    """The lines of a frontend; `log` is where it logs to, if anywhere."""
    http = listener.protocol in _L7
    found = [f"mode {'http' if http else 'tcp'}", *_binds(listener, handed), *_timeouts(listener, http)]
    if listener.client.close is ClientClose.FIN_RST:
        found.append("option nolinger")
    if log:
        found += log_lines.settings(listener, log)
    found += _admission(listener)
    if log:
        found.append(log_lines.at_connection())
    if not http:
        return [*found, f"default_backend {backend(listener, listener.pool)}"]
    found += [_LEAVING, *_counting(listener, always=bool(log))]
    if log:
        found += log_lines.at_request(listener)
    found += [*_refusals(listener), *_believed(listener)]
    names = {rule.pool: backend(listener, rule.pool) for rule in listener.rule}
    if not routes.is_plain(listener.rule):
        found += routes.preparation(listener.rule)
    return [*found, *routes.choices(listener.rule, names)]


def _binds(listener: Listener, handed: Handed | None) -> Iterator[str]:
    tls = ""
    if listener.protocol in _TLS:
        pairs = [f"{one.certificate} {one.key}" for one in listener.tls.certificate]
        paths = [handed.certificates[pair] for pair in pairs] if handed else []
        if handed is None:
            paths = [one.certificate for one in listener.tls.certificate]
            for one in listener.tls.certificate:
                if one.key not in (one.certificate, f"{one.certificate}.key"):
                    yield f"# the key, {one.key}, must stand in the same file, or beside it as {one.certificate}.key"
        tls = "".join(f" crt {quoted(path)}" for path in paths)
        tls = f" ssl{tls} ssl-min-ver TLSv{listener.tls.min_version}"
        if listener.protocol is Protocol.HTTPS:
            tls += " alpn http/1.1"
    for at in listener.bind:
        where = f"fd@{handed.sockets[at]}" if handed else bind(at)
        yield f"bind {where} backlog {listener.backlog}{tls}"


def _timeouts(listener: Listener, http: bool) -> list[str]:
    if not http:
        return [f"timeout client {time(idle(listener))}"]
    client = listener.client
    found = [f"timeout client {time(client.body_timeout)}", f"timeout http-request {time(client.header_timeout)}"]
    if not client.keepalive:
        return [*found, "option httpclose"]
    return [*found, f"timeout http-keep-alive {time(client.keepalive)}"]


def _admission(listener: Listener) -> Iterator[str]:
    """What is decided when a connection comes. More than the limit are closed at once, as the other engines do it:
    with `maxconn` and `rate-limit sessions` HAProxy would leave them waiting."""
    trusted = " ".join(listener.real_ip.trusted)
    if listener.max_conn >= 0:
        yield f"tcp-request connection reject if {{ fe_conn gt {listener.max_conn} }}"
    if listener.max_cps >= 0:
        yield f"tcp-request connection reject if {{ fe_sess_rate ge {listener.max_cps} }}"
    if listener.real_ip.accept_proxy:
        yield f"tcp-request connection expect-proxy layer4 if {{ src {trusted} }}"


def _refusals(listener: Listener) -> Iterator[str]:
    limits = listener.limits
    if listener.connect is Tunnel.REFUSE:
        yield "http-request deny deny_status 405 if METH_CONNECT"
    if listener.upgrade is Tunnel.REFUSE:
        yield "http-request deny deny_status 403 if { req.hdr(upgrade) -m found }"
    long = 'return status 414 content-type text/plain string "414 URI Too Long\\n" hdr connection close'
    yield f"http-request {long} if {{ url_len gt {limits.request_line - _LINE} }}"
    yield f"http-request deny deny_status 413 if {{ req.body_size gt {limits.body_size} }}"


def _believed(listener: Listener) -> Iterator[str]:
    """Who the client is: what it says of itself counts only where it comes from a trusted network."""
    mode = real_ip_mode(listener)
    if mode is not RealIpMode.XFF:
        return
    scheme = "https" if listener.protocol is Protocol.HTTPS else "http"
    if not listener.real_ip.trusted:
        yield "http-request set-header X-Forwarded-For %[src]"
        yield f"http-request set-header X-Forwarded-Proto {scheme}"
        return
    yield f"acl trusted src {' '.join(listener.real_ip.trusted)}"
    yield "http-request add-header X-Forwarded-For %[src] if trusted"
    yield "http-request set-header X-Forwarded-For %[src] if !trusted"
    yield (
        f"http-request set-header X-Forwarded-Proto {scheme} "
        "if !trusted or !{ req.hdr(x-forwarded-proto) -m found }"
    )


def _counting(listener: Listener, *, always: bool) -> Iterator[str]:
    """HAProxy has no limit of requests on a connection, but variables that live as long as one."""
    most = listener.client.max_requests
    if most or always:
        yield "http-request set-var(sess.requests) var(sess.requests,0),add(1)"
    if most:
        yield f"http-after-response set-header connection close if {{ var(sess.requests) -m int ge {most} }}"
