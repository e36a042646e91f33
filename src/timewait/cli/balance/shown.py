"""What `ctl` prints of a running balancer: the API's records as lines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from timewait.balancer.statistics import Closes, ListenerStatistics, TargetStatistics
from timewait.balancer.views import Kernel, Stats, TargetHealth
from timewait.balancer.words import plural, seconds
from timewait.port_use import PortUse


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows under each other, the last cell as long as it likes."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def health_text(targets: Sequence[TargetHealth]) -> str:
    """A line for each target."""
    rows = [("POOL", "TARGET", "STATE", "FOR", "WEIGHT", "CHECKS", "")]
    for one in targets:
        checks = f"{one.passed}/{one.passed + one.failed}" if one.passed + one.failed + one.void else "-"
        since = seconds(one.since) if one.since else "-"
        rows.append((one.pool, one.address, one.state, since, weight(one), checks, remark(one)))
    return columns(rows)


def weight(one: TargetHealth) -> str:
    """`10`, or `10 -> 0` where something else than wished counts."""
    return str(one.weight) if one.weight == one.effective else f"{one.weight} -> {one.effective}"


def remark(one: TargetHealth) -> str:
    """Why a target is as it is."""
    parts = [one.reason] if one.reason else []
    if one.leaving:
        parts.append("removed, drains")
    elif one.draining:
        parts.append("drains")
    if one.void:
        parts.append(f"{plural(one.void, 'check')} could not be made here")
    return "; ".join(parts)


def stats_text(stats: Stats) -> str:
    """Everything counted, a paragraph for each listener and target."""
    parts = [f"{stats.file}: process {stats.pid}, up {seconds(stats.uptime)}{', stopping' if stats.stopping else ''}"]
    parts += [listener_text(one, stats.kernel, stats.unknown) for one in stats.listeners.values()]
    states = {(one.pool, one.address): one for one in stats.health}
    for target in stats.targets.values():
        parts.append(target_text(target, states.get((target.pool, target.address)), stats.kernel, stats.unknown))
    parts += [
        f"{one.id}: {one.summary}" + "".join(f"\n  do: {do}" for do in one.remedy) for one in stats.kernel.findings
    ]
    if stats.log_lost:
        parts.append(f"access log: {plural(stats.log_lost, 'line')} could not be written")
    if stats.unknown:
        parts.append(f"not counted by this engine: {', '.join(stats.unknown)}")
    parts += stats.kernel.unreadable
    return "\n".join(parts)


def listener_text(one: ListenerStatistics, kernel: Kernel, unknown: Collection[str] = ()) -> str:
    """`listener web: ...` and lines under it."""
    lines = [
        f"listener {one.name}: {one.active:,} open ({one.idle:,} idle), {one.accepted:,} accepted, "
        f"{one.requests:,} requests ({one.reused:,} on kept connections)"
    ]
    made = [f"made by the balancer: {codes(one.made_by_balancer)}"] if one.made_by_balancer else []
    made += [f"made by targets: {codes(one.made_by_target)}"] if one.made_by_target else []
    lines += ["; ".join(made)] if made else []
    here = f"TIME_WAIT here {kernel.time_wait.get(one.name, 0):,}"
    lines.append("; ".join(filter(None, [closes_text(one.closes, "client", unknown), here])))
    turned = {"over max_conn": one.over_max_conn, "over max_cps": one.over_max_cps, **one.refused}
    shown = [f"{name} {count:,}" for name, count in turned.items() if count]
    lines += [f"turned away: {', '.join(shown)}"] if shown else []
    if one.tls_handshakes or one.tls_failed:
        lines.append(f"TLS handshakes: {one.tls_handshakes:,}, {one.tls_failed:,} failed")
    return "\n  ".join(lines)


def target_text(
    one: TargetStatistics, health: TargetHealth | None, kernel: Kernel, unknown: Collection[str] = ()
) -> str:
    """`target app 10.0.1.11:8080: ...` and lines under it."""
    state = f"{health.state}, weight {weight(health)}, " if health else ""
    lines = [
        f"target {one.pool} {one.address}: {state}{one.active:,} in use, {one.idle:,} kept idle, "
        f"{one.connected:,} connected, {one.requests:,} requests ({one.reused:,} on kept connections)"
    ]
    troubles = {"refused": one.refused, "timed out": one.timed_out, "no port": one.no_port, "failed": one.failed}
    shown = [f"{name} {count:,}" for name, count in troubles.items() if count]
    lines += [f"trouble: {', '.join(shown)}"] if shown else []
    lines += [f"answers: {codes(one.statuses)}"] if one.statuses else []
    use = kernel.ports.get(one.address)
    ends = [closes_text(one.closes, "target", unknown), f"ports: {ports_text(use, kernel)}" if use else ""]
    lines += ["; ".join(filter(None, ends))] if any(ends) else []
    return "\n  ".join(lines)


def closes_text(one: Closes, peer: str, unknown: Collection[str] = ()) -> str:
    """Who ended connections first; nothing, where that is not counted: a row of zeros would say that none ended."""
    if "closes" in unknown and one == Closes():
        return ""
    return (
        f"ended first by the balancer {one.balancer_fin:,} FIN, {one.balancer_rst:,} RST, "
        f"by the {peer} {one.peer_fin:,} FIN, {one.peer_rst:,} RST ({one.timeout:,} by timeout)"
    )


def ports_text(use: PortUse, kernel: Kernel) -> str:
    """`12 in use, 340 in TIME_WAIT, 27,880 of 28,232 free, gone in 38 s`."""
    left = kernel.seconds_left.get(use.destination)
    wall = "" if left is None else f", gone in {seconds(left)}"
    return f"{use.in_use:,} in use, {use.time_wait:,} in TIME_WAIT, {use.free:,} of {use.capacity:,} free{wall}"


def codes(counts: Mapping[int, int]) -> str:
    """`200 1,204, 404 3`."""
    return ", ".join(f"{code} {count:,}" for code, count in sorted(counts.items()))
