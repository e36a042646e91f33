"""Closing first with more than half of the ports resting in TIME_WAIT: the kernel's choice of ports against ours."""

from __future__ import annotations

from contextlib import ExitStack

from bench.figures import Result, Values, ratio
from bench.place import TIMEWAIT, Place
from bench.recorded import recorded
from bench.settings import Settings

LOW, HIGH = 20_000, 39_999
SYSCTLS = {"net.ipv4.ip_local_port_range": f"{LOW} {HIGH}", "net.ipv4.tcp_tw_reuse": "0"}
# The kernel goes through the ports of the lower end's parity first (__inet_hash_connect, 6.18) and begins with the
# others when it has not found any: half of the range and a bit more, as its own choice would have left them.
FILL = [*range(LOW, HIGH, 2), *range(LOW + 1, HIGH, 20)]
CONNECTIONS = "64"


def ports(settings: Settings) -> Result:
    span = HIGH - LOW + 1
    rates: dict[str, list[float]] = {"kernel": [], "oldest": []}
    search: dict[str, list[float]] = {"kernel": [], "oldest": []}
    resting: dict[str, list[float]] = {"kernel": [], "oldest": []}
    seconds = "1s" if not settings.quick else "300ms"
    with ExitStack() as stack:
        # One place each, filled once: a TIME_WAIT lasts 60 s, all rounds together must not.
        places = {name: stack.enter_context(Place(settings.cores, SYSCTLS)) for name in rates}
        for place in places.values():
            place.fill(FILL)
        for _ in range(settings.rounds):
            for name, place in places.items():
                resting[name].append(place.time_wait() / span)
                if resting[name][-1] < 0.5:
                    raise RuntimeError(f"only {resting[name][-1]:.0%} of the ports rest: the rounds took too long")
                run = recorded(place, _command(place, "-d", seconds, "--ports", name))
                rates[name].append(run.rate)
                search[name].append(run.search * 1e6)
    details = []
    for name in rates:
        details.append(Values(name=f"--ports {name}", unit="connections/s", values=rates[name]))
        details.append(Values(name=f"--ports {name}, inside connect()", unit="us (median)", values=search[name]))
        details.append(Values(name=f"--ports {name}, range in TIME_WAIT before", unit="share", values=resting[name]))
    return Result(
        name="ports",
        title="Client closes first, past half of the port range",
        how=f"{span:,} ports, tcp_tw_reuse=0, {len(FILL):,} in TIME_WAIT as the kernel's own choice leaves them, "
        f"then `--close client -c {CONNECTIONS}` with either choice. `oldest` binds explicitly and takes over a "
        "TIME_WAIT that had timestamps, so it also goes on where the kernel has no port left.",
        figures=[ratio("closed by the client past half of the ports, `--ports oldest` against the kernel's choice",
                       rates["oldest"], rates["kernel"], ">= 10")],
        details=details,
    )  # fmt: skip


def _command(place: Place, *words: str) -> list[str]:
    return [TIMEWAIT, "stress", place.url, "--close", "client", "-c", CONNECTIONS, "--workers", "1", *words]
