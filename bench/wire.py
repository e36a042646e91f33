"""The lab's wire against the kernel's own: packets a second, and how much later they arrive."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Any

from bench.figures import Figure, Result, Values
from bench.settings import Settings
from timewait.lab import add_address, children, frames, join
from timewait.lab.namespaces import Namespace
from timewait.lab.wire import End, OldKernel, Wire, WireSpec
from timewait.lab.wire.tap import Tap
from timewait.tcp.segment import ACK, PSH, SYN

RATE = 30_000  # packets a second, both directions together
IN_FLIGHT = 64
VETH, PLAIN, RULES = "veth", "wire", "wire, old kernel"
CABLES: dict[str, WireSpec | None] = {
    VETH: None,
    PLAIN: WireSpec(),
    RULES: WireSpec(a=End(clock_shift=1000), b=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1}))),
}
_ADDRESSES = ("10.0.0.1", "10.0.0.2")
_PORTS = (40000, 80)
_MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")  # nobody's: no kernel answers
_NUMBERS = Struct("!II")  # seq, ack
_SEQ_PLACE = frames.ETHERNET + 20 + 4  # behind the headers of Ethernet and IPv4 and the ports
_PAYLOAD = 64  # bytes; the first 8 are the time of sending

Ends = tuple[Namespace, Namespace]


class Waits:
    """How long the wire's process stood in the run queue, by the kernel's count: others had its core then."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/schedstat")
        self._waited, self._began = self._read(), time.monotonic()

    def share(self) -> float:
        """Since the beginning, of the time."""
        return (self._read() - self._waited) / (time.monotonic() - self._began) / 1e9

    def _read(self) -> int:
        return int(self._file.read_text().split()[1])


def wire(settings: Settings) -> Result:
    medians: dict[str, list[float]] = {name: [] for name in CABLES}
    late: dict[str, list[float]] = {name: [] for name in CABLES}
    paces: dict[str, list[float]] = {name: [] for name in CABLES}
    most: dict[str, list[float]] = {name: [] for name in CABLES}
    bulk: dict[str, list[float]] = {name: [] for name in CABLES}
    waited: dict[str, list[float]] = {name: [] for name in CABLES if CABLES[name]}
    for turn in range(settings.rounds):
        for name in reversed(CABLES) if turn % 2 else CABLES:
            with cable(CABLES[name], settings.cores.target) as (ends, pid):
                waits = Waits(pid) if pid else None
                found = measured(paced, ends, settings)
                medians[name].append(found["median"])
                late[name].append(found["p99"])
                paces[name].append(found["rate"])
                most[name].append(measured(flood, ends, settings))
                if waits:
                    waited[name].append(waits.share())
                bulk[name].append(measured(transfer, ends, settings))
    names = {PLAIN: "wire", RULES: "wire with an old kernel's rules and a shifted clock"}
    figures = [
        Figure(what=f"{title}: packets a second", unit="packets/s", values=most[name], asked=f">= {RATE:,}")
        for name, title in names.items()
    ]
    figures += [
        Figure(
            what=f"{title}: later than over veth at {RATE:,} packets/s, median of one way",
            unit="us",
            values=[ours - kernel for ours, kernel in zip(medians[name], medians[VETH], strict=True)],
            asked="<= 200",
        )
        for name, title in names.items()
    ]
    details = []
    for name in CABLES:
        details.append(Values(name=f"{name}: one way, median", unit="us", values=medians[name]))
        details.append(Values(name=f"{name}: one way, p99", unit="us", values=late[name]))
        details.append(Values(name=f"{name}: arrived meanwhile", unit="packets/s", values=paces[name]))
        details.append(Values(name=f"{name}: {IN_FLIGHT} in flight", unit="packets/s", values=most[name]))
        details.append(Values(name=f"{name}: one TCP transfer", unit="MB/s", values=bulk[name]))
        if name in waited:
            details.append(Values(name=f"{name}: waited for its core", unit="share", values=waited[name]))
    return Result(
        name="wire",
        title="The lab's wire",
        how=f"Two namespaces joined by a veth pair alone, or with a wire between them, its process on a core of its "
        f"own. Segments of one TCP connection with {_PAYLOAD} bytes, alternately from either end, sent and received "
        f"as raw frames by one process that never sleeps: at {RATE:,} a second, each with the time of its sending in "
        f"it; then {IN_FLIGHT} of them always on their way. At last one transfer of the kernel's own TCP, for which "
        "veth passes 64 KB in one frame and the wire 1,514 bytes, as cables do.",
        figures=figures,
        details=details,
        notes=notes(waited),
    )


def notes(waited: dict[str, list[float]]) -> list[str]:
    """What else ran here meanwhile, as far as it shows."""
    found = []
    share = max(share for values in waited.values() for share in values)
    if share > 0.03:
        found.append(
            f"The machine was not quiet: up to {share:.0%} of the time the wire could not run because others had its "
            "core. The 99th percentiles are theirs."
        )
    try:
        nice = int(Path("/proc/self/autogroup").read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        nice = 0
    if nice:
        found.append(f"All of it ran at nice {nice} against what else ran (autogroup, sched(7)).")
    return found


@contextmanager
def cable(spec: WireSpec | None, core: int) -> Iterator[tuple[Ends, int]]:
    """Two namespaces and what joins them; the wire's process, 0 for a veth."""
    with Namespace("one") as one, Namespace("other") as other:
        made = None
        if spec is None:
            join(one, "eth0", other, "eth0")
        else:
            made = Wire(spec, (one, "eth0"), (other, "eth0"))
            os.sched_setaffinity(made.pid, {core})
        try:
            for end, address in zip((one, other), _ADDRESSES, strict=True):
                with end.entered():
                    add_address("eth0", f"{address}/24")
            yield (one, other), made.pid if made else 0
            if made is not None:
                counts = made.counts()
                if made.died() or counts.overruns or counts.send_errors or sum(counts.dropped.values()):
                    raise RuntimeError(f"the wire failed: {made.died()} {counts}")
        finally:
            if made is not None:
                made.stop()


def measured(function: Callable[[Ends, float], Any], ends: Ends, settings: Settings) -> Any:
    """Runs it in a process of its own on the client's core; what it returns."""
    readable, writable = os.pipe()

    def run() -> None:
        os.sched_setaffinity(0, {settings.cores.client})
        os.write(writable, json.dumps(function(ends, settings.window)).encode())

    child = children.start(run, keep=[writable, *(end.fd for end in ends)])
    os.close(writable)
    with os.fdopen(readable, "rb") as told:
        text = told.read()
    if child.wait(60) != 0:
        raise RuntimeError(f"a measurement of the wire failed: {child.status}")
    return json.loads(text)


class Segments:
    """The two ends of one connection, as raw frames: what is sent there, what arrives here."""

    def __init__(self, ends: Ends) -> None:
        self._taps = []
        for end in ends:
            with end.entered():
                tap = Tap("eth0")
                tap.start()
                self._taps.append(tap)
        self._seq = [1000, 5000]
        self._open()
        self.frames = [self._frame(side, PSH | ACK, _PAYLOAD) for side in (0, 1)]
        self._places = [self._payload(frame) for frame in self.frames]
        self._send = [tap.send for tap in self._taps]

    def _open(self) -> None:
        """SYN, SYN-ACK, ACK: the wire follows the connection from here on."""
        for side, flags in ((0, SYN), (1, SYN | ACK), (0, ACK)):
            self._taps[side].send(self._frame(side, flags, 0))
            self._seq[side] += flags & SYN != 0
            limit = time.monotonic() + 5
            while not self.arrived(1 - side, stamped=False):
                if time.monotonic() > limit:
                    raise RuntimeError("a SYN did not arrive")

    def _frame(self, side: int, flags: int, length: int) -> bytearray:
        source, target = (frames.packed(_ADDRESSES[end]) for end in (side, 1 - side))
        options = frames.options(frames.Options(timestamps=(100, 100 if flags != SYN else 0)))
        ack = self._seq[1 - side] if flags & ACK else 0
        body = frames.segment(
            source, target, _PORTS[side], _PORTS[1 - side], seq=self._seq[side], ack=ack, flags=flags,
            options=options, payload=bytes(length),
        )  # fmt: skip
        return bytearray(frames.ethernet(_MACS[side], _MACS[1 - side], frames.packet(source, target, body)))

    def _payload(self, frame: bytearray) -> slice:
        packet = frames.parse(frame)
        assert packet is not None
        return slice(packet.payload, packet.payload + 8)

    def send(self, side: int) -> None:
        """The next one, stamped now. Its checksum is wrong: nobody here looks at it."""
        frame = self.frames[side]
        _NUMBERS.pack_into(frame, _SEQ_PLACE, self._seq[side], self._seq[1 - side])
        self._seq[side] = (self._seq[side] + _PAYLOAD) % 2**32
        frame[self._places[side]] = time.monotonic_ns().to_bytes(8, "big")
        self._send[side](frame)

    def arrived(self, side: int, stamped: bool = True) -> list[int]:
        """How long those took that are there now, ns."""
        found = []
        for frame, _ in self._taps[side].frames(256):
            if frame[:6] == _MACS[side]:
                stamp = int.from_bytes(frame[self._places[1 - side]], "big") if stamped else 0
                found.append(time.monotonic_ns() - stamp)
        return found


def paced(ends: Ends, seconds: float) -> dict[str, float]:
    """Segments at RATE, alternately from either end: how long they were on their way, us."""
    segments = Segments(ends)
    took: list[int] = []
    step = 1_000_000_000 // RATE
    begin = time.monotonic_ns()
    due, side = begin, 0
    end = begin + int(seconds * 1e9)
    while due < end:
        if time.monotonic_ns() >= due:
            segments.send(side)
            side = 1 - side
            due += step
        took += segments.arrived(0)
        took += segments.arrived(1)
    late = time.monotonic_ns() + 50_000_000
    while time.monotonic_ns() < late:
        took += segments.arrived(0) + segments.arrived(1)
    took.sort()
    share = len(took) / ((end - begin) / 1e9)
    return {"median": took[len(took) // 2] / 1000, "p99": took[len(took) * 99 // 100] / 1000, "rate": share}


def flood(ends: Ends, seconds: float) -> float:
    """Packets a second with IN_FLIGHT always on their way."""
    segments = Segments(ends)
    for number in range(IN_FLIGHT):
        segments.send(number % 2)
    count = 0
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        for side in (0, 1):
            fresh = len(segments.arrived(side))
            count += fresh
            for _ in range(fresh):
                segments.send(side)
    return count / (time.monotonic() - begin)


def transfer(ends: Ends, seconds: float) -> float:
    """MB/s of one connection of the kernel's TCP."""
    with ends[1].entered():
        listener = socket.create_server((_ADDRESSES[1], 9000))
    with ends[0].entered():
        near = socket.create_connection((_ADDRESSES[1], 9000), 10)
    far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    data, room = bytes(1 << 18), bytearray(1 << 20)
    got = 0
    begin = time.monotonic()
    while time.monotonic() < begin + seconds:
        try:
            near.send(data)
        except BlockingIOError:
            pass
        try:
            got += far.recv_into(room)
        except BlockingIOError:
            pass
    return got / (time.monotonic() - begin) / 1e6
