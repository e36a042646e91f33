"""How much later answers come with a balancer in between, at half of what the embedded engine can do."""

from __future__ import annotations

from bench.balancer import contenders
from bench.balancer.contenders import named
from bench.balancer.load import stress
from bench.balancer.place import place
from bench.figures import Figure, Result, Values, ratio
from bench.settings import Settings

QUANTILES = {"p50": "median", "p99": "p99", "p99_9": "p99.9"}


def latency(settings: Settings) -> Result:
    """An open loop at the same rate for all, and for the server alone."""
    with place(settings, contenders.EMBEDDED) as where:
        most = where.look(where.wrk()).requests
    rate = max(100, round(most / 2, -2))
    who = named((contenders.EMBEDDED, contenders.HAPROXY, contenders.NGINX, contenders.DIRECT))
    found: dict[str, dict[str, list[float]]] = {name: {key: [] for key in QUANTILES} for name in who}
    names = list(who)
    for turn in range(settings.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with place(settings, who[name]) as where:
                seconds = str(2 * settings.window)
                result = stress(where, "--rate", f"{rate:.0f}rps", "-d", seconds, "--warm-up", str(settings.warm))
            for key, values in found[name].items():
                values.append(result["latency"]["total"][key] * 1e6)
    ours, theirs = found[contenders.EMBEDDED.name], found[contenders.HAPROXY.name]
    return Result(
        name="balancer-latency",
        title="Balancer: latency at half load",
        how=f"`timewait stress --rate {rate:,.0f}rps` on kept connections, which is half of what the embedded engine "
        "took with wrk just before, the same for all. Latency counts from the due time. The client and the server "
        "share the other core, which is part of every figure; `no balancer` shows how much.",
        figures=[
            ratio("latency at half load, p99, embedded against HAProxy", ours["p99"], theirs["p99"], "<= 2.0"),
            ratio("... median", ours["p50"], theirs["p50"]),
            Figure(what="... added to no balancer, median", unit="us", values=_added(found, "p50")),
            Figure(what="... added to no balancer, p99", unit="us", values=_added(found, "p99")),
        ],
        details=[
            Values(name=f"{name}, {told}", unit="us", values=values[key])
            for name, values in found.items()
            for key, told in QUANTILES.items()
        ],
    )


def _added(found: dict[str, dict[str, list[float]]], key: str) -> list[float]:
    ours, direct = (found[one.name][key] for one in (contenders.EMBEDDED, contenders.DIRECT))
    return [mine - other for mine, other in zip(ours, direct, strict=True)]
