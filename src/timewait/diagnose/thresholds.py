"""Aims of the user (`--fail-if`) held against the run."""

from __future__ import annotations

from timewait.diagnose.facts import quantile
from timewait.diagnose.words import asked, seconds, share
from timewait.histogram import Sparse
from timewait.plan import Threshold
from timewait.run import Run, Tick

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}


def missed(run: Run) -> list[str]:
    """The thresholds the run has missed, each with what was measured: `p99>50ms: 81 ms`.

    A latency of which there is no measurement, because nothing succeeded, has missed any aim.
    """
    found = []
    for threshold in run.plan.thresholds:
        value = measure(run.total, threshold.metric)
        if value is None:
            found.append(f"{threshold.text}: nothing measured")
        elif value > threshold.value if threshold.greater else value < threshold.value:
            found.append(f"{threshold.text}: {_shown(threshold, run.total, value)}")
    return found


def measure(total: Tick, metric: str) -> float | None:
    """The value of one of plan.METRICS: seconds, share 0..1, or successes per second. None: nothing to measure."""
    if metric == "failed":
        ended = total.succeeded + total.failed
        return total.failed / ended if ended > 0 else None
    if metric == "rate":
        return total.succeeded / total.seconds if total.seconds > 0 else None
    for prefix, part in _histograms(total).items():
        name = metric.removeprefix(prefix)
        if metric.startswith(prefix) and name in _QUANTILES:
            return quantile(part, _QUANTILES[name]) if part.index else None
    return None


def _histograms(total: Tick) -> dict[str, Sparse]:
    return {"connect_": total.connect, "tls_": total.tls, "first_byte_": total.first_byte, "": total.total}


def _shown(threshold: Threshold, total: Tick, value: float) -> str:
    if threshold.metric == "failed":
        return share(total.failed, total.succeeded + total.failed)
    return asked(value) if threshold.metric == "rate" else seconds(value)
