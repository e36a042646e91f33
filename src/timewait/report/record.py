"""A run as one JSON object. Names and units are a contract: seconds, bytes, counts; null where nothing is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from timewait.diagnose import missed
from timewait.report import figures
from timewait.run import Run

if TYPE_CHECKING:
    from timewait.diagnose import Finding


def as_json(run: Run, findings: list[Finding], exit_code: int) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers; `msgspec.json.encode` or `json.dumps` writes it.

    `counters` are what moved from before to after the run. `ports` adds up the destinations, which stand one by one
    in `ports.destinations`; `residue` is the TIME_WAIT found before the run. `latency.*` is null for a phase that did
    not happen, the numbers of `ports` where the kernel could not be asked.
    """
    total = run.total
    return {
        "version": run.version,
        "started_at": run.started_at,
        "plan": msgspec.to_builtins(run.plan, str_keys=True),
        "host": msgspec.to_builtins(run.host, str_keys=True),
        "totals": _totals(run),
        "latency": figures.latencies(total),
        "late": figures.latency(total.late),
        "errors": [msgspec.to_builtins(failure) for failure in figures.failures(total)],
        "details": dict(total.details),
        "closed_first": {
            "us": total.closed_us,
            "peer": total.closed_peer,
            "reset": total.closed_reset,
            "reset_by_us": total.reset_by_us,
            "close_ignored": total.close_ignored,
        },
        "ports": _ports(run),
        "status": {str(code): number for code, number in sorted(total.status.items())},
        "counters": run.moved(),
        "steps": msgspec.to_builtins(run.steps),
        "findings": [msgspec.to_builtins(finding) for finding in findings],
        "interrupted": run.interrupted or None,
        "missed": missed(run),
        "notes": [*run.notes, *run.host.unreadable],
        "exit_code": exit_code,
    }


def _totals(run: Run) -> dict[str, Any]:
    total, held = run.total, figures.concurrency(run)
    return {
        "started": total.started,
        "connected": total.connected,
        "succeeded": total.succeeded,
        "failed": total.failed,
        "requests": total.requests,
        "seconds": total.seconds,
        "bytes": total.bytes_in,
        "bytes_out": total.bytes_out,
        "succeeded_per_second": figures.per_second(total.succeeded, total.seconds),
        "unfinished": total.unfinished,
        "unsent": total.unsent,
        "concurrency_asked": held.asked,
        "concurrency_held": held.held,
        "concurrency_peak": held.peak,
        "cpu_seconds": total.cpu,
        "open_files_peak": run.peak_open_files,
    }


def _ports(run: Run) -> dict[str, Any]:
    """At the end of the run; every number null where the kernel could not be asked."""
    use = figures.ports(run.after)
    names = ("capacity", "in_use", "time_wait", "free", "peer_time_wait")
    return {name: getattr(use, name, None) for name in names} | {
        "residue": figures.residue(run) if run.before.ports else None,
        "least_free": figures.least_free(run),
        "destinations": msgspec.to_builtins(run.after.ports),
    }
