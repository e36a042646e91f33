"""CPU for a request and requests a second: the engines beside HAProxy, nginx and a ruleset by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.balancer import contenders
from bench.balancer.contenders import Contender, Wish, named
from bench.balancer.place import BalancerPlace, Sample, place
from bench.figures import Figure, Result, Values, ratio
from bench.settings import Settings

CONNECTIONS = 32
CLOSE = ("-H", "Connection: close")
WHERE = (
    "Client, balancer and server in namespaces of their own, joined by veth. The balancer has a core for itself, wrk "
    f"with {CONNECTIONS} connections and the server (nginx, a body of 46 bytes) share another. HAProxy: one thread, "
    "`http-reuse always`; nginx: one worker, `keepalive 256`; the balancer: one worker, `reuse = \"always\"`, all of "
    "its processes counted. All add X-Forwarded-For; no log, no health checks."
)  # fmt: skip

Load = Callable[[BalancerPlace], list[str]]


def wrk(*more: str) -> Load:
    return lambda where: where.wrk(*more, connections=CONNECTIONS)


# The path, a header and its name differ in each request.
_SCRIPT = """
local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", "/item/" .. n, { ["X-Request"] = tostring(n * 7919), ["X-Name-" .. (n % 97)] = "value" })
end
"""


def unique(where: BalancerPlace) -> list[str]:
    script = where.folder / "unique.lua"
    script.write_text(_SCRIPT)
    return where.wrk("-s", str(script), connections=CONNECTIONS)


def interleaved(
    settings: Settings, who: Sequence[Contender], load: Load, wish: Wish | None = None
) -> dict[str, list[Sample]]:
    """Every contender once a round, each in a new network; who begins moves on from round to round."""
    table = named(who)
    found: dict[str, list[Sample]] = {name: [] for name in table}
    names = list(table)
    for turn in range(settings.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with place(settings, table[name], wish) as where:
                found[name].append(where.look(load(where)))
    return found


def kept(settings: Settings) -> Result:
    """Requests on kept connections, heads that repeat and heads that never do."""
    who = (contenders.EMBEDDED, contenders.HAPROXY, contenders.NGINX)
    found = interleaved(settings, who, wrk())
    fresh = interleaved(settings, who[:2], unique, Wish(port=contenders.UNIQUE_PORT))
    figures = [
        *_figures(found, "kept connections", "<= 1.5"),
        _cpu(fresh, "... where the head of every request and answer is another one"),
        _user(fresh, "... of that in user mode"),
    ]
    details = _details(found) + _details(fresh, ", every head another")
    return Result(
        name="balancer-kept",
        title="Balancer: requests on kept connections",
        how=f"{WHERE} Heads seen before are not parsed again by the embedded engine, so it was measured as well with "
        "a path, a header and a header's name that differ in every request, and an answer whose head does.",
        figures=figures,
        details=details,
        notes=[_busy(found)],
    )


def new(settings: Settings) -> Result:
    """A connection for each request."""
    who = (contenders.EMBEDDED, contenders.HAPROXY, contenders.NGINX)
    found = interleaved(settings, who, wrk(*CLOSE))
    return Result(
        name="balancer-new",
        title="Balancer: a client's connection for each request",
        how=f"{WHERE} Every request asks for `Connection: close`; the connections to the server are kept.",
        figures=_figures(found, "new connections", "<= 1.5"),
        details=_details(found),
        notes=[_busy(found)],
    )


def relay(settings: Settings) -> Result:
    """Layer 4, by processes."""
    who, wish = (contenders.EMBEDDED, contenders.HAPROXY), Wish(protocol="tcp")
    found = interleaved(settings, who, wrk(), wish)
    fresh = interleaved(settings, who, wrk(*CLOSE), wish)
    return Result(
        name="balancer-relay",
        title="Balancer: TCP",
        how="As above, but the balancer passes bytes on without looking at them; what is counted are the requests in "
        "them. On a connection of its own for each request the balancer makes two.",
        figures=[
            _cpu(found, "TCP relay, CPU for each request passed on, embedded against HAProxy", "<= 1.3"),
            _rate(found, "... requests/s", "HAProxy", ">= 0.7"),
            _cpu(fresh, "... CPU where each request has a connection of its own"),
        ],
        details=_details(found) + _details(fresh, ", new connections"),
        notes=[_busy(found)],
    )


def engines(settings: Settings) -> Result:
    """The engines that only set others up, beside the same set up by hand."""
    over_http = (contenders.HAPROXY_ENGINE, contenders.HAPROXY, contenders.HAPROXY_SAME)
    in_kernel = (contenders.NFTABLES_ENGINE, contenders.RULES)
    found = {
        "kept": interleaved(settings, over_http, wrk()),
        "new": interleaved(settings, over_http, wrk(*CLOSE)),
        "kernel, kept": interleaved(settings, in_kernel, wrk(), Wish(protocol="tcp")),
        "kernel, new": interleaved(settings, in_kernel, wrk(*CLOSE), Wish(protocol="tcp")),
    }
    ours, by_hand, same = (one.name for one in over_http)
    rules, ruleset = contenders.NFTABLES_ENGINE.name, contenders.RULES.name
    return Result(
        name="balancer-engines",
        title="Balancer: its engines beside the same set up by hand",
        how=f"{WHERE} The CPU of engine haproxy is that of all processes, its supervisor's included. The file by "
        "hand is the shortest that balances; the engine's has limits of sizes, a refusal of CONNECT and what a "
        "reload needs, so HAProxy alone with that text stands beside it.",
        figures=[
            _against(found["kept"], "engine haproxy against haproxy.cfg by hand, requests/s", ours, by_hand),
            _saved(found["kept"], "... requests for the same CPU", ours, by_hand),
            _against(found["kept"], "... against HAProxy alone with the same text", ours, same, ""),
            _against(found["new"], "... new connections/s", ours, by_hand),
            _saved(found["new"], "... new connections for the same CPU", ours, by_hand),
            _against(found["kernel, kept"], "engine nftables against a ruleset by hand, requests/s", rules, ruleset),
            _against(found["kernel, new"], "... new connections/s", rules, ruleset),
        ],
        details=[row for name, samples in found.items() for row in _details(samples, f", {name}")],
    )


def _against(
    found: dict[str, list[Sample]], what: str, ours: str, theirs: str, asked: str = ">= 0.97"
) -> Figure:  # fmt: skip
    mine, others = ([one.requests for one in found[name]] for name in (ours, theirs))
    return ratio(what, mine, others, asked)


def _saved(found: dict[str, list[Sample]], what: str, ours: str, theirs: str) -> Figure:
    """The same by CPU, which other tenants of the machine disturb less."""
    mine, others = ([one.cpu_each for one in found[name]] for name in (ours, theirs))
    return ratio(what, others, mine)


def _figures(found: dict[str, list[Sample]], what: str, asked: str) -> list[Figure]:
    return [
        _cpu(found, f"{what}: CPU for a request, embedded against HAProxy", asked),
        _user(found, "... of that in user mode"),
        _rate(found, f"{what}: requests/s, embedded against HAProxy", "HAProxy", ">= 0.7"),
        _rate(found, "... against nginx", "nginx", ">= 0.7"),
    ]


def _cpu(found: dict[str, list[Sample]], what: str, asked: str = "") -> Figure:
    ours, theirs = ([one.cpu_each for one in found[name]] for name in ("embedded", "HAProxy"))
    return ratio(what, ours, theirs, asked)


def _user(found: dict[str, list[Sample]], what: str) -> Figure:
    ours, theirs = ([one.user_each for one in found[name]] for name in ("embedded", "HAProxy"))
    return ratio(what, ours, [one or float("nan") for one in theirs])


def _rate(found: dict[str, list[Sample]], what: str, other: str, asked: str) -> Figure:
    ours, theirs = ([one.requests for one in found[name]] for name in ("embedded", other))
    return ratio(what, ours, theirs, asked)


def _details(found: dict[str, list[Sample]], more: str = "") -> list[Values]:
    rows = []
    for name, samples in found.items():
        rows.append(Values(name=f"{name}{more}", unit="requests/s", values=[one.requests for one in samples]))
        if any(one.cpu for one in samples):
            each = [one.cpu_each for one in samples]
            rows.append(Values(name=f"{name}{more}, CPU", unit="us/request", values=each))
    return rows


def _busy(found: dict[str, list[Sample]]) -> str:
    shares = (
        f"{name} {Figure(what='', unit='', values=[one.cpu for one in samples]).value:.0%}"
        for name, samples in found.items()
    )
    return (
        f"The balancer's core was busy: {', '.join(shares)}. Where that is below 100 % the client or the server was "
        "the limit, and requests/s say less than the CPU for each."
    )
