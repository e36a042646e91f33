"""A segment meets an open connection: one row for each branch of tcp_validate_incoming() and tcp_check_req()."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.tcp import counters
from timewait.tcp.action import Action
from timewait.tcp.incoming import Judgement, Receiver, Request, judge, judge_request
from timewait.tcp.kernels import KERNELS, Kernel, kernel
from timewait.tcp.queues import accept_queue_is_full, syn_queue_is_full
from timewait.tcp.segment import ACK, FIN, MASK, RST, SYN, Segment, u32

OPEN = Receiver(
    rcv_nxt=5000, rcv_wup=5000, rcv_wnd=65535, snd_una=9000, has_ts=True,
    ts=100_000, stamp=1000, rto_ms=200, got_fin=False, last_ack_ms=0,
)  # fmt: skip
ASKED = Request(rcv_isn=4999, snt_isn=8999, rcv_wnd=65535, has_ts=True, ts=100_000)
NOW_S, NOW_MS = 1010, 1_010_000
A = Action


def meets(name: str, segment: Segment, receiver: Receiver = OPEN) -> tuple[Action, tuple[str, ...]]:
    row = kernel(name)
    judged = judge(row.rules, row.defaults, receiver, segment, NOW_S, NOW_MS)
    return Action(judged.action), counters.names(judged.counters)


def seg(seq: int, flags: int, ts: int | None = 100_001, *, ack: int = 9000, length: int = 0) -> Segment:
    return Segment(seq, ack, flags, length, ts is not None, ts or 0)


@pytest.mark.parametrize(
    ("name", "segment", "action", "counted"),
    [
        ("6.18", seg(5000, ACK), A.ACCEPT, ()),
        ("6.18", seg(5000, FIN), A.IGNORE, ()),  # neither ACK nor RST nor SYN
        # PAWS, with one tick of grace
        ("6.18", seg(5000, ACK, 99_999, length=5), A.ACCEPT, ()),
        ("6.18", seg(5000, ACK, 99_998, length=5), A.ACK, ("PAWSEstab",)),
        ("6.18", seg(5000, ACK, 99_998), A.ACCEPT, ()),  # disordered: a pure ACK in its place
        ("6.18", seg(5000, ACK, 99_700), A.ACK, ("PAWSEstab",)),  # ... but not from so long ago
        ("6.18", seg(4990, ACK, 99_998), A.IGNORE, ("PAWSOldAck",)),
        ("6.13", seg(4990, ACK, 99_998), A.ACK, ("PAWSEstab",)),
        ("6.18", seg(5000, RST, 1), A.KILL, ()),  # a RST is let off
        ("6.18", seg(5000, SYN, 1), A.ACK, ("TCPSYNChallenge", "TCPChallengeACK")),
        ("6.1", seg(5000, SYN, 1), A.ACK, ("PAWSEstab",)),
        # the window
        ("6.18", seg(4000, ACK, length=5), A.ACK, ()),
        ("6.18", seg(80_000, ACK, length=5), A.ACK, ()),
        ("6.18", seg(4000, RST), A.IGNORE, ()),
        ("6.18", seg(4000, SYN), A.ACK, ("TCPSYNChallenge", "TCPChallengeACK")),
        ("2.6.32", seg(4000, SYN), A.ACK, ()),
        # RST and SYN inside it
        ("6.18", seg(5000, RST), A.KILL, ()),
        ("6.18", seg(5001, RST), A.ACK, ("TCPChallengeACK",)),
        ("2.6.32", seg(5001, RST), A.KILL, ()),
        ("6.18", seg(5001, SYN), A.ACK, ("TCPSYNChallenge", "TCPChallengeACK")),
        ("2.6.32", seg(5001, SYN), A.RESET, ("TCPAbortOnSyn",)),
    ],
)  # fmt: skip
def test_an_open_connection(name: str, segment: Segment, action: Action, counted: tuple[str, ...]) -> None:
    found, names = meets(name, segment)
    assert (found, set(names)) == (action, set(counted))


@pytest.mark.parametrize(("name", "action"), [("4.10.17", A.IGNORE), ("4.11", A.KILL), ("6.18", A.KILL)])
def test_a_rst_one_before_the_number_after_a_fin(name: str, action: Action) -> None:
    assert meets(name, seg(4999, RST), OPEN._replace(got_fin=True))[0] == action
    assert meets(name, seg(4999, RST))[0] == A.IGNORE


def test_answers_to_empty_segments_are_limited_and_those_to_data_are_not() -> None:
    row = kernel("6.18")
    just = OPEN._replace(last_ack_ms=NOW_MS - 499)
    assert meets("6.18", seg(4000, ACK), just) == (A.IGNORE, ("TCPACKSkippedSeq",))
    assert meets("6.18", seg(4000, ACK, length=5), just) == (A.ACK, ())
    assert set(meets("6.18", seg(5000, SYN), just)[1]) == {"TCPSYNChallenge", "TCPACKSkippedChallenge"}
    assert meets("6.18", seg(5000, ACK, 99_000), just)[0] == A.IGNORE
    assert meets("3.10", seg(4000, ACK), just) == (A.ACK, ())
    assert judge(row.rules, row.defaults, OPEN, seg(4000, ACK), NOW_S, NOW_MS).last_ack_ms == NOW_MS
    assert meets("6.18", seg(4000, ACK), OPEN._replace(last_ack_ms=NOW_MS - 500)) == (A.ACK, ())


def asked(name: str, segment: Segment, request: Request = ASKED) -> Judgement:
    row = kernel(name)
    return judge_request(row.rules, row.defaults, request, segment, NOW_S, NOW_MS)


@pytest.mark.parametrize(
    ("segment", "action", "counted"),
    [
        (seg(5000, ACK), A.ACCEPT, ()),
        (seg(4999, SYN), A.COOKIE, ()),  # the SYN again: the SYN-ACK again
        (seg(4999, SYN, 99_999), A.ACK, ("PAWSEstab",)),
        (seg(5000, ACK, 99_999), A.ACK, ("PAWSEstab",)),
        (seg(5000, ACK, ack=7), A.RESET, ()),
        (seg(4000, ACK), A.ACK, ()),
        (seg(4000, RST), A.IGNORE, ()),
        (seg(5000, RST), A.KILL, ("AttemptFails", "EmbryonicRsts")),
        (seg(5000, SYN), A.RESET, ("AttemptFails", "EmbryonicRsts")),
        (seg(4999, SYN | ACK), A.ACK, ()),  # all of it lies before the window
        (seg(5000, 0), A.IGNORE, ()),
    ],
)
def test_a_connection_in_syn_recv(segment: Segment, action: Action, counted: tuple[str, ...]) -> None:
    judged = asked("6.18", segment)
    assert (Action(judged.action), set(counters.names(judged.counters))) == (action, set(counted))


@pytest.mark.parametrize(
    ("tsecr", "fits"),
    [(699, False), (700, True), (703, True), (704, False), (0, True), (700 + 2**31, False)],
)
@pytest.mark.parametrize("shift", [0, 2**32 - 702])  # across the wrap as well
def test_what_answers_a_syn_ack_echoes_one_since_6_15(tsecr: int, fits: bool, shift: int) -> None:
    """tcp_check_req(), snt_tsval_first and snt_tsval_last; 0 echoes nothing."""
    request = ASKED._replace(first_tsval=(700 + shift) % 2**32, last_tsval=(703 + shift) % 2**32)
    segment = seg(5000, ACK)._replace(tsecr=(tsecr + shift) % 2**32 if tsecr else 0)
    assert asked("6.14", segment, request).action == A.ACCEPT
    judged = asked("6.18", segment, request)
    expected = (A.ACCEPT, ()) if fits else (A.ACK, ("TSEcrRejected",))
    assert (judged.action, counters.names(judged.counters)) == expected


def test_answers_in_syn_recv_are_limited_since_4_9_and_the_syn_ack_since_el7() -> None:
    just = ASKED._replace(last_ack_ms=NOW_MS - 1)
    assert [asked(name, seg(4999, SYN), just).action for name in ("3.10", "el7", "6.18")] == [
        A.COOKIE,
        A.IGNORE,
        A.IGNORE,
    ]
    assert [asked(name, seg(4000, ACK), just).action for name in ("el7", "4.1", "4.9")] == [A.ACK, A.ACK, A.IGNORE]


@pytest.mark.parametrize(
    ("name", "backlog", "limit"),
    [
        ("2.6.32", 1, 16),
        ("el7", 16, 32),
        ("4.1", 4096, 2048),
        ("4.9", 5, 5),
        ("6.6", 0, 0),
        ("5.15", 5, 6),
        ("6.18", 0, 1),
    ],
)
def test_how_many_requests_fill_the_syn_queue(name: str, backlog: int, limit: int) -> None:
    rules = kernel(name).rules
    assert [syn_queue_is_full(rules, n, backlog, 1024) for n in (limit - 1, limit)] == [False, True]


def test_a_backlog_holds_one_more_than_it_says() -> None:
    assert [accept_queue_is_full(waiting, 3) for waiting in (3, 4)] == [False, True]


_U32 = st.integers(0, MASK)
_SEGMENTS = st.builds(
    Segment, _U32, _U32, st.integers(0, 31), st.sampled_from([0, 1, 1400]), st.booleans(), _U32, _U32
)


@given(st.sampled_from(KERNELS), _SEGMENTS, _U32, st.integers(0, 2**20))
def test_an_answer_for_every_segment_wherever_the_numbers_stand(
    row: Kernel, segment: Segment, shift: int, age_s: int
) -> None:
    """And the same one when all sequence numbers and all timestamps are shifted together, across the wrap."""
    found = []
    for by in (0, shift):
        receiver = OPEN._replace(
            rcv_nxt=u32(5000 + by), rcv_wup=u32(5000 + by), snd_una=u32(9000 + by), ts=u32(100_000 + by) or 1
        )
        moved = segment._replace(
            seq=u32(segment.seq + by), ack=u32(segment.ack + by), tsval=u32(segment.tsval + receiver.ts - 100_000)
        )
        found.append(judge(row.rules, row.defaults, receiver, moved, 1000 + age_s, NOW_MS))
    assert found[0] == found[1]
    assert found[0].action in (A.ACCEPT, A.ACK, A.IGNORE, A.KILL, A.RESET)
    assert not (segment.flags & RST and found[0].action == A.RESET)
