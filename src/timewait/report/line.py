"""One line a second, for logs and pipes."""

from __future__ import annotations

from timewait.histogram import quantiles
from timewait.plan import Plan
from timewait.report import figures, words
from timewait.run import Snapshot, Tick


def line(tick: Tick, snapshot: Snapshot, plan: Plan) -> str:
    """What this second brought, without a line end: `   3 s  8,412/s ok  0 failed  p99 1.23 ms  50 open  ...`."""
    pieces = [f"{tick.at:4.0f} s", f"{words.rate(figures.per_second(tick.succeeded, tick.seconds)):>9} ok"]
    pieces.append(f"{words.count(tick.failed)} failed")
    if tick.total.index:
        pieces.append(f"p99 {words.seconds(quantiles(tick.total, (0.99,))[0])}")
    short = tick.open < 0.9 * tick.asked and tick.seconds >= figures.STUB
    pieces.append(f"{words.count(tick.open)}{f' of {words.count(tick.asked)}' if short else ''} open")
    use = figures.fullest(snapshot)
    if use is not None:
        pieces.append(f"{words.count(use.time_wait)} TIME_WAIT, {words.count(use.free)} ports free")
    if tick.late.index:
        pieces.append(f"late {words.seconds(quantiles(tick.late, (0.99,))[0])}")
    for failure in figures.failures(tick)[:1]:
        name = failure.errno or failure.cause
        pieces.append(f"{words.count(failure.count)} x {words.phase(failure.phase)} {words.clean(name)}")
    if plan.warm_up and not tick.after(plan.warm_up):
        pieces.append("(warm-up)")
    return "  ".join(pieces)
