"""What becomes of a frame on the wire, without sockets: delay, loss, order, drops, clocks, recording."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.lab import frames
from timewait.lab.frames import Options, Packet, packed
from timewait.lab.wire.core import MOST_HELD, Core, Frame, dice
from timewait.lab.wire.spec import ACKS_TO_SYNS, RESETS, Drop, End, OldKernel, WireSpec
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN

A, B = packed("10.0.0.1"), packed("10.0.0.2")
MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
ARP = bytes.fromhex("ffffffffffff1605c46f0f86080600010800060400011605c46f0f860a0000010000000000000a000002")
NOW = 1000.0


def frame(
    side: int = 0, flags: int = ACK, *, ts: tuple[int, int] | None = (100, 200), port: int = 40000, **fields: int
) -> bytearray:
    """A segment of the host at this side; 80 is the port at b."""
    ends = ((A, B, port, 80), (B, A, 80, port))[side]
    length = fields.pop("length", 0)
    text = frames.options(Options(timestamps=ts))
    body = frames.segment(*ends, flags=flags, options=text, payload=b"x" * length, **fields)  # type: ignore[arg-type]
    return bytearray(frames.ethernet(MACS[side], MACS[1 - side], frames.packet(ends[0], ends[1], body)))


def core(**spec: object) -> Core:
    made = WireSpec(**spec)  # type: ignore[arg-type]
    return Core(made, dice(made.seed))


def read(text: Frame) -> Packet:
    found = frames.parse(text)
    assert found is not None and frames.intact(text)
    return found


def arrivals(wire: Core, count: int, side: int = 0, step: float = 0.0) -> list[int]:
    """Numbers of the frames in the order they pass, when `count` are sent one after the other."""
    passed, now = [], NOW
    for number in range(count):
        text = frame(side, seq=number)
        if wire.take(text, side, now):
            passed.append(read(text).seq)
        passed += [read(held).seq for held, _ in wire.ready(now)]
        now += step
    passed += [read(held).seq for held, _ in wire.ready(NOW + 1000)]
    return passed


def test_a_plain_wire_passes_everything_as_it_is() -> None:
    wire = core()
    for text in (ARP, b"", b"x" * 60, bytes(frame())):
        changed = bytearray(text)
        assert wire.take(changed, 0, NOW)
        assert changed == text
    assert (wire.passed, wire.bytes[0], wire.due()) == ([4, 0], 42 + 60 + 66, float("inf"))


def test_delay_holds_each_frame_for_its_time() -> None:
    wire = core(delay=0.02)
    assert not wire.take(frame(seq=1), 0, NOW)
    assert not wire.take(frame(1, seq=2), 1, NOW + 0.01)
    assert not wire.take(bytearray(ARP), 1, NOW + 0.015)
    assert wire.due() == NOW + 0.02
    assert list(wire.ready(NOW + 0.0199)) == []
    assert [(read(text).seq, side) for text, side in wire.ready(NOW + 0.02)] == [(1, 0)]
    assert [(read(text).seq, side) for text, side in wire.ready(NOW + 0.03)] == [(2, 1)]
    assert (wire.held, wire.passed) == (1, [1, 1])
    assert [bytes(text) for text, _ in wire.ready(NOW + 1)] == [ARP]


def test_a_held_frame_is_a_copy() -> None:
    """Its place in the ring is used again meanwhile."""
    wire = core(delay=1)
    text = frame(seq=1)
    wire.take(memoryview(text), 0, NOW)
    text[:] = bytes(len(text))
    assert [read(held).seq for held, _ in wire.ready(NOW + 1)] == [1]


def test_jitter_lies_between_delay_and_delay_plus_jitter_and_keeps_the_order() -> None:
    wire = core(delay=0.01, jitter=0.05)
    times = []
    for number in range(200):
        wire.take(frame(seq=number), 0, NOW + number)  # far apart: none waits for the one before
        times.append(wire.due() - NOW - number)
        assert len(list(wire.ready(wire.due()))) == 1
    assert 0.01 <= min(times) < 0.015 < 0.055 < max(times) <= 0.06
    assert arrivals(core(delay=0.01, jitter=0.05), 300, step=0.001) == list(range(300))


def test_reordering_lets_later_frames_overtake_and_loses_none() -> None:
    wire = core(reorder=0.1, reorder_by=0.005)
    order = arrivals(wire, 1000, step=0.001)
    assert sorted(order) == list(range(1000))
    late = sum(later < earlier for earlier, later in pairwise(order))
    assert 60 < wire.overtaken < 140
    assert late > 30


def test_loss_is_the_share_asked_for_and_the_same_for_the_same_seed() -> None:
    passed = arrivals(core(loss=0.2, seed=7), 2000)
    assert 1500 < len(passed) < 1700
    assert arrivals(core(loss=0.2, seed=7), 2000) == passed
    assert arrivals(core(loss=0.2, seed=8), 2000) != passed
    assert arrivals(core(loss=0.2, seed=7), 2000, side=1) != passed
    wire = core(loss=1.0)
    assert arrivals(wire, 10) == []
    assert wire.dropped["loss"] == 10


def test_what_is_no_segment_does_not_shift_the_choices_for_segments() -> None:
    wire = core(loss=0.2, seed=7)
    passed = []
    for number in range(500):
        for _ in range(number % 3):
            wire.take(bytearray(ARP), 0, NOW)
        if wire.take(frame(seq=number), 0, NOW):
            passed.append(number)
    assert passed == arrivals(core(loss=0.2, seed=7), 500)


def test_too_many_on_the_way_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_HELD > 10_000
    monkeypatch.setattr("timewait.lab.wire.core.MOST_HELD", 3)
    wire = core(delay=1)
    assert arrivals(wire, 5) == [0, 1, 2]
    assert wire.dropped["too many on the way"] == 2


# -- drops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drop", "dropped"),
    [
        (Drop(name="all"), "SYN SYN-ACK ACK data FIN RST"),
        (RESETS, "RST"),
        (Drop(name="x", flags=("ACK",), empty=True), "SYN-ACK ACK FIN"),
        (Drop(name="x", flags=("SYN",), without=("ACK",)), "SYN"),
        (Drop(name="x", toward="a"), "SYN-ACK FIN"),
        (Drop(name="x", toward="b"), "SYN ACK data RST"),
        (Drop(name="x", port=80), "SYN SYN-ACK ACK data FIN RST"),
        (Drop(name="x", port=443), ""),
        (Drop(name="x", first=2), "SYN SYN-ACK"),
        (Drop(name="x", share=0), ""),
        (Drop(name="x", flags=("ACK",), first=1, toward="b"), "ACK"),
    ],
)
def test_a_drop_takes_what_meets_all_its_conditions(drop: Drop, dropped: str) -> None:
    wire = core(drop=(drop,))
    story = {
        "SYN": (0, SYN, 0),
        "SYN-ACK": (1, SYN | ACK, 0),
        "ACK": (0, ACK, 0),
        "data": (0, PSH | ACK, 5),
        "FIN": (1, FIN | ACK, 0),
        "RST": (0, RST, 0),
    }
    gone = [
        name
        for name, (side, flags, length) in story.items()
        if not wire.take(frame(side, flags, length=length), side, NOW)
    ]
    assert " ".join(gone) == dropped
    assert wire.dropped[drop.name] == len(gone)


def test_an_ack_that_answers_a_syn_is_one_while_the_syn_is_unanswered() -> None:
    wire = core(drop=(ACKS_TO_SYNS,))
    assert wire.take(frame(1, ACK), 1, NOW)  # of a connection that is open
    assert wire.take(frame(0, SYN), 0, NOW)
    assert not wire.take(frame(1, ACK), 1, NOW)
    assert not wire.take(frame(1, ACK), 1, NOW)
    assert wire.take(frame(1, ACK, port=40001), 1, NOW)  # another connection
    assert wire.take(frame(0, ACK), 0, NOW)  # of the opener itself
    assert wire.take(frame(1, RST | ACK), 1, NOW)
    assert wire.take(frame(1, SYN | ACK), 1, NOW)
    assert wire.take(frame(1, ACK), 1, NOW)
    assert wire.dropped[ACKS_TO_SYNS.name] == 2


def test_a_share_of_the_segments() -> None:
    wire = core(drop=(Drop(name="half", share=0.5),))
    assert 400 < len(arrivals(wire, 1000)) < 600


def test_dropped_syns_are_told_with_their_reason() -> None:
    wire = core(drop=(Drop(name="first", flags=("SYN",), first=1),), loss=1.0)
    for flags in (SYN, SYN, ACK, SYN | ACK):
        wire.take(frame(0, flags, seq=9), 0, NOW)
    assert [(drop.reason, drop.side, drop.packet.seq) for drop in wire.syns] == [("first", 0, 9), ("loss", 0, 9)]


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_a_shifted_host_keeps_its_own_clock_on_its_side() -> None:
    wire = core(a=End(clock_shift=1000), b=End(clock_shift=-50))
    out, back = frame(0, ts=(100, 500)), frame(1, ts=(600, 1100))
    assert wire.take(out, 0, NOW) and wire.take(back, 1, NOW)
    assert (read(out).tsval, read(out).tsecr) == (1100, 550)
    assert (read(back).tsval, read(back).tsecr) == (550, 100)


@given(st.integers(-(2**31), 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_what_a_shifted_host_hears_of_its_own_clock_is_what_it_said(shift: int, tsval: int, other: int) -> None:
    wire = core(a=End(clock_shift=shift))
    out = frame(0, ts=(tsval, 0))
    wire.take(out, 0, NOW)
    seen = read(out).tsval
    assert seen == (tsval + shift) % 2**32
    back = frame(1, ts=(other, seen))
    wire.take(back, 1, NOW)
    assert read(back).tsval == other
    assert read(back).tsecr == (tsval if seen else 0)  # an echo of 0 is none, here as in the kernel


def test_no_echo_stays_none() -> None:
    wire = core(b=End(clock_shift=9))
    text = frame(0, SYN, ts=(5, 0))
    wire.take(text, 0, NOW)
    assert (read(text).tsval, read(text).tsecr) == (5, 0)


def test_syns_lose_their_timestamps_and_others_keep_them() -> None:
    wire = core(strip_timestamps=True)
    found = []
    for side, flags in ((0, SYN), (1, SYN | ACK), (0, ACK)):
        text = frame(side, flags)
        assert wire.take(text, side, NOW)
        found.append(read(text).has_ts)
    assert found == [False, False, True]


# -- recording ------------------------------------------------------------------------------------------------------


def test_recorded_is_what_left_its_end_also_when_it_is_lost() -> None:
    seen: list[bytes] = []
    spec = WireSpec(a=End(clock_shift=1000), b=End(clock_shift=1), loss=1.0)
    wire = Core(spec, dice(0), lambda text: seen.append(bytes(text)))
    wire.take(frame(0, ts=(100, 500)), 0, NOW)
    wire.take(bytearray(ARP), 1, NOW)
    assert (read(bytearray(seen[0])).tsval, read(bytearray(seen[0])).tsecr) == (1100, 500)
    assert seen[1] == ARP


# -- old kernels ----------------------------------------------------------------------------------------------------


def exchange(wire: Core, now: float, *, port: int, tsval: int) -> bool:
    """A connection that the host at b closes first; whether its SYN got through."""
    if not wire.take(frame(0, SYN, seq=100, ts=(tsval, 0), port=port), 0, now):
        return False
    story = [
        (1, SYN | ACK, 500, 101),
        (0, ACK, 101, 501),
        (1, FIN | ACK, 501, 101),
        (0, FIN | ACK, 101, 502),
        (1, ACK, 502, 102),
    ]
    for side, flags, seq, ack in story:
        ts = (tsval, 1) if side == 0 else (1, tsval)
        assert wire.take(frame(side, flags, seq=seq, ack=ack, ts=ts, port=port), side, now)
    return True


def test_the_old_kernel_drops_the_slower_of_two_clocks_behind_one_address() -> None:
    wire = core(b=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})))
    assert exchange(wire, NOW, port=40000, tsval=100_000)
    assert not exchange(wire, NOW + 1, port=40001, tsval=50_000)
    assert exchange(wire, NOW + 1, port=40002, tsval=101_000)
    assert not exchange(wire, NOW + 60.9, port=40003, tsval=50_000)
    assert exchange(wire, NOW + 61, port=40003, tsval=50_000)
    host = wire.hosts[1]
    assert host is not None and host.counters["PAWSPassive"] == 2
    drops = [(drop.reason, drop.packet.source_port, drop.at, drop.side) for drop in wire.syns]
    assert drops == [("old kernel", 40001, NOW + 1, 0), ("old kernel", 40003, NOW + 60.9, 0)]


def test_the_old_kernel_at_the_other_end_judges_what_comes_there() -> None:
    wire = core(a=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})))
    assert exchange(wire, NOW, port=40000, tsval=100_000)
    assert exchange(wire, NOW, port=40001, tsval=50_000)


def test_the_old_kernel_judges_by_the_clock_the_others_see() -> None:
    """Both hosts' kernels have one clock; the wire of one of them shifts it, as if it had been up for less long."""
    wire = core(a=End(clock_shift=-60_000), b=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})))
    host = wire.hosts[1]
    assert host is not None
    host.peers.remember(B, A, 100_000, int(NOW), int(NOW))
    assert not exchange(wire, NOW, port=40001, tsval=100_100)
    assert exchange(wire, NOW, port=40001, tsval=160_000)


def test_it_judges_a_syn_when_it_arrives() -> None:
    """Sent within the 60 s of the record, it arrives after them."""
    wire = core(delay=0.5, b=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})))
    host = wire.hosts[1]
    assert host is not None
    host.peers.remember(B, A, 100_000, int(NOW), int(NOW))
    for now in (NOW + 59.0, NOW + 59.8):
        wire.take(frame(0, SYN, ts=(5, 0)), 0, now)
    assert [side for _, side in wire.ready(NOW + 59.6)] == []
    assert [side for _, side in wire.ready(NOW + 61)] == [0]


def test_time_passes_for_it_also_when_nothing_comes() -> None:
    wire = core(b=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})))
    exchange(wire, NOW, port=40000, tsval=100_000)
    assert wire.due() == pytest.approx(NOW + 0.768)
    wire.expire(NOW + 1)
    assert wire.due() == float("inf")


# -- whatever comes -------------------------------------------------------------------------------------------------

everything = st.sampled_from(
    [
        core(
            a=End(clock_shift=5, kernel=OldKernel("el7", {"tcp_tw_recycle": 1})),
            b=End(clock_shift=-5, kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})),
            delay=delay,
            reorder=0.1,
            loss=0.1,
            strip_timestamps=strip,
            drop=(ACKS_TO_SYNS, RESETS),
        )
        for delay in (0.0, 0.01)
        for strip in (False, True)
    ]
)


@settings(deadline=None)
@given(everything, st.integers(0, 1), st.binary(max_size=120))
def test_no_bytes_stop_it(wire: Core, side: int, data: bytes) -> None:
    wire.take(bytearray(data), side, NOW)
    list(wire.ready(NOW + 1))


@settings(deadline=None)
@given(everything, st.data())
def test_no_damaged_segment_stops_it(wire: Core, data: st.DataObject) -> None:
    for _ in range(4):
        side = data.draw(st.integers(0, 1))
        flags = data.draw(st.integers(0, 255))
        text = frame(side, flags, seq=data.draw(st.integers(0, 3)), length=data.draw(st.integers(0, 3)))
        for place in data.draw(st.lists(st.integers(0, len(text) - 1), max_size=3)):
            text[place] = data.draw(st.integers(0, 255))
        del text[data.draw(st.integers(0, 200)) :]
        size = len(text)
        wire.take(text, side, NOW)
        assert len(text) == size
        list(wire.ready(NOW + 1))
        wire.expire(NOW + 1)
