"""How connections end, and what is counted."""

from __future__ import annotations

from timewait.tcp import endings, incoming, length, listener, synsent, timewait
from timewait.tcp.endings import ENDINGS, Ending
from timewait.tcp.kernels import Kernel
from timewait.tcp.listener import Listener
from timewait.tcp.profiles import NO_RECORD
from timewait.tcp.recycle import NOTHING, Record
from timewait.tcp.reuse import connect_counters
from timewait.tcp.segment import ACK, SYN, Segment
from timewait.tcp.states import Sends
from timewait.tcp.tables.table import Ask, Question, Table, by_version, moved
from timewait.tcp.timewait import TimeWait

LEAVES = {Sends.NOTHING: "", Sends.FIN: "FIN", Sends.ACK: "ACK", Sends.RST: "RST"}


def _ends(ending: Ending) -> Ask:
    def ask(kernel: Kernel) -> str:
        found = endings.play(kernel.rules, kernel.defaults, ending)
        holds = " and ".join(endings.holders(found)) or "nobody"
        waits = (
            f"; closer in FIN_WAIT2 for {found.closer.time_wait_ms / 1000:g} s" if found.closer.time_wait_ms else ""
        )
        reset = "; RST" if found.closer.sends == Sends.RST else ""
        return f"{holds}{waits}{reset}{moved(found.counters)}"

    return ask


def ways_to_end() -> Table:
    """Who holds TIME_WAIT."""
    questions: list[Question] = [(ending.name, _ends(ending)) for ending in ENDINGS]
    return by_version("Who holds TIME_WAIT", WAYS, "way to end", questions, CLOSE)


CLOSE = "`tcp_close()`, net/ipv4/tcp.c; `tcp_fin()`, `tcp_rcv_state_process()`, net/ipv4/tcp_input.c"
WAYS = """\
The closer is who ends the connection first. In TIME_WAIT comes who has sent a FIN before it got one; who
answers never does, and a RST leaves none at either end. An orphan, whose program has closed, waits for the
peer's FIN for tcp_fin_timeout (or TCP_LINGER2), as a TIME_WAIT socket that shows as FIN-WAIT-2; beyond 60 s as
a full socket first, for what exceeds 60 s. A program that only used shutdown() waits in FIN_WAIT2 without
limit."""


def _counted(bits: int) -> str:
    return moved(bits).removeprefix("; ") or "none"


def _recycle(kernel: Kernel) -> str:
    if kernel.rules.record_store == NO_RECORD:
        return "-"
    knobs = kernel.defaults._replace(tcp_tw_recycle=1)
    return _counted(listener.answer(kernel.rules, knobs, Listener(), Record(9, 1000), True, 1, 1000).counters)


def _at_listener(at: Listener) -> Ask:
    return lambda kernel: _counted(
        listener.answer(kernel.rules, kernel.defaults, at, NOTHING, True, 1, 1000).counters
    )


def _at_time_wait(tw: TimeWait, segment: Segment) -> Ask:
    return lambda kernel: _counted(
        timewait.answer(kernel.rules, kernel.defaults, tw, segment, 1010, 1_010_000).counters
    )


def _ends_after(ms: int) -> Ask:
    def ask(kernel: Kernel) -> str:
        when = "when it begins" if kernel.rules.counts_at_entry else "when it ends"
        return f"{_counted(length.ends(kernel.rules, ms).counter)} {when}"

    return ask


def _connects(*, met: bool) -> Ask:
    return lambda kernel: _counted(connect_counters(kernel.rules, met, True, False))


def _opener(kernel: Kernel) -> str:
    segment = Segment(0, 11, ACK, 0, True, 1, 99)
    return _counted(synsent.react(kernel.rules, 10, 11, segment, 100, 100).counters)


def _open_connection(length_of_data: int) -> Ask:
    """An old timestamp on a segment below the window: a duplicate."""
    receiver = incoming.Receiver(5000, 5000, 65535, 9000, True, 100_000, 1000, 200, False, 0)
    segment = Segment(4000, 9000, ACK, length_of_data, True, 90_000)
    return lambda kernel: _counted(
        incoming.judge(kernel.rules, kernel.defaults, receiver, segment, 1010, 1_010_000).counters
    )


def counted() -> Table:
    """Counters by event."""
    old = TimeWait(rcv_nxt=5000, snd_nxt=9000, ts=100_000, stamp=1000)
    low = Segment(4000, 0, SYN, 0, True, 100_000)
    late = Segment(6000, 0, SYN, 0, True, 99_999)
    questions: list[Question] = [
        ("SYN dropped by tcp_tw_recycle", _recycle),
        ("SYN with an older timestamp meets TIME_WAIT", _at_time_wait(old, late)),
        ("SYN with a low sequence number meets TIME_WAIT", _at_time_wait(old, low)),
        ("the same, 0.4 s after another", _at_time_wait(old._replace(last_ack_ms=1_009_600), low)),
        ("SYN accepted through TIME_WAIT", _at_time_wait(old, late._replace(tsval=100_001))),
        ("TIME_WAIT taken over by connect()", _connects(met=True)),
        (
            "port shared by connect(), no TIME_WAIT",
            _connects(met=False),
        ),
        ("TIME_WAIT of 60 s", _ends_after(60_000)),
        ("TIME_WAIT of 700 ms", _ends_after(700)),
        ("tcp_max_tw_buckets reached", lambda kernel: _counted(length.overflow_counters(kernel.rules))),
        ("SYN at a full accept queue", _at_listener(Listener(accept_queue_full=True))),
        ("SYN at a full SYN queue, answered by a cookie", _at_listener(Listener(syn_queue_full=True))),
        ("answer to a SYN with a timestamp never sent", _opener),
        ("open connection, old timestamp, data", _open_connection(100)),
        ("open connection, old timestamp, empty ACK", _open_connection(0)),
    ]
    return by_version("What is counted", COUNTED, "event", questions, "net/ipv4/proc.c, and the functions above")


COUNTED = """\
Names as `nstat` shows them behind TcpExt. PAWSPassive is the counter of tcp_tw_recycle, PAWSActive is not.
Where two counters stand, both rise."""
