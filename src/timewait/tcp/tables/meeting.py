"""What a segment brings about at a TIME_WAIT, and a SYN at a listener."""

from __future__ import annotations

from timewait.tcp import listener, recycle, timewait
from timewait.tcp.action import Action
from timewait.tcp.kernels import Kernel
from timewait.tcp.listener import Listener
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment
from timewait.tcp.tables.table import LEAVES, Ask, Question, Table, by_version, moved
from timewait.tcp.timewait import TimeWait

OLD = TimeWait(rcv_nxt=5000, snd_nxt=9000, ts=100_000, stamp=1000)
NOW = 1010
PROCESS = "`tcp_timewait_state_process()`, net/ipv4/tcp_minisocks.c; `tcp_paws_reject()`, include/net/tcp.h"


def _meets(tw: TimeWait, segment: Segment, now: int = NOW, at: Listener | None = None, rfc1337: int = 0) -> Ask:
    """What happens, in a few words."""
    at = at or Listener()

    def ask(kernel: Kernel) -> str:
        knobs = kernel.defaults._replace(tcp_rfc1337=rfc1337)
        full, young = at.accept_queue_full, at.young
        found = timewait.answer(kernel.rules, knobs, tw, segment, now, now * 1000, at.listening, full, young)
        ends = "; TIME_WAIT ends" if found.gone and found.action in (Action.DROP, Action.RESET) else ""
        again = f"; {found.rearm_seconds:g} s again" if found.rearm_ms else ""
        return f"{LEAVES[Action(found.action)]}{ends}{again}{moved(found.counters)}"

    return ask


def _segment(flags: int, seq: int, tsval: int | None = None, length: int = 0) -> Segment:
    return Segment(seq, 9000, flags, length, tsval is not None, tsval or 0)


def arrivals() -> Table:
    """A segment meets TIME_WAIT."""
    newer, older = _segment(SYN, 6000, 100_001), _segment(SYN, 6000, 99_999)
    below_0 = _segment(SYN, 6000, 2**32 - 1)
    full, one_young = Listener(accept_queue_full=True), Listener(accept_queue_full=True, young=1)
    just_acked = OLD._replace(last_ack_ms=NOW * 1000 - 400)
    questions: list[Question] = [
        ("SYN, newer timestamp, any sequence", _meets(OLD, _segment(SYN, 4000, 100_001))),
        ("SYN, equal timestamp, higher sequence", _meets(OLD, _segment(SYN, 5001, 100_000))),
        ("SYN, equal timestamp, sequence not higher", _meets(OLD, _segment(SYN, 5000, 100_000))),
        ("SYN, older timestamp, any sequence", _meets(OLD, older)),
        ("SYN without timestamps, higher sequence", _meets(OLD, _segment(SYN, 5001))),
        ("SYN without timestamps, sequence not higher", _meets(OLD, _segment(SYN, 4000))),
        (
            "SYN, older timestamp, higher sequence; the stored one is 0",
            _meets(OLD._replace(ts=0), below_0),
        ),
        ("SYN, older timestamp, higher sequence; the stored one is 2147 s old", _meets(OLD, older, 1000 + 2147)),
        ("SYN, newer timestamp; nobody listens", _meets(OLD, newer, at=Listener(listening=False))),
        ("SYN, newer timestamp; accept queue full", _meets(OLD, newer, at=full)),
        ("the same, one young request in the SYN queue", _meets(OLD, newer, at=one_young)),
        ("RST at the expected sequence", _meets(OLD, _segment(RST, 5000))),
        ("the same, tcp_rfc1337=1", _meets(OLD, _segment(RST, 5000), rfc1337=1)),
        ("RST elsewhere", _meets(OLD, _segment(RST, 5001))),
        ("RST at the expected sequence, older timestamp", _meets(OLD, _segment(RST, 5000, 99_999))),
        ("the same, 60 s after the stored one", _meets(OLD, _segment(RST, 5000, 99_999), OLD.stamp + 60)),
        ("empty ACK at the expected sequence", _meets(OLD, _segment(ACK, 5000, 100_000))),
        ("the peer's FIN once more", _meets(OLD, _segment(FIN | ACK, 4999, 100_000))),
        ("SYN+ACK", _meets(OLD, _segment(SYN | ACK, 6000, 100_001))),
        ("SYN, older timestamp, 0.4 s after another", _meets(just_acked, older)),
    ]
    return by_version("A segment meets TIME_WAIT", ARRIVALS, "segment", questions, PROCESS)


ARRIVALS = """\
The same five-tuple, while TIME_WAIT lasts: what leaves, whether the time starts again, what is counted. A
timestamp newer than the last one of the old connection opens the next by itself; without timestamps the
sequence number decides. "60 s again" is 60 s also where tcp_tw_recycle had made it short. A SYN accepted here
is answered with an initial sequence number 65537 beyond the old connection's, and counts nowhere but in
PassiveOpens."""


def fin_wait2() -> Table:
    """The substate FIN_WAIT2."""
    tw = OLD._replace(fin_wait2=True)
    questions: list[Question] = [
        ("FIN at the expected sequence", _meets(tw, _segment(FIN | ACK, 5000, 100_001))),
        ("data, or FIN behind data", _meets(tw, _segment(ACK, 5000, 100_001, 10))),
        ("SYN inside the window", _meets(tw, _segment(SYN, 5000, 100_001))),
        ("SYN below the window", _meets(tw, _segment(SYN, 4000, 100_001))),
        ("any segment, older timestamp", _meets(tw, _segment(SYN, 6000, 99_999))),
        ("the same, 0.4 s after another", _meets(tw._replace(last_ack_ms=1_009_600), _segment(SYN, 6000, 99_999))),
        ("RST inside the window", _meets(tw, _segment(RST, 5001))),
        ("empty ACK", _meets(tw, _segment(ACK, 5000, 100_001))),
    ]
    title = "A segment meets TIME_WAIT in its substate FIN_WAIT2"
    return by_version(title, FIN_WAIT2, "segment", questions, PROCESS)


FIN_WAIT2 = """\
The program has closed, its FIN is acknowledged, the peer's has not come: `ss` shows FIN-WAIT-2. No SYN opens a
connection here."""


def _syn(
    record: Record,
    tsval: int | None,
    at: Listener | None = None,
    *,
    ipv6: bool = False,
    recycle: int = 0,
    cookies: int = 1,
) -> Ask:
    def ask(kernel: Kernel) -> str:
        knobs = kernel.defaults._replace(tcp_tw_recycle=recycle, tcp_syncookies=cookies)
        has_ts = tsval is not None
        found = listener.answer(kernel.rules, knobs, at or Listener(), record, has_ts, tsval or 0, 1059, ipv6)
        return f"{LEAVES[Action(found.action)]}{moved(found.counters)}"

    return ask


def listeners() -> Table:
    """A SYN reaches a listener."""
    none, known = recycle.NOTHING, Record(100_000, 1000)
    syn_full, full = Listener(syn_queue_full=True), Listener(accept_queue_full=True)
    questions: list[Question] = [
        ("1. SYN queue full, tcp_syncookies=1", _syn(none, 1, syn_full)),
        ("1. SYN queue full, tcp_syncookies=0", _syn(none, 1, syn_full, cookies=0)),
        ("1. tcp_syncookies=2", _syn(none, 1, cookies=2)),
        ("2. accept queue full", _syn(none, 1, full)),
        ("2. accept queue full, one young request in the SYN queue", _syn(none, 1, full._replace(young=1))),
        ("3. tcp_tw_recycle=1, timestamp 2 ticks behind", _syn(known, 99_998, recycle=1)),
        ("3. tcp_tw_recycle=1, timestamp 1 tick behind", _syn(known, 99_999, recycle=1)),
        ("3. tcp_tw_recycle=1, no timestamps", _syn(known, None, recycle=1)),
        ("3. tcp_tw_recycle=1, 2 ticks behind, IPv6", _syn(known, 99_998, ipv6=True, recycle=1)),
        ("3. tcp_tw_recycle=1, 2 ticks behind, SYN queue full", _syn(known, 99_998, syn_full, recycle=1)),
        (
            "4. last quarter of the SYN queue, tcp_syncookies=0, peer unknown",
            _syn(none, 1, Listener(last_quarter=True), cookies=0),
        ),
    ]
    first = "SYN, in the order of the checks"
    return by_version("A SYN reaches a listener", LISTENERS, first, questions, REQUEST)


REQUEST = (
    "`tcp_v4_conn_request()`, net/ipv4/tcp_ipv4.c, up to 3.10; `tcp_conn_request()`, net/ipv4/tcp_input.c, since"
)
LISTENERS = """\
No TIME_WAIT of its five-tuple was met. The record of tcp_tw_recycle is (timestamp 100000, stored in second
1000), and it is second 1059. Where nothing leaves, the opener waits and tries again."""
