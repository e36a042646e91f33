"""Rates and CPU beside the peers: new connections, kept connections, TLS."""

from __future__ import annotations

from bench import tools
from bench.figures import Figure, Result, Values, ratio
from bench.place import Place
from bench.settings import Settings
from bench.tools import Command
from bench.window import Sample, look


def interleaved(settings: Settings, commands: dict[str, Command]) -> dict[str, list[Sample]]:
    """Every command once a round, each in a fresh place; who begins moves on from round to round."""
    found: dict[str, list[Sample]] = {name: [] for name in commands}
    names = list(commands)
    for turn in range(settings.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with Place(settings.cores) as place:
                words = commands[name](place)
                found[name].append(look(place, words, warm=settings.warm, window=settings.window))
    return found


def connections(settings: Settings) -> Result:
    """New connections, one request each."""
    peers = {"wrk": tools.wrk, "ab": tools.ab, "h2load": tools.h2load, "hey": tools.hey, "siege": tools.siege}
    found = interleaved(
        settings,
        {
            "timewait": tools.timewait("--close", "server"),
            "timewait reset": tools.timewait("--close", "reset"),
            **{name: peer(keep=False) for name, peer in peers.items()},
        },
    )
    rate = {name: [one.connections for one in samples] for name, samples in found.items()}
    cpu = {name: [one.cpu_per_connection for one in samples] for name, samples in found.items()}
    worker = [one.cpu_children / one.connections for one in found["timewait"]]
    ours = rate["timewait"]
    figures = [
        ratio("new connections/s, server closes first, against wrk", ours, rate["wrk"], ">= 1.0"),
        *(ratio(f"... against {name}", ours, rate[name], "> 1.0") for name in list(peers)[1:]),
        ratio(
            "new connections/s closed by reset, against server closes first", rate["timewait reset"], ours, ">= 1.0"
        ),
        ratio("client CPU per new connection, all processes, against wrk", cpu["timewait"], cpu["wrk"], "<= 1.1"),
        ratio("... of the worker alone", worker, cpu["wrk"]),
    ]
    return Result(
        name="connections",
        title="New connections, one request each",
        how=f"{tools.CONNECTIONS} connections at once, one core for the client. nginx closes first, except for "
        "`--close reset` and for a peer that is quicker than nginx.",
        figures=figures,
        details=details(found, by_connection=True),
        notes=saturation(found),
    )


def kept(settings: Settings) -> Result:
    """Requests on connections that are kept."""
    found = interleaved(settings, {"timewait": tools.timewait(), "wrk": tools.wrk(keep=True)})
    ours, theirs = found["timewait"], found["wrk"]
    cpu = [one.cpu_per_request for one in theirs]
    return Result(
        name="kept",
        title="Requests on kept connections",
        how=f"{tools.CONNECTIONS} connections, no limit of requests, one core for the client.",
        figures=[
            ratio(
                "requests/s on kept connections, against wrk",
                [one.requests for one in ours],
                [one.requests for one in theirs],
                ">= 0.9",
            ),
            ratio(
                "client CPU per request, all processes, against wrk",
                [one.cpu_per_request for one in ours],
                cpu,
                "<= 1.3",
            ),
            ratio("... of the worker alone", [one.cpu_children / one.requests for one in ours], cpu),
        ],
        details=details(found, by_connection=False),
        notes=saturation(found),
    )


def https(settings: Settings) -> Result:
    """TLS: full handshakes, and requests on kept connections."""
    new = interleaved(
        settings,
        {"timewait": tools.timewait("--close", "server", tls=True), "wrk": tools.wrk(keep=False, tls=True)},
    )
    old = interleaved(settings, {"timewait": tools.timewait(tls=True), "wrk": tools.wrk(keep=True, tls=True)})
    named = {f"{name}, new": samples for name, samples in new.items()}
    named |= {f"{name}, kept": samples for name, samples in old.items()}
    return Result(
        name="https",
        title="https",
        how="TLS 1.3, ECDSA P-256; nginx resumes no sessions, so every handshake is a full one for both tools.",
        figures=[
            ratio(
                "https: new connections/s, full handshakes, against wrk",
                [one.connections for one in new["timewait"]],
                [one.connections for one in new["wrk"]],
            ),
            ratio(
                "https: requests/s on kept connections, against wrk",
                [one.requests for one in old["timewait"]],
                [one.requests for one in old["wrk"]],
            ),
        ],
        details=[
            *details({f"{name}, new": samples for name, samples in new.items()}, by_connection=True),
            *details({f"{name}, kept": samples for name, samples in old.items()}, by_connection=False),
        ],
        notes=[
            *saturation({f"{k}, new": v for k, v in new.items()}),
            *saturation({f"{k}, kept": v for k, v in old.items()}),
        ],
    )


def details(found: dict[str, list[Sample]], *, by_connection: bool) -> list[Values]:
    rows = []
    for name, samples in found.items():
        rate = [one.connections if by_connection else one.requests for one in samples]
        each = [(one.cpu_per_connection if by_connection else one.cpu_per_request) * 1e6 for one in samples]
        unit = "connection" if by_connection else "request"
        rows.append(Values(name=name, unit=f"{unit}s/s", values=rate))
        rows.append(Values(name=f"{name}, CPU", unit=f"us/{unit}", values=each))
    return rows


def saturation(found: dict[str, list[Sample]]) -> list[str]:
    """Who was the limit: a client with time to spare was held back by nginx."""
    shares = []
    for name, samples in found.items():
        client = Figure(what="", unit="", values=[one.cpu for one in samples]).value
        target = Figure(what="", unit="", values=[one.cpu_nginx for one in samples]).value
        shares.append(f"{name} {client:.0%}/{target:.0%}")
    return [f"Cores busy, client/nginx: {', '.join(shares)}."]
