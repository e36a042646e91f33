"""A run as CSV: one row per tick, for spreadsheets and plots."""

from __future__ import annotations

import csv
from typing import Any, TextIO

from timewait.report import figures
from timewait.run import Cause, Run, Snapshot, Tick

_COUNTS = (
    "started",
    "connected",
    "requests",
    "succeeded",
    "failed",
    "unfinished",
    "unsent",
    "bytes_in",
    "bytes_out",
    "open",
    "asked",
    "closed_us",
    "closed_peer",
    "closed_reset",
)
_PORTS = ("capacity", "in_use", "time_wait", "free", "peer_time_wait")
COLUMNS = (
    "at",
    "seconds",
    *_COUNTS,
    *(f"{name}_{quantile}" for name in (*figures.LATENCIES, "late") for quantile in figures.QUANTILES),
    *(f"ports_{name}" for name in _PORTS),
    *(f"failed_{cause.value.replace('-', '_')}" for cause in Cause),
    "cpu",
    "lag_max",
)


def write_csv(run: Run, stream: TextIO, file: str | None = None, *, heading: bool = True) -> None:
    """Writes COLUMNS and a row per tick; times in seconds, counts per tick, empty where nothing was measured.

    With `file` a first column `file` says which run a row belongs to. Raises OSError from the stream.
    """
    writer = csv.writer(stream, lineterminator="\n")
    first = [] if file is None else [file]
    if heading:
        writer.writerow(([] if file is None else ["file"]) + list(COLUMNS))
    snapshots = [*run.snapshots, *[Snapshot()] * (len(run.ticks) - len(run.snapshots))]
    for tick, snapshot in zip(run.ticks, snapshots, strict=False):
        row = _row(tick, snapshot)
        writer.writerow(first + [_cell(row.get(name)) for name in COLUMNS])


def _row(tick: Tick, snapshot: Snapshot) -> dict[str, float | int | None]:
    row: dict[str, Any] = {name: getattr(tick, name) for name in ("at", "seconds", *_COUNTS, "cpu", "lag_max")}
    for name in (*figures.LATENCIES, "late"):
        found = figures.latency(getattr(tick, name)) or {}
        row |= {f"{name}_{quantile}": value for quantile, value in found.items()}
    use = figures.ports(snapshot)
    row |= {f"ports_{name}": getattr(use, name) for name in _PORTS} if use else {}
    row |= {f"failed_{cause.value.replace('-', '_')}": 0 for cause in Cause}
    for failure in figures.failures(tick):
        name = f"failed_{failure.cause.replace('-', '_')}"
        row[name] = (row.get(name) or 0) + failure.count
    return row


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
