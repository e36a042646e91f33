"""Runs made by hand: a healthy one, and one for each cause, as the engine and the kernel would have recorded it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from timewait.histogram import Histogram, Sparse
from timewait.plan import Closing, Plan, PortPolicy, Ports, Rate, RateUnit, Tls, parse_url
from timewait.run import Cause, Host, Phase, PortUse, Run, Snapshot, Tick, error_key

CAPACITY = 28232
TARGET = "10.0.0.1:80"
SYSCTLS = {
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_fin_timeout": "60",
    "net.ipv4.tcp_max_orphans": "131072",
    "net.ipv4.tcp_max_syn_backlog": "2048",
    "net.ipv4.tcp_max_tw_buckets": "131072",
    "net.ipv4.tcp_rfc1337": "0",
    "net.ipv4.tcp_syn_linear_timeouts": "4",
    "net.ipv4.tcp_syn_retries": "6",
    "net.ipv4.tcp_timestamps": "1",
    "net.ipv4.tcp_tw_reuse": "2",
    "net.ipv4.tcp_tw_reuse_delay": "1000",
}
COUNTERS = dict.fromkeys(
    (
        "TcpExt.ListenDrops", "TcpExt.ListenOverflows", "TcpExt.PAWSActive", "TcpExt.PAWSEstab", "TcpExt.PAWSPassive",
        "TcpExt.PAWSTimewait", "TcpExt.TCPSynRetrans", "TcpExt.TCPTimeWaitOverflow", "conntrack.drop",
    ),
    1000,
)  # fmt: skip


def times(*pairs: tuple[float, int]) -> Sparse:
    """(seconds, how often) -> what the engine's histogram holds."""
    histogram = Histogram()
    for value, count in pairs:
        histogram.record([value] * count)
    return histogram.sparse()


def plan(url: str = "http://10.0.0.1/", **fields: Any) -> Plan:
    return Plan(**{"requests_list": (parse_url(url),), "duration": 10.0, **fields})


def host(**fields: Any) -> Host:
    sysctls = {**SYSCTLS, **fields.pop("sysctls", {})}
    return Host(
        **{"kernel": "6.18.44", "cores": 4, "nofile_soft": 65536, "nofile_hard": 65536, **fields}, sysctls=sysctls
    )


def use(time_wait: int = 0, in_use: int = 50, capacity: int = CAPACITY, destination: str = TARGET) -> PortUse:
    free = max(0, capacity - time_wait - in_use)
    return PortUse(destination=destination, capacity=capacity, in_use=in_use, time_wait=time_wait, free=free)


def snapshot(at: float, port_use: PortUse, rose: dict[str, int] | None = None, **fields: Any) -> Snapshot:
    counters = {
        name: COUNTERS.get(name, 0) + by for name, by in {**dict.fromkeys(COUNTERS, 0), **(rose or {})}.items()
    }
    return Snapshot(at=at, ports=[port_use], counters=counters, **fields)


def errors(*rows: tuple[Phase, str, Cause, int]) -> dict[str, int]:
    return {error_key(phase, errno, cause): count for phase, errno, cause, count in rows}


def healthy(**changes: Any) -> Run:
    """Ten seconds of a closed loop on kept connections; `changes` replace fields of plan, host, total and run.

    `plan`, `host`: fields of theirs. `rose`: counters that rose. `ends`: PortUse at the end of each tick.
    `before`: PortUse before the run. `failures`: rows for errors. Everything else replaces fields of `total`.
    """
    the_plan, the_host = plan(**changes.pop("plan", {})), host(**changes.pop("host", {}))
    rose, ends = changes.pop("rose", {}), changes.pop("ends", [use()] * 10)
    before = snapshot(0.0, changes.pop("before", use(in_use=0)))
    failures, searches = errors(*changes.pop("failures", ())), changes.pop("searches", [])
    whole = {name: changes.pop(name) for name in ("interrupted", "steps", "peak_open") if name in changes}
    last = changes.pop("last", {})
    total = Tick(
        at=10.0, seconds=10.0, started=50, connected=50, requests=100_000, succeeded=100_000, open=50, asked=50,
        workers=1, cpu=9.9, status={200: 100_000}, connect=times((0.0002, 50)), first_byte=times((0.0004, 1000)),
        total=times((0.0004, 1000)), search=times((0.00002, 50)), sampled=5, sampled_timestamps=5, lag_max=0.004,
        closed_us=50, errors=failures, failed=sum(failures.values()),
    )  # fmt: skip
    total = replace(total, **changes)
    ticks = [Tick(at=at + 1.0, seconds=1.0, open=50, asked=50, lag_max=total.lag_max) for at in range(len(ends))]
    for tick, search in zip(ticks, searches, strict=False):
        tick.search = search
    snapshots = [snapshot(at + 1.0, end, rose) for at, end in enumerate(ends)]
    after = replace(snapshots[-1], **last)
    whole.setdefault("peak_open", 50)
    return Run(
        plan=the_plan,
        host=the_host,
        before=before,
        after=after,
        total=total,
        ticks=ticks,
        snapshots=snapshots,
        **whole,
    )


CLIENT: dict[str, Any] = {"closing": Closing.CLIENT, "requests_per_connection": 1}
SERVER: dict[str, Any] = {"closing": Closing.SERVER, "requests_per_connection": 1}
RESET: dict[str, Any] = {"closing": Closing.RESET, "requests_per_connection": 1}
LOOPBACK: dict[str, Any] = {"loopback": True, "local_target": True}
PER_SECOND = Rate(1000.0, RateUnit.CONNECTIONS)
FILLING = [use(time_wait=min(CAPACITY, 2900 * second)) for second in range(1, 11)]
NO_PORT = [(Phase.CONNECT, "EADDRNOTAVAIL", Cause.NO_PORT, 5000), (Phase.BIND, "EADDRINUSE", Cause.NO_PORT, 5)]
SLOW_SEARCH = [times((0.00002, 1000))] * 5 + [times((0.002, 1000))] * 5


def short_lived(**changes: Any) -> Run:
    """One request per connection: 28,000 of them in ten seconds."""
    return healthy(
        **{
            "started": 28_000, "connected": 28_000, "requests": 28_000, "succeeded": 28_000, "closed_us": 0,
            "closed_peer": 28_000, "plan": SERVER, "close_asked": 28_000, "status": {200: 28_000}, **changes,
        }
    )  # fmt: skip


HEALTHY: dict[str, Callable[[], Run]] = {
    "kept connections": healthy,
    "server closes": short_lived,
    "reset": lambda: short_lived(plan=RESET, closed_reset=28_000, reset_by_us=28_000, closed_peer=0),
    "client closes, within the range": lambda: short_lived(
        plan={**CLIENT, "rate": Rate(1000.0)}, closed_us=10_000, ends=[use(1000 * at) for at in range(1, 11)]
    ),
    "client closes on loopback, ports come back after a second": lambda: short_lived(
        plan=CLIENT, host=LOOPBACK, ends=[use(20_000)] * 10, before=use(20_000)
    ),
    "a full core in the closed loop": lambda: short_lived(
        cpu=10.0, plan={**SERVER, "connections": 400}, peak_open=400
    ),
    "open loop in time": lambda: short_lived(
        plan={**SERVER, "rate": Rate(2800.0)}, late=times((0.0003, 28_000)), cpu=6.0
    ),
    "open loop, -c reached because the target stalls": lambda: short_lived(
        plan={**SERVER, "rate": Rate(2800.0), "connections": 10},
        late=times((2.0, 28_000)),
        cpu=2.0,
        waited=8.0,
        peak_open=10,
    ),
    "long turns that are a small part of the latency": lambda: healthy(lag_max=0.15, total=times((0.4, 1000))),
    "a handful of lost SYNs on a long path": lambda: short_lived(
        syn_slow=2, connect=times((0.05, 27_998), (1.05, 2)), rose={"TcpExt.TCPSynRetrans": 2}
    ),
    "reordering on the path": lambda: short_lived(rose={"TcpExt.PAWSEstab": 3}),
    "another listener of this host overflows": lambda: healthy(
        rose={"TcpExt.ListenOverflows": 5, "TcpExt.ListenDrops": 5}, host={"local_target": True}
    ),
    "nothing was readable": lambda: replace(healthy(), before=Snapshot(), after=Snapshot(), snapshots=[]),
    "kept connections renewed after 1000 requests each": lambda: healthy(
        kept_ended=90, connected=100, closed_peer=90
    ),
    "stopped before it began": lambda: Run(plan=plan(), host=host()),
    "-n below -c": lambda: healthy(plan={"connections": 5000, "requests": 100}, requests=100, peak_open=100),
    "explicit ports, full turn": lambda: short_lived(
        plan={**CLIENT, "ports": Ports(PortPolicy.OLDEST, 20_000, 29_999)}, ends=[use(9_900, 50, 10_000)] * 10
    ),
}

BLACKHOLE: dict[str, Any] = {
    "started": 500, "connected": 0, "requests": 0, "succeeded": 0, "closed_us": 0, "status": {}, "sampled": 0,
    "connect": Sparse(), "first_byte": Sparse(), "total": Sparse(), "syn_slow": 450, "cpu": 0.2,
}  # fmt: skip

SICK: dict[str, list[Callable[[], Run]]] = {
    "ports-exhausted": [
        lambda: short_lived(
            plan={**CLIENT, "rate": Rate(100_000.0)},
            failures=NO_PORT,
            ends=FILLING,
            closed_us=28_000,
            searches=SLOW_SEARCH,
            cpu=10.0,
            late=times((3.0, 100)),
            unsent=50_000,
        ),
        # a range of 200, gone within the first second, on loopback and across a network
        lambda: short_lived(
            plan=CLIENT, host=LOOPBACK, failures=NO_PORT, ends=[use(180, 10, 200)] * 3, connected=400
        ),
        lambda: short_lived(plan=CLIENT, failures=NO_PORT, ends=[use(195, 5, 200)] * 3, connected=200),
        # sock_diag not readable: the closes speak
        lambda: replace(
            short_lived(plan=CLIENT, failures=NO_PORT, closed_us=28_000),
            before=Snapshot(),
            after=Snapshot(),
            snapshots=[],
        ),
        # our own ports, taken over only with timestamps
        lambda: short_lived(
            plan={**CLIENT, "ports": Ports(PortPolicy.OLDEST)}, failures=NO_PORT, ends=FILLING, sampled_timestamps=0
        ),
    ],
    "ports-held-open": [
        lambda: healthy(
            plan={"connections": 500}, failures=NO_PORT, ends=[use(0, 200, 200)] * 10, peak_open=200, asked=500
        ),
        # closed before the kernel was asked: what the engine held speaks
        lambda: healthy(
            plan={"connections": 500, **RESET},
            failures=NO_PORT,
            ends=[use(0, 0, 200)],
            peak_open=200,
            closed_reset=200,
        ),
        # EADDRNOTAVAIL with all ports free: no source address (IPv6 switched off)
        lambda: healthy(failures=NO_PORT, ends=[use(0, 0)], connected=0, succeeded=0, closed_us=0, peak_open=0),
    ],
    "port-search-slow": [
        lambda: short_lived(plan=CLIENT, ends=FILLING[:8], searches=SLOW_SEARCH, closed_us=23_000),
        lambda: short_lived(plan=SERVER, ends=[use(0, 20_000)] * 10, searches=[times((0.001, 100))] * 10),
    ],
    "tw-reuse-loopback-only": [
        lambda: short_lived(plan={**CLIENT, "rate": PER_SECOND}, ends=[use(24_000)] * 10, closed_us=24_000),
    ],
    "syn-retransmitted": [
        lambda: healthy(**BLACKHOLE, failures=[(Phase.CONNECT, "", Cause.TIMEOUT, 450)]),
        lambda: healthy(**BLACKHOLE, failures=[(Phase.CONNECT, "ETIMEDOUT", Cause.TIMEOUT, 450)], host=LOOPBACK),
        lambda: short_lived(
            syn_slow=900,
            connect=times((0.0002, 27_100), (1.01, 600), (3.02, 300)),
            host={"kernel": "5.10.0"},
        ),
    ],
    "paws-rejected": [
        lambda: short_lived(rose={"TcpExt.PAWSTimewait": 40}, syn_slow=40),
        lambda: short_lived(rose={"TcpExt.PAWSEstab": 4000}),
        lambda: short_lived(rose={"TcpExt.PAWSPassive": 1, "TcpExt.ListenDrops": 1}, host={"kernel": "3.10.0"}),
    ],
    "accept-queue-overflow": [
        lambda: short_lived(
            host=LOOPBACK,
            rose={"TcpExt.ListenOverflows": 80, "TcpExt.ListenDrops": 80},
            syn_slow=60,
            failures=[
                (Phase.CONNECT, "", Cause.TIMEOUT, 40),
                (Phase.FIRST_BYTE, "", Cause.TIMEOUT, 2),
                (Phase.FIRST_BYTE, "ECONNRESET", Cause.RESET, 1),
            ],
            last={"accept_queue": 2, "accept_queue_max": 1},
        ),
        # no failure: the SYN-ACK was late
        lambda: short_lived(
            host={"local_target": True}, rose={"TcpExt.ListenOverflows": 8}, total=times((0.001, 900), (1.05, 8))
        ),
    ],
    "refused": [
        lambda: healthy(
            **{**BLACKHOLE, "syn_slow": 0}, failures=[(Phase.CONNECT, "ECONNREFUSED", Cause.REFUSED, 500)]
        ),
        lambda: healthy(
            failures=[(Phase.CONNECT, "ECONNREFUSED", Cause.REFUSED, 5)],
            host={"addresses": {"localhost": ["::1", "127.0.0.1"]}},
        ),
        lambda: healthy(
            **{**BLACKHOLE, "syn_slow": 0}, failures=[(Phase.CONNECT, "EHOSTUNREACH", Cause.UNREACHABLE, 9)]
        ),
        lambda: healthy(**{**BLACKHOLE, "syn_slow": 0}, failures=[(Phase.RESOLVE, "", Cause.RESOLVE, 9)]),
    ],
    "reset": [
        lambda: short_lived(failures=[(Phase.FIRST_BYTE, "ECONNRESET", Cause.RESET, 10)]),
        lambda: short_lived(failures=[(Phase.FIRST_BYTE, "", Cause.CLOSED, 10), (Phase.BODY, "", Cause.CLOSED, 2)]),
        lambda: healthy(failures=[(Phase.SEND, "EPIPE", Cause.STALE, 10)], kept_ended=20),
    ],
    "timeout": [
        lambda: short_lived(failures=[(Phase.FIRST_BYTE, "", Cause.TIMEOUT, 10), (Phase.BODY, "", Cause.TIMEOUT, 1)]),
        lambda: healthy(plan={"url": "https://10.0.0.1/"}, failures=[(Phase.TLS, "", Cause.TIMEOUT, 1)]),
    ],
    "bad-response": [
        lambda: healthy(
            failures=[(Phase.BODY, "", Cause.BAD_RESPONSE, 3)], details={"chunk size is no number": 3, "old": 0}
        ),
        lambda: healthy(failures=[(Phase.BODY, "", Cause.STATUS, 30)], status={200: 70, 503: 30}),
    ],
    "close-ignored": [
        lambda: short_lived(close_ignored=28_000, closed_us=28_000, closed_peer=0),
        lambda: short_lived(plan={**CLIENT, "closing": Closing.HALF}, close_ignored=300, close_asked=28_000),
        lambda: healthy(kept_ended=95_000, connected=100_000, started=100_000, closed_peer=100_000),
    ],
    "tls-failed": [
        lambda: healthy(
            plan={"url": "https://10.0.0.1/"},
            failures=[(Phase.TLS, "", Cause.TLS_CERTIFICATE, 500)],
            details={"self-signed certificate": 500},
            connected=0,
            succeeded=0,
            requests=0,
        ),
        lambda: healthy(
            plan={"url": "https://10.0.0.1/", "tls": Tls(cacert="a.pem")},
            failures=[(Phase.TLS, "", Cause.TLS_PROTOCOL, 500)],
            details={"wrong version number": 500},
        ),
    ],
    "open-files": [
        lambda: healthy(
            plan={"connections": 100},
            host={"nofile_soft": 64, "nofile_hard": 64},
            peak_open=50,
            failures=[(Phase.CONNECT, "EMFILE", Cause.NO_FILE, 900)],
            last={"open_files": 64},
        ),
        lambda: healthy(failures=[(Phase.CONNECT, "ENFILE", Cause.NO_FILE, 900)]),
    ],
    "conntrack-full": [
        lambda: short_lived(
            rose={"conntrack.drop": 500},
            syn_slow=500,
            failures=[(Phase.CONNECT, "", Cause.TIMEOUT, 100), (Phase.FIRST_BYTE, "", Cause.TIMEOUT, 3)],
            last={"conntrack": 65_536, "conntrack_max": 65_536},
        ),
        lambda: short_lived(syn_slow=500, last={"conntrack": 65_530, "conntrack_max": 65_536}),
    ],
    "time-wait-overflow": [
        lambda: short_lived(
            plan=CLIENT,
            rose={"TcpExt.TCPTimeWaitOverflow": 9000},
            ends=[use(5000)] * 10,
            host={"sysctls": {"net.ipv4.tcp_max_tw_buckets": "5000"}},
        ),
    ],
    "client-limited": [
        lambda: short_lived(
            plan={**SERVER, "rate": Rate(20_000.0)}, cpu=9.8, late=times((1.5, 28_000)), unsent=170_000
        ),
        # little CPU time, and no idle moment either: others had the core
        lambda: short_lived(
            plan={**SERVER, "rate": Rate(20_000.0)}, cpu=3.0, waited=0.1, late=times((1.5, 28_000)), unsent=170_000
        ),
        # every connection the open loop may use was busy
        lambda: healthy(
            plan={"rate": Rate(200_000.0)}, cpu=3.0, waited=5.0, late=times((2.0, 28_000)), unsent=400_000
        ),
        lambda: short_lived(plan={**SERVER, "connections": 20_000}, lag_max=0.9),
        lambda: healthy(plan={"connections": 20_000}, asked=20_000, peak_open=9000),
        lambda: healthy(failures=[(Phase.CONNECT, "ENOBUFS", Cause.OTHER, 4)]),
    ],
    "residue": [
        lambda: healthy(before=use(12_431, 0)),
    ],
    "harmful-sysctl": [
        lambda: healthy(host={"sysctls": {"net.ipv4.tcp_tw_recycle": "1"}}),
        lambda: healthy(host={"sysctls": {"net.ipv4.tcp_max_tw_buckets": "8192"}}),
        lambda: healthy(host={"sysctls": {"net.ipv4.tcp_rfc1337": "1"}}),
        lambda: healthy(host={"sysctls": {"net.ipv4.tcp_fin_timeout": "15"}}),
    ],
}

# Two causes, both true: what the user set does nothing, and the ports are gone.
VOID = (
    lambda: short_lived(
        plan={**CLIENT, "rate": PER_SECOND}, failures=NO_PORT, ends=FILLING, sampled_timestamps=0,
        host={"sysctls": {"net.ipv4.tcp_tw_reuse": "1"}},
    ),
    lambda: short_lived(
        plan=CLIENT, failures=NO_PORT, ends=FILLING, host={**LOOPBACK, "sysctls": {"net.ipv4.tcp_timestamps": "0"}}
    ),
)  # fmt: skip
