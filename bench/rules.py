"""How long a decision of the rules takes, interpreted."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from bench.figures import Figure, Result, Values
from bench.settings import Settings
from timewait.tcp import choice, length, listener, recycle, reuse, synsent, timewait
from timewait.tcp.kernels import kernel, knobs
from timewait.tcp.listener import Listener
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment
from timewait.tcp.timewait import TimeWait

CALLS = 20_000
KERNELS = ("2.6.32", "6.18")


def rules(settings: Settings) -> Result:
    """Every decision, on the oldest kernel and on the newest, with arguments that take the longest way."""
    calls = CALLS // 20 if settings.quick else CALLS
    asked = decisions()
    took: dict[str, list[float]] = {name: [] for name in asked}
    for decide in asked.values():
        timeit.timeit(decide, number=calls)  # once, so that the interpreter has specialised its code
    for _ in range(max(5, settings.rounds)):
        for name, decide in asked.items():
            took[name].append(timeit.timeit(decide, number=calls) / calls * 1e6)
    slowest = [max(values) for values in zip(*took.values(), strict=True)]
    return Result(
        name="rules",
        title="Decisions of the rules",
        how=f"Plain Python, one process, {calls:,} calls a round, the call itself included. The figure is the slowest"
        " decision of each round; every other one is below.",
        figures=[Figure(what="a decision of the rules, the slowest", unit="us", values=slowest, asked="<= 2")],
        details=[Values(name=name, unit="us", values=values) for name, values in took.items()],
    )


def decisions() -> dict[str, Callable[[], object]]:
    """Named by what is decided."""
    tw = TimeWait(rcv_nxt=5000, snd_nxt=9000, ts=100_000, stamp=1000)
    half = tw._replace(fin_wait2=True)
    segments = {
        "SYN with an old timestamp": (tw, Segment(6000, 0, SYN, 0, True, 99_999)),
        "SYN with a new timestamp": (tw, Segment(6000, 0, SYN, 0, True, 100_500)),
        "SYN with a low sequence number": (tw, Segment(4000, 0, SYN, 0, True, 100_000)),
        "empty ACK": (tw, Segment(5000, 9000, ACK, 0, True, 100_000)),
        "RST": (tw, Segment(5000, 0, RST)),
        "FIN in substate FIN_WAIT2": (half, Segment(5000, 9000, FIN | ACK, 0, True, 100_001)),
        "old ACK in substate FIN_WAIT2": (half, Segment(4000, 9000, ACK, 0, True, 100_001)),
    }
    found: dict[str, Callable[[], object]] = {}
    for name in KERNELS:
        row = kernel(name)
        values = knobs(row, {"tcp_tw_reuse": 1, **({"tcp_tw_recycle": 1} if name == "2.6.32" else {})})
        for what, (waiting, segment) in segments.items():
            found[f"{name}: {what} meets TIME_WAIT"] = _call(
                timewait.answer, row.rules, values, waiting, segment, 1010, 1_010_000
            )
        record, free = Record(100_000, 1000), [choice.FREE] * 28_233
        low, high = row.defaults.ip_local_port_range
        bare = Segment(9000, 5000, ACK, 0, True, 7, 100_000)
        found |= {
            f"{name}: SYN at a listener": _call(
                listener.answer, row.rules, values, Listener(), record, True, 99_999, 1059
            ),
            f"{name}: record after an event": _call(recycle.written, record, 50_000, 1061, 1061),
            f"{name}: TIME_WAIT taken over": _call(reuse.reuse, row.rules, values, tw, 1059, 1_059_000),
            f"{name}: length of TIME_WAIT": _call(length.time_wait, row.rules, values, 200, 1000),
            f"{name}: first port tried is free": _call(choice.choose, row.rules, low, high, 16, free),
            f"{name}: bare ACK in SYN_SENT": _call(synsent.react, row.rules, 5999, 6000, bare, 99_999, 100_010),
        }
    return found


def _call(decide: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: decide(*arguments)
