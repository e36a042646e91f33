"""The kernels side by side."""

from __future__ import annotations

from collections.abc import Sequence

from timewait.tcp import counters, length, syn
from timewait.tcp.kernels import KERNELS, Kernel, has_knob
from timewait.tcp.knobs import SPANS
from timewait.tcp.profiles import HOST_WIDE, PER_ADDRESSES
from timewait.tcp.tables.table import Table, lasts, yes
from timewait.tcp.timewait import TCP_TIMEWAIT_LEN

INTRO = """\
What was read, with the defaults of tcp_tw_recycle and tcp_tw_reuse, the times after connect() at which a SYN is
sent again, and the age at which a stored timestamp no longer rejects (PAWS). tcp_timestamps is 1 everywhere.
tcp_max_tw_buckets is half the slots of the hash of connections, which depends on memory (131072 with 24 GB); it
is counted per host up to 4.10, per network namespace since."""


def overview(kernels: Sequence[Kernel] = KERNELS) -> Table:
    """One kernel a row."""
    headings = ("kernel", "read", "recycle", "reuse", "TIME_WAIT", "SYN again at", "ports", "TSval", "PAWS")
    rows = tuple(
        (
            kernel.name,
            kernel.version,
            str(kernel.defaults.tcp_tw_recycle) if has_knob(kernel, "tcp_tw_recycle") else "-",
            _reuse(kernel),
            _length(kernel),
            _sends(kernel),
            "{}-{}".format(*kernel.defaults.ip_local_port_range),
            clock(kernel),
            _wrap(kernel),
        )
        for kernel in kernels
    )
    return Table("Kernels", INTRO, headings, rows, "")


def _reuse(kernel: Kernel) -> str:
    delay = f", {kernel.defaults.tcp_tw_reuse_delay} ms" if has_knob(kernel, "tcp_tw_reuse_delay") else ""
    return f"{kernel.defaults.tcp_tw_reuse}{delay}"


def _length(kernel: Kernel) -> str:
    found = length.ends(kernel.rules, TCP_TIMEWAIT_LEN)
    return lasts(found.low_ms, found.high_ms)


def _sends(kernel: Kernel) -> str:
    plan = syn.schedule(kernel)
    return f"{' '.join(f'{at:g}' for at in plan.sends[1:])} s, gives up at {plan.gives_up:g} s"


def clock(kernel: Kernel) -> str:
    """ "jiffies", "1 ms + offset per addresses"."""
    tick = "1 ms" if kernel.rules.ts_in_ms else "jiffies"
    if kernel.rules.ts_offset == HOST_WIDE:
        return tick
    return f"{tick} + offset per {'addresses' if kernel.rules.ts_offset == PER_ADDRESSES else 'four-tuple'}"


def _wrap(kernel: Kernel) -> str:
    seconds = kernel.rules.paws_wrap_s
    return f"{seconds // 86400} days" if seconds >= 86400 else f"{seconds} s"


WORDS: dict[str, tuple[str, ...]] = {
    "record_store": ("none", "inet_peer", "tcp_metrics", "tcp_metrics, by both addresses"),
    "timer": ("two wheels", "one timer", "one timer, coarse"),
    "reuse_age": ("more than 1 s", "1 s", "tcp_tw_reuse_delay"),
    "port_search": ("one by one", "one by one, from even", "every second first", "every second first, perturbed"),
    "ts_offset": ("none", "per addresses", "per four-tuple"),
}
"""What the numbers of a rule stand for, in their order."""


def in_words(kernel: Kernel) -> dict[str, str | int | bool]:
    """The rules of a kernel with words for the numbers that stand for something."""
    found: dict[str, str | int | bool] = dict(kernel.rules._asdict())
    for name, words in WORDS.items():
        found[name] = words[int(found[name])]
    for name in found:
        if name.endswith("_counter"):
            found[name] = " ".join(counters.names(int(found[name])))
    return found


def differences(kernels: Sequence[Kernel]) -> Table:
    """Kernels as columns: every rule and every sysctl's default in which they differ; all of one kernel alone."""
    rows: list[tuple[str, ...]] = []
    said = [in_words(kernel) for kernel in kernels]
    for name in kernels[0].rules._fields:
        values = [yes(value) if isinstance(value, bool) else str(value) for value in (one[name] for one in said)]
        if len(kernels) == 1 or len(set(values)) > 1:
            rows.append((name, *values))
    for name in SPANS:
        values = [_default(kernel, name) for kernel in kernels]
        if len(kernels) == 1 or len(set(values)) > 1:
            rows.append((name, *values))
    return Table("Differences", "", ("", *(kernel.name for kernel in kernels)), tuple(rows), "")


def _default(kernel: Kernel, name: str) -> str:
    if not has_knob(kernel, name):
        return "-"
    value = getattr(kernel.defaults, name)
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
