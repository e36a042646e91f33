"""What happened: the record of a run, the same for the real engine, a saved file and a simulation.

A `Tick` holds what one worker (or all of them) did in one second; ticks add up (`Tick.add`), so totals, coarser
series and merged workers are one operation. A `Snapshot` is what the kernel said at the end of that second. `Host`
is what does not change during the run. `Run` is all of it, and `RunFile` writes it as JSON lines while it happens.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, BinaryIO

import msgspec

from timewait.histogram import Sparse, in_layout, merged
from timewait.plan import Plan
from timewait.port_use import PortUse as PortUse

FORMAT = 1  # of the saved file; raised when an older reader would misread a newer file


class Phase(StrEnum):
    """Where in its life a connection failed."""

    RESOLVE = "resolve"
    BIND = "bind"
    CONNECT = "connect"
    TLS = "tls"
    SEND = "send"
    FIRST_BYTE = "first_byte"
    BODY = "body"
    CLOSE = "close"


class Cause(StrEnum):
    """What ended it, beside the errno (which is empty where no system call failed)."""

    NO_PORT = "no-port"  # EADDRNOTAVAIL, EADDRINUSE
    NO_FILE = "no-file"  # EMFILE, ENFILE
    REFUSED = "refused"  # ECONNREFUSED
    RESET = "reset"  # ECONNRESET, EPIPE
    TIMEOUT = "timeout"  # our deadline, or ETIMEDOUT
    UNREACHABLE = "unreachable"  # EHOSTUNREACH, ENETUNREACH, EACCES, EPERM ...
    CLOSED = "closed"  # FIN before the answer was complete
    STALE = "stale"  # FIN or RST on a kept connection as a further request was sent, nothing answered
    BAD_RESPONSE = "bad-response"  # not HTTP, broken framing, data after the end, not the expected reply
    STATUS = "status"  # complete, but not a status that was expected
    TLS_CERTIFICATE = "tls-certificate"
    TLS_PROTOCOL = "tls-protocol"
    RESOLVE = "resolve"
    OTHER = "other"


class Failure(msgspec.Struct, frozen=True):
    """One line of `errors`."""

    phase: str
    errno: str  # "ECONNREFUSED"; "" where no call failed
    cause: str
    count: int


class Tick(msgspec.Struct, kw_only=True):
    """What happened in a stretch of time. Counts are of this stretch, gauges of its end; times in seconds."""

    at: float = 0.0  # end of the stretch, seconds since the start of the run
    seconds: float = 0.0  # its length
    started: int = 0  # connections attempted: connect() called, or bind()/socket() failed
    connected: int = 0  # established, TLS included
    requests: int = 0  # requests sent; of a tcp:// target: payloads, or connections when it has none
    succeeded: int = 0  # answered completely and as expected
    failed: int = 0  # attempts that ended in an error: one per failed connection attempt, one per failed request
    unfinished: int = 0  # in flight when the run ended; neither succeeded nor failed
    unsent: int = 0  # due in the open loop, but never started before the run ended
    bytes_in: int = 0
    bytes_out: int = 0
    open: int = 0  # gauge: connections held (connecting included)
    open_most: int = 0  # the most held at any moment of the stretch
    asked: int = 0  # gauge: connections wanted now
    closed_us: int = 0  # established connections that we ended first (FIN)
    closed_peer: int = 0  # ... the peer ended first (FIN)
    closed_reset: int = 0  # ... ended by RST from either side
    reset_by_us: int = 0  # the part of closed_reset that we sent
    close_asked: int = 0  # connections whose last request said `Connection: close`
    close_ignored: int = 0  # ... and whose peer neither closed within the close timeout nor reset
    kept_ended: int = 0  # kept connections the peer ended though nobody had asked, idle or with an announcement
    errors: dict[str, int] = {}  # "phase errno cause" -> count
    details: dict[str, int] = {}  # texts worth showing (TLS reasons, parse errors) -> count; at most 20 distinct
    status: dict[int, int] = {}  # status code -> answers
    connect: Sparse = msgspec.field(default_factory=Sparse)  # successful connects, from connect()
    tls: Sparse = msgspec.field(default_factory=Sparse)
    first_byte: Sparse = msgspec.field(default_factory=Sparse)  # from the due time (open loop) or the request
    total: Sparse = msgspec.field(default_factory=Sparse)  # likewise, of successes
    late: Sparse = msgspec.field(default_factory=Sparse)  # open loop: start of an arrival minus its due time
    search: Sparse = msgspec.field(default_factory=Sparse)  # time inside the connect() call itself: the port search
    cpu: float = 0.0  # CPU seconds used by the worker(s)
    lag_max: float = 0.0  # longest turn of the loop
    waited: float = 0.0  # seconds the loop slept in epoll_wait; 0 of a second: the core was full
    syn_slow: int = 0  # connects that took >= 0.9 s or timed out, where the SYN was retransmitted
    syn_slow_reused: int = 0  # ... on a five-tuple this run had used within the last 60 s
    syn_slow_known: int = 0  # ... on a five-tuple whose past is known (the denominator of the above)
    fresh_known: int = 0  # connects that went straight through on tuples whose past is known, unused
    reused_known: int = 0  # ... and on tuples used within the last 60 s
    sampled: int = 0  # connections whose TCP_INFO was read
    sampled_timestamps: int = 0  # ... that had negotiated timestamps
    sampled_retrans: int = 0  # segments retransmitted on them
    sampled_rtt: float = 0.0  # sum of their smoothed RTT, seconds
    resumed: int = 0  # TLS sessions resumed
    workers: int = 0  # how many workers are in here

    def add(self, other: Tick, *, side_by_side: bool) -> None:
        """Adds `other`: side by side (another worker, same second) or as the stretch that follows."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _HISTOGRAMS:
            setattr(self, name, merged(getattr(self, name), getattr(other, name)))
        for name in _TABLES:
            table = dict(getattr(self, name))
            for key, count in getattr(other, name).items():
                table[key] = table.get(key, 0) + count
            setattr(self, name, table)
        self.lag_max = max(self.lag_max, other.lag_max)
        if side_by_side:
            self.open += other.open
            self.open_most += other.open_most
            self.asked += other.asked
            self.workers += other.workers
            self.at = max(self.at, other.at)
            self.seconds = max(self.seconds, other.seconds)
        else:
            self.open_most = max(self.open_most, other.open_most)
            self.open, self.asked, self.workers = other.open, other.asked, max(self.workers, other.workers)
            self.at = other.at
            self.seconds += other.seconds

    def after(self, warm_up: float) -> bool:
        """Whether this stretch counts: its middle lies past the warm-up (its end is always a little late)."""
        return self.at - self.seconds / 2 > warm_up

    def sound(self) -> bool:
        """Whether a tick that came from a file can be added up."""
        parts = [getattr(self, name) for name in _HISTOGRAMS]
        keys = all(key.count(" ") == 2 for key in self.errors)
        return keys and all(len(part.index) == len(part.count) and in_layout(part) for part in parts)

    def failures(self) -> list[Failure]:
        """The errors, most frequent first."""
        rows = []
        for key, count in self.errors.items():
            phase, errno, cause = key.split(" ")
            rows.append(Failure(phase, errno, cause, count))
        return sorted(rows, key=lambda row: -row.count)


_HISTOGRAMS = ("connect", "tls", "first_byte", "total", "late", "search")
_TABLES = ("errors", "details", "status")
_GAUGES = ("at", "seconds", "open", "open_most", "asked", "lag_max", "workers")
_SUMMED = tuple(f for f in Tick.__struct_fields__ if f not in (*_HISTOGRAMS, *_TABLES, *_GAUGES))


def error_key(phase: Phase, errno: str, cause: Cause) -> str:
    """Key of `Tick.errors`."""
    return f"{phase} {errno} {cause}"


class Snapshot(msgspec.Struct, kw_only=True):
    """What the kernel said at one moment. Counters are absolute; `Run` holds the ones before and after."""

    at: float = 0.0
    ports: list[PortUse] = []
    counters: dict[str, int] = {}  # "TcpExt.TCPTimeWaitOverflow", "Tcp.ActiveOpens", "conntrack.drop" ...
    accept_queue: int | None = None  # of the target's listener, where it lives in this namespace
    accept_queue_max: int | None = None
    open_files: int | None = None  # of this run's processes, largest of them
    conntrack: int | None = None  # entries; None: not loaded or not readable
    conntrack_max: int | None = None
    cost: float = 0.0  # seconds it took to find all this out


class Host(msgspec.Struct, kw_only=True):
    """What was true of this machine when the run began."""

    kernel: str = ""  # uname -r
    cores: int = 1
    nofile_soft: int = 0  # after raising
    nofile_hard: int = 0
    sysctls: dict[str, str] = {}  # "net.ipv4.tcp_tw_reuse" -> "2"; absent where the kernel has none
    port_low: int = 32768
    port_high: int = 60999
    reserved_ports: int = 0  # of ip_local_reserved_ports, inside the range
    addresses: dict[str, list[str]] = {}  # host name -> addresses it resolved to
    loopback: bool = False  # every destination is a loopback address
    local_target: bool = False  # a listener for the destination lives in this network namespace
    unreadable: list[str] = []  # what could not be read, and why, one sentence each


class Step(msgspec.Struct, kw_only=True):
    """One step of --find-max."""

    rate: float
    succeeded_per_second: float
    failed_share: float
    p99: float
    held: bool
    stopped_by: str = ""  # finding id, "failures", "latency" or "schedule"; empty while it held


class Run(msgspec.Struct, kw_only=True):
    """One run, complete or cut short."""

    plan: Plan
    host: Host
    version: str = ""
    started_at: str = ""  # wall clock, ISO 8601 with zone
    engine: str = "sockets"
    before: Snapshot = msgspec.field(default_factory=Snapshot)
    after: Snapshot = msgspec.field(default_factory=Snapshot)
    total: Tick = msgspec.field(default_factory=Tick)  # warm-up left out
    ticks: list[Tick] = []  # bounded: neighbours are merged when the run grows long
    snapshots: list[Snapshot] = []  # one per tick
    peak_open: int = 0
    peak_open_files: int = 0
    interrupted: str = ""  # "SIGINT", "SIGTERM"; empty when it ran to its end
    lost_workers: int = 0  # processes that died before their work was done
    notes: list[str] = []  # what the reader must know: a worker that died, a file cut short
    steps: list[Step] = []  # of --find-max
    stopped: Run | None = None  # of --find-max: the run of the step that ended the search, without its series

    def moved(self) -> dict[str, int]:
        """Counters that changed from before to after, by how much."""
        before = self.before.counters
        return {k: v - before.get(k, 0) for k, v in self.after.counters.items() if v != before.get(k, 0)}

    def first(self, cause: Cause) -> float | None:
        """Seconds until the first failure of this cause, interpolated within its tick; None when there was none.

        Exact where from that moment on everything fails, as when the ports have run out.
        """
        mark = f" {cause}"
        for tick in self.ticks or [self.total]:
            if any(key.endswith(mark) for key in tick.errors):
                good = tick.succeeded / max(1, tick.succeeded + tick.failed)
                return tick.at - tick.seconds * (1 - good)
        return None


MOST_TICKS = 600


class Series:
    """Keeps ticks and snapshots in bounded memory: past MOST_TICKS neighbours are merged pairwise."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.snapshots: list[Snapshot] = []
        self._width = 1
        self._pending = 0

    def append(self, tick: Tick, snapshot: Snapshot) -> None:
        if self._pending:
            self.ticks[-1].add(tick, side_by_side=False)
            self.snapshots[-1] = snapshot
        else:
            self.ticks.append(msgspec.structs.replace(tick))
            self.snapshots.append(snapshot)
        self._pending = (self._pending + 1) % self._width
        if len(self.ticks) > MOST_TICKS and not self._pending:
            self._halve()

    def _halve(self) -> None:
        ticks, snapshots = self.ticks, self.snapshots
        kept = len(ticks) // 2 * 2
        for first, second in zip(ticks[:kept:2], ticks[1:kept:2], strict=True):
            first.add(second, side_by_side=False)
        self.ticks = ticks[:kept:2] + ticks[kept:]
        self.snapshots = snapshots[1:kept:2] + snapshots[kept:]
        # An odd tick left over is half filled at the new width: it takes the next stretch too.
        self._pending = self._width if len(ticks) > kept else 0
        self._width *= 2


class RunFile:
    """Writes a run as JSON lines while it happens: `start`, `tick` ..., `end`; each line is whole when written.

    A full disk or a vanished file never ends a run: the first OSError is kept in `error` and writing stops.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def start(self, run: Run) -> None:
        self._line({"kind": "start", "format": FORMAT, "run": run})

    def tick(self, tick: Tick, snapshot: Snapshot) -> None:
        self._line({"kind": "tick", "tick": tick, "snapshot": snapshot})

    def end(self, run: Run) -> None:
        """The whole again without its series, which stands in the lines above."""
        self._line({"kind": "end", "run": msgspec.structs.replace(run, ticks=[], snapshots=[])})
        try:
            self._stream.close()
        except OSError as error:  # close() tries once more to write what a full disk refused
            self.error = self.error or error

    def _line(self, record: dict[str, Any]) -> None:
        if self.error is not None:
            return
        try:
            self._stream.write(msgspec.json.encode(record) + b"\n")
            self._stream.flush()
        except OSError as error:
            self.error = error


class RunFileError(ValueError):
    """A saved run that cannot be used at all: one sentence."""


class _Line(msgspec.Struct):
    kind: str
    format: int = 0
    run: Run | None = None
    tick: Tick | None = None
    snapshot: Snapshot | None = None


def load(stream: BinaryIO, name: str) -> Run:
    """Reads a saved run. A file cut short yields its readable part and says so in `notes`. Raises RunFileError."""
    run: Run | None = None
    series, whole, ended, number = Series(), Tick(), False, 0
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(stream, 1):
        try:
            record = decoder.decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            if run is None:
                raise RunFileError(_not_a_run(name, line, error)) from None
            run.notes.append(f"{name} is damaged or cut short at line {number}; what stands before it is used")
            break
        if not all(tick.sound() for tick in (record.tick, record.run and record.run.total) if tick):
            if run is None:
                break
            run.notes.append(f"{name} line {number} contradicts itself; what stands before it is used")
            break
        if record.kind == "start" and record.run is not None:
            if record.format != FORMAT:
                raise RunFileError(f"{name} has format {record.format}; this timewait reads format {FORMAT}")
            run = record.run
        elif run is None:
            raise RunFileError(f"{name} does not begin with a `start` line; it is no saved run")
        elif record.kind == "tick" and record.tick is not None:
            snapshot = record.snapshot or Snapshot()
            if record.tick.after(run.plan.warm_up):
                whole.add(record.tick, side_by_side=False)
            run.peak_open = max(run.peak_open, record.tick.open, record.tick.open_most)
            series.append(record.tick, snapshot)
            run.after = snapshot
        elif record.kind == "end" and record.run is not None:
            run, ended = record.run, True
    if run is None:
        raise RunFileError(f"{name} is empty; it is no saved run")
    if not ended:
        run.total = whole
        if not run.notes:
            run.notes.append(f"{name} ends without its last line (the run was killed or the disk was full)")
    run.ticks, run.snapshots = series.ticks, series.snapshots
    return run


def _not_a_run(name: str, line: bytes, error: Exception) -> str:
    try:
        record = msgspec.json.decode(line)
        if isinstance(record, dict) and record.get("kind") == "start" and record.get("format") != FORMAT:
            return f"{name} has format {record.get('format')!r}; this timewait reads format {FORMAT}"
    except msgspec.DecodeError:
        pass
    return f"{name} is no saved run: {error}"
