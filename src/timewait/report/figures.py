"""What every renderer computes from a run, once: latencies, shares, ports, concurrency. Pure, seconds and counts."""

from __future__ import annotations

import msgspec

from timewait.histogram import Sparse, quantiles
from timewait.plan import Plan
from timewait.run import Cause, Failure, PortUse, Run, Snapshot, Tick

QUANTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
LATENCIES: dict[str, str] = {"connect": "connect", "tls": "TLS", "first_byte": "first byte", "total": "total"}


def latency(part: Sparse) -> dict[str, float] | None:
    """The quantiles in seconds; None where nothing was measured."""
    if not part.index:
        return None
    return dict(zip(QUANTILES, quantiles(part, tuple(QUANTILES.values())), strict=True))


def latencies(tick: Tick) -> dict[str, dict[str, float] | None]:
    return {name: latency(getattr(tick, name)) for name in LATENCIES}


def per_second(number: float, seconds: float) -> float:
    return number / seconds if seconds > 0 else 0.0


def failed_share(tick: Tick) -> float:
    """Failures among everything that came to an end, 0..1."""
    return tick.failed / (tick.failed + tick.succeeded) if tick.failed else 0.0


STUB = 0.25  # of its predecessor's length


def whole_ticks(run: Run) -> tuple[list[Tick], list[Snapshot]]:
    """Ticks and snapshots, where the last tick is a mere stub (the drain after the end) added to the one before.

    A rate over a few milliseconds says nothing, but would stand in a chart as if it did.
    """
    ticks, snapshots = run.ticks, run.snapshots
    if len(ticks) < 2 or ticks[-1].seconds >= STUB * ticks[-2].seconds:
        return ticks, snapshots
    last = msgspec.structs.replace(ticks[-2])
    last.add(ticks[-1], side_by_side=False)
    kept = [*snapshots[:-2], snapshots[-1]] if len(snapshots) == len(ticks) else snapshots
    return [*ticks[:-2], last], kept


def failures(tick: Tick) -> list[Failure]:
    """The errors, most frequent first; a key of a damaged file that is not three words counts as other."""
    rows = []
    for key, number in tick.errors.items():
        parts = key.split(" ")
        phase, errno, cause = parts if len(parts) == 3 else (key, "", Cause.OTHER.value)
        rows.append(Failure(phase, errno, cause, number))
    return sorted(rows, key=lambda row: -row.count)


def ports(snapshot: Snapshot) -> PortUse | None:
    """All destinations of a snapshot together; each has the whole range to itself. None: nothing was watched."""
    uses = snapshot.ports
    if not uses:
        return None
    peers = [use.peer_time_wait for use in uses if use.peer_time_wait is not None]
    return PortUse(
        destination=uses[0].destination if len(uses) == 1 else f"{len(uses)} destinations",
        capacity=sum(use.capacity for use in uses),
        in_use=sum(use.in_use for use in uses),
        time_wait=sum(use.time_wait for use in uses),
        free=sum(use.free for use in uses),
        peer_time_wait=sum(peers) if peers else None,
    )


def fullest(snapshot: Snapshot) -> PortUse | None:
    """The destination with the smallest share of free ports: the one that fails first."""
    return min(snapshot.ports, key=lambda use: use.free / use.capacity if use.capacity else 1.0, default=None)


def least_free(run: Run) -> int | None:
    """Fewest free ports toward any one destination at any tick; None where nothing was watched."""
    frees = [use.free for snapshot in (*run.snapshots, run.after) for use in snapshot.ports]
    return min(frees, default=None)


def residue(run: Run) -> int:
    """TIME_WAIT this host held toward the destinations before the run."""
    return sum(use.time_wait for use in run.before.ports)


class Concurrency(msgspec.Struct, frozen=True):
    """Connections held and asked for, averaged over the run by time."""

    held: float
    asked: float
    peak: int


def concurrency(run: Run) -> Concurrency:
    """The last tick is left out where there are others: its gauges stand after the connections were let go."""
    ticks = [tick for tick in run.ticks if tick.after(run.plan.warm_up)] or run.ticks
    ticks = ticks[:-1] if len(ticks) > 1 else ticks
    whole = sum(tick.seconds for tick in ticks)
    if whole <= 0:
        return Concurrency(run.total.open, run.total.asked, run.peak_open)
    held = sum(tick.open * tick.seconds for tick in ticks) / whole
    asked = sum(tick.asked * tick.seconds for tick in ticks) / whole
    return Concurrency(held, asked, max(run.peak_open, *(tick.open for tick in ticks)))


def asked_rate(run: Run) -> float | None:
    """The open loop's rate per second; None in the closed loop."""
    return run.plan.rate.per_second if run.plan.rate else None


def sent_rate(run: Run) -> float:
    """What the open loop really started per second, in the unit that was asked for."""
    total = run.total
    by_connection = run.plan.rate is not None and run.plan.rate.unit == "connections"
    return per_second(total.started if by_connection else max(total.requests, total.started), total.seconds)


def progress(plan: Plan, now: Tick, total: Tick) -> float | None:
    """Share done, 0..1: of the time or of the requests, whichever ends the run first; None: no end is known."""
    shares = []
    if plan.duration:
        shares.append(now.at / plan.duration)
    if plan.requests:
        shares.append((total.succeeded + total.failed) / plan.requests)
    return min(1.0, max(shares)) if shares else None
