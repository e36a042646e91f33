"""`show stat` as the balancer's statistics (management.txt, 9.1). Pure.

HAProxy counts answers by class: 200 stands for all of 2xx, in `made_by_balancer` and the others. Its bytes are those
of whole messages, heads too. What it does not count is named in UNKNOWN.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping

from timewait.balancer.config.model import Configuration, Listener, Protocol
from timewait.balancer.haproxy.backends import sources_for
from timewait.balancer.haproxy.text import L7, listeners_of, pools_of
from timewait.balancer.haproxy.words import backend, server
from timewait.balancer.statistics import ListenerStatistics, Statistics, TargetStatistics

UNKNOWN = (
    "statuses beyond their class",
    "closes",
    "idle clients",
    "reused client connections",
    "tls_handshakes",
    "timed_out",
    "no_port",
)

Rows = dict[tuple[str, str], dict[str, str]]


def rows(answer: str) -> Rows:
    """Lines of `show stat` by proxy and server (FRONTEND and BACKEND are servers there)."""
    reader = csv.DictReader(io.StringIO(answer.removeprefix("# ")))
    return {(row["pxname"], row["svname"]): row for row in reader}


def number(row: dict[str, str] | None, field: str) -> int:
    """A field that may be empty."""
    return int((row or {}).get(field) or 0)


def statistics(configuration: Configuration, found: Rows, targets: Mapping[str, Iterable[str]]) -> Statistics:
    """What one process counted so far; `targets` are those that it knows of each pool, which may have left since."""
    result = Statistics(unknown=UNKNOWN)
    for listener in listeners_of(configuration):
        answered: Counter[int] = Counter()
        retried = 0
        for pool in pools_of(listener):
            retried += number(found.get((backend(listener, pool), "BACKEND")), "wretr")
            here = {target.addr for target in configuration.pool_named(pool).target}
            for address in targets[pool]:
                mine = _target(found, listener, pool, address)
                answered.update(mine.statuses)
                key = f"{pool}/{address}"
                if address not in here:
                    continue
                known = result.targets.get(key)
                result.targets[key] = mine if known is None else _sum(known, mine)
        row = found.get((listener.name, "FRONTEND"))
        result.listeners[listener.name] = _listener(listener, row, answered, retried)
    return result


def _listener(
    listener: Listener, row: dict[str, str] | None, answered: Counter[int], retried: int
) -> ListenerStatistics:
    http = listener.protocol in L7
    all_of_them = _classes(row)
    ours = {status: count - answered[status] for status, count in all_of_them.items() if count > answered[status]}
    turned_away = number(row, "dcon")
    by_rate = listener.max_cps >= 0  # with both limits HAProxy does not tell which; the rate is met more often
    refused = {"malformed": number(row, "ereq"), "denied": number(row, "dreq")}
    return ListenerStatistics(
        name=listener.name,
        accepted=number(row, "conn_tot") - turned_away,
        active=number(row, "scur"),
        over_max_conn=0 if by_rate else turned_away,
        over_max_cps=turned_away if by_rate else 0,
        requests=number(row, "req_tot") if http else number(row, "stot"),
        refused={reason: count for reason, count in refused.items() if count},
        made_by_balancer=ours,
        made_by_target=dict(answered),
        retried=retried,
        bytes_in=number(row, "bin"),
        bytes_out=number(row, "bout"),
        tls_failed=number(row, "ssl_failed_handshake") if listener.protocol is Protocol.HTTPS else 0,
    )


def _target(found: Rows, listener: Listener, pool: str, address: str) -> TargetStatistics:
    """All server lines of one target in one backend."""
    total = TargetStatistics(pool=pool, address=address)
    for source in range(len(sources_for(listener, address))):
        row = found.get((backend(listener, pool), server(address, source)))
        connects, failed = number(row, "connect"), number(row, "econ")
        one = TargetStatistics(
            pool=pool,
            address=address,
            connects=connects,
            connected=max(0, connects - failed),
            active=number(row, "scur"),
            idle=number(row, "srv_icur"),
            requests=number(row, "stot"),
            reused=number(row, "reuse"),
            failed=failed + number(row, "eresp"),
            statuses=_classes(row),
            bytes_in=number(row, "bout"),
            bytes_out=number(row, "bin"),
        )
        total = _sum(total, one)
    return total


def _sum(one: TargetStatistics, other: TargetStatistics) -> TargetStatistics:
    fields = ("connects", "connected", "active", "idle", "requests", "reused", "failed", "bytes_in", "bytes_out")
    return TargetStatistics(
        pool=one.pool,
        address=one.address,
        statuses=dict(Counter(one.statuses) + Counter(other.statuses)),
        **{field: getattr(one, field) + getattr(other, field) for field in fields},
    )


def _classes(row: dict[str, str] | None) -> dict[int, int]:
    counts = {100 * digit: number(row, f"hrsp_{digit}xx") for digit in range(1, 6)}
    return {status: count for status, count in counts.items() if count}
