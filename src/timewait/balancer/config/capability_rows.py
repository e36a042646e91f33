"""The table of fields and engines: how each engine honours a field, or why it refuses it.

A row is about a field that is not at its default, or about one value of it (then the default's row must not refuse),
or about a case of it. The tests want one for every field of model.py.
"""

from __future__ import annotations

from timewait.balancer.config.capability_row import (
    L7,
    Refused,
    Row,
    another_limit,
    full_nat,
    other_family,
    other_timer,
    source_with_dnat,
    unix,
)
from timewait.balancer.config.model import Protocol

YES = "yes"
STREAMS = (Protocol.TCP, Protocol.HTTP, Protocol.HTTPS, Protocol.TCP_SSL)
TLS = (Protocol.HTTPS, Protocol.TCP_SSL)

NO_REQUESTS = Refused("the kernel forwards packets and sees no requests")
NO_SOCKET = Refused("the kernel forwards packets, there is no socket in between")
NO_TLS = Refused("the kernel does not end TLS")
FIN_PASSES = "both ends' FINs are passed on"
PASSES_FIN = Refused("the kernel passes both ends' FINs on and closes nothing itself")
SHUTDOWN = "shutdown sessions server: a FIN to the client, a reset to the target"
PROBER = "the prober of this program, the same for all engines"
SUPERVISOR = "this program, the same for all engines"
WITH_CAP = "an nft rule takes the option out of every SYN and SYN-ACK; needs CAP_NET_ADMIN"


_FILE = (
    Row("schema", YES, YES, YES),
    Row("engine", YES, YES, YES),
    Row(
        "workers",
        "processes that share each accept queue; 0: one per core",
        "nbthread; 0: one per core",
        Refused("the kernel forwards on whichever core a packet arrives at"),
    ),
    Row(
        "user",
        "workers become it once everything is bound; this program itself keeps its rights, for reloads",
        "HAProxy is started as this user, with sockets that are bound already",
        Refused("no process forwards, and the one that changes the rules must keep its rights"),
    ),
    Row(
        "access_log",
        "JSON lines",
        "the same, of what HAProxy logs: no `reused` and `closed_by`, times in ms, bytes with heads",
        NO_REQUESTS,
    ),
    Row("stop_timeout", YES, YES, "TCP connections of conntrack are waited for"),
    Row("admin.socket", SUPERVISOR, SUPERVISOR, SUPERVISOR),
    Row("admin.metrics", SUPERVISOR, SUPERVISOR, SUPERVISOR),
)

_LISTENER = (
    Row("listener.protocol", YES, "mode tcp", "dnat", value=Protocol.TCP),
    Row(
        "listener.protocol",
        Refused("UDP is forwarded in the kernel"),
        Refused("HAProxy forwards no UDP"),
        "dnat",
        value=Protocol.UDP,
        instead='write engine = "nftables"',
    ),
    Row("listener.protocol", YES, "mode http", NO_REQUESTS, value=Protocol.HTTP),
    Row("listener.protocol", YES, "mode http, bind ssl", NO_TLS, value=Protocol.HTTPS),
    Row("listener.protocol", YES, "mode tcp, bind ssl", NO_TLS, value=Protocol.TCP_SSL),
    Row("listener.name", YES, YES, YES),
    Row("listener.bind", YES, "bind", "packets to it are rewritten"),
    Row(
        "listener.bind",
        YES,
        "bind",
        Refused("the kernel forwards packets, and a unix socket has none"),
        when=unix,
        label="a bind at a unix socket",
    ),
    Row("listener.engine", YES, YES, YES),
    Row("listener.backlog", "listen(2)", "backlog", NO_SOCKET, protocols=STREAMS),
    Row(
        "listener.max_conn",
        "-1: no limit; more are closed at once",
        "reject if fe_conn gt, -1: no limit; more are closed at once",
        "ct count over, -1: no limit; more are reset",
    ),
    Row(
        "listener.max_cps",
        "-1: no limit; more are closed at once",
        "reject if fe_sess_rate ge, -1: no limit; more are closed at once",
        "limit rate over, -1: no limit; more are reset",
    ),
    Row("listener.timestamps", YES, YES, YES, value="keep"),
    Row("listener.timestamps", WITH_CAP, WITH_CAP, "a rule of its ruleset", value="strip", protocols=STREAMS),
    Row("listener.upgrade", YES, YES, YES, value="tunnel"),
    Row("listener.upgrade", "403", "http-request deny: 403", NO_REQUESTS, value="refuse", protocols=L7),
    Row("listener.connect", "405", "http-request deny: 405", YES, value="refuse"),
    Row("listener.connect", YES, YES, NO_REQUESTS, value="tunnel", protocols=L7),
    Row("listener.pool", YES, YES, YES),
    Row("listener.tls.certificate.certificate", "chosen by server name", "crt", NO_TLS, protocols=TLS),
    Row("listener.tls.certificate.key", YES, "crt, in one file with its certificate", NO_TLS, protocols=TLS),
    Row("listener.tls.min_version", YES, "ssl-min-ver", NO_TLS, protocols=TLS),
    Row("listener.rule.pool", YES, "use_backend", NO_REQUESTS, protocols=L7),
    Row("listener.rule.domain", YES, "an acl on the host", NO_REQUESTS, protocols=L7),
    Row("listener.rule.path", YES, "an acl on the path", NO_REQUESTS, protocols=L7),
)

_CLIENT = (
    Row(
        "listener.client.keepalive",
        "0: closes after each answer",
        "timeout http-keep-alive; 0: option httpclose",
        NO_REQUESTS,
        protocols=L7,
    ),
    Row(
        "listener.client.max_requests",
        YES,
        "counted in a variable of the connection",
        NO_REQUESTS,
        protocols=L7,
    ),
    Row("listener.client.header_timeout", "408", "timeout http-request: 408", NO_REQUESTS, protocols=L7),
    Row("listener.client.body_timeout", "408", "timeout client: 408", NO_REQUESTS, protocols=L7),
    Row("listener.client.send_timeout", "a reset", "timeout client", NO_REQUESTS, protocols=L7),
    Row(
        "listener.client.send_timeout",
        YES,
        Refused("one timer, `timeout client`, is for reading and for sending"),
        NO_REQUESTS,
        when=other_timer("client.body_timeout"),
        label="another client.send_timeout than client.body_timeout",
        protocols=L7,
        instead="write both the same",
    ),
    Row(
        "listener.client.idle",
        "in a relay and in a tunnel, without a byte in either direction",
        "timeout client and server; of a tunnel, timeout tunnel",
        "a ct timeout policy: `established`, for UDP `replied`",
    ),
    Row("listener.client.close", "reads on until the client has closed, too", YES, FIN_PASSES, value="fin"),
    Row(
        "listener.client.close",
        "a FIN, then a reset once all is acknowledged (SIOCOUTQ)",
        "option nolinger: close(2) with SO_LINGER 0",
        PASSES_FIN,
        value="fin-rst",
        protocols=STREAMS,
    ),
    Row(
        "listener.client.close",
        "waits close_wait for the client's FIN",
        Refused("HAProxy closes at once and waits for nobody"),
        PASSES_FIN,
        value="peer",
        protocols=STREAMS,
    ),
    Row(
        "listener.client.close_wait",
        YES,
        Refused("HAProxy closes at once and waits for nobody"),
        PASSES_FIN,
        protocols=STREAMS,
    ),
)

_UPSTREAM = (
    Row(
        "listener.upstream.keepalive",
        "false: a connection for each request",
        "false: option http-server-close and http-reuse never",
        NO_REQUESTS,
        protocols=L7,
    ),
    Row("listener.upstream.reuse", YES, "http-reuse", NO_REQUESTS, protocols=L7),
    Row(
        "listener.upstream.reuse",
        "a connection for each request",
        "http-reuse: kept for the client's next request",
        NO_REQUESTS,
        value="never",
        protocols=L7,
    ),
    Row(
        "listener.upstream.idle",
        YES,
        "pool-purge-delay: about half of the idle ones end in each such period",
        NO_REQUESTS,
        protocols=L7,
    ),
    Row("listener.upstream.pool_max", "each worker", "pool-max-conn", NO_REQUESTS, protocols=L7),
    Row(
        "listener.upstream.connect_timeout",
        "504; of a relay, a reset",
        "timeout connect",
        Refused("the kernel passes SYNs on, and the client waits as long as it likes"),
        protocols=STREAMS,
    ),
    Row("listener.upstream.read_timeout", "504", "timeout server: 504", NO_REQUESTS, protocols=L7),
    Row("listener.upstream.send_timeout", "504", "timeout server: 504", NO_REQUESTS, protocols=L7),
    Row(
        "listener.upstream.send_timeout",
        YES,
        Refused("one timer, `timeout server`, is for reading and for sending"),
        NO_REQUESTS,
        when=other_timer("upstream.read_timeout"),
        label="another upstream.send_timeout than upstream.read_timeout",
        protocols=L7,
        instead="write both the same",
    ),
    Row(
        "listener.upstream.retries",
        "on another target, where nothing was answered and the method allows it",
        "retries, option redispatch 1: a connection that fails; what was sent is not sent again",
        Refused("the kernel passes SYNs on and tries nothing again"),
        protocols=STREAMS,
    ),
    Row(
        "listener.upstream.close",
        "a reset, after a whole answer",
        "a reset",
        FIN_PASSES,
        value="rst",
    ),
    Row(
        "listener.upstream.close",
        "a FIN",
        Refused("HAProxy ends connections to servers by a reset"),
        PASSES_FIN,
        value="fin",
        protocols=STREAMS,
    ),
    Row(
        "listener.upstream.close",
        "asks for `Connection: close` and waits for the target's FIN",
        "option http-server-close, without pretend-keepalive",
        PASSES_FIN,
        value="peer",
        protocols=STREAMS,
    ),
    Row(
        "listener.upstream.source",
        "bind(2) with IP_BIND_ADDRESS_NO_PORT: a port is used once for each target, not once in all",
        "source, a line for each server and address",
        "snat to, in turn; without any: masquerade",
    ),
    Row(
        "listener.upstream.source",
        YES,
        "source",
        Refused('nat = "dnat" keeps the client\'s address'),
        when=source_with_dnat,
        label='upstream.source with nat = "dnat"',
    ),
)

_REAL_IP = (
    Row("listener.real_ip.mode", "X-Forwarded-For, X-Forwarded-Proto", "set-header", NO_REQUESTS, value="xff"),
    Row("listener.real_ip.mode", YES, "send-proxy", NO_SOCKET, value="proxy_v1", protocols=STREAMS),
    Row("listener.real_ip.mode", YES, "send-proxy-v2", NO_SOCKET, value="proxy_v2", protocols=STREAMS),
    Row(
        "listener.real_ip.mode",
        Refused("the answers would have to be routed back through this machine"),
        Refused("the answers would have to be routed back through this machine"),
        'the pools\' nat = "dnat"',
        value="transparent",
    ),
    Row(
        "listener.real_ip.mode",
        YES,
        YES,
        Refused('nat = "full" replaces the client\'s address'),
        when=full_nat,
        label='real_ip.mode = "transparent" with a pool of nat = "full"',
        instead='write nat = "dnat" in the pool',
    ),
    Row("listener.real_ip.trusted", YES, "an acl on src", NO_SOCKET, protocols=STREAMS),
    Row("listener.real_ip.accept_proxy", YES, "tcp-request connection expect-proxy", NO_SOCKET, protocols=STREAMS),
)

_LIMITS = (
    Row("listener.limits.request_line", "414", "http-request return: 414", NO_REQUESTS, protocols=L7),
    Row("listener.limits.header_size", "431", "tune.bufsize: 400", NO_REQUESTS, protocols=L7),
    Row("listener.limits.header_count", "431", "tune.http.maxhdr: 400", NO_REQUESTS, protocols=L7),
    *(
        Row(
            f"listener.limits.{field}",
            YES,
            Refused("HAProxy has one for the whole process"),
            NO_REQUESTS,
            when=another_limit(field),
            label=f"another limits.{field} than a listener above",
            protocols=L7,
            instead='write the same in both, or engine = "embedded" in one of them',
        )
        for field in ("header_size", "header_count")
    ),
    Row(
        "listener.limits.body_size",
        "413",
        "http-request deny on Content-Length: 413; a chunked body is not counted",
        NO_REQUESTS,
        protocols=L7,
    ),
)

_POOL = (
    Row("pool.name", YES, YES, YES),
    Row("pool.scheduler", "smooth, by request", "balance roundrobin", "numgen inc, by connection", value="wrr"),
    Row(
        "pool.scheduler",
        "active connections by weight",
        "balance leastconn",
        Refused("a rule does not know how many connections a target has"),
        value="least_conn",
    ),
    Row("pool.scheduler", YES, "balance source, hash-type consistent", "jhash ip saddr", value="ip_hash"),
    Row("pool.nat", YES, YES, "dnat and snat", value="full"),
    Row(
        "pool.nat",
        Refused("it connects to targets itself, from its own address"),
        Refused("it connects to targets itself, from its own address"),
        "dnat alone: the target sees the client and must route back through this machine",
        value="dnat",
    ),
    Row("pool.session.type", "a table of addresses", "stick-table type ip", "a map with timeouts", value="source_ip"),
    Row("pool.session.type", YES, "cookie insert indirect nocache", NO_REQUESTS, value="cookie_insert"),
    Row("pool.session.ttl", YES, "expire of the stick-table, maxidle of the cookie", "timeout of the map"),
    Row("pool.session.cookie", YES, YES, NO_REQUESTS),
    Row("pool.all_down", YES, YES, "new connections are reset"),
    Row("pool.drain.timeout", YES, YES, YES),
    Row("pool.drain.then", YES, SHUTDOWN, "the entries leave conntrack, and packets meet a reset", value="rst"),
    Row(
        "pool.drain.then",
        YES,
        SHUTDOWN,
        Refused("the kernel can reset, but not send a FIN in a connection's name"),
        value="fin",
    ),
    Row("pool.drain.then", YES, YES, YES, value="leave"),
    *(
        Row(f"pool.health.{field}", PROBER, PROBER, PROBER)
        for field in (
            "enabled", "type", "interval", "timeout", "rise", "fall",
            "http.method", "http.path", "http.host", "http.expect",
            "custom.send", "custom.expect", "custom.hex",
        )
    ),
    Row("pool.target.addr", YES, "server", "a value of the map"),
    Row(
        "pool.target.addr",
        YES,
        YES,
        Refused("packets cannot be rewritten from IPv4 to IPv6 or back"),
        when=other_family,
        label="a target of another IP version than its binds",
    ),
    Row("pool.target.weight", YES, YES, "its share of numgen"),
)  # fmt: skip

ROWS: tuple[Row, ...] = (*_FILE, *_LISTENER, *_CLIENT, *_UPSTREAM, *_REAL_IP, *_LIMITS, *_POOL)
