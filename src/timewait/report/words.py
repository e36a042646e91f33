"""Numbers, plans and foreign text as people read them.

Times are given in seconds, sizes in bytes, shares as 0..1. No number is rounded into a claim: 99.999 % is never
shown as 100 %, and one failure among millions never as 0 %.
"""

from __future__ import annotations

from timewait.plan import Closing, Plan, RateUnit
from timewait.run import Cause, Phase

CAUSES: dict[str, str] = {
    Cause.NO_PORT: "no source port left",
    Cause.NO_FILE: "no file descriptor left",
    Cause.REFUSED: "refused",
    Cause.RESET: "reset by the peer",
    Cause.TIMEOUT: "no answer in time",
    Cause.UNREACHABLE: "unreachable",
    Cause.CLOSED: "closed before the answer was complete",
    Cause.STALE: "kept connection ended as it was used again",
    Cause.BAD_RESPONSE: "not a valid answer",
    Cause.STATUS: "unexpected status",
    Cause.TLS_CERTIFICATE: "certificate refused",
    Cause.TLS_PROTOCOL: "TLS failed",
    Cause.RESOLVE: "name not resolved",
    Cause.OTHER: "other",
}

PHASES: dict[str, str] = {phase.value: phase.value.replace("_", " ") for phase in Phase}
PHASES[Phase.TLS] = "TLS"

CLOSINGS: dict[Closing, str] = {
    Closing.KEEP: "connections kept",
    Closing.SERVER: "server closes first",
    Closing.CLIENT: "client closes first",
    Closing.RESET: "closed by reset",
    Closing.HALF: "client half-closes",
}


def clean(text: str, most: int = 400) -> str:
    """Text from the network or a file, safe to show: control and invisible characters escaped, length bounded."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def count(number: float) -> str:
    """28232 -> `28,232`."""
    return f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    """1 -> `1 request`, 28232 -> `28,232 requests`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _three_digits(value: float) -> str:
    """Three significant digits of a value in 0..999.4, no exponent: 1.23, 12.3, 123."""
    for digits in (2, 1):
        text = f"{value:.{digits}f}"
        if float(text) < 10 ** (3 - digits):
            return text
    return f"{value:.0f}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if value < 999.5:
            return f"{_three_digits(value)} {unit}"
        value /= 1000
    return f"{_three_digits(value)} {units[-1]}"


def seconds(value: float) -> str:
    """A latency: 0.00123 -> `1.23 ms`. Below a microsecond fractions of one."""
    return _scaled(value * 1e6, ("µs", "ms", "s")) if value > 0 else "0 s"


def size(number: float) -> str:
    """28100000 -> `28.1 MB` (decimal units)."""
    return _scaled(number, ("B", "kB", "MB", "GB", "TB", "PB")) if number >= 1000 else f"{number:.0f} B"


def rate(per_second: float) -> str:
    """8412.3 -> `8,412/s`; three digits below a hundred."""
    if per_second >= 99.95 or per_second == int(per_second):
        return f"{per_second:,.0f}/s"
    return f"{_three_digits(per_second)}/s" if per_second >= 0.005 else "<0.01/s"


def share(part: float) -> str:
    """0.123 -> `12.3%`. Only nothing is 0% and only all is 100%."""
    percent = part * 100
    if percent in (0, 100):
        return f"{percent:.0f}%"
    if percent < 0.01:
        return "<0.01%"
    if percent > 99.99:
        return ">99.99%"
    if percent < 1 or percent > 99:
        return f"{percent:.2f}%"
    return f"{_three_digits(percent) if percent < 10 else f'{percent:.1f}'}%"


def duration(value: float) -> str:
    """A stretch of a run: `0.52 s`, `10 s`, `12.3 s`, `1 min 30 s`, `2 h 5 min`."""
    if value < 119.95:
        return f"{value:.0f} s" if abs(value - round(value)) < 0.005 else f"{_three_digits(value)} s"
    whole = round(value)
    if whole < 7200:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def cause(name: str) -> str:
    """A `Cause` in words; of a newer timewait: its name."""
    return CAUSES.get(name) or clean(name)


def phase(name: str) -> str:
    return PHASES.get(name) or clean(name)


def target(plan: Plan) -> str:
    """`GET http://10.0.0.1/`, and how many more there are."""
    first, more = plan.requests_list[0], len(plan.requests_list) - 1
    text = clean(f"{first.method} {first.url}".strip())
    return f"{text} and {count(more)} more" if more else text


def wish(plan: Plan) -> list[str]:
    """What the plan asks for, in a few short pieces."""
    pieces = []
    if plan.rate is not None:
        what = "new connections" if plan.rate.unit is RateUnit.CONNECTIONS else "requests"
        pieces.append(f"{rate(plan.rate.per_second)[:-2]} {what}/s")
        pieces.append(f"at most {plural(plan.concurrency, 'connection')}")
    else:
        pieces.append(plural(plan.concurrency, "connection"))
    if plan.requests is not None:
        pieces.append(plural(plan.requests, "request"))
    if plan.duration is not None:
        pieces.append(duration(plan.duration))
    if plan.warm_up:
        pieces.append(f"{duration(plan.warm_up)} warm-up")
    if plan.requests_per_connection is not None:
        pieces.append(f"{plural(plan.requests_per_connection, 'request')} each")
    pieces.append(CLOSINGS[plan.closing])
    if len(plan.sources) > 1:
        pieces.append(f"{count(len(plan.sources))} source addresses")
    if plan.ports.policy != "kernel" or plan.ports.low:
        span = f" {plan.ports.low}-{plan.ports.high}" if plan.ports.low else ""
        pieces.append(f"ports {plan.ports.policy}{span}")
    return pieces
