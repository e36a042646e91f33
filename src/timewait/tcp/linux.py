"""The rules for people: a kernel with its sysctls, asked one question at a time.

    >>> from timewait.tcp import Linux, Record
    >>> server = Linux("2.6.32", tcp_tw_recycle=1)
    >>> print(server.syn(tsval=99_998, record=Record(ts=100_000, stamp=1000), now=1059))
    drop, because tcp_tw_recycle: its timestamp is more than one tick behind what another connection from this \
address left less than 60 s ago (tcp_v4_conn_request(), net/ipv4/tcp_ipv4.c, Linux 2.6.32.67); PAWSPassive +1

The functions behind it, which take and return plain numbers, are those of the other modules of this room.
"""

from __future__ import annotations

from typing import NamedTuple

from timewait.tcp import counters, kernels, length, listener, recycle, reuse, rulebook, timewait
from timewait.tcp.action import Action
from timewait.tcp.kernels import Kernel, Knobs
from timewait.tcp.listener import Listener
from timewait.tcp.profiles import INET_PEER, METRICS
from timewait.tcp.recycle import Record
from timewait.tcp.segment import Segment
from timewait.tcp.timewait import TimeWait


class Told(NamedTuple):
    """What a kernel does, and why."""

    action: str  # accept, drop, ack, reset, kill, ignore, cookie; reuse, skip
    rule: str  # a sentence without its end
    rule_id: str  # the name of its number in timewait.tcp.rulebook
    source: str  # "tcp_conn_request(), net/ipv4/tcp_input.c, Linux 6.18.19"
    counters: tuple[str, ...] = ()  # each rises by one
    rearm_seconds: float = 0.0  # the timer of TIME_WAIT starts again and runs so long; 0: it runs on
    isn: int = 0  # initial sequence number of what leaves, where a TIME_WAIT decides it
    gone: bool = False  # the TIME_WAIT is no more

    def __str__(self) -> str:
        moved = "".join(f"; {name} +1" for name in self.counters)
        again = f"; TIME_WAIT runs another {self.rearm_seconds:g} s" if self.rearm_seconds else ""
        number = f"; initial sequence number {self.isn}" if self.isn else ""
        return f"{self.action}, because {self.rule} ({self.source}){moved}{again}{number}"


class Lasts(NamedTuple):
    """How long a TIME_WAIT lasts."""

    seconds: tuple[float, float]  # the least and the most
    busy_seconds: tuple[float, float]  # the same while other short ones wait (two-wheel kernels)
    nominal_seconds: float  # what its timer is set to
    counter: str  # TW or TWKilled
    counted: str  # "at its end" or "when it begins"
    rule: str
    rule_id: str
    source: str


_NAMES = {number: name for name, number in vars(rulebook).items() if name.isupper() and isinstance(number, int)}


class Linux:
    """A kernel version with its sysctls. Raises UnknownKernelError and UnknownKnobError, both ValueErrors."""

    def __init__(self, name: str, **sysctls: int | str) -> None:
        """`name` as "2.6.32", "el7", "6.18"; sysctls under their names, the others stand at their defaults."""
        self.kernel: Kernel = kernels.kernel(name)
        self.knobs: Knobs = kernels.knobs(self.kernel, sysctls)

    @classmethod
    def running(cls, release: str, **sysctls: int | str) -> Linux:
        """What stands for a `uname -r`."""
        made = cls.__new__(cls)
        made.kernel = kernels.running(release)
        made.knobs = kernels.knobs(made.kernel, sysctls)
        return made

    def with_hz(self, hz: int) -> Linux:
        """The same, built with another tick: HZ, 100 to 1000."""
        made = type(self).__new__(type(self))
        made.kernel = self.kernel._replace(rules=self.kernel.rules._replace(hz=hz))
        made.knobs = self.knobs
        return made

    def syn(
        self,
        *,
        tsval: int | None,
        now: float,
        record: Record | None = None,
        at: Listener | None = None,
        ipv6: bool = False,
        routed: bool = True,
    ) -> Told:
        """What becomes of a SYN that reaches a listener and meets no TIME_WAIT.

        `tsval`: its timestamp, None without. `record`: what tcp_tw_recycle remembers of the address it comes from.
        `now`: seconds on the clock of the record's stamp. `at`: the listener, in good health by default.
        """
        found = listener.answer(
            self.kernel.rules,
            self.knobs,
            at or Listener(),
            record or recycle.NOTHING,
            tsval is not None,
            tsval or 0,
            int(now // 1),
            ipv6,
            routed,
        )
        return self._told(Action(found.action), found.rule, found.counters)

    def meets(
        self, time_wait: TimeWait, segment: Segment, *, now: float, at: Listener | None = None, known: bool = True
    ) -> Told:
        """What becomes of a segment that meets a TIME_WAIT of its five-tuple; `now` in seconds, to the ms."""
        at = at or Listener()
        now_ms = round(now * 1000)
        found = timewait.answer(
            self.kernel.rules,
            self.knobs,
            time_wait,
            segment,
            now_ms // 1000,
            now_ms,
            at.listening,
            at.accept_queue_full,
            at.young,
            known,
        )
        told = self._told(Action(found.action), found.rule, found.counters)
        return told._replace(rearm_seconds=found.rearm_seconds, isn=found.isn, gone=found.gone)

    def reuse(self, time_wait: TimeWait, *, now: float, bound: bool = False) -> Told:
        """Whether connect() takes over its own TIME_WAIT of the five-tuple: "reuse" or "skip".

        `bound`: the port was bound before connect(). `now`: seconds, to the ms, on the clock of the TIME_WAIT.
        """
        now_ms = round(now * 1000)
        found = reuse.reuse(self.kernel.rules, self.knobs, time_wait, now_ms // 1000, now_ms, bound)
        told = self._told("reuse" if found.reuses else "skip", found.rule, found.counters)
        return told._replace(isn=found.isn, gone=found.reuses)

    def length(
        self,
        *,
        rto: float = 0.2,
        timestamps: bool = True,
        ipv6: bool = False,
        fin_wait2: bool = False,
        linger2: int = 0,
    ) -> Lasts:
        """How long a TIME_WAIT lasts that begins now.

        `rto`: retransmission timeout of the connection, seconds. `fin_wait2`: not TIME_WAIT proper, but an orphan
        whose peer has not sent its FIN, from the ACK of its own on; `linger2`: its TCP_LINGER2, seconds.
        """
        rules, knobs, rto_ms = self.kernel.rules, self.knobs, round(rto * 1000)
        waits = length.fin_time(knobs, rto_ms, linger2, rules.hz) if fin_wait2 else 0
        first = length.orphan(rules, waits)
        stamp = 1 if timestamps and knobs.tcp_timestamps else 0
        found = length.time_wait(rules, knobs, rto_ms, stamp, ipv6, first.time_wait_ms)
        told = self._told("", rulebook.LENGTH_LONG_ORPHAN if first.full_ms else found.rule, found.counter)
        ending = found.ending
        return Lasts(
            seconds=((first.full_ms + ending.low_ms) / 1000, (first.late_ms + ending.high_ms) / 1000),
            busy_seconds=((first.full_ms + ending.busy_low_ms) / 1000, (first.late_ms + ending.busy_high_ms) / 1000),
            nominal_seconds=(first.full_ms + found.nominal_ms) / 1000,
            counter=told.counters[0],
            counted="when it begins" if rules.counts_at_entry else "at its end",
            rule=told.rule,
            rule_id=told.rule_id,
            source=told.source,
        )

    def _told(self, action: Action | str, rule: int, moved: int) -> Told:
        name = action if isinstance(action, str) else action.name.lower()
        old = self.kernel.rules.record_store in (INET_PEER, METRICS)
        source = rulebook.source(rule, self.kernel.version, old=old)
        return Told(name, rulebook.RULES[rule].text, _NAMES[rule], source, counters.names(moved))
