"""What the access log says of a request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from timewait.balancer.embedded.access_log import Record, endpoint

if TYPE_CHECKING:
    from timewait.balancer.embedded.http.core import Core


def record_of(client: Core) -> Record:
    """A line about the exchange that is at its end."""
    ask, target, now = client.ask, client.target, client.loop.now
    asked = target is not None and client.connected > 0
    return Record(
        time=time.time(),
        listener=client.site.config.name,
        client=_endpoint(client),
        connection=client.number,
        request=client.requests,
        method=ask.head.method.decode("latin-1") if ask is not None else "",
        host=ask.head.host.decode("latin-1") if ask is not None else "",
        path=ask.head.target.decode("latin-1") if ask is not None else "",
        status=client.status,
        made_by="balancer" if client.own else "target",
        reason=client.reason,
        target=target.address if target is not None else "",
        retries=max(0, client.attempts - 1),
        reused=client.reused,
        bytes_in=client.took,
        bytes_out=client.passed,
        seconds=max(0.0, now - client.started),
        connect_seconds=client.connecting,
        answer_seconds=max(0.0, client.first - client.connected) if asked and client.first else 0.0,
    )


def _endpoint(client: Core) -> str:
    """Who asks: the last address that a trusted proxy did not vouch for, else the peer's own."""
    host, port = client.peer
    ask = client.ask
    if client.trusted and ask is not None and ask.head.forwarded_for:
        for address in reversed(ask.head.forwarded_for.decode("latin-1").split(",")):
            host, port = address.strip(), 0
            if not client.site.trusts_text(host):
                break
        return host
    if not host:
        return "unix"
    return endpoint(host, port)
