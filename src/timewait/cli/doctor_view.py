"""What `timewait doctor` found, as text for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from timewait.diagnose.words import count, plural, rate, seconds
from timewait.doctor import Examination, Sustainable, Target
from timewait.doctor.rates import at_once
from timewait.doctor.settings import Setting
from timewait.observe.addresses import label
from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, Flow, Rows, Trimmed
from timewait.report.why import why
from timewait.report.words import clean
from timewait.stress.probe import Behaviour, Ending, How

UNBOUNDED = 100_000
"""Past this rate something else than ports and files stops a load from one host first; no figure is claimed."""

VERDICTS = {"ok": GOOD, "note": WARN, "bad": BAD}


def text(found: Examination) -> RenderableType:
    """The whole of it, fitting 80 columns."""
    parts = [_section("This host", _host(found)), _section("Settings that decide", _settings(found.settings))]
    if found.target:
        parts.append(_section("Target", _target(found.target)))
    if not found.target or found.target.seen:
        parts.append(_section("New connections a second, at most, for ever", _rates(found)))
    if found.findings:
        parts.append(why(found.findings))
    spaced = [piece for part in parts for piece in (part, Text())]
    return Trimmed(Group(*spaced[:-1]))


def _section(title: str, rows: Rows) -> RenderableType:
    return Group(Text(title, style=STRONG), Padding(rows, (0, 0, 0, 2)))


def _host(found: Examination) -> Rows:
    host, use = found.host, found.ports[0]
    rows = Rows(16)
    rows.add("kernel", Flow([f"Linux {host.kernel}", plural(host.cores, "core")]))
    rows.add("open files", Flow([f"{count(host.nofile_soft)} a process", f"hard limit {count(host.nofile_hard)}"]))
    span = [f"{host.port_low}-{host.port_high}", f"{count(host.reserved_ports)} of them reserved"]
    rows.add("source ports", Flow(span if host.reserved_ports else span[:1]))
    taken = [f"in use {count(use.in_use)}", f"TIME_WAIT {count(use.time_wait)}", f"free {count(use.free)}"]
    rows.add("port budget", Flow([f"{count(use.capacity)} toward {use.destination}", *taken]))
    for sentence in host.unreadable:
        rows.add("not known", Text(clean(sentence)), style=WARN)
    return rows


def _settings(settings: list[Setting]) -> Rows:
    rows = Rows(4)
    for setting in settings:
        line = Text(f"{setting.name} = {setting.value or '(empty)'}\n", style=STRONG)
        line.append(setting.why, style="not bold")
        rows.add(setting.verdict, line, style=VERDICTS[setting.verdict])
    return rows


def _target(target: Target) -> Rows:
    rows = Rows(20)
    shown = ", ".join(target.addresses) or "no address"
    rows.add("URL", Flow([clean(target.url), shown]))
    for behaviour in target.behaviours:
        if not behaviour.reachable:
            rows.add("unreachable", Text(f"{behaviour.address}: {clean(behaviour.error)}"), style=BAD)
    if not target.behaviours:
        rows.add("unreachable", Text(clean(target.error)), style=BAD)
    if target.seen:
        _seen(rows, target.seen, http=not target.url.startswith("tcp:"))
    return rows


def _seen(rows: Rows, seen: Behaviour, *, http: bool) -> None:
    pieces = [f"in {seconds(seen.connect or 0)}", f"round trip {seconds(seen.round_trip or 0)}"]
    rows.add("connected", Flow([f"to {label(seen.address, seen.port)}", *pieces]))
    rows.add("timestamps", _yes_no(seen.timestamps, "negotiated", "not negotiated: TIME_WAIT cannot be taken over"))
    if seen.tls:
        rows.add("TLS", Text(seen.tls))
    if http:
        rows.add("answer", Text(f"{seen.status}" if seen.status else "none", style="" if seen.status else BAD))
        kept = "yes: a second request on the same connection was answered"
        rows.add("keep-alive", _yes_no(seen.keep_alive, kept, "no: one request for each connection"))
        rows.add("Connection: close", _ending(seen.on_close))
        rows.add("HTTP/1.0", _ending(seen.on_http10))
    rows.add("idle", _ending(seen.on_idle, idle=True))
    for sentence in seen.problems:
        rows.add("problem", Text(clean(sentence)), style=BAD)


def _yes_no(value: bool | None, yes: str, no: str) -> Text:
    if value is None:
        return Text("not found out", style=DIM)
    return Text(yes if value else no, style="" if value else WARN)


def _ending(ending: Ending | None, *, idle: bool = False) -> Text:
    """Who ended it. That the target leaves an idle connection alone is fine; that it ignores a request is not."""
    if ending is None:
        return Text("not found out", style=DIM)
    when = "at once" if ending.seconds < 0.001 else f"after {seconds(ending.seconds)}"
    if ending.how is How.PEER:
        return Text(f"the target closes first, {when}")
    if ending.how is How.RESET:
        return Text(f"the target resets the connection, {when}", style=WARN)
    if idle:
        return Text(f"still open after {seconds(ending.seconds)}")
    promised = (
        "announces the end, but leaves it to us" if ending.announced else "does not close: the end is left to us"
    )
    return Text(f"the target {promised} (waited {seconds(ending.seconds)})", style=WARN)


def _rates(found: Examination) -> Rows:
    rows = Rows(28)
    most = at_once(found.host, found.ports[0])
    for row in found.rates:
        rows.add(row.flags, Text.assemble((_rate(row, most), STRONG), f"\n{row.note}"), style="")
    kept = Text.assemble((f"{count(most)} at once", STRONG), "\nno port is spent on a request")
    rows.add("no --close", kept, style="")
    return rows


def _rate(row: Sustainable, most: int) -> str:
    if row.per_second is None:
        return f"{count(most)} at once, by {row.limit}"
    if row.per_second > UNBOUNDED:
        return f"over {count(UNBOUNDED)}/s: neither ports nor files are the limit"
    return f"{rate(row.per_second)}, by {row.limit}"
