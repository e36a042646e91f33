"""What a wire tells while it runs: counts, and the SYNs that did not arrive."""

from __future__ import annotations

import errno
import os

import msgspec

from timewait.lab.frames import readable
from timewait.lab.wire.core import Core, SynDrop, reasons
from timewait.lab.wire.spec import WireSpec
from timewait.tcp import counters
from timewait.tcp.rulebook import RULES


class Counts(msgspec.Struct, frozen=True):
    """Since the wire began. Pairs are (from a, from b), or (at a, at b)."""

    arrived: tuple[int, int] = (0, 0)  # frames that came to the wire
    passed: tuple[int, int] = (0, 0)  # ... and were sent on to the other end
    bytes: tuple[int, int] = (0, 0)  # ... their bytes, Ethernet headers included
    held: int = 0  # on the way at this moment
    overtaken: int = 0  # held back so that others overtake them (`reorder`)
    unread: int = 0  # passed without a look: no TCP, fragments, malformed
    dropped: dict[str, int] = {}  # by name: the spec's drops, `loss`, `too many on the way`, `old kernel`
    counters: tuple[dict[str, int], dict[str, int]] = ({}, {})  # of the old kernels at the ends, as nstat names them
    records: tuple[int, int] = (0, 0)  # times they wrote down a peer's timestamp
    recorded: int = 0  # frames in the capture file
    record_error: str = ""  # why recording has stopped: "ENOSPC: No space left on device"
    send_errors: int = 0  # frames that an interface did not take (ENOBUFS, ENETDOWN)
    overruns: int = 0  # frames that came faster than the wire read them
    too_long: int = 0  # frames longer than the MTU was when the wire began; not sent on


class Event(msgspec.Struct, frozen=True):
    """A SYN that did not arrive."""

    at: float  # seconds since the wire began
    toward: str  # end: "a" or "b"
    reason: str  # as in Counts.dropped
    source: str
    source_port: int
    target: str
    target_port: int
    seq: int
    tsval: int | None  # None: no timestamps
    counters: tuple[str, ...] = ()  # that the old kernel moved for it
    rule: str = ""  # why the old kernel drops it, in a sentence
    function: str = ""  # ... and where
    record_ts: int | None = None  # the peer's record it was judged by
    record_age: int | None = None  # seconds


def nothing(spec: WireSpec) -> Counts:
    """Before the first frame."""
    return Counts(dropped=dict.fromkeys(reasons(spec), 0))


def counts(core: Core, arrived: list[int], errors: list[int], recorded: int, record_error: int) -> Counts:
    """Of a running wire. `errors`: sending, overruns, too long; `record_error`: an errno, 0 for none."""
    moved = [dict(host.counters) if host else {} for host in core.hosts]
    written = [host.peers.written if host else 0 for host in core.hosts]
    return Counts(
        arrived=(arrived[0], arrived[1]),
        passed=(core.passed[0], core.passed[1]),
        bytes=(core.bytes[0], core.bytes[1]),
        held=core.held,
        overtaken=core.overtaken,
        unread=core.unread,
        dropped=core.dropped,
        counters=(moved[0], moved[1]),
        records=(written[0], written[1]),
        recorded=recorded,
        record_error=_words(record_error),
        send_errors=errors[0],
        overruns=errors[1],
        too_long=errors[2],
    )


def event(drop: SynDrop, began: float) -> Event:
    """A dropped SYN in words; `began` is the wire's first moment on the clock of `drop.at`."""
    packet, refusal = drop.packet, drop.refusal
    plain = Event(
        at=drop.at - began,
        toward="ba"[drop.side],
        reason=drop.reason,
        source=readable(packet.source),
        source_port=packet.source_port,
        target=readable(packet.target),
        target_port=packet.target_port,
        seq=packet.seq,
        tsval=packet.tsval if packet.has_ts else None,
    )
    if refusal is None:
        return plain
    rule = RULES[refusal.rule]
    return msgspec.structs.replace(
        plain,
        counters=counters.names(refusal.counters),
        rule=rule.text,
        function=rule.function,
        record_ts=refusal.record.ts,
        record_age=refusal.now_s - refusal.record.stamp,
    )


def _words(number: int) -> str:
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}" if number else ""
